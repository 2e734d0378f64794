use std::time::Duration;

use super::{Refusal, RetrievalSpec};
use crate::kinesis::StreamError;
use crate::metrics::{Metrics, Operation, Outcome, names};
use crate::types::{Record, SequenceNumber, ShardId, StreamId};

/// Receives the events of a fetch task. Called on that task: must not block.
pub(crate) trait FetchObserver: Send + Sync {
    /// Handles an event.
    fn observe(&self, event: FetchEvent<'_>);
}

impl<F: Fn(FetchEvent<'_>) + Send + Sync> FetchObserver for F {
    fn observe(&self, event: FetchEvent<'_>) {
        self(event);
    }
}

/// An event of a fetch task.
#[derive(Debug)]
pub(crate) enum FetchEvent<'a> {
    /// A page was read, perhaps without records. `is_below` is set while sequence numbers have
    /// restarted.
    Fetched { records: usize, millis_behind_latest: i64, is_below: bool },
    /// A request failed, the `failures`-th in a row. It is retried after `retry_in`. `at_checkpoint` is
    /// set if it asked for the checkpoint of the lease.
    Failed { error: &'a StreamError, failures: u32, retry_in: Duration, at_checkpoint: bool },
    /// A request was refused, and will be refused again until the lease or the settings are changed.
    Refused { refusal: &'a Refusal, failures: u32, retry_in: Duration },
    /// Records after the checkpoint may have expired unread. `oldest` is the oldest record left, if
    /// there is one.
    Expired { oldest: Option<&'a Record> },
    /// Sequence numbers restarted: `first` is at or before those already read.
    Restarted { first: &'a SequenceNumber },
    /// Fan-out has failed for so long that the shard is polled from now on. `error` is the last failure.
    FellBackToPolling { error: &'a StreamError },
    /// Fan-out works again.
    ReturnedToFanOut,
    /// The lease starts at the configured timestamp, but none is configured (any more): the shard is
    /// read from its oldest record.
    TimestampMissing,
}

/// KCL's metrics of the data fetcher.
pub(super) struct FetchMetrics {
    metrics: Metrics,
    stream: StreamId,
    shard: ShardId,
}

impl FetchMetrics {
    pub(super) fn new(spec: &RetrievalSpec) -> Self {
        let RetrievalSpec { metrics, stream, shard, .. } = spec;
        Self { metrics: metrics.clone(), stream: stream.clone(), shard: shard.clone() }
    }

    /// GetRecords succeeded or failed.
    pub(super) fn records(&self, success: bool, took: Duration) {
        self.outcome(names::GET_RECORDS, success, took);
    }

    /// GetShardIterator succeeded or failed.
    pub(super) fn shard_iterator(&self, success: bool, took: Duration) {
        self.outcome(names::GET_SHARD_ITERATOR, success, took);
    }

    /// SubscribeToShard succeeded or failed.
    pub(super) fn subscription(&self, success: bool, took: Duration) {
        self.outcome(names::SUBSCRIBE_TO_SHARD, success, took);
    }

    /// The shard fell back from fan-out to polling.
    pub(super) fn fell_back(&self) {
        let operation = self.metrics.operation(Operation::ProcessTask);
        operation.shard(&self.shard).stream(&self.stream).add(names::FAN_OUT_FALLBACK, 1_u32);
    }

    /// The service refused an expired iterator. KCL counts these without the shard.
    pub(super) fn expired_iterator(&self) {
        let operation = self.metrics.operation(Operation::ProcessTask);
        operation.stream(&self.stream).add(names::EXPIRED_ITERATOR, 1_u32);
    }

    fn outcome(&self, outcome: Outcome, success: bool, took: Duration) {
        let operation = self.metrics.operation(Operation::ProcessTask);
        operation.shard(&self.shard).stream(&self.stream).outcome(outcome, success, took);
    }
}
