//! The streams of a worker: one, or in multi-stream mode any number, which may come and go.

mod admission;
mod find;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::admission::admit;
pub(crate) use self::find::{CREATING_PATIENCE, CREATING_PAUSE, find, find_waiting, search};
use crate::config::StreamSpec;
use crate::kinesis::Shard;
use crate::lease::Lease;
use crate::retrieval::FanOut;
use crate::types::{ShardId, StartStrategy, StreamId};

/// A stream that this worker reads.
#[derive(Debug)]
pub(crate) struct TrackedStream {
    pub(crate) id: StreamId,
    pub(crate) start_strategy: StartStrategy,
    /// How its shards are subscribed to, if they are not polled.
    pub(crate) fan_out: Option<FanOut>,
    /// The wall-clock time from which `LATEST` counts.
    pub(crate) started: SystemTime,
    /// Cancelled when the worker is asked to shut down, or not to read this stream any more.
    pub(crate) stopping: CancellationToken,
    /// The shard consumers of this worker that read it.
    pub(crate) consumers: TaskTracker,
    listed: Mutex<Option<Vec<Shard>>>,
    problems: Mutex<Problems>,
}

/// What is wrong with a stream, each kind in words.
#[derive(Debug, Default)]
struct Problems {
    /// Its shards cannot be listed, or its leases not be created.
    sync: Option<String>,
    /// Leases hold positions of another stream, as the list of shards shows.
    foreign_leases: Option<String>,
    /// The same of shards that this worker was refused.
    foreign_shards: BTreeMap<ShardId, String>,
    /// Another stream's consumer uses the lease table.
    shared_table: Option<String>,
}

impl Problems {
    fn has_foreign(&self) -> bool {
        self.foreign_leases.is_some() || !self.foreign_shards.is_empty()
    }
}

/// One of the streams of a consumer, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct StreamStatus {
    /// The stream.
    pub stream: StreamId,
    /// Why it cannot be found, its shards not be listed, or its leases not be used, and what to do about
    /// it. It is tried again; the other streams are read meanwhile.
    pub problem: Option<String>,
}

impl TrackedStream {
    /// Whether the row is one of this stream's.
    pub(crate) fn has(&self, lease: &Lease) -> bool {
        self.id.serialized() == lease.stream_name.as_deref()
    }

    /// The `streamName` of its leases, in multi-stream mode.
    pub(crate) fn lease_name(&self) -> Option<String> {
        self.id.serialized().map(ToOwned::to_owned)
    }

    /// What `LATEST` means for leases that do not say it, in milliseconds of the epoch.
    pub(crate) fn latest_since(&self) -> u64 {
        let since_epoch = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    /// The shards as they were listed when the stream was found, for the first caller.
    pub(crate) fn take_listed(&self) -> Option<Vec<Shard>> {
        self.listed.lock().take()
    }

    pub(crate) fn set_problem(&self, problem: Option<String>) {
        self.problems.lock().sync = problem;
    }

    /// Whether this is the first that is known of leases of another stream.
    pub(crate) fn set_foreign_leases(&self, problem: Option<String>) -> bool {
        let mut problems = self.problems.lock();
        let is_new = problem.is_some() && !problems.has_foreign();
        problems.foreign_leases = problem;
        is_new
    }

    /// Whether this is the first that is known of leases of another stream.
    pub(crate) fn set_foreign_shard(&self, shard: &ShardId, problem: Option<String>) -> bool {
        let mut problems = self.problems.lock();
        let is_new = problem.is_some() && !problems.has_foreign();
        match problem {
            Some(problem) => problems.foreign_shards.insert(shard.clone(), problem),
            None => problems.foreign_shards.remove(shard),
        };
        is_new
    }

    /// Whether this is the first that is known of it.
    pub(crate) fn set_shared_table(&self, problem: Option<String>) -> bool {
        let is_new = problem.is_some();
        std::mem::replace(&mut self.problems.lock().shared_table, problem).is_none() && is_new
    }

    /// Whether another stream's consumer uses the lease table.
    pub(crate) fn shares_table(&self) -> bool {
        self.problems.lock().shared_table.is_some()
    }

    fn status(&self) -> StreamStatus {
        let Problems { sync, foreign_leases, foreign_shards, shared_table } = &*self.problems.lock();
        let foreign = foreign_leases.as_ref().or_else(|| foreign_shards.values().next());
        let problem = shared_table.as_ref().or(foreign).or(sync.as_ref()).cloned();
        StreamStatus { stream: self.id.clone(), problem }
    }
}

/// Which streams a worker reads at the moment.
#[derive(Debug)]
pub(crate) struct Streams {
    is_multi: bool,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    tracked: Vec<Arc<TrackedStream>>,
    waiting: Vec<Waiting>,
}

/// A stream that could not be found yet.
#[derive(Debug)]
struct Waiting {
    wanted: StreamSpec,
    problem: String,
}

impl Streams {
    pub(crate) fn new(is_multi: bool) -> Self {
        Self { is_multi, state: Mutex::default(), changed: Notify::new() }
    }

