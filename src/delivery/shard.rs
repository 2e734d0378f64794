use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::ack::Delivery;
use super::queue::DeliveryQueue;
use super::ready::ReadyList;
use crate::checkpoint::Checkpointer;
use crate::error::{Error, ErrorKind};
use crate::handler::{Failed, Failure, ShardHandler, kind_and_text};
use crate::retrieval::MemoryPermit;
use crate::types::{ExtendedSequenceNumber, KinesisClientRecord, Moment};

/// The records of one shard that were handed on and are not done, under one lease. Shared by the processor that takes
/// them in, the stream that hands them out, each [`Delivery`], and the [task](super::shard_task) that stores how far
/// they are done.
pub(crate) struct ShardDeliveries {
    /// Carries the error policy out.
    pub(super) handler: ShardHandler<()>,
    pub(super) span_max: usize,
    pub(super) checkpoint_every: Duration,
    state: Mutex<State>,
    /// The task has something to do.
    pub(super) wake: Notify,
    /// A batch is done, or the span fits again.
    room: Notify,
    /// Nothing is out, nothing is left, something is stored, or all is closed.
    settled: Notify,
    taker: Taker,
}

/// Who takes records.
pub(super) enum Taker {
    /// One stream of all shards.
    Merged(Arc<ReadyList<Arc<ShardDeliveries>>>),
    /// The stream of this shard.
    Separate(AtomicWaker),
}

struct State {
    queue: DeliveryQueue<MemoryPermit>,
    /// What has failed and was not decided about.
    failed: Vec<FailedRecord>,
    /// The records before this slot are stored as done.
    stored: u64,
    /// The records that somebody waits for to be stored.
    awaited: BTreeSet<u64>,
    /// The task will store what is done.
    is_noticed: bool,
    /// Whether the shard is in the list of the merged stream.
    is_listed: bool,
    /// Nothing is handed out any more.
    is_over: bool,
    closed: Option<Closed>,
    /// When the first record that is not done became that.
    moved: Moment,
}

/// Why acknowledgements no longer count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The lease is lost or was given back.
    LeaseGone,
    /// The processor was replaced.
    Replaced,
    /// Everything is stored.
    Ended,
}

/// A record that failed, and how.
pub(super) struct FailedRecord {
    pub(super) slot: u64,
    pub(super) record: KinesisClientRecord,
    pub(super) failed: Failed,
    pub(super) error: String,
}

/// What the task has to do.
pub(super) struct Todo {
    pub(super) failed: Vec<FailedRecord>,
    /// What can be stored, and up to which slot that is.
    pub(super) unstored: Option<(ExtendedSequenceNumber, u64)>,
    pub(super) is_urgent: bool,
}

impl State {
    /// Whether somebody waits for something to be stored that can be.
    fn is_urgent(&self) -> bool {
        self.awaited.first().is_some_and(|slot| *slot < self.queue.watermark().first())
    }
}

impl ShardDeliveries {
    pub(super) fn new(
        handler: ShardHandler<()>,
        queue: DeliveryQueue<MemoryPermit>,
        span_max: usize,
        checkpoint_every: Duration,
        taker: Taker,
    ) -> Self {
        let state = State {
            queue,
            failed: Vec::new(),
            stored: 0,
            awaited: BTreeSet::new(),
            is_noticed: false,
            is_listed: false,
            is_over: false,
            closed: None,
            moved: Moment::default(),
        };
        Self {
            handler,
            span_max,
            checkpoint_every,
            state: Mutex::new(state),
            wake: Notify::new(),
            room: Notify::new(),
            settled: Notify::new(),
            taker,
        }
    }

    pub(super) fn checkpointer(&self) -> &Checkpointer {
        self.handler.checkpointer()
    }

    /// Takes a batch in that covers the shard up to `end`: records and their lanes. The slot by which it goes, unless it
    /// has no records.
    pub(super) fn push(
        self: &Arc<Self>,
        records: Vec<(u64, KinesisClientRecord)>,
        end: ExtendedSequenceNumber,
        now: Moment,
    ) -> Option<u64> {
        let mut state = self.state.lock();
        if state.queue.watermark().span() == 0 {
            state.moved = now;
        }
        let batch = state.queue.push(records, end);
        self.changed(state);
        batch
    }

