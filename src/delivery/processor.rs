use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::task::AtomicWaker;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::options::StreamOptions;
use super::queue::DeliveryQueue;
use super::ready::ReadyList;
use super::shard::{Closed, ShardDeliveries, Taker};
use super::shard_task;
use crate::checkpoint::{Checkpointer, Interruption};
use crate::handler::{HandlerOptions, Order, ShardHandler};
use crate::processor::{ShardRecordProcessor, ShardRecordProcessorFactory};
use crate::retrieval::WorkerBudget;
use crate::types::KinesisClientRecord;

/// What is counted for a record besides its payload and keys.
const RECORD_OVERHEAD: u64 = 256;

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
            DeliveryQueue::new(Order::None),
            self.options.span_max,
            self.options.checkpoint_every,
            taker,
        ));
        if let Taking::Separate(ready) = &self.taking {
            ready.push(Arc::clone(&shard));
        }
        let stop = CancellationToken::new();
        let task = tokio::spawn(shard_task::run(Arc::clone(&shard), stop.clone()));
        Box::new(DeliveryProcessor {
            shard,
            grace: self.grace,
            budget: Arc::clone(&self.budget),
            stop,
            task: Mutex::new(Some(AbortOnDropHandle::new(task))),
        })
    }
}

/// Takes the records of one shard in, and gives the shard back when what is out is acknowledged.
struct DeliveryProcessor {
    shard: Arc<ShardDeliveries>,
    grace: Grace,
    budget: Arc<WorkerBudget>,
    stop: CancellationToken,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl DeliveryProcessor {
    async fn stop_task(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(shard = %self.shard.checkpointer().shard_id(), %error, "storing acknowledgements failed");
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
        let records = self.shard.handler.filtered(records);
        let Some(batch) = self.shard.push(records, end) else { return };
        let room = async {
            self.shard.span_fits().await;
            tokio::select! {
                biased;
                () = self.shard.batch_done(batch) => {}
                permit = self.budget.reserve(bytes) => self.shard.hold(batch, permit),
            }
        };
        tokio::select! {
            biased;
            _ = self.shard.checkpointer().interrupted() => {}
            () = room => {}
        }
    }

    async fn shutdown_requested(&self) {
        self.shard.stop_handing_out();
        let parts = self.shard.handler.parts();
        let grace = match self.shard.checkpointer().interrupted().await {
            Interruption::HandoffRequested if !parts.stopping.is_cancelled() => {
                self.grace.handoff.min(self.grace.shutdown)
            }
            _ => self.grace.shutdown,
        };
        tokio::select! {
            biased;
            () = self.shard.none_out() => {}
            () = parts.held.lost().cancelled() => {}
            () = parts.clock.sleep(grace) => {}
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
