use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Batch, Delivery, ReadOutcome};

/// How much of a shard may wait for its processor. The fetch task continues if nothing waits, or if what
/// waits is below all of these limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// With 0, a batch is fetched only when the processor waits for it.
    pub(super) batches: usize,
    pub(super) bytes: u64,
    pub(super) records: usize,
}

/// A bounded queue of batches from a fetch task to its consumer.
pub(super) fn buffer(limits: Limits) -> (BatchSender, BatchReceiver) {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue::new(limits)),
        wanted: Notify::new(),
        arrived: Notify::new(),
    });
    (BatchSender(Arc::clone(&shared)), BatchReceiver(shared))
}

/// The sending half, held by the fetch task. If it is dropped without [`end`](Self::end), the receiver
/// gets [`Delivery::FetchTaskFailed`].
#[derive(Debug)]
pub(super) struct BatchSender(Arc<Shared>);

/// The receiving half.
#[derive(Debug)]
pub(super) struct BatchReceiver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Notified when there may be room for a batch.
    wanted: Notify,
    /// Notified when there is something to take.
    arrived: Notify,
}

#[derive(Debug)]
struct Queue {
    limits: Limits,
    batches: VecDeque<Batch>,
    bytes: u64,
    records: usize,
    is_awaited: bool,
    end: Option<BufferEnd>,
}

#[derive(Debug)]
enum BufferEnd {
    Finished(ReadOutcome),
    TaskFailed,
}

impl BatchSender {
    /// Waits until another batch should be fetched.
    pub(super) async fn room(&self) {
        while !self.0.queue.lock().has_room() {
            self.0.wanted.notified().await;
        }
    }

    /// Queues a batch without waiting: call [`room`](Self::room) before fetching it. A batch without
    /// records is dropped if others are queued already.
    pub(super) fn push(&self, batch: Batch) {
        self.0.queue.lock().push(batch);
        self.0.arrived.notify_one();
    }

    /// Queues the outcome of reading.
    pub(super) fn end(self, outcome: ReadOutcome) {
        self.0.queue.lock().end = Some(BufferEnd::Finished(outcome));
    }
}

impl Drop for BatchSender {
    fn drop(&mut self) {
        self.0.queue.lock().end.get_or_insert(BufferEnd::TaskFailed);
        self.0.arrived.notify_one();
    }
}

impl BatchReceiver {
    /// Waits for the next delivery.
    pub(super) async fn next(&mut self) -> Delivery {
        loop {
            let taken = self.0.queue.lock().take();
            self.0.wanted.notify_one();
            match taken {
                Some(delivery) => return delivery,
                None => self.0.arrived.notified().await,
            }
        }
    }
}

impl Queue {
    fn new(limits: Limits) -> Self {
        Self { limits, batches: VecDeque::new(), bytes: 0, records: 0, is_awaited: false, end: None }
    }

    fn has_room(&self) -> bool {
        if self.batches.is_empty() {
            return self.is_awaited || self.limits.batches > 0;
        }
        self.batches.len() < self.limits.batches
            && self.bytes < self.limits.bytes
            && self.records < self.limits.records
    }

    fn push(&mut self, batch: Batch) {
        if batch.records.is_empty() && !self.batches.is_empty() {
            return;
        }
        self.is_awaited = false;
        self.bytes += batch.permit.bytes();
        self.records += batch.records.len();
        self.batches.push_back(batch);
    }

    fn take(&mut self) -> Option<Delivery> {
        if let Some(batch) = self.batches.pop_front() {
            self.bytes -= batch.permit.bytes();
            self.records -= batch.records.len();
            return Some(Delivery::Batch(batch));
        }
        self.is_awaited = true;
        self.end.as_ref().map(|end| match end {
            BufferEnd::Finished(ReadOutcome::ShardEnd(children)) => {
                Delivery::ShardEnd { children: children.clone() }
            }
            BufferEnd::Finished(ReadOutcome::StartOver(fresh)) => {
                Delivery::StartOver { fresh: fresh.clone() }
            }
            BufferEnd::TaskFailed => Delivery::FetchTaskFailed,
        })
    }
}

impl Shared {}
