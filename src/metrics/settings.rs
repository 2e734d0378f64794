use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::{check, check_duration, with_settings};
use crate::error::{Error, ErrorKind};

/// Which metrics are reported, and how they reach CloudWatch. The defaults are KCL's
/// (`MetricsConfig`).
///
/// # CloudWatch
///
/// Metrics have KCL's names, units and dimensions, so dashboards and alarms made for a Java consumer
/// keep working. Unknown to KCL are `ProcessorPanics` and `MalformedAggregates` (operation
/// `ProcessTask`) and `UnreadableLeases` (operation `TakeLeases`).
///
/// A CloudWatch that fails or hangs affects nothing else. Values wait in memory, each in the minute it
/// was measured in, and are sent when it answers again. A request whose answer was lost is sent again,
/// so its values may count twice.
///
/// # The `metrics` facade
///
/// With the feature `metrics` the same values also go to the recorder that the application installed
/// for the [`metrics`](https://docs.rs/metrics) crate, at once and without the buffer. Names and labels
/// are those of KCL's OpenTelemetry backend:
///
/// - `aws.kinesis.client.` and the name in snake case, `.Time` become `.duration`, so
///   `RecordProcessor.processRecords.Time` is `aws.kinesis.client.record_processor.process_records.duration`;
///   four names are special: `consumer.lag.duration` (`MillisBehindLatest`), `records.size`
///   (`DataBytesProcessed`), `streams.pending_sync` (`NumStreamsToSync`), `workers` (`NumWorkers`);
/// - counts are counters, bytes and durations in milliseconds are histograms, and what has a present
///   value is a gauge: the lag and the numbers of leases and workers;
/// - the labels `aws.kinesis.operation`, `aws.kinesis.shard.id`, `aws.kinesis.stream_name` and
///   `aws.kinesis.consumer.name` where they apply, and `application`, which KCL does not have, because
///   one process may run several.
///
/// ```
/// use kinesis_consumer::{MetricsConfig, MetricsLevel};
///
/// // Fewer, hence cheaper, custom metrics.
/// let metrics = MetricsConfig::default().with_level(MetricsLevel::Summary);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsConfig {
    /// How much is reported (`metricsLevel`; default [`MetricsLevel::Detailed`]).
    pub level: MetricsLevel,
    /// Which dimensions values have, besides the operation (`metricsEnabledDimensions`; default all).
    /// Every shard has its own series of each metric unless [`MetricsDimension::ShardId`] is left out.
    pub enabled_dimensions: BTreeSet<MetricsDimension>,
    /// How long values are gathered before they are sent to CloudWatch (`metricsBufferTimeMillis`;
    /// 100 ms to 10 min, default 10 s).
    pub buffer_time: Duration,
    /// How many merged values wait for CloudWatch at most, for instance while it cannot be reached
    /// (`metricsMaxQueueSize`; 100 to 1,000,000, default 10,000). Each is one metric of one shard or
    /// worker in one minute, some 200 bytes. Beyond that, the oldest minutes are given up.
    pub max_queue_size: usize,
    /// The CloudWatch namespace (1 to 255 of `a-z A-Z 0-9 . - _ / #`, not starting with `AWS/`);
    /// `None` for the name of the application, as in KCL.
    pub namespace: Option<String>,
}

/// How much is reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MetricsLevel {
    /// Nothing.
    None,
    /// What shows whether the application is well: records, bytes and lag by shard, leases by worker,
    /// successes and durations.
    Summary,
    /// Also the single requests these consist of.
    #[default]
    Detailed,
}

/// A dimension of values, besides the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MetricsDimension {
    /// The shard.
    ShardId,
    /// The stream, where it was given by its ARN.
    StreamId,
    /// The worker, in metrics about its leases.
    WorkerIdentifier,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            level: MetricsLevel::default(),
            enabled_dimensions: MetricsDimension::ALL.into(),
            buffer_time: Duration::from_secs(10),
            max_queue_size: 10_000,
            namespace: None,
        }
    }
}

with_settings!(MetricsConfig {
    with_level = level: MetricsLevel,
    with_buffer_time = buffer_time: Duration,
    with_max_queue_size = max_queue_size: usize,
});

impl MetricsConfig {
    /// The same settings with another [`namespace`](Self::namespace).
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The same settings with other [`enabled_dimensions`](Self::enabled_dimensions).
    #[must_use]
    pub fn with_enabled_dimensions(mut self, dimensions: impl IntoIterator<Item = MetricsDimension>) -> Self {
        self.enabled_dimensions = dimensions.into_iter().collect();
        self
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let time = Duration::from_millis(100)..=Duration::from_secs(600);
        check_duration("metrics.buffer_time", self.buffer_time, time)?;
        check("metrics.max_queue_size", self.max_queue_size, 100..=1_000_000)?;
        match &self.namespace {
            Some(namespace) if !is_namespace(namespace) => Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "metrics.namespace is {namespace:?}; it must be 1 to 255 of a-z A-Z 0-9 . - _ / # and \
                     not start with AWS/"
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl MetricsDimension {
    /// Every dimension.
    pub const ALL: [Self; 3] = [Self::ShardId, Self::StreamId, Self::WorkerIdentifier];
}

fn is_namespace(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && !text.starts_with("AWS/")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_/#".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range() {
        assert!(MetricsConfig::default().validate().is_ok());
    }

    #[test]
    fn a_setting_out_of_range_is_named_with_its_range() {
        let default = MetricsConfig::default;
        let cases = [
            (
                MetricsConfig { buffer_time: Duration::ZERO, ..default() },
                "metrics.buffer_time is 0 ms; it must be between 100 and 600000 ms",
            ),
            (
                MetricsConfig { max_queue_size: 99, ..default() },
                "metrics.max_queue_size is 99; it must be between 100 and 1000000",
            ),
            (
                MetricsConfig { namespace: Some("AWS/Orders".to_owned()), ..default() },
                "metrics.namespace is \"AWS/Orders\"; it must be 1 to 255 of a-z A-Z 0-9 . - _ / # and not \
                 start with AWS/",
            ),
        ];
        for (config, message) in cases {
            let error = config.validate().unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