    /// Waits until the batch is done, or the span fits.
    pub(super) async fn batch_done(&self, batch: u64) {
        wait(&self.room, || self.state.lock().queue.watermark().is_batch_done(batch)).await;
    }

    pub(super) async fn span_fits(&self) {
        wait(&self.room, || {
            let state = self.state.lock();
            state.queue.watermark().span() <= self.span_max && !state.queue.is_held_back()
        })
        .await;
    }

    /// The first record that is not done, and since when it has been that; not if the error policy has stopped the shard.
    pub(super) fn first_open(&self) -> Option<(ExtendedSequenceNumber, Moment)> {
        let state = self.state.lock();
        let position = state.queue.watermark().first_open().filter(|_| !state.queue.is_held_back())?;
        Some((position.clone(), state.moved))
    }

    /// Keeps the memory of a batch until it is done.
    pub(super) fn hold(&self, batch: u64, permit: MemoryPermit) {
        self.state.lock().queue.hold(batch, permit);
    }

    /// Waits until all that were out are acknowledged, failed, or dropped.
    pub(super) async fn none_out(&self) {
        wait(&self.settled, || self.state.lock().queue.out() == 0).await;
    }

    /// Waits until everything is done.
    pub(super) async fn all_done(&self) {
        wait(&self.settled, || self.state.lock().queue.watermark().span() == 0).await;
    }

    /// Takes the next record, if the lease is held; `None` once nothing is handed out any more.
    pub(super) fn take(self: &Arc<Self>) -> Poll<Option<Delivery>> {
        let is_held = self.handler.parts().held.is_valid();
        let now = self.handler.parts().clock.now();
        let mut state = self.state.lock();
        if state.is_over || !is_held {
            return Poll::Ready(None);
        }
        match state.queue.take(now) {
            Some(taken) => {
                Poll::Ready(Some(Delivery::new(Arc::clone(self), taken.slot, taken.record, taken.attempt)))
            }
            None => {
                state.is_listed = false;
                Poll::Pending
            }
        }
    }

    /// The record is acknowledged.
    pub(super) fn ack(self: &Arc<Self>, slot: u64) {
        let state = self.state.lock();
        if state.closed.is_none() {
            self.completed(state, slot);
        }
    }

    /// The record is done, from whichever call that came.
    pub(super) fn complete(self: &Arc<Self>, slot: u64) {
        self.completed(self.state.lock(), slot);
    }

    fn completed(self: &Arc<Self>, mut state: MutexGuard<'_, State>, slot: u64) {
        let span = state.queue.watermark().span();
        let moment = self.handler.parts().clock.now();
        let completed = state.queue.complete(slot);
        let now = state.queue.watermark().span();
        let has_room = completed.ends_batch || (now <= self.span_max && span > self.span_max);
        let is_settled = now == 0 || state.queue.out() == 0;
        let is_news = completed.has_moved && (!state.is_noticed || state.is_urgent());
        if completed.has_moved {
            state.is_noticed = true;
            state.moved = moment;
        }
        self.changed(state);
        if is_news {
            self.wake.notify_one();
        }
        if has_room {
            self.room.notify_waiters();
        }
        if is_settled {
            self.settled.notify_waiters();
        }
    }

    /// The record has failed. After a shutdown was requested that changes nothing any more: it comes again.
    pub(super) fn nack(self: &Arc<Self>, slot: u64, record: KinesisClientRecord, failure: Failure) {
        let mut state = self.state.lock();
        if state.is_over {
            state.queue.give_back(slot, record);
        } else {
            let (kind, error) = kind_and_text(failure);
            let now = self.handler.parts().clock.now();
            if let Some(failed) = state.queue.fail(slot, record.clone(), kind, now) {
                state.failed.push(FailedRecord { slot, record, failed, error });
            }
        }
        let is_settled = state.queue.out() == 0;
        drop(state);
        self.wake.notify_one();
        if is_settled {
            self.settled.notify_waiters();
        }
    }

    /// The record comes again after a pause.
    pub(super) fn retry_at(&self, slot: u64, moment: Moment) {
        self.state.lock().queue.retry_at(slot, moment);
    }

