//! What happened, as data: one typed stream for logs, dashboards and tests.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::ReusableBoxFuture;

use crate::error::ErrorKind;
use crate::types::{
    Checkpoint, ExtendedSequenceNumber, LeaseKey, SequenceNumber, ShardId, StreamId, WorkerId,
};

/// How many events a slow listener may be behind before it misses some.
const CAPACITY: usize = 4096;

/// Why a consumer stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum StopReason {
    /// [`ConsumerHandle::shutdown`](crate::ConsumerHandle::shutdown) was called.
    Shutdown,
    /// A loop of the consumer panicked. Seen in [`Event::Stopped`];
    /// [`ConsumerHandle::wait`](crate::ConsumerHandle::wait) returns an error instead.
    Failed,
    /// The last clone of the handle was dropped. Seen in [`Event::Stopped`].
    HandleDropped,
}

/// Something that happened in a consumer.
///
/// Variants and their fields may be added in any release: match with `..` and a last arm `_`. Texts are for
/// people; programs go by the variant and, where a failed request is behind it, by its [`ErrorKind`]:
/// [`Unavailable`](ErrorKind::Unavailable) passes by itself, [`Invalid`](ErrorKind::Invalid) is to be fixed
/// by somebody.
///
/// With the feature `serde`, an event is written as a map whose `event` is the name of the variant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(tag = "event"))]
#[non_exhaustive]
pub enum Event {
    /// This worker took a lease; its processor will be initialized.
    #[non_exhaustive]
    LeaseGained {
        /// The lease.
        lease: LeaseKey,
        /// Its previous owner, if it was taken from one.
        previous_owner: Option<WorkerId>,
        /// Where processing starts.
        checkpoint: Checkpoint,
    },
    /// This worker no longer has a lease it did not give up.
    #[non_exhaustive]
    LeaseLost {
        /// The lease.
        lease: LeaseKey,
    },
    /// This worker gave a lease back: at shutdown, because the stream was removed, or because the leader
    /// asked for it.
    #[non_exhaustive]
    LeaseReleased {
        /// The lease.
        lease: LeaseKey,
    },
    /// The checkpoint of a lease was discarded, as the settings say, and its shard is read from its oldest
    /// record.
    #[non_exhaustive]
    LeaseReset {
        /// The lease.
        lease: LeaseKey,
        /// What was discarded.
        checkpoint: Checkpoint,
    },
    /// A row for a shard was created.
    #[non_exhaustive]
    LeaseCreated {
        /// The lease.
        lease: LeaseKey,
        /// Where its processing will start.
        checkpoint: Checkpoint,
    },
    /// The row of a lease was deleted by somebody else (a person, a TTL, another table of the same name) before
    /// its shard had ended, and was created again at the checkpoint last known.
    #[non_exhaustive]
    LeaseRecreated {
        /// The lease.
        lease: LeaseKey,
        /// Where processing goes on.
        checkpoint: Checkpoint,
    },
    /// The row of a finished shard was deleted.
    #[non_exhaustive]
    LeaseDeleted {
        /// The lease.
        lease: LeaseKey,
    },
    /// A row of the lease table cannot be read. It is left alone.
    #[non_exhaustive]
    LeaseUnreadable {
        /// The row and what is wrong with it.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        row: Arc<str>,
    },
    /// The table has leases of a consumer of several streams, though this one was given a single one, or
    /// the other way round. They are left alone and what they say is not used, so if the consumer was
    /// changed from one to the other, its streams are read from their start strategies. Emitted once.
    #[non_exhaustive]
    LeasesOfOtherMode {
        /// One of them.
        lease: LeaseKey,
        /// How many there are.
        count: usize,
    },
    /// A processor was initialized and records will follow.
    #[non_exhaustive]
    ProcessingStarted {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// Records up to here are already processed.
        checkpoint: Checkpoint,
    },
    /// A checkpoint was stored.
    #[non_exhaustive]
    Checkpointed {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// What was stored.
        checkpoint: Checkpoint,
    },
    /// A checkpoint was refused or could not be stored.
    #[non_exhaustive]
    CheckpointFailed {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// What can be done about it.
        kind: ErrorKind,
        /// Why.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        reason: Arc<str>,
    },
    /// Every record of a shard was delivered and the processor accepted its end.
    #[non_exhaustive]
    ShardEnded {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// The shards that follow it.
        children: Vec<ShardId>,
    },
    /// A call of the processor panicked. Nothing was checkpointed; the shard starts again from its
    /// last checkpoint.
    #[non_exhaustive]
    ProcessorPanicked {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// The method that panicked.
        callback: &'static str,
    },
    /// Records could not be fetched. It is tried again.
    #[non_exhaustive]
    FetchFailed {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// What can be done about it.
        kind: ErrorKind,
        /// Why.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        reason: Arc<str>,
    },
    /// The stream has the shard of a lease, but refuses its checkpoint: that is no sequence number of the
    /// shard. Reported when it begins; the shard is tried again at most every minute, and others are read.
    /// See [`RetrievalConfig::on_refused_checkpoint`](crate::RetrievalConfig::on_refused_checkpoint).
    #[non_exhaustive]
    PositionRefused {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// Where it was to be read on.
        checkpoint: Checkpoint,
        /// What was refused, and what to do.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        reason: Arc<str>,
    },
    /// The sequence numbers of a shard begin again before those that were read already, as if the stream
    /// were another. Records before the checkpoint are not delivered, because no checkpoint could be stored
    /// for them. What happens now follows from
    /// [`CoordinationConfig::on_recreated_stream`](crate::CoordinationConfig::on_recreated_stream).
    #[non_exhaustive]
    SequenceNumbersRestarted {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// Where it was read on.
        checkpoint: Checkpoint,
        /// The first number that lies before.
        fetched: SequenceNumber,
    },
    /// User records of KPL aggregates were left out because their hash keys lie outside the shard's: most
    /// likely the producer makes such aggregates and nobody sends these records again. Reported at most
    /// once a minute and shard. See
    /// [`RetrievalConfig::out_of_range_records`](crate::RetrievalConfig::out_of_range_records).
    #[non_exhaustive]
    RecordsOutOfRange {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// How many since the last report.
        count: u64,
    },
    /// The record at the checkpoint of a shard had expired when the shard was read on there, so records
    /// after it may have expired unread. How many is not known; perhaps none.
    #[non_exhaustive]
    RecordsExpired {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// Everything up to here was processed.
        checkpoint: Checkpoint,
        /// The oldest record that was left; `None` if none was, or the shard itself has expired.
        oldest: Option<SequenceNumber>,
        /// When that arrived.
        arrived: Option<SystemTime>,
    },
    /// A stream was deleted and created again under the same name, or the lease table is one that another
    /// stream was read with: positions in it are of another stream. What happens now follows from
    /// [`CoordinationConfig::on_recreated_stream`](crate::CoordinationConfig::on_recreated_stream).
    #[non_exhaustive]
    StreamRecreated {
        /// The stream.
        stream: StreamId,
        /// What does not match, and what to do.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        reason: Arc<str>,
    },
    /// Enhanced fan-out has failed for so long that the shard is polled from now on. Subscribing is
    /// tried again every few minutes.
    #[non_exhaustive]
    FanOutUnavailable {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// What can be done about it.
        kind: ErrorKind,
        /// The last failure.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        reason: Arc<str>,
    },
    /// Enhanced fan-out works again, and the shard is not polled any more.
    #[non_exhaustive]
    FanOutRestored {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
    },
    /// This worker is the leader of the fleet now, and assigns leases to all workers.
    LeadershipGained,
    /// This worker is the leader no longer.
    LeadershipLost,
    /// A round of lease coordination failed. It is tried again.
    #[non_exhaustive]
    CoordinationFailed {
        /// What was being done.
        operation: &'static str,
        /// What can be done about it.
        kind: ErrorKind,
        /// Why.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        reason: Arc<str>,
    },
    /// The lease table throttles this worker's writes: it has too little write capacity for the leases and
    /// checkpoints of the fleet. Raise its provisioned write capacity, or switch it to on-demand billing.
    ///
    /// Meanwhile writes go at the pace the table accepts, renewals before checkpoints, and a checkpoint may
    /// take up to the failover time. Each lease takes at least one write per failover time. A worker that
    /// holds more leases than `sustainable` loses some of them again and again, and takes leases beyond
    /// that number only one per failover time. Emitted when throttling begins, and once a minute while it
    /// lasts.
    #[non_exhaustive]
    LeaseTableThrottled {
        /// How many leases this worker holds.
        leases: usize,
        /// How many leases this worker can keep at the present pace; `None` if that is not known yet.
        sustainable: Option<usize>,
        /// The write that was throttled, and what the service said.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        reason: Arc<str>,
    },
    /// An operator has paused a shard that this worker reads. It keeps the lease and fetches nothing until the shard is
    /// [resumed](Self::Resumed).
    #[non_exhaustive]
    Paused {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// Who has paused it.
        by: String,
        /// Why.
        reason: String,
    },
    /// A shard that was [paused](Self::Paused) is read again, from where it stopped.
    #[non_exhaustive]
    Resumed {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
    },
    /// The lease table does not exist, as after somebody has deleted it. It is created again, if permissions
    /// allow, and shards are read from what is known of their checkpoints, else from the start strategy.
    /// Emitted once until the table is back.
    LeaseTableMissing,
    /// Another worker of the application has the `worker_id` of this one: it writes to leases under that
    /// name. Neither takes from the other what that renews. Emitted at most once a minute; not every one of
    /// the workers notices.
    #[non_exhaustive]
    DuplicateWorkerId {
        /// The name.
        worker: WorkerId,
    },
    /// `shard_ended` returned, or panicked, without the end of the shard being stored, so that its children
    /// cannot be read. It is called again after a pause that doubles up to 30 seconds. Call
    /// [`Checkpointer::end`](crate::Checkpointer::end) in it.
    #[non_exhaustive]
    ShardEndNotStored {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// How often storing the end was attempted under this lease.
        attempts: u64,
    },
    /// A handler failed. What happens next follows from its [`ErrorPolicy`](crate::ErrorPolicy).
    #[non_exhaustive]
    HandlerFailed {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// The first record of the call.
        position: ExtendedSequenceNumber,
        /// Which attempt at these records it was, from 1.
        attempt: u32,
        /// When the same is tried again; `None` if not: a batch is divided, or the policy's last resort follows.
        retry_in: Option<Duration>,
        /// What the handler failed with.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        reason: Arc<str>,
    },
    /// A record was sent to the destination for dead letters, where it is durable, and is passed over.
    #[non_exhaustive]
    DeadLettered {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// The record.
        position: ExtendedSequenceNumber,
        /// Why it was not tried again, and what the handler failed with.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        reason: Arc<str>,
    },
    /// The destination for dead letters failed. Its shard waits; nothing is passed over.
    #[non_exhaustive]
    DeadLetterFailed {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// When it is tried again.
        retry_in: Duration,
        /// What it failed with.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        reason: Arc<str>,
    },
    /// A record was passed over, as the [`ErrorPolicy`](crate::ErrorPolicy) says.
    #[non_exhaustive]
    RecordSkipped {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// The record.
        position: ExtendedSequenceNumber,
        /// Why it was not tried again, and what the handler failed with.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        reason: Arc<str>,
    },
    /// A record that is not done has held up its shard for 10 seconds: records after it are done, but no more are taken in
    /// before it is (see `span_max` and `bytes_max` of [`Concurrency`](crate::Concurrency) and
    /// [`StreamOptions`](crate::StreamOptions)). Its handler is slow or fails, or it was not acknowledged.
    #[non_exhaustive]
    KeyBlocksShard {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// The record.
        position: ExtendedSequenceNumber,
        /// Since when it has been the first that is not done.
        since: SystemTime,
    },
    /// A shard was stopped before a record, as the [`ErrorPolicy`](crate::ErrorPolicy) says. Other shards go on.
    #[non_exhaustive]
    ShardStopped {
        /// The stream.
        stream: StreamId,
        /// The shard.
        shard: ShardId,
        /// The record.
        position: ExtendedSequenceNumber,
        /// Why it was not tried again, what the handler failed with, and what to do.
        #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
        reason: Arc<str>,
    },
    /// This listener was too slow and missed events.
    #[non_exhaustive]
    Missed {
        /// How many.
        count: u64,
    },
    /// The consumer has stopped. This is the last event: [`Events::next`] returns `None` after it.
    #[non_exhaustive]
    Stopped {
        /// Why.
        reason: StopReason,
    },
}

