use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::{check, check_duration};
use crate::error::Error;

/// How much is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetricsLevel {
    /// Nothing.
    None,
    /// What operators look at: records, lag, leases gained and lost.
    Summary,
    /// Also every kind of request, with its success and its time.
    #[default]
    Detailed,
}

/// What metrics are told apart by, in CloudWatch and through the `metrics` facade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MetricsDimension {
    /// `Operation`: what was being done.
    Operation,
    /// `ShardId`.
    ShardId,
    /// `WorkerIdentifier`.
    WorkerIdentifier,
}

impl MetricsDimension {
    pub(crate) const ALL: [Self; 3] = [Self::Operation, Self::ShardId, Self::WorkerIdentifier];
}

/// Which metrics are published, and how (KCL's `MetricsConfig`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsConfig {
    /// How much is published (`metricsLevel`; default detailed).
    pub level: MetricsLevel,
    /// What metrics are told apart by (`metricsEnabledDimensions`; default all). Each distinct
    /// combination is a metric of its own to CloudWatch, and costs so: leave out
    /// [`ShardId`](MetricsDimension::ShardId) if there are very many shards.
    pub enabled_dimensions: BTreeSet<MetricsDimension>,
    /// The namespace in CloudWatch (`namespace`); `None`, the default, is the application's name.
    pub namespace: Option<String>,
    /// How long metrics are gathered before they are sent (`metricsBufferTimeMillis`; 100 ms to 1 h,
    /// default 10 s).
    pub buffer_time: Duration,
    /// How many distinct metrics are kept while CloudWatch does not take them (`metricsMaxQueueSize`; 100 to
    /// 1,000,000, default 10,000). Values of further ones are dropped, and counted in the log.
    pub queue_max: usize,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            level: MetricsLevel::default(),
            enabled_dimensions: MetricsDimension::ALL.into(),
            namespace: None,
            buffer_time: Duration::from_secs(10),
            queue_max: 10_000,
        }
    }
}

impl MetricsConfig {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let buffer_time = Duration::from_millis(100)..=Duration::from_secs(3600);
        check_duration("metrics buffer_time", self.buffer_time, buffer_time)?;
        check("metrics queue_max", self.queue_max, 100..=1_000_000)?;
        if let Some(namespace) = &self.namespace {
            check("the length of the metrics namespace", namespace.len(), 1..=255)?;
        }
        Ok(())
    }
}
