//! What the consumer counts and times, under KCL's names and dimensions.
//!
//! The loops make a [`Report`] per run of an operation; values are merged in memory and sent to
//! CloudWatch now and then. Reporting never waits, and nothing that happens to CloudWatch is felt by
//! the loops.

mod cloudwatch;
#[cfg(feature = "metrics")]
mod facade;
pub(crate) mod names;
mod publisher;
mod settings;
mod statistics;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use self::cloudwatch::CloudWatch;
use self::names::{Metric, Outcome};
pub(crate) use self::publisher::Publisher;
pub use self::settings::{MetricsConfig, MetricsDimension, MetricsLevel};
use self::statistics::{Gathered, Series};
use crate::runtime::Clock;
use crate::types::{ShardId, WorkerId};

/// Where the loops report what they did. Cheap to clone; reporting never waits.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: MetricsConfig,
    worker: WorkerId,
    /// Absent if nothing goes to CloudWatch.
    gathered: Option<Mutex<Gathered>>,
    half_full: Notify,
}

/// The values of KCL's dimension `Operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    ProcessTask,
    ApplicationTracker,
    InitializeTask,
    ShutdownTask,
    ShardSyncTask,
    PeriodicShardSyncManager,
    RenewAllLeases,
    TakeLeases,
    SchedulerInitialize,
}

impl Metrics {
    /// Metrics of `worker`, and what sends them until it is told to stop.
    pub(crate) fn start(
        application: &str,
        worker: &WorkerId,
        config: &MetricsConfig,
        clock: &Clock,
        cloudwatch: Option<aws_sdk_cloudwatch::Client>,
    ) -> (Self, Publisher) {
        let namespace = config.namespace.clone().unwrap_or_else(|| application.to_owned());
        let cloudwatch = cloudwatch.filter(|_| config.level > MetricsLevel::None);
        let metrics = Self(Arc::new(Shared {
            config: config.clone(),
            worker: worker.clone(),
            gathered: cloudwatch.is_some().then(|| Mutex::new(Gathered::new(config.queue_max))),
            half_full: Notify::new(),
        }));
        let sink = cloudwatch.map(|client| Box::new(CloudWatch::new(client, namespace)) as _);
        let publisher = Publisher::new(metrics.clone(), sink, clock.clone());
        (metrics, publisher)
    }

    /// Metrics that go nowhere.
    #[cfg(test)]
    pub(crate) fn disabled() -> Self {
        Self(Arc::new(Shared {
            config: MetricsConfig::default(),
            worker: "nobody".into(),
            gathered: None,
            half_full: Notify::new(),
        }))
    }

    /// A report about one run of `operation`, taken in when it is dropped.
    pub(crate) fn report(&self, operation: Operation) -> Report<'_> {
        Report { metrics: self, operation, shard: None }
    }

    fn record(&self, operation: Operation, shard: Option<&ShardId>, metric: Metric, value: f64) {
        let config = &self.0.config;
        if metric.level > config.level {
            return;
        }
        let is_on = |dimension| config.enabled_dimensions.contains(&dimension);
        let series = Series {
            metric,
            operation: is_on(MetricsDimension::Operation).then_some(operation.as_str()),
            shard: shard.filter(|_| is_on(MetricsDimension::ShardId)).cloned(),
            worker: (operation.is_of_worker() && is_on(MetricsDimension::WorkerIdentifier))
                .then(|| self.0.worker.clone()),
        };
        #[cfg(feature = "metrics")]
        facade::record(&series, value);
        if let Some(mut gathered) = self.gathered() {
            gathered.add(series, value);
            if gathered.is_half_full() {
                self.0.half_full.notify_one();
            }
        }
    }

    fn gathered(&self) -> Option<MutexGuard<'_, Gathered>> {
        self.0.gathered.as_ref().map(|gathered| gathered.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::ProcessTask => "ProcessTask",
            Self::ApplicationTracker => "ApplicationTracker",
            Self::InitializeTask => "InitializeTask",
            Self::ShutdownTask => "ShutdownTask",
            Self::ShardSyncTask => "ShardSyncTask",
            Self::PeriodicShardSyncManager => "PeriodicShardSyncManager",
            Self::RenewAllLeases => "RenewAllLeases",
            Self::TakeLeases => "TakeLeases",
            Self::SchedulerInitialize => "Scheduler:Initialize",
        }
    }

    /// Whether its metrics have the dimension `WorkerIdentifier`.
    fn is_of_worker(self) -> bool {
        matches!(self, Self::RenewAllLeases | Self::TakeLeases)
    }
}

/// The metrics of one run of an operation.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    metrics: &'a Metrics,
    operation: Operation,
    shard: Option<&'a ShardId>,
}

impl<'a> Report<'a> {
    /// Adds the dimension `ShardId`.
    #[must_use]
    pub(crate) fn shard(self, shard: &'a ShardId) -> Self {
        Self { shard: Some(shard), ..self }
    }

    /// Adds a value in the metric's unit.
    pub(crate) fn add(&self, metric: Metric, value: f64) -> &Self {
        self.metrics.record(self.operation, self.shard, metric, value);
        self
    }

    /// Adds a number of things or bytes.
    #[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
    pub(crate) fn count(&self, metric: Metric, number: u64) -> &Self {
        self.add(metric, number as f64)
    }

    /// Adds a time.
    pub(crate) fn time(&self, metric: Metric, took: Duration) -> &Self {
        self.add(metric, took.as_secs_f64() * 1000.0)
    }

    /// Adds whether something succeeded, and how long it took.
    pub(crate) fn outcome(&self, outcome: Outcome, success: bool, took: Duration) -> &Self {
        self.add(outcome.success, f64::from(u8::from(success))).time(outcome.time, took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(config: MetricsConfig) -> Vec<Series> {
        let metrics = Metrics(Arc::new(Shared {
            gathered: Some(Mutex::new(Gathered::new(config.queue_max))),
            config,
            worker: "worker-1".into(),
            half_full: Notify::new(),
        }));
        let shard = "shardId-0".into();
        metrics.report(Operation::ProcessTask).shard(&shard).count(names::RECORDS_PROCESSED, 5);
        metrics.report(Operation::RenewAllLeases).outcome(names::RENEW_LEASE, true, Duration::from_millis(3));
        metrics.gathered().expect("gathering").take().0.into_iter().map(|(series, _)| series).collect()
    }

    #[test]
    fn names_and_dimensions_are_those_of_kcl() {
        let recorded = recorded(MetricsConfig::default());
        let shown: Vec<_> = recorded
            .iter()
            .map(|series| {
                (series.metric.name, series.operation, series.shard.is_some(), series.worker.is_some())
            })
            .collect();
        assert!(shown.contains(&("RecordsProcessed", Some("ProcessTask"), true, false)), "{shown:?}");
        assert!(shown.contains(&("RenewLease.Success", Some("RenewAllLeases"), false, true)), "{shown:?}");
        assert!(shown.contains(&("RenewLease.Time", Some("RenewAllLeases"), false, true)), "{shown:?}");
    }

    #[test]
    fn levels_and_dimensions_can_be_left_out() {
        let summary = MetricsConfig { level: MetricsLevel::Summary, ..MetricsConfig::default() };
        assert_eq!(recorded(summary).len(), 1);
        let none = MetricsConfig { level: MetricsLevel::None, ..MetricsConfig::default() };
        assert!(recorded(none).is_empty());
        let without = MetricsConfig { enabled_dimensions: [].into(), ..MetricsConfig::default() };
        assert!(recorded(without).iter().all(|series| series.shard.is_none() && series.operation.is_none()));
    }
}
