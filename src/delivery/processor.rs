use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::options::StreamOptions;
use super::queue::{DeliveryQueue, lane};
use super::ready::ReadyList;
use super::shard::{Closed, ShardDeliveries, Taker};
use super::shard_task;
use crate::checkpoint::{Checkpointer, CheckpointerParts, Interruption};
use crate::events::Event;
use crate::handler::{HandlerOptions, Order, ShardHandler};
use crate::processor::{ShardRecordProcessor, ShardRecordProcessorFactory};
use crate::retrieval::WorkerBudget;
use crate::types::KinesisClientRecord;

/// What is counted for a record besides its payload and keys.
const RECORD_OVERHEAD: u64 = 256;
/// After which time a record that is not done is reported, if it holds up its shard.
const BLOCKED_AFTER: Duration = Duration::from_secs(10);

/// Makes the processors that take in records for one stream of all shards, or one of each.
pub(crate) struct DeliveryFactory {
    options: StreamOptions,
    handler: Arc<HandlerOptions>,
    grace: Grace,
    budget: Arc<WorkerBudget>,
    taking: Taking,
}

/// How records are taken.
#[derive(Clone)]
pub(crate) enum Taking {
    Merged(Arc<ReadyList<Arc<ShardDeliveries>>>),
    Separate(Arc<ReadyList<Arc<ShardDeliveries>>>),
}

/// How long what is out may still be acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grace {
    pub(crate) shutdown: Duration,
    pub(crate) handoff: Duration,
}

impl Grace {
    /// Leaves time, of these limits, for storing the checkpoint and giving the lease back.
    pub(crate) fn within(shutdown: Duration, handoff: Duration) -> Self {
        let less = |limit: Duration| limit - (limit / 5).min(Duration::from_secs(2));
        Self { shutdown: less(shutdown), handoff: less(handoff) }
    }
}

impl DeliveryFactory {
    pub(crate) fn new(options: StreamOptions, handler: HandlerOptions, grace: Grace, taking: Taking) -> Self {
        let budget = Arc::new(WorkerBudget::new(options.bytes_max));
        Self { options, handler: Arc::new(handler), grace, budget, taking }
    }
}

/// The consumer is gone.
impl Drop for DeliveryFactory {
    fn drop(&mut self) {
        let (Taking::Merged(ready) | Taking::Separate(ready)) = &self.taking;
        ready.close();
    }
}

#[async_trait]
impl ShardRecordProcessorFactory for DeliveryFactory {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        checkpointer.parts().stopped.set(None);
        let taker = match &self.taking {
            Taking::Merged(ready) => Taker::Merged(Arc::clone(ready)),
            Taking::Separate(_) => Taker::Separate(AtomicWaker::new()),
        };
        let shard = Arc::new(ShardDeliveries::new(
            ShardHandler::new(Arc::new(()), Arc::clone(&self.handler), checkpointer),
            DeliveryQueue::new(false),
            self.options.span_max,
            self.options.checkpoint_every,
            taker,
        ));
        if let Taking::Separate(ready) = &self.taking {
            ready.push(Arc::clone(&shard));
        }
        Box::new(DeliveryProcessor::new(shard, Order::None, Arc::clone(&self.budget), Some(self.grace), None))
    }
}

