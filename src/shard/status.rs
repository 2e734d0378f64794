use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::ShardState;
use crate::checkpoint::StoppedReason;
use crate::lease::{Lease, Paused};
use crate::types::{Checkpoint, LeaseKey, ShardId, StreamId};

/// How one shard is doing on this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ShardStatus {
    /// The lease.
    pub lease: LeaseKey,
    /// The stream.
    pub stream: StreamId,
    /// The shard.
    pub shard: ShardId,
    /// Where it is in its life.
    pub state: ShardState,
    /// What is stored in the lease table.
    pub checkpoint: Checkpoint,
    /// How far the last delivered batch was behind the newest record of the shard; `None` before the
    /// first answer.
    pub behind_latest: Option<Duration>,
    /// User records delivered under this lease.
    pub records_delivered: u64,
    /// Payload bytes delivered under this lease.
    pub bytes_delivered: u64,
    /// Since when the callback that is running now has been running.
    pub in_callback_since: Option<SystemTime>,
    /// How often a callback panicked under this lease.
    pub panics: u64,
    /// How often in a row records could not be fetched.
    pub fetch_failures: u64,
    /// How often under this lease it was attempted to store the end of the shard, without success: its
    /// children had no leases, or `shard_ended` panicked or returned without
    /// [`Checkpointer::end`](crate::Checkpointer::end).
    pub end_attempts: u64,
    /// Why the error policy of the handler has stopped the shard
    /// ([`Then::StopShard`](crate::Then::StopShard)), and what to do.
    pub stopped: Option<String>,
    /// Since when, by whom and why the shard is paused.
    pub paused: Option<Paused>,
    /// Why the shard is not read, if somebody has to do something about it, and what.
    pub problem: Option<String>,
}

/// This many attempts may fail before the end of a shard is overdue.
const END_ATTEMPTS: u64 = 3;

impl ShardStatus {
    /// Whether records cannot be fetched, the error policy has stopped the shard, the lease does not go with the shard, the processor panicked and
    /// did not process a batch since, or the end of the shard is not stored.
    pub(crate) fn is_in_trouble(&self) -> bool {
        self.fetch_failures > 2
            || self.problem.is_some()
            || self.stopped.is_some()
            || self.state == ShardState::Failed
            || self.is_end_overdue()
    }

    pub(crate) fn is_end_overdue(&self) -> bool {
        self.end_attempts >= END_ATTEMPTS
    }
}

/// The status of one shard as its consumer keeps it.
#[derive(Debug)]
pub(crate) struct StatusCell {
    status: Mutex<ShardStatus>,
    stopped: StoppedReason,
}

impl StatusCell {
    pub(crate) fn new(stream: StreamId, lease: &Lease) -> Self {
        let status = ShardStatus {
            lease: lease.key.clone(),
            stream,
            shard: lease.shard_id.clone(),
            state: ShardState::WaitingOnParentShards,
            checkpoint: lease.checkpoint.clone(),
            behind_latest: None,
            records_delivered: 0,
            bytes_delivered: 0,
            in_callback_since: None,
            panics: 0,
            fetch_failures: 0,
            end_attempts: 0,
            stopped: None,
            paused: None,
            problem: None,
        };
        Self { status: Mutex::new(status), stopped: StoppedReason::default() }
    }

    /// Where a handler notes that it has stopped the shard.
    pub(crate) fn stopped(&self) -> StoppedReason {
        self.stopped.clone()
    }

    /// The status now; never waits for user code or I/O.
    pub(crate) fn read(&self) -> ShardStatus {
        let stopped = self.stopped.get().map(|reason| reason.to_string());
        ShardStatus { stopped, ..self.status.lock().clone() }
    }

    /// Payload bytes delivered so far.
    pub(crate) fn bytes_delivered(&self) -> u64 {
        self.status.lock().bytes_delivered
    }

    /// How far the last batch was behind, once that is known.
    pub(crate) fn behind_latest(&self) -> Option<Duration> {
        self.status.lock().behind_latest
    }

    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut ShardStatus) -> T) -> T {
        change(&mut self.status.lock())
    }
}
