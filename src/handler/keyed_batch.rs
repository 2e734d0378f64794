use futures_util::future::{Fuse, FusedFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::concurrency::Order;
use super::handle::Handle;
use super::lanes::Lanes;
use super::policy::{Failed, FailureKind, Next};
use super::shard_handler::{Batch, CHECKPOINT_INTERVAL, Called, Interrupted, ShardHandler, kind_and_text};
use crate::types::KinesisClientRecord;

/// A batch whose records are handled at the same time, except those of the same key.
pub(super) struct KeyedBatch<'a, H> {
    shard: &'a ShardHandler<H>,
    batch: &'a Batch,
    lanes: Lanes,
}

impl<'a, H: Handle> KeyedBatch<'a, H> {
    pub(super) fn new(shard: &'a ShardHandler<H>, batch: &'a Batch) -> Self {
        let records = &batch.records;
        let lanes = match shard.concurrency().order {
            Order::Shard => Lanes::new(records.iter().map(|_| ())),
            Order::PartitionKey => Lanes::new(records.iter().map(|record| &record.record.partition_key)),
            Order::Key(key) => Lanes::new(records.iter().map(key)),
            Order::None => Lanes::new(0..records.len()),
        };
        Self { shard, batch, lanes }
    }

    pub(super) async fn run(mut self) {
        let (shard, batch, tasks) = (self.shard, self.batch, self.shard.concurrency().tasks);
        let mut running = FuturesUnordered::new();
        let mut is_interrupted = false;
        // The handlers go on while a checkpoint is stored.
        let mut storing = Fuse::terminated();
        let (mut stored, mut due) = (0, shard.parts().clock.now() + CHECKPOINT_INTERVAL);
        loop {
            while running.len() < tasks && !is_interrupted {
                is_interrupted = shard.is_interrupted();
                let Some(index) = self.lanes.start().filter(|_| !is_interrupted) else { break };
                let record = &batch.records[index..=index];
                running.push(async move { (index, handle(shard, record).await) });
            }
            tokio::select! {
                biased;
                handled = running.next() => match handled {
                    Some((index, Ok(()))) => self.lanes.complete(index),
                    // Nothing new is started. What runs comes to its end.
                    Some((_, Err(Interrupted))) => is_interrupted = true,
                    None => break,
                },
                up_to = &mut storing => {
                    stored = up_to;
                    due = shard.parts().clock.now() + CHECKPOINT_INTERVAL;
                }
                () = shard.parts().clock.sleep_until(due), if storing.is_terminated() => {
                    due = shard.parts().clock.now() + CHECKPOINT_INTERVAL;
                    let done = self.lanes.done();
                    if done > stored {
                        storing = Box::pin(store(shard, batch, done, stored)).fuse();
                    }
                }
            }
        }
        if !storing.is_terminated() {
            stored = storing.await;
        }
        store(shard, batch, self.lanes.done(), stored).await;
    }
}

/// Stores that this many records are done, unless that is `stored` already. How many are stored now.
async fn store<H: Handle>(shard: &ShardHandler<H>, batch: &Batch, done: usize, stored: usize) -> usize {
    let Some(position) = batch.position_after(done).filter(|_| done > stored) else { return stored };
    if shard.checkpoint(position).await { done } else { stored }
}

/// Handles one record until it is done with.
async fn handle<H: Handle>(
    shard: &ShardHandler<H>,
    record: &[KinesisClientRecord],
) -> Result<(), Interrupted> {
    let (mut failures, mut transient) = (0_u32, 0_u32);
    loop {
        let attempt = failures.saturating_add(transient).saturating_add(1);
        let Called::Failed(_, failure, _) = shard.call(record, attempt).await else { return Ok(()) };
        let (kind, error) = kind_and_text(failure);
        match kind {
            FailureKind::Transient => transient = transient.saturating_add(1),
            FailureKind::Failed | FailureKind::Poison => failures = failures.saturating_add(1),
        }
        let failed = Failed { kind, failures, transient };
        match shard.decide(record, failed, &error) {
            Next::GiveUp(reason) => return shard.give_up(record, failed, reason, &error).await,
            Next::Retry(pause) => shard.pause(pause).await?,
            // A single record is not divided.
            Next::Split | Next::OneByOne => {}
        }
    }
}
