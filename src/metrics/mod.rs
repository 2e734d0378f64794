//! What the consumer counts and times, under KCL's names and dimensions.
//!
//! A loop opens a [`Report`] about one run of an operation, adds values, and drops it. The values go
//! to every sink: to CloudWatch through a bounded [`aggregate`] and the [`Publisher`] that empties
//! it, and to the `metrics` facade at once.

mod aggregate;
mod cloudwatch;
mod dimensions;
#[cfg(feature = "metrics")]
mod facade;
pub(crate) mod names;
mod publisher;
#[cfg(feature = "test-util")]
mod recorder;
mod settings;
mod sink;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "test-util")]
pub use self::aggregate::StatisticSet;
pub(crate) use self::dimensions::{Dimensions, Operation};
pub use self::names::Unit;
pub(crate) use self::names::{Metric, Outcome};
pub(crate) use self::publisher::{Publisher, PutMetricData};
#[cfg(feature = "test-util")]
pub use self::recorder::MetricsRecorder;
pub use self::settings::{MetricsConfig, MetricsDimension, MetricsLevel};
pub use self::sink::{MetricValue, MetricsReport, MetricsSink};
use crate::runtime::Clock;
use crate::types::{ShardId, StreamId, WorkerId};

/// Where the loops report what they did. Cheap to clone; reporting never waits and never fails.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics(Option<Arc<Reporting>>);

#[derive(Debug)]
struct Reporting {
    level: MetricsLevel,
    enabled_dimensions: BTreeSet<MetricsDimension>,
    worker: WorkerId,
    sinks: Vec<Arc<dyn MetricsSink>>,
}

/// One value of one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub(crate) metric: Metric,
    pub(crate) value: f64,
}

impl Metrics {
    /// Reports of `worker` go to each of `sinks`, as far as the level wants them.
    pub(crate) fn new(config: &MetricsConfig, worker: WorkerId, sinks: Vec<Arc<dyn MetricsSink>>) -> Self {
        if config.level == MetricsLevel::None || sinks.is_empty() {
            return Self::disabled();
        }
        let enabled_dimensions = config.enabled_dimensions.clone();
        Self(Some(Arc::new(Reporting { level: config.level, enabled_dimensions, worker, sinks })))
    }

    /// Reports of `worker` go to CloudWatch if there is a client, once the publisher runs, and to the
    /// `metrics` facade if that feature is on, and to the `others`.
    pub(crate) fn start(
        application: &str,
        worker: &WorkerId,
        config: &MetricsConfig,
        clock: &Clock,
        cloudwatch: Option<impl PutMetricData + 'static>,
        others: Vec<Arc<dyn MetricsSink>>,
    ) -> (Self, Publisher) {
        let mut sinks = others;
        #[cfg(feature = "metrics")]
        sinks.push(Arc::new(facade::Facade::new(application)));
        let publisher = match cloudwatch {
            Some(cloudwatch) if config.level > MetricsLevel::None => {
                let (publisher, buffer) = Publisher::new(config, application, clock.clone(), cloudwatch);
                sinks.push(buffer);
                publisher
            }
            _ => Publisher::idle(),
        };
        (Self::new(config, worker.clone(), sinks), publisher)
    }

    /// Reports go nowhere.
    pub(crate) fn disabled() -> Self {
        Self(None)
    }

    /// A report about one run of `operation`; sent when it is dropped. Operations that KCL reports by
    /// worker carry this worker's name.
    pub(crate) fn operation(&self, operation: Operation) -> Report {
        let mut dimensions = Dimensions::of(operation);
        if let Some(reporting) = &self.0
            && operation.is_by_worker()
            && reporting.enabled_dimensions.contains(&MetricsDimension::WorkerIdentifier)
        {
            dimensions.worker = Some(reporting.worker.clone());
        }
        Report { reporting: self.0.clone(), dimensions, samples: Vec::new() }
    }
}

/// The metrics of one run of an operation.
#[derive(Debug)]
#[must_use = "a report is sent when it is dropped, with what was added"]
pub(crate) struct Report {
    reporting: Option<Arc<Reporting>>,
    dimensions: Dimensions,
    samples: Vec<Sample>,
}

