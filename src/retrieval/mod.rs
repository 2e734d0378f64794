//! Stop 5 on the data's way: records in.
//!
//! One [`Retrieval`] per lease fetches ahead of the processor, within limits per shard
//! ([`RetrievalConfig`]) and per worker ([`WorkerBudget`]). The decisions are pure: where to open the
//! shard (`position`) and when to ask again (`pacing`, `subscription_pacer`); the loops that carry them out
//! are `polling` and `fan_out`.

mod config;

mod position;

mod pacing;

mod budget;
mod estimate;

mod buffer;

mod gap;
mod inquiry;
mod observe;
mod polling;
mod refusal;

mod fan_out;
mod subscription_pacer;

#[cfg(test)]
mod fake_shard;
#[cfg(test)]
mod fan_out_test;
#[cfg(test)]
mod refused_test;
#[cfg(test)]
mod retrieval_test;

use std::fmt;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::budget::{MemoryPermit, WorkerBudget};
use self::buffer::BatchSender;
pub use self::config::{OnRefusedCheckpoint, OutOfRangeRecords, RetrievalConfig};
pub(crate) use self::fan_out::FanOut;
pub(crate) use self::observe::{FetchEvent, FetchObserver};
use self::polling::Poller;
use self::position::Position;
pub(crate) use self::position::StartPosition;
pub(crate) use self::refusal::{Cause, Refusal};
use crate::config::OnRecreatedStream;
use crate::kinesis::{ChildShard, StreamApi, StreamError, StreamErrorKind};
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::runtime::Clock;
use crate::types::{Record, ShardId, StreamId};

/// What one shard is read with.
pub(crate) struct RetrievalSpec {
    pub(crate) api: Arc<dyn StreamApi>,
    pub(crate) stream: StreamId,
    pub(crate) shard: ShardId,
    pub(crate) start: StartPosition,
    /// The lease as it was taken.
    pub(crate) lease: Lease,
    pub(crate) on_recreated_stream: OnRecreatedStream,
    pub(crate) source: Source,
    /// The most records one GetRecords request asks for: 1 to 10,000.
    pub(crate) limit: u32,
    pub(crate) config: RetrievalConfig,
    /// Whether pages without records become batches too (at most one of them is kept waiting).
    pub(crate) empty_batches: bool,
    pub(crate) budget: Arc<WorkerBudget>,
    pub(crate) clock: Clock,
    /// Decides the jitter of back-offs.
    pub(crate) seed: u64,
    pub(crate) metrics: Metrics,
    pub(crate) observer: Arc<dyn FetchObserver>,
}

/// Where records come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// GetRecords.
    Polling,
    /// SubscribeToShard, and GetRecords while that cannot be had.
    FanOut(FanOut),
}

/// Reads one shard, in order, from its start position to its end.
///
/// # Guarantees
///
/// - Every record from the start position on is delivered once, in order; nothing a request returned
///   is skipped, whatever fails and however slow the caller is.
/// - No failure ends it: it backs off, tells the observer, and tries again for as long as it lives.
/// - What is fetched and not yet taken stays within the limits of the shard, and together with the
///   batches that were taken and not yet dropped, of all shards, within the budget of the worker.
/// - Dropping it stops fetching and gives its memory back; batches already taken live on. Do so as
///   soon as nothing more will be taken: what waits here is memory other shards lack.
#[derive(Debug)]
pub(crate) struct Retrieval {
    receiver: buffer::BatchReceiver,
    _fetching: AbortOnDropHandle<()>,
}

/// What [`Retrieval::next`] hands over.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Records that follow those of the last batch.
    Batch(Batch),
    /// Every record of the shard was delivered. `children` are the shards that follow it: none if the
    /// stream no longer has the shard.
    ShardEnd { children: Vec<ChildShard> },
    /// The lease does not go with the shard, and by the settings the shard is to be read as `fresh` says:
    /// write that to the row, and give the lease up.
    StartOver { fresh: Box<Lease> },
    /// The fetch task stopped because the `StreamApi` panicked or the runtime is shutting down. Start
    /// another retrieval from the last processed position.
    FetchTaskFailed,
}

/// How reading a shard ended.
#[derive(Debug, Clone)]
enum ReadOutcome {
    /// The shard has no more records. These are its child shards: none if the stream no longer has the
    /// shard.
    ShardEnd(Vec<ChildShard>),
    /// The shard must be read again from the start of this lease.
    StartOver(Box<Lease>),
}

/// The records of one page, and the memory they count for.
#[derive(Debug)]
pub(crate) struct Batch {
    /// In sequence order; empty only if empty batches were asked for.
    pub(crate) records: Vec<Record>,
    /// How far the page was behind the newest record when it was fetched.
    pub(crate) millis_behind_latest: i64,
    /// Gives the memory back when dropped: keep it as long as the records.
    pub(crate) permit: MemoryPermit,
}

impl Retrieval {
    /// Starts fetching on a task of its own, on the current runtime.
    pub(crate) fn start(spec: RetrievalSpec) -> Self {
        let (sender, receiver) = buffer::buffer(spec.config.buffer_limits());
        let fetching = tokio::spawn(fetch(spec, sender));
        Self { receiver, _fetching: AbortOnDropHandle::new(fetching) }
    }

    /// Waits for what comes next. After the end of the shard, and after `FetchTaskFailed`, it returns the same
    /// again.
    ///
    /// Drop the batch before asking for the next: with the budget exhausted, no page is fetched until
    /// memory is given back.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Delivery {
        self.receiver.next().await
    }
}

/// Reads the shard to its end.
async fn fetch(spec: RetrievalSpec, sender: BatchSender) {
    let Some(position) = Position::new(&spec.start) else {
        return sender.end(ReadOutcome::ShardEnd(Vec::new()));
    };
    if spec.start.is_timestamp_missing() {
        spec.observer.observe(FetchEvent::TimestampMissing);
    }
    let outcome = match &spec.source {
        Source::Polling => Poller::new(&spec, position).run(&sender).await,
        Source::FanOut(fan_out) => fan_out::read(&spec, fan_out, position, &sender).await,
    };
    sender.end(outcome);
}

impl RetrievalSpec {
    fn error(&self, kind: StreamErrorKind, operation: &'static str) -> StreamError {
        StreamError::new(kind, operation, format!("{}/{}", self.stream, self.shard))
    }
}

impl fmt::Debug for RetrievalSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetrievalSpec")
            .field("stream", &self.stream.name())
            .field("shard", &self.shard)
            .field("start", &self.start)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
