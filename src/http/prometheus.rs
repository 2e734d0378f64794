//! The text format of Prometheus.

use std::fmt::Write as _;

use super::view::{ShardView, View};

/// The content type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One sample: labels and value. `None`: not known, so left out.
type Sample<'a> = (Vec<(&'a str, &'a str)>, Option<f64>);

/// What `view` shows, as metrics.
pub(crate) fn render(view: &View) -> String {
    let mut text = String::new();
    let application = || vec![("application", view.application.as_str())];
    let one = |value: bool| vec![(application(), Some(if value { 1.0 } else { 0.0 }))];
    let per_shard = |value: &dyn Fn(&ShardView) -> Option<f64>| -> Vec<Sample<'_>> {
        view.shards.iter().map(|shard| (labels(view, shard), value(shard))).collect()
    };
    family(&mut text, "up", "gauge", "Whether the consumer runs.", one(view.is_alive));
    family(&mut text, "healthy", "gauge", "Whether all is well.", one(view.is_ready));
    let problems = vec![(application(), Some(count(view.problems.len() as u64)))];
    family(
        &mut text,
        "problems",
        "gauge",
        "How many things are wrong; the status says what to do.",
        problems,
    );
    let leases = vec![(application(), Some(count(view.shards.len() as u64)))];
    family(&mut text, "leases", "gauge", "Leases of shards that have not ended.", leases);
    let behind = |shard: &ShardView| shard.behind_millis.map(|millis| count(millis) / 1000.0);
    let help = "How far the owner is behind the newest record of the shard.";
    family(&mut text, "behind_latest_seconds", "gauge", help, per_shard(&behind));
    let paused = |shard: &ShardView| Some(if shard.is_paused { 1.0 } else { 0.0 });
    family(&mut text, "paused", "gauge", "Whether an operator has paused the shard.", per_shard(&paused));
    let owned = |shard: &ShardView| Some(if shard.owner.is_some() { 1.0 } else { 0.0 });
    family(&mut text, "owned", "gauge", "Whether a worker owns the lease of the shard.", per_shard(&owned));
    let rate = |shard: &ShardView| shard.bytes_per_second;
    family(&mut text, "bytes_per_second", "gauge", "What the owner reads.", per_shard(&rate));
    let bytes = |shard: &ShardView| shard.bytes_total.map(count);
    let help = "Payload bytes delivered under the present lease.";
    family(&mut text, "delivered_bytes_total", "counter", help, per_shard(&bytes));
    let records = |shard: &ShardView| shard.records_total.map(count);
    let help = "User records delivered under the present lease.";
    family(&mut text, "delivered_records_total", "counter", help, per_shard(&records));
    text
}

fn labels<'a>(view: &'a View, shard: &'a ShardView) -> Vec<(&'a str, &'a str)> {
    let mut labels = vec![("application", view.application.as_str())];
    if !shard.stream.is_empty() {
        labels.push(("stream", &shard.stream));
    }
    labels.push(("shard", &shard.shard));
    labels
}

/// A metric with all its samples; nothing if none is known.
fn family(text: &mut String, name: &str, kind: &str, help: &str, samples: Vec<Sample<'_>>) {
    let known: Vec<_> = samples.into_iter().filter_map(|(labels, value)| Some((labels, value?))).collect();
    if known.is_empty() {
        return;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP kinesis_consumer_{name} {help}\n# TYPE kinesis_consumer_{name} {kind}");
    for (labels, value) in known {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let _ = writeln!(text, "kinesis_consumer_{name}{{{}}} {value}", labels.join(","));
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Counts beyond 2^53 lose their last digits, as in Prometheus itself.
#[expect(clippy::cast_precision_loss, reason = "the format has floating-point numbers only")]
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let shard = |shard: &str, owner: Option<&str>, behind_millis| ShardView {
            lease: shard.to_owned(),
            stream: "orders".to_owned(),
            shard: shard.to_owned(),
            owner: owner.map(ToOwned::to_owned),
            state: "held".to_owned(),
            is_paused: owner.is_none(),
            behind_millis,
            bytes_per_second: None,
            bytes_total: behind_millis.map(|_| 4096),
            records_total: behind_millis.map(|_| 17),
            checkpoint: "LATEST".to_owned(),
            note: String::new(),
        };
        View {
            application: "a \"b\"\\c\n".to_owned(),
            subject: "worker w".to_owned(),
            leader: None,
            is_alive: true,
            is_ready: false,
            problems: vec!["something".to_owned()],
            shards: vec![shard("s-0", Some("w"), Some(1500)), shard("s-1", None, None)],
        }
    }

    #[test]
    fn it_is_the_text_format() {
        let expected = "\
# HELP kinesis_consumer_up Whether the consumer runs.
# TYPE kinesis_consumer_up gauge
kinesis_consumer_up{application=\"a \\\"b\\\"\\\\c\\n\"} 1
# HELP kinesis_consumer_healthy Whether all is well.
# TYPE kinesis_consumer_healthy gauge
kinesis_consumer_healthy{application=\"a \\\"b\\\"\\\\c\\n\"} 0
# HELP kinesis_consumer_problems How many things are wrong; the status says what to do.
# TYPE kinesis_consumer_problems gauge
kinesis_consumer_problems{application=\"a \\\"b\\\"\\\\c\\n\"} 1
# HELP kinesis_consumer_leases Leases of shards that have not ended.
# TYPE kinesis_consumer_leases gauge
kinesis_consumer_leases{application=\"a \\\"b\\\"\\\\c\\n\"} 2
# HELP kinesis_consumer_behind_latest_seconds How far the owner is behind the newest record of the shard.
# TYPE kinesis_consumer_behind_latest_seconds gauge
kinesis_consumer_behind_latest_seconds{application=\"a \\\"b\\\"\\\\c\\n\",stream=\"orders\",shard=\"s-0\"} 1.5
# HELP kinesis_consumer_paused Whether an operator has paused the shard.
# TYPE kinesis_consumer_paused gauge
kinesis_consumer_paused{application=\"a \\\"b\\\"\\\\c\\n\",stream=\"orders\",shard=\"s-0\"} 0
kinesis_consumer_paused{application=\"a \\\"b\\\"\\\\c\\n\",stream=\"orders\",shard=\"s-1\"} 1
# HELP kinesis_consumer_owned Whether a worker owns the lease of the shard.
# TYPE kinesis_consumer_owned gauge
kinesis_consumer_owned{application=\"a \\\"b\\\"\\\\c\\n\",stream=\"orders\",shard=\"s-0\"} 1
kinesis_consumer_owned{application=\"a \\\"b\\\"\\\\c\\n\",stream=\"orders\",shard=\"s-1\"} 0
# HELP kinesis_consumer_delivered_bytes_total Payload bytes delivered under the present lease.
# TYPE kinesis_consumer_delivered_bytes_total counter
kinesis_consumer_delivered_bytes_total{application=\"a \\\"b\\\"\\\\c\\n\",stream=\"orders\",shard=\"s-0\"} 4096
# HELP kinesis_consumer_delivered_records_total User records delivered under the present lease.
# TYPE kinesis_consumer_delivered_records_total counter
kinesis_consumer_delivered_records_total{application=\"a \\\"b\\\"\\\\c\\n\",stream=\"orders\",shard=\"s-0\"} 17
";
        assert_eq!(render(&view()), expected);
    }
}
