//! What the consumer counts and times, under KCL's names and dimensions.

use std::time::Duration;

use crate::types::ShardId;

/// Where the loops report what they did. Cheap to clone; reporting never waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {}

/// The values of KCL's `Operation` dimension.
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
    /// A report about one run of `operation`; sent when it is dropped.
    pub(crate) fn operation(&self, _operation: Operation) -> Report {
        Report {}
    }
}

/// The metrics of one run of an operation.
#[derive(Debug)]
pub(crate) struct Report {}

impl Report {
    /// Adds the dimension `ShardId`.
    #[must_use]
    pub(crate) fn shard(self, _shard: &ShardId) -> Self {
        self
    }

    /// Adds a count.
    pub(crate) fn count(&mut self, _name: &'static str, _value: u64) {}

    /// Adds a number of bytes.
    pub(crate) fn bytes(&mut self, _name: &'static str, _value: u64) {}

    /// Adds a number of milliseconds.
    pub(crate) fn millis(&mut self, _name: &'static str, _value: f64) {}

    /// Adds `<name>.Success` (1 or 0) and `<name>.Time`.
    pub(crate) fn outcome(&mut self, _name: &'static str, _success: bool, _took: Duration) {}
}

/// stub
#[derive(Debug, Clone, Default)]
pub struct MetricsConfig {}
impl MetricsConfig {
    pub(crate) fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}
pub(crate) struct Publisher;
impl Publisher {
    pub(crate) async fn run(self, stop: tokio_util::sync::CancellationToken) {
        stop.cancelled().await
    }
}
impl Metrics {
    pub(crate) fn start(
        _a: &str,
        _w: &crate::types::WorkerId,
        _c: &MetricsConfig,
        _clock: &crate::runtime::Clock,
        _cw: Option<aws_sdk_cloudwatch::Client>,
    ) -> (Self, Publisher) {
        (Self::default(), Publisher)
    }
}