    /// Waits until the record, and all before it, are stored as done.
    pub(super) async fn stored(&self, slot: u64, position: &ExtendedSequenceNumber) -> Result<(), Error> {
        self.state.lock().awaited.insert(slot);
        self.wake.notify_one();
        wait(&self.settled, || {
            let state = self.state.lock();
            state.stored > slot || state.closed.is_some()
        })
        .await;
        let state = self.state.lock();
        match state.closed {
            _ if state.stored > slot => Ok(()),
            Some(Closed::Replaced) => {
                Err(self.not_stored(ErrorKind::Closed, position, "its processor was replaced"))
            }
            _ => Err(self.not_stored(
                ErrorKind::LeaseLost,
                position,
                "the lease is no longer held by this worker",
            )),
        }
    }

    fn not_stored(&self, kind: ErrorKind, position: &ExtendedSequenceNumber, why: &str) -> Error {
        let (shard, stream) = (self.checkpointer().shard_id(), self.checkpointer().stream());
        let (lease, application) = (self.checkpointer().lease_key(), self.checkpointer().application());
        Error::new(
            kind,
            format!(
                "the acknowledgement of {position} on shard {shard} of stream {stream} (application {application}, \
                 lease {lease}) is not stored: {why}; the record is delivered again"
            ),
        )
    }

    /// What the task has to do. Ends pauses that have passed.
    pub(super) fn todo(self: &Arc<Self>, now: Moment) -> Todo {
        let mut state = self.state.lock();
        let has_ended = state.queue.end_pauses(now);
        let watermark = state.queue.watermark();
        let first = watermark.first();
        let unstored = watermark.position().filter(|_| first > state.stored).cloned();
        let todo = Todo {
            unstored: unstored.map(|position| (position, first)),
            failed: std::mem::take(&mut state.failed),
            is_urgent: state.is_urgent(),
        };
        // From now on it has to be woken for what is done.
        state.is_noticed = todo.unstored.is_some();
        if has_ended {
            self.changed(state);
        }
        todo
    }

    /// What is before this slot is stored.
    pub(super) fn note_stored(&self, slot: u64) {
        let mut state = self.state.lock();
        state.stored = state.stored.max(slot);
        state.awaited = state.awaited.split_off(&slot);
        drop(state);
        self.settled.notify_waiters();
    }

    /// Everything that is done is stored, with the end of the shard.
    pub(super) fn note_ended(&self) {
        let mut state = self.state.lock();
        state.stored = state.queue.watermark().next();
        drop(state);
        self.close(Closed::Ended);
    }

    /// Hands nothing out, as the error policy says, until the shard is given back.
    pub(super) fn hold_back(&self) {
        self.state.lock().queue.hold_back();
    }

    pub(super) fn next_pause_end(&self) -> Option<Moment> {
        self.state.lock().queue.next_pause_end()
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.lock().is_over
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed.is_some()
    }

    /// Hands nothing out any more. What is out can still be acknowledged.
    pub(super) fn stop_handing_out(&self) {
        let mut state = self.state.lock();
        if state.is_over {
            return;
        }
        state.is_over = true;
        state.queue.close();
        state.failed.clear();
        drop(state);
        if let Taker::Separate(waker) = &self.taker {
            waker.wake();
        }
    }

    /// Acknowledgements no longer count.
    pub(super) fn close(&self, why: Closed) {
        self.stop_handing_out();
        self.state.lock().closed.get_or_insert(why);
        self.settled.notify_waiters();
        self.room.notify_waiters();
    }

    /// Takes the next record when there is one, for a shard that has a taker of its own.
    pub(super) fn poll_take(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let taken = self.take();
        if let (Poll::Pending, Taker::Separate(waker)) = (&taken, &self.taker) {
            waker.register(context.waker());
            // One may have come before the waker did.
            return self.take();
        }
        taken
    }

    /// Notifies who takes records, if there is one.
    fn changed(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.is_over || !state.queue.has_next() {
            return;
        }
        match &self.taker {
            Taker::Separate(waker) => {
                drop(state);
                waker.wake();
            }
            Taker::Merged(ready) => {
                let was_listed = std::mem::replace(&mut state.is_listed, true);
                drop(state);
                if !was_listed {
                    ready.push(Arc::clone(self));
                }
            }
        }
    }
}

/// Waits until `condition` holds, which `notify` says may have changed.
async fn wait(notify: &Notify, condition: impl Fn() -> bool) {
    loop {
        let mut notified = pin!(notify.notified());
        notified.as_mut().enable();
        if condition() {
            return;
        }
        notified.await;
    }
}
