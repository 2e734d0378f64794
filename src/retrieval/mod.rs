//! Stage 5 of the data flow: fetching records.
//!
//! One [`Retrieval`] per lease reads ahead of the processor, within limits per shard
//! ([`RetrievalConfig`]) and per worker ([`WorkerBudget`]). The decisions are pure: where to open the
//! shard (`position`) and when to send the next request (`pacing`, `subscription_pacer`). The loops in
//! `polling` and `fan_out` carry them out.

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

/// What is needed to read one shard.
pub(crate) struct RetrievalSpec {
    pub(crate) api: Arc<dyn StreamApi>,
    pub(crate) stream: StreamId,
    pub(crate) shard: ShardId,
    pub(crate) start: StartPosition,
    /// The lease as it was acquired.
    pub(crate) lease: Lease,
    pub(crate) on_recreated_stream: OnRecreatedStream,
    pub(crate) source: Source,
    /// The maximum number of records per GetRecords request: 1 to 10,000.
    pub(crate) limit: u32,
    pub(crate) config: RetrievalConfig,
    /// Whether pages without records become batches too (at most one of them is queued).
    pub(crate) empty_batches: bool,
    pub(crate) budget: Arc<WorkerBudget>,
    pub(crate) clock: Clock,
    /// The seed of the back-off jitter.
    pub(crate) seed: u64,
    pub(crate) metrics: Metrics,
    pub(crate) observer: Arc<dyn FetchObserver>,
}

/// Where records come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// GetRecords.
    Polling,
    /// SubscribeToShard, and GetRecords while it is unavailable.
    FanOut(FanOut),
}

/// Reads one shard, in order, from its start position to its end.
///
/// # Guarantees
///
/// - Every record from the start position on is delivered once, in order. Nothing that a request
///   returned is skipped, whatever fails and however slow the caller is.
/// - Failures do not end it: it reports them to the observer, backs off and retries.
/// - What is fetched and not yet taken stays within the limits of the shard. Together with the batches
///   that were taken and not yet dropped, over all shards, it stays within the budget of the worker.
/// - Dropping it stops fetching and releases its memory; batches already taken stay valid. Drop it as
///   soon as no more batches will be taken, because queued batches use memory that other shards need.
#[derive(Debug)]
pub(crate) struct Retrieval {
    receiver: buffer::BatchReceiver,
    _fetching: AbortOnDropHandle<()>,
}

/// The result of [`Retrieval::next`].
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Records that follow those of the last batch.
    Batch(Batch),
    /// Every record of the shard was delivered. `children` are its child shards: none if the stream no
    /// longer has the shard.
    ShardEnd { children: Vec<ChildShard> },
    /// The lease does not match the shard, and the settings say to read the shard from its oldest
    /// record: write `fresh` to the row, and release the lease.
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

/// The records of one page, and the memory reserved for them.
#[derive(Debug)]
pub(crate) struct Batch {
    /// In sequence order; empty only if empty batches were requested.
    pub(crate) records: Vec<Record>,
    /// How far the page was behind the newest record when it was fetched.
    pub(crate) millis_behind_latest: i64,
    /// Releases the memory when dropped: keep it as long as the records.
    pub(crate) permit: MemoryPermit,
}

impl Retrieval {
    /// Starts fetching on its own task, on the current runtime.
    pub(crate) fn start(spec: RetrievalSpec) -> Self {
        let (sender, receiver) = buffer::buffer(spec.config.buffer_limits());
        let fetching = tokio::spawn(fetch(spec, sender));
        Self { receiver, _fetching: AbortOnDropHandle::new(fetching) }
    }

    /// Waits for the next delivery. After the end of the shard, and after `FetchTaskFailed`, it returns
    /// the same value again.
    ///
    /// Drop the batch before the next call: once the budget is exhausted, no page is fetched until
    /// memory is released.
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
