//! The same metrics through the `metrics` crate, for whatever exporter the program has installed.
//!
//! Names are those of KCL's OpenTelemetry backend: `aws.kinesis.client.` and the name in snake case,
//! with `.Time` as `.duration`. Dimensions become the labels `operation`, `shard_id` and
//! `worker_identifier`. Counts are counters, times and bytes histograms, and `MillisBehindLatest` and
//! `CurrentLeases` gauges.

use metrics::{Label, counter, gauge, histogram};

use super::names::{CURRENT_LEASES, MILLIS_BEHIND_LATEST, Unit};
use super::statistics::Series;

const PREFIX: &str = "aws.kinesis.client.";

pub(super) fn record(series: &Series, value: f64) {
    let labels: Vec<Label> = [
        ("operation", series.operation.map(Into::into)),
        ("shard_id", series.shard.as_ref().map(|shard| shard.as_str().to_owned().into())),
        ("worker_identifier", series.worker.as_ref().map(|worker| worker.as_str().to_owned().into())),
    ]
    .into_iter()
    .filter_map(|(name, value): (_, Option<metrics::SharedString>)| Some(Label::new(name, value?)))
    .collect();
    let name = facade_name(series.metric.name);
    match series.metric.unit {
        _ if series.metric == MILLIS_BEHIND_LATEST || series.metric == CURRENT_LEASES => {
            gauge!(name, labels).set(value);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        Unit::Count => counter!(name, labels).increment(value as u64),
        Unit::Bytes | Unit::Milliseconds => histogram!(name, labels).record(value),
    }
}

fn facade_name(name: &str) -> String {
    let name = match name.strip_suffix("Time") {
        Some("") => "Duration".to_owned(),
        Some(stem) if stem.ends_with('.') => format!("{stem}Duration"),
        _ => name.to_owned(),
    };
    let mut snake = PREFIX.to_owned();
    let mut after_lower = false;
    for letter in name.chars() {
        if letter.is_uppercase() && after_lower {
            snake.push('_');
        }
        after_lower = letter.is_lowercase();
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_snake_case() {
        for (name, expected) in [
            ("RecordsProcessed", "aws.kinesis.client.records_processed"),
            (
                "KinesisDataFetcher.getRecords.Time",
                "aws.kinesis.client.kinesis_data_fetcher.get_records.duration",
            ),
            ("Time", "aws.kinesis.client.duration"),
            ("RenewLease.Success", "aws.kinesis.client.renew_lease.success"),
        ] {
            assert_eq!(facade_name(name), expected);
        }
    }
}