/// Without serde's feature `rc`, which every other user of serde would be built with, too.
#[cfg(feature = "serde")]
fn as_text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Where the parts of a consumer report what happened. Reporting never waits for a listener; without
/// listeners it costs next to nothing. Clones share the listeners.
#[derive(Debug, Clone)]
pub(crate) struct EventSink(Arc<RwLock<Option<broadcast::Sender<Event>>>>);

impl EventSink {
    pub(crate) fn new() -> Self {
        Self(Arc::new(RwLock::new(Some(broadcast::Sender::new(CAPACITY)))))
    }

    /// Reports an event, unless the sink is closed.
    pub(crate) fn emit(&self, event: Event) {
        if let Some(sender) = &*self.0.read() {
            // No listener is no failure.
            let _ = sender.send(event);
        }
    }

    /// Reports `last` and nothing after it: listeners get what is left, then `None`. Only the first
    /// call counts.
    pub(crate) fn close(&self, last: Event) {
        if let Some(sender) = self.0.write().take() {
            let _ = sender.send(last);
        }
    }

    pub(crate) fn listen(&self) -> Events {
        let sink = self.0.read();
        // Of a consumer that has stopped there are none: the sender is gone at once.
        let receiver =
            sink.as_ref().map_or_else(|| broadcast::Sender::new(1).subscribe(), broadcast::Sender::subscribe);
        Events(ReusableBoxFuture::new(receive(receiver)))
    }
}