impl Report {
    /// Adds the dimension `ShardId`.
    pub(crate) fn shard(mut self, shard: &ShardId) -> Self {
        if self.is_enabled(MetricsDimension::ShardId) {
            self.dimensions.shard = Some(shard.clone());
        }
        self
    }

    /// Adds the dimension `StreamId` if the account of the stream is known, as KCL does.
    pub(crate) fn stream(mut self, stream: &StreamId) -> Self {
        if stream.arn().is_some() && self.is_enabled(MetricsDimension::StreamId) {
            self.dimensions.stream = Some(stream.clone());
        }
        self
    }

    /// Adds a value: a number in the unit of the metric, or a [`Duration`] for one in milliseconds.
    pub(crate) fn add(&mut self, metric: Metric, value: impl Value) -> &mut Self {
        let value = value.into_f64();
        // CloudWatch refuses a whole request for one value that is not a number.
        if self.reporting.as_ref().is_some_and(|reporting| metric.level <= reporting.level)
            && value.is_finite()
        {
            self.samples.push(Sample { metric, value });
        }
        self
    }

    /// Adds whether it succeeded (1 or 0), and how long it took.
    pub(crate) fn outcome(&mut self, outcome: Outcome, success: bool, took: Duration) -> &mut Self {
        self.add(outcome.success, u32::from(success)).add(outcome.time, took)
    }

    fn is_enabled(&self, dimension: MetricsDimension) -> bool {
        self.reporting.as_ref().is_some_and(|reporting| reporting.enabled_dimensions.contains(&dimension))
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(reporting) = &self.reporting
            && !self.samples.is_empty()
        {
            let report = MetricsReport { dimensions: &self.dimensions, samples: &self.samples };
            for sink in &reporting.sinks {
                sink.record(&report);
            }
        }
    }
}

/// What can be the value of a metric.
pub(crate) trait Value {
    fn into_f64(self) -> f64;
}

impl Value for Duration {
    fn into_f64(self) -> f64 {
        self.as_secs_f64() * 1000.0
    }
}

/// Numbers beyond 2⁵³ lose their last digits, as they do in CloudWatch.
macro_rules! value {
    ($($number:ty)*) => {
        $(impl Value for $number {
            fn into_f64(self) -> f64 {
                self as f64
            }
        })*
    };
}
value!(u32 u64 usize i64 f64);

#[cfg(test)]
mod tests {
    use super::*;

    fn config(level: MetricsLevel, dimensions: &[MetricsDimension]) -> MetricsConfig {
        MetricsConfig {
            level,
            enabled_dimensions: dimensions.iter().copied().collect(),
            ..MetricsConfig::default()
        }
    }

    /// Reports a batch and a renewal, and returns what came of them.
    fn report(config: &MetricsConfig) -> MetricsRecorder {
        let recorder = MetricsRecorder::default();
        let metrics = Metrics::new(config, "worker-1".into(), vec![Arc::new(recorder.clone())]);
        let by_arn: StreamId =
            "arn:aws:kinesis:eu-west-1:123456789012:stream/orders".parse().expect("an ARN");
        for records in [10_usize, 20] {
            let mut report =
                metrics.operation(Operation::ProcessTask).shard(&"shardId-0".into()).stream(&by_arn);
            report.add(names::RECORDS_PROCESSED, records);
            report.outcome(names::GET_RECORDS, records > 10, Duration::from_millis(1500));
        }
        metrics.operation(Operation::RenewAllLeases).add(names::CURRENT_LEASES, 3_u32);
        recorder
    }

    const BATCH: [(&str, &str); 3] =
        [("Operation", "ProcessTask"), ("ShardId", "shardId-0"), ("StreamId", "orders")];

    #[test]
    fn values_are_reported_under_names_and_dimensions_of_kcl() {
        let recorder = report(&MetricsConfig::default());
        let read = |name| recorder.read(name, &BATCH).expect(name);
        assert_eq!(read("RecordsProcessed"), StatisticSet { count: 2, sum: 30.0, min: 10.0, max: 20.0 });
        assert_eq!(read("KinesisDataFetcher.getRecords.Success").sum, 1.0);
        assert_eq!(read("KinesisDataFetcher.getRecords.Time").max, 1500.0);
        let renewal = [("Operation", "RenewAllLeases"), ("WorkerIdentifier", "worker-1")];
        assert_eq!(recorder.read("CurrentLeases", &renewal), Some(StatisticSet::of(3.0)));
    }