/// Takes the records of one shard in, and gives the shard back when what is out is acknowledged.
pub(super) struct DeliveryProcessor {
    shard: Arc<ShardDeliveries>,
    order: Order,
    budget: Arc<WorkerBudget>,
    /// How long a shutdown waits for what is out; for ever if `None`.
    grace: Option<Grace>,
    stop: CancellationToken,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
    /// What takes the records, if that belongs to the shard. It ends when nothing is handed out any more.
    taker: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl DeliveryProcessor {
    pub(super) fn new(
        shard: Arc<ShardDeliveries>,
        order: Order,
        budget: Arc<WorkerBudget>,
        grace: Option<Grace>,
        taker: Option<AbortOnDropHandle<()>>,
    ) -> Self {
        let stop = CancellationToken::new();
        let task = AbortOnDropHandle::new(tokio::spawn(shard_task::run(Arc::clone(&shard), stop.clone())));
        let (task, taker) = (Mutex::new(Some(task)), Mutex::new(taker));
        Self { shard, order, budget, grace, stop, task, taker }
    }

    /// Waits until room is made for the next batch.
    async fn make_room(&self, batch: u64, bytes: u64) {
        self.shard.span_fits().await;
        tokio::select! {
            biased;
            () = self.shard.batch_done(batch) => {}
            permit = self.budget.reserve(bytes) => self.shard.hold(batch, permit),
        }
    }

    /// Reports what holds the shard up, for as long as there is no room.
    async fn report_blocking(&self) {
        let CheckpointerParts { clock, events, .. } = self.shard.handler.parts();
        let mut reported = None;
        loop {
            clock.sleep(BLOCKED_AFTER).await;
            let Some((position, since)) = self.shard.first_open() else { continue };
            let age = clock.now().since(since);
            if age < BLOCKED_AFTER || reported.as_ref() == Some(&position) {
                continue;
            }
            let (stream, shard) = (self.shard.checkpointer().stream(), self.shard.checkpointer().shard_id());
            tracing::warn!(%shard, %position, ?age, "a record that is not done holds up its shard");
            events.emit(Event::KeyBlocksShard {
                stream: stream.clone(),
                shard: shard.clone(),
                position: position.clone(),
                since: clock.wall() - age,
            });
            reported = Some(position);
        }
    }

    async fn stop_task(&self) {
        self.stop.cancel();
        self.join(&self.task).await;
    }

    /// Waits until the handlers that run have returned.
    async fn stop_taker(&self) {
        self.shard.stop_handing_out();
        self.join(&self.taker).await;
    }

    async fn join(&self, task: &Mutex<Option<AbortOnDropHandle<()>>>) {
        let task = task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(shard = %self.shard.checkpointer().shard_id(), %error, "a task of the shard failed");
        }
    }
}

#[async_trait]
impl ShardRecordProcessor for DeliveryProcessor {
    /// Returns as soon as there is room for what comes next.
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        let Some(end) = records.last().map(KinesisClientRecord::extended_sequence_number) else { return };
        // A page stays in memory until the last record of it is gone.
        let bytes = records.iter().map(cost).sum();
        let in_lanes = AssertUnwindSafe(|| {
            let records = self.shard.handler.filtered(records);
            records.into_iter().map(|record| (lane(self.order, &record), record)).collect()
        });
        let records = match catch_unwind(in_lanes) {
            Ok(records) => records,
            Err(panic) => {
                // Handlers are not left behind: the shard starts again.
                self.stop_taker().await;
                resume_unwind(panic)
            }
        };
        let now = self.shard.handler.parts().clock.now();
        let Some(batch) = self.shard.push(records, end, now) else { return };
        tokio::select! {
            biased;
            _ = self.shard.checkpointer().interrupted() => {}
            () = self.make_room(batch, bytes) => {}
            () = self.report_blocking() => {}
        }
    }

    async fn shutdown_requested(&self) {
        self.shard.stop_handing_out();
        let parts = self.shard.handler.parts();
        let interruption = self.shard.checkpointer().interrupted().await;
        let grace = self.grace.map(|grace| match interruption {
            Interruption::HandoffRequested if !parts.stopping.is_cancelled() => {
                grace.handoff.min(grace.shutdown)
            }
            _ => grace.shutdown,
        });
        tokio::select! {
            biased;
            () = self.shard.none_out() => {}
            () = parts.held.lost().cancelled() => {}
            () = parts.clock.sleep(grace.unwrap_or_default()), if grace.is_some() => {}
        }
        self.stop_task().await;
        if let Some((position, slot)) = self.shard.todo(parts.clock.now()).unstored {
            shard_task::store(&self.shard, position, slot).await;
        }
        self.shard.close(Closed::LeaseGone);
    }

    async fn shard_ended(&self) {
        tokio::select! {
            biased;
            () = self.shard.all_done() => {}
            _ = self.shard.checkpointer().interrupted() => return,
        }
        self.stop_task().await;
        self.shard.handler.end().await;
        if self.shard.checkpointer().stored_checkpoint().is_shard_end() {
            self.shard.note_ended();
        }
    }

    async fn lease_lost(&self) {
        self.shard.close(Closed::LeaseGone);
        self.stop_taker().await;
        self.stop_task().await;
    }
}

/// Also after a panic, when nothing else is called.
impl Drop for DeliveryProcessor {
    fn drop(&mut self) {
        self.shard.close(Closed::Replaced);
    }
}

fn cost(record: &KinesisClientRecord) -> u64 {
    (record.record.data.len() + record.record.partition_key.len()) as u64 + RECORD_OVERHEAD
}