    /// Whether leases bear the names of their streams.
    pub(crate) fn is_multi(&self) -> bool {
        self.is_multi
    }

    /// The streams now, in the order in which they came.
    pub(crate) fn tracked(&self) -> Vec<Arc<TrackedStream>> {
        self.state.lock().tracked.clone()
    }

    /// Waits for a change since the last time. For one waiter: the coordinator.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Reads a stream from now on, unless it is read already.
    pub(crate) fn track(&self, stream: TrackedStream) -> bool {
        let mut state = self.state.lock();
        if state.knows(&stream.id) {
            return false;
        }
        state.tracked.push(Arc::new(stream));
        self.changed.notify_one();
        true
    }

    /// Reads a stream that was looked for at the start, whether or not it had to be waited for.
    pub(crate) fn first_found(&self, wanted: &StreamSpec, stream: TrackedStream) {
        let is_waited_for = self.state.lock().waiting.iter().any(|waiting| waiting.wanted == *wanted);
        if is_waited_for {
            self.found(wanted, Ok(stream));
        } else {
            self.track(stream);
        }
    }

    /// Whether the stream is read, or waited for.
    pub(crate) fn knows(&self, stream: &StreamId) -> bool {
        self.state.lock().knows(stream)
    }

    /// Notes a stream that cannot be found for the time being.
    pub(crate) fn wait_for(&self, wanted: StreamSpec, problem: String) {
        let mut state = self.state.lock();
        state.waiting.retain(|waiting| waiting.wanted != wanted);
        state.waiting.push(Waiting { wanted, problem });
    }

    /// The streams that could not be found yet.
    fn waiting(&self) -> Vec<StreamSpec> {
        self.state.lock().waiting.iter().map(|waiting| waiting.wanted.clone()).collect()
    }

    /// What became of the search for a stream that was waited for, if it still is.
    fn found(&self, wanted: &StreamSpec, outcome: Result<TrackedStream, String>) {
        let mut state = self.state.lock();
        let Some(index) = state.waiting.iter().position(|waiting| waiting.wanted == *wanted) else { return };
        match outcome {
            Ok(stream) => {
                state.waiting.remove(index);
                if !state.knows(&stream.id) {
                    state.tracked.push(Arc::new(stream));
                    self.changed.notify_one();
                }
            }
            Err(problem) => state.waiting[index].problem = problem,
        }
    }

    /// Ends the reading of every stream that `which` may mean, provided that it is one at most.
    pub(crate) fn remove(&self, which: &StreamId) -> Removed {
        let mut state = self.state.lock();
        let tracked: Vec<usize> =
            (0..state.tracked.len()).filter(|&index| state.tracked[index].id.may_be(which)).collect();
        let waiting: Vec<usize> =
            (0..state.waiting.len()).filter(|&index| state.waiting[index].wanted.id.may_be(which)).collect();
        match (&tracked[..], &waiting[..]) {
            ([], []) => Removed::Unknown,
            ([], &[index]) => {
                state.waiting.remove(index);
                Removed::Waiting
            }
            (&[index], []) => {
                let stream = state.tracked.remove(index);
                // First, so that the coordinator knows when consumers end.
                self.changed.notify_one();
                stream.stopping.cancel();
                Removed::Tracked(stream)
            }
            _ => Removed::Ambiguous,
        }
    }

    pub(crate) fn statuses(&self) -> Vec<StreamStatus> {
        let state = self.state.lock();
        let waiting = state.waiting.iter().map(|Waiting { wanted, problem }| StreamStatus {
            stream: wanted.id.clone(),
            problem: Some(problem.clone()),
        });
        state.tracked.iter().map(|stream| stream.status()).chain(waiting).collect()
    }
}

impl State {
    fn knows(&self, stream: &StreamId) -> bool {
        self.tracked.iter().any(|tracked| tracked.id.may_be(stream))
            || self.waiting.iter().any(|waiting| waiting.wanted.id.may_be(stream))
    }
}

/// What it was that [`Streams::remove`] was to remove.
pub(crate) enum Removed {
    /// A stream whose consumers are stopping now.
    Tracked(Arc<TrackedStream>),
    /// A stream that had not been found yet.
    Waiting,
    /// No stream of this consumer.
    Unknown,
    /// One of several streams of that name.
    Ambiguous,
}
