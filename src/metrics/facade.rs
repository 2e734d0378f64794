//! The same values through the `metrics` facade, for whatever recorder the application has
//! installed. [`MetricsConfig`](super::MetricsConfig) documents names and labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{Key, Label, Level, Metadata, SharedString};
use parking_lot::Mutex;

use super::{Dimensions, Metric, MetricsReport, MetricsSink, Sample, Unit};

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The sink that leads to the `metrics` facade.
#[derive(Debug)]
pub(crate) struct Facade {
    application: Arc<str>,
    /// The names given so far, by KCL's. There are as many as constants.
    names: Mutex<BTreeMap<&'static str, Arc<str>>>,
}

impl Facade {
    pub(crate) fn new(application: &str) -> Self {
        Self { application: application.into(), names: Mutex::default() }
    }

    fn name(&self, metric: Metric) -> Arc<str> {
        let mut names = self.names.lock();
        let name = names.entry(metric.name).or_insert_with(|| facade_name(metric.name).into());
        Arc::clone(name)
    }

    fn labels(&self, dimensions: &Dimensions) -> Vec<Label> {
        let application = Label::new("application", SharedString::from(Arc::clone(&self.application)));
        let dimensions = dimensions
            .pairs()
            .map(|(name, value)| Label::new(label_name(name), SharedString::from(Arc::<str>::from(value))));
        std::iter::once(application).chain(dimensions).collect()
    }
}

impl MetricsSink for Facade {
    fn record(&self, report: &MetricsReport<'_>) {
        let &MetricsReport { dimensions, samples } = report;
        let labels = self.labels(dimensions);
        metrics::with_recorder(|recorder| {
            for &Sample { metric, value } in samples {
                let key = Key::from_parts(SharedString::from(self.name(metric)), labels.clone());
                if metric.is_gauge {
                    recorder.register_gauge(&key, &METADATA).set(value);
                } else if metric.unit == Unit::Count {
                    recorder.register_counter(&key, &METADATA).increment(whole(value));
                } else {
                    recorder.register_histogram(&key, &METADATA).record(value);
                }
            }
        });
    }
}

/// Counts are whole numbers from 0.
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn whole(count: f64) -> u64 {
    count as u64
}

fn label_name(dimension: &'static str) -> &'static str {
    match dimension {
        "Operation" => "aws.kinesis.operation",
        "ShardId" => "aws.kinesis.shard.id",
        "StreamId" => "aws.kinesis.stream_name",
        "WorkerIdentifier" => "aws.kinesis.consumer.name",
        other => other,
    }
}

fn facade_name(name: &str) -> String {
    let special = match name {
        "MillisBehindLatest" => Some("consumer.lag.duration"),
        "DataBytesProcessed" => Some("records.size"),
        "NumStreamsToSync" => Some("streams.pending_sync"),
        "NumWorkers" => Some("workers"),
        _ => None,
    };
    let tail = special.map_or_else(
        || match name.strip_suffix("Time") {
            Some("") => "time".to_owned(),
            Some(timed) if timed.ends_with('.') => snake_case(timed) + "duration",
            _ => snake_case(name),
        },
        str::to_owned,
    );
    format!("aws.kinesis.client.{tail}")
}

/// Lower case, with `_` before each word; a run of capitals is one word.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 8);
    let mut chars = name.chars().peekable();
    let mut previous = '.';
    while let Some(char) = chars.next() {
        let starts_word = char.is_ascii_uppercase()
            && (previous.is_ascii_lowercase()
                || previous.is_ascii_uppercase() && chars.peek().is_some_and(char::is_ascii_lowercase));
        if starts_word {
            snake.push('_');
        }
        snake.push(if char == ':' { '.' } else { char.to_ascii_lowercase() });
        previous = char;
    }
    snake
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, KeyName, Recorder};

    use super::*;
    use crate::metrics::{Metrics, MetricsConfig, Operation, names};

    #[test]
    fn names_are_those_of_kcl_for_opentelemetry() {
        let cases = [
            ("RecordsProcessed", "records_processed"),
            ("Success", "success"),
            ("Time", "time"),
            ("MillisBehindLatest", "consumer.lag.duration"),
            ("DataBytesProcessed", "records.size"),
            ("RecordProcessor.processRecords.Time", "record_processor.process_records.duration"),
            ("KinesisDataFetcher.getRecords.Success", "kinesis_data_fetcher.get_records.success"),
            ("CreateLease_TRIM_HORIZON.Success", "create_lease_trim_horizon.success"),
            ("LeaderDecider:IsLeader", "leader_decider.is_leader"),
            ("GSIReadyStatus", "gsi_ready_status"),
        ];
        for (kcl, ours) in cases {
            assert_eq!(facade_name(kcl), format!("aws.kinesis.client.{ours}"));
        }
    }

    #[test]
    fn values_arrive_as_counters_gauges_and_histograms_with_labels() {
        let seen = Seen::default();
        metrics::with_local_recorder(&seen, || {
            let facade: Arc<dyn MetricsSink> = Arc::new(Facade::new("order-notifications"));
            let metrics = Metrics::new(&MetricsConfig::default(), "w".into(), vec![facade]);
            for value in [3_i64, 5] {
                let mut report = metrics.operation(Operation::ProcessTask).shard(&"shardId-0".into());
                report.add(names::RECORDS_PROCESSED, value);
                report.add(names::MILLIS_BEHIND_LATEST, value);
                report.add(names::DATA_BYTES_PROCESSED, value);
            }
        });
        let labels = "application=order-notifications aws.kinesis.operation=ProcessTask \
                      aws.kinesis.shard.id=shardId-0";
        assert_eq!(
            seen.counts(),
            [
                (format!("gauge aws.kinesis.client.consumer.lag.duration {labels}"), 5),
                (format!("histogram aws.kinesis.client.records.size {labels}"), 8),
                (format!("counter aws.kinesis.client.records_processed {labels}"), 8),
            ]
        );
    }

    /// Keeps the sums of counters and histograms and the last values of gauges.
    #[derive(Default)]
    struct Seen(Mutex<BTreeMap<(String, &'static str), Arc<Cell>>>);

    #[derive(Default)]
    struct Cell(AtomicU64);

    impl Seen {
        fn cell(&self, kind: &'static str, key: &Key) -> Arc<Cell> {
            let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
            let name = format!("{}{}", key.name(), labels.collect::<String>());
            Arc::clone(self.0.lock().entry((name, kind)).or_default())
        }

        fn counts(&self) -> Vec<(String, u64)> {
            let cells = self.0.lock();
            let counts = cells.iter();
            counts
                .map(|((name, kind), cell)| (format!("{kind} {name}"), cell.0.load(Ordering::Relaxed)))
                .collect()
        }
    }

    impl CounterFn for Cell {
        fn increment(&self, value: u64) {
            self.0.fetch_add(value, Ordering::Relaxed);
        }

        fn absolute(&self, _: u64) {}
    }

    impl GaugeFn for Cell {
        fn increment(&self, _: f64) {}

        fn decrement(&self, _: f64) {}

        fn set(&self, value: f64) {
            self.0.store(whole(value), Ordering::Relaxed);
        }
    }

    impl HistogramFn for Cell {
        fn record(&self, value: f64) {
            self.0.fetch_add(whole(value), Ordering::Relaxed);
        }
    }

    impl Recorder for Seen {
        fn describe_counter(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}

        fn describe_gauge(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}

        fn describe_histogram(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.cell("counter", key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.cell("gauge", key))
        }

        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(self.cell("histogram", key))
        }
    }
}
