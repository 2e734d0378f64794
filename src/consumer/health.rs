//! Whether all is well with a consumer, decided from what its parts report.

use crate::shard::ShardStatus;

/// Whether all is well with a consumer.
///
/// A *liveness* probe restarts a process for which there is no hope: nothing else brings a consumer back
/// that has [`Failed`](Self::Failed). A *readiness* probe, or an alarm, looks for whatever is not well; most
/// of what makes a consumer [`Degraded`](Self::Degraded) is outside of the process, and a restart does not
/// help.
///
/// ```
/// # use kinesis_consumer::{ConsumerHandle, Health};
/// # fn probes(handle: &ConsumerHandle) -> (bool, bool) {
/// let is_alive = !matches!(handle.status().health, Health::Failed | Health::Stopped);
/// let is_ready = handle.status().health == Health::Healthy;
/// # (is_alive, is_ready)
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Health {
    /// All is well.
    Healthy,
    /// It runs, but not all is well; [`Status::problems`](crate::Status::problems) and the problems of
    /// [`Status::streams`](crate::Status::streams) say what, and what to do. One of:
    ///
    /// - a stream or shard cannot be read, or its processor keeps panicking;
    /// - `shard_ended` has returned three times in a row without the end being stored;
    /// - the lease table does not exist, or could not be read, or no lease be renewed or taken, for the
    ///   failover time;
    /// - shards have not been read by any worker for three failover times, though this one may take leases;
    /// - another worker has the same `worker_id`.
    ///
    /// It is tried again, and the consumer is [`Healthy`](Self::Healthy) once that succeeds.
    Degraded,
    /// It is shutting down.
    Stopping,
    /// It has stopped.
    Stopped,
    /// A loop of it panicked, perhaps in a lease store or stream of the user's, and nothing is read any
    /// more. Start another consumer, or the process again.
    Failed,
}

/// How the main task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Main {
    Running,
    /// It came to its end.
    Finished,
    /// It is gone without having come to its end.
    Gone,
}

pub(super) fn judge(main: Main, is_stopping: bool, is_in_trouble: bool) -> Health {
    match main {
        Main::Gone => Health::Failed,
        Main::Finished => Health::Stopped,
        Main::Running if is_stopping => Health::Stopping,
        Main::Running if is_in_trouble => Health::Degraded,
        Main::Running => Health::Healthy,
    }
}

/// What is wrong with a shard, if it is in trouble.
pub(super) fn problem_of(shard: &ShardStatus) -> Option<String> {
    let place = format!("shard {} of stream {}", shard.shard, shard.stream);
    shard.is_in_trouble().then(|| {
        if let Some(reason) = &shard.stopped {
            format!("{place} has stopped: {reason}")
        } else if shard.is_end_overdue() {
            format!(
                "the end of {place} was not stored in {} attempts, and its children are not read; call \
                 checkpointer.end() in shard_ended, and see the events ShardEndNotStored",
                shard.end_attempts
            )
        } else if shard.fetch_failures > 0 {
            format!(
                "records of {place} could not be fetched {} times in a row; see the events FetchFailed",
                shard.fetch_failures
            )
        } else {
            format!(
                "the processor of {place} panicked and starts again from the last checkpoint; see the events \
                 ProcessorPanicked"
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_final_goes_before_what_may_pass() {
        for (main, is_stopping, is_in_trouble, expected) in [
            (Main::Running, false, false, Health::Healthy),
            (Main::Running, false, true, Health::Degraded),
            (Main::Running, true, true, Health::Stopping),
            (Main::Finished, true, true, Health::Stopped),
            (Main::Gone, false, false, Health::Failed),
            (Main::Gone, true, true, Health::Failed),
        ] {
            assert_eq!(judge(main, is_stopping, is_in_trouble), expected);
        }
    }
}
