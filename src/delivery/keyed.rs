use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use tokio_util::task::AbortOnDropHandle;

use super::ack::Delivery;
use super::processor::DeliveryProcessor;
use super::queue::DeliveryQueue;
use super::shard::{ShardDeliveries, Taker};
use crate::checkpoint::Checkpointer;
use crate::handler::{Called, Concurrency, Handle, HandlerOptions, Order, ShardHandler, call};
use crate::processor::{ShardRecordProcessor, ShardRecordProcessorFactory};
use crate::retrieval::WorkerBudget;

/// How often what is done is stored.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Makes processors that run a handler for several records of a shard at the same time, each of another key.
pub(crate) struct KeyedFactory<H> {
    handler: Arc<H>,
    options: Arc<HandlerOptions>,
    budget: Arc<WorkerBudget>,
}

impl<H: Handle> KeyedFactory<H> {
    pub(crate) fn new(handler: H, options: HandlerOptions) -> Self {
        let budget = Arc::new(WorkerBudget::new(options.concurrency.bytes_max));
        Self { handler: Arc::new(handler), options: Arc::new(options), budget }
    }
}

#[async_trait]
impl<H: Handle> ShardRecordProcessorFactory for KeyedFactory<H> {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        checkpointer.parts().stopped.set(None);
        let Concurrency { tasks, order, span_max, .. } = self.options.concurrency;
        let shard = Arc::new(ShardDeliveries::new(
            ShardHandler::new(Arc::new(()), Arc::clone(&self.options), checkpointer),
            DeliveryQueue::new(!matches!(order, Order::None)),
            span_max,
            CHECKPOINT_INTERVAL,
            Taker::Separate(AtomicWaker::new()),
        ));
        let handlers = tokio::spawn(run(Arc::clone(&shard), Arc::clone(&self.handler), tasks));
        // A shutdown waits for handlers that run.
        let grace = None;
        let taker = Some(AbortOnDropHandle::new(handlers));
        Box::new(DeliveryProcessor::new(shard, order, Arc::clone(&self.budget), grace, taker))
    }
}

/// Runs the handler for up to `tasks` records at the same time, until nothing is handed out any more and all have
/// returned.
async fn run<H: Handle>(shard: Arc<ShardDeliveries>, handler: Arc<H>, tasks: usize) {
    let mut running = FuturesUnordered::new();
    let mut is_over = false;
    while !is_over || !running.is_empty() {
        tokio::select! {
            biased;
            Some(()) = running.next() => {}
            taken = poll_fn(|context| shard.poll_take(context)), if !is_over && running.len() < tasks => {
                match taken {
                    Some(delivery) => running.push(handle(&*handler, delivery)),
                    None => is_over = true,
                }
            }
        }
    }
}

async fn handle<H: Handle>(handler: &H, delivery: Delivery) {
    match call(handler, std::slice::from_ref(&*delivery), &delivery.attempt()).await {
        Called::Done => delivery.ack(),
        Called::Failed(_, failure, _) => delivery.fail_with(failure),
    }
}
