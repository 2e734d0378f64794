use std::time::Duration;

use super::{Refusal, RetrievalSpec};
use crate::kinesis::StreamError;
use crate::metrics::{Metrics, Operation, Outcome, names};
use crate::types::{Record, SequenceNumber, ShardId, StreamId};

/// Who wants to know how fetching goes. Called on the fetching task: must not block.
pub(crate) trait FetchObserver: Send + Sync {
    /// Something happened.
    fn observe(&self, event: FetchEvent<'_>);
}

impl<F: Fn(FetchEvent<'_>) + Send + Sync> FetchObserver for F {
    fn observe(&self, event: FetchEvent<'_>) {
        self(event);
    }
}

/// What happens while a shard is fetched.
#[derive(Debug)]
pub(crate) enum FetchEvent<'a> {
    /// A page was read, perhaps without records.
    /// `is_below` while numbers have begun again.
    Fetched { records: usize, millis_behind_latest: i64, is_below: bool },
    /// A request failed, the `failures`-th in a row. It is tried again after `retry_in`. `at_checkpoint`
    /// if it asked for the checkpoint of the lease.
    Failed { error: &'a StreamError, failures: u32, retry_in: Duration, at_checkpoint: bool },
    /// The same, and it will be so until somebody has done something about the lease.
    Refused { refusal: &'a Refusal, failures: u32, retry_in: Duration },
    /// Records after the checkpoint may have expired unread: this is the oldest that was left, if any was.
    Expired { oldest: Option<&'a Record> },
    /// Sequence numbers begin again: this one lies before those that were read already.
    Restarted { first: &'a SequenceNumber },
    /// Fan-out has failed for so long that the shard is polled from now on; this is the last failure.
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

    /// GetRecords was answered, or not.
    pub(super) fn records(&self, success: bool, took: Duration) {
        self.outcome(names::GET_RECORDS, success, took);
    }

    /// GetShardIterator was answered, or not.
    pub(super) fn shard_iterator(&self, success: bool, took: Duration) {
        self.outcome(names::GET_SHARD_ITERATOR, success, took);
    }

    /// SubscribeToShard was answered, or not.
    pub(super) fn subscription(&self, success: bool, took: Duration) {
        self.outcome(names::SUBSCRIBE_TO_SHARD, success, took);
    }

    /// Fan-out was given up for the time being.
    pub(super) fn fell_back(&self) {
        let operation = self.metrics.operation(Operation::ProcessTask);
        operation.shard(&self.shard).stream(&self.stream).add(names::FAN_OUT_FALLBACK, 1_u32);
    }

    /// The service refused an iterator because of its age. KCL counts these without the shard.
    pub(super) fn expired_iterator(&self) {
        let operation = self.metrics.operation(Operation::ProcessTask);
        operation.stream(&self.stream).add(names::EXPIRED_ITERATOR, 1_u32);
    }

    fn outcome(&self, outcome: Outcome, success: bool, took: Duration) {
        let operation = self.metrics.operation(Operation::ProcessTask);
        operation.shard(&self.shard).stream(&self.stream).outcome(outcome, success, took);
    }
}