/// The events of a consumer from the moment of [`ConsumerHandle::events`](crate::ConsumerHandle::events),
/// or all of them with [`Consumer::events`](crate::Consumer::events).
///
/// Read with [`next`](Self::next), or with the combinators of a [`Stream`], which this is:
///
/// ```
/// use futures_util::{Stream, StreamExt};
/// use kinesis_consumer::{Event, Events};
///
/// fn children(events: Events) -> impl Stream<Item = usize> {
///     events.filter_map(async |event| match event {
///         Event::ShardEnded { children, .. } => Some(children.len()),
///         _ => None,
///     })
/// }
/// ```
#[derive(Debug)]
pub struct Events(ReusableBoxFuture<'static, (Result<Event, RecvError>, broadcast::Receiver<Event>)>);

/// The next event, and the receiver for those after it.
async fn receive(
    mut receiver: broadcast::Receiver<Event>,
) -> (Result<Event, RecvError>, broadcast::Receiver<Event>) {
    (receiver.recv().await, receiver)
}

impl Events {
    /// The next event; `None` once the consumer has stopped and every event was read, whether or not
    /// handles, checkpointers or other listeners are still there. The last event of a consumer that was
    /// started is [`Event::Stopped`]; one that could not be started ends without it.
    ///
    /// A listener that falls more than 4,096 events behind gets [`Event::Missed`] and goes on with
    /// the oldest one that is left.
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

/// Ends as [`next`](Events::next) does, and may be polled after that.
impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let (received, receiver) = ready!(self.0.poll(context));
        self.0.set(receive(receiver));
        Poll::Ready(match received {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(count)) => Some(Event::Missed { count }),
            Err(RecvError::Closed) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_missed() {
        let sink = EventSink::new();
        let mut events = sink.listen();
        for _ in 0..CAPACITY + 3 {
            sink.emit(Event::LeaseLost { lease: "shardId-0".into() });
        }
        drop(sink);
        assert_eq!(events.next().await, Some(Event::Missed { count: 3 }));
        assert_eq!(events.next().await, Some(Event::LeaseLost { lease: "shardId-0".into() }));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn an_event_is_written_as_a_map_with_its_name() {
        let event = Event::CheckpointFailed {
            stream: "orders".parse().expect("a name"),
            shard: "shardId-0".into(),
            kind: ErrorKind::Unavailable,
            reason: "throttled".into(),
        };
        assert_eq!(
            serde_json::to_value(event).expect("written"),
            serde_json::json!({
                "event": "CheckpointFailed",
                "stream": "orders",
                "shard": "shardId-0",
                "kind": "Unavailable",
                "reason": "throttled",
            })
        );
        let lost = serde_json::to_value(Event::LeadershipLost).expect("written");
        assert_eq!(lost, serde_json::json!({ "event": "LeadershipLost" }));
    }

    #[tokio::test]
    async fn no_event_is_lost_when_a_wait_for_it_is_dropped() {
        let sink = EventSink::new();
        let mut events = sink.listen();
        for lease in ["shardId-0", "shardId-1"] {
            assert_eq!(futures_util::FutureExt::now_or_never(events.next()), None);
            sink.emit(Event::LeaseLost { lease: lease.into() });
            assert_eq!(StreamExt::next(&mut events).await, Some(Event::LeaseLost { lease: lease.into() }));
        }
    }

    #[tokio::test]
    async fn the_stream_ends_with_the_consumer() {
        let sink = EventSink::new();
        let mut events = sink.listen();
        drop(sink);
        assert_eq!(events.next().await, None);
    }

    #[tokio::test]
    async fn a_closed_sink_ends_every_stream_whoever_still_has_a_clone() {
        let (sink, gained) = (EventSink::new(), Event::LeadershipGained);
        let stopped = |reason| Event::Stopped { reason };
        let (clone, mut early, as_stream) = (sink.clone(), sink.listen(), sink.listen());
        clone.emit(gained.clone());
        sink.close(stopped(StopReason::Shutdown));
        clone.close(stopped(StopReason::Failed));
        clone.emit(Event::LeadershipLost);
        let expected = vec![gained, stopped(StopReason::Shutdown)];
        assert_eq!(
            (early.next().await, early.next().await),
            (Some(expected[0].clone()), Some(expected[1].clone()))
        );
        assert_eq!((early.next().await, early.next().await), (None, None));
        assert_eq!(as_stream.collect::<Vec<_>>().await, expected);
        assert_eq!(clone.listen().next().await, None, "a late listener does not wait");
    }
}