    /// Keeps what it gets as lines.
    #[derive(Debug, Default)]
    struct Lines(std::sync::Mutex<Vec<String>>);

    impl MetricsSink for Lines {
        fn record(&self, report: &MetricsReport<'_>) {
            let dimensions: Vec<_> =
                report.dimensions().map(|(name, value)| format!("{name}={value}")).collect();
            let about = (report.operation(), report.shard(), report.stream(), report.worker());
            assert_eq!(dimensions[0], format!("Operation={}", about.0));
            let parts =
                [about.1.map(ShardId::as_str), about.2.map(StreamId::name), about.3.map(WorkerId::as_str)];
            assert_eq!(dimensions.len(), 1 + parts.iter().flatten().count());
            self.0.lock().expect("not poisoned").extend(report.values().map(|value| {
                let kind = if value.is_gauge { "gauge" } else { "amount" };
                format!("{} {kind} {} {:?} {}", dimensions.join(","), value.name, value.unit, value.value)
            }));
        }
    }

    #[test]
    fn a_sink_gets_every_value_at_once_and_says_what_it_is_about() {
        let lines = Arc::new(Lines::default());
        let metrics =
            Metrics::new(&MetricsConfig::default(), "worker-1".into(), vec![Arc::clone(&lines) as _]);
        let by_arn: StreamId =
            "arn:aws:kinesis:eu-west-1:123456789012:stream/orders".parse().expect("an ARN");
        let mut report = metrics.operation(Operation::ProcessTask).shard(&"shardId-0".into()).stream(&by_arn);
        report.add(names::RECORDS_PROCESSED, 10_u32).add(names::MILLIS_BEHIND_LATEST, 7_i64);
        drop(report);
        metrics.operation(Operation::RenewAllLeases).add(names::CURRENT_LEASES, 3_u32);
        let shard = "Operation=ProcessTask,ShardId=shardId-0,StreamId=orders";
        assert_eq!(
            *lines.0.lock().expect("not poisoned"),
            [
                format!("{shard} amount RecordsProcessed Count 10"),
                format!("{shard} gauge MillisBehindLatest Milliseconds 7"),
                "Operation=RenewAllLeases,WorkerIdentifier=worker-1 gauge CurrentLeases Count 3".to_owned(),
            ]
        );
    }

    #[test]
    fn the_level_decides_what_is_reported() {
        let summary = report(&config(MetricsLevel::Summary, &MetricsDimension::ALL));
        assert!(summary.read("RecordsProcessed", &BATCH).is_some());
        assert_eq!(summary.read("KinesisDataFetcher.getRecords.Success", &BATCH), None);
        assert!(report(&config(MetricsLevel::None, &MetricsDimension::ALL)).is_empty());
    }

    #[test]
    fn dimensions_can_be_left_out_except_the_operation() {
        let recorder = report(&config(MetricsLevel::Detailed, &[MetricsDimension::StreamId]));
        let batch = [("Operation", "ProcessTask"), ("StreamId", "orders")];
        assert_eq!(recorder.read("RecordsProcessed", &batch).map(|statistics| statistics.sum), Some(30.0));
        assert!(recorder.read("CurrentLeases", &[("Operation", "RenewAllLeases")]).is_some());
    }

    #[test]
    fn a_stream_given_by_name_is_no_dimension_and_numbers_that_are_none_are_ignored() {
        let recorder = MetricsRecorder::default();
        let metrics = Metrics::new(&MetricsConfig::default(), "w".into(), vec![Arc::new(recorder.clone())]);
        let mut report = metrics.operation(Operation::ProcessTask).stream(&"orders".parse().expect("a name"));
        report.add(names::MILLIS_BEHIND_LATEST, f64::NAN);
        report.add(names::MILLIS_BEHIND_LATEST, 7_i64);
        drop(report);
        let read = recorder.read("MillisBehindLatest", &[("Operation", "ProcessTask")]);
        assert_eq!(read, Some(StatisticSet::of(7.0)));
    }
}
