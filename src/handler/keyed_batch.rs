use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::concurrency::Order;
use super::handle::Handle;
use super::lanes::Lanes;
use super::policy::{Failed, FailureKind, Next};
use super::shard_handler::{Batch, Called, Interrupted, ShardHandler, kind_and_text};
use crate::types::{KinesisClientRecord, Moment};

/// While some records of a batch take long, what is done before them is stored this often.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// A batch whose records are handled at the same time, except those of the same key.
pub(super) struct KeyedBatch<'a, H> {
    shard: &'a ShardHandler<H>,
    batch: &'a Batch,
    lanes: Lanes,
    /// How many records the last checkpoint covers, and when the next one is due.
    stored: usize,
    due: Moment,
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
        let due = shard.parts().clock.now() + CHECKPOINT_INTERVAL;
        Self { shard, batch, lanes, stored: 0, due }
    }

    pub(super) async fn run(mut self) {
        let (shard, batch, tasks) = (self.shard, self.batch, self.shard.concurrency().tasks);
        let mut running = FuturesUnordered::new();
        let mut is_interrupted = false;
        loop {
            while running.len() < tasks && !is_interrupted {
                is_interrupted = shard.is_interrupted();
                let Some(index) = self.lanes.start().filter(|_| !is_interrupted) else { break };
                let record = &batch.records[index..=index];
                running.push(async move { (index, handle(shard, record).await) });
            }
            let handled = tokio::select! {
                biased;
                handled = running.next() => handled,
                () = shard.parts().clock.sleep_until(self.due) => {
                    self.checkpoint().await;
                    self.due = shard.parts().clock.now() + CHECKPOINT_INTERVAL;
                    continue;
                }
            };
            match handled {
                Some((index, Ok(()))) => self.lanes.complete(index),
                // Nothing new is started. What runs comes to its end.
                Some((_, Err(Interrupted))) => is_interrupted = true,
                None => break,
            }
        }
        self.checkpoint().await;
    }

    async fn checkpoint(&mut self) {
        let done = self.lanes.done();
        if done > self.stored
            && let Some(position) = self.batch.position_after(done)
            && self.shard.checkpoint(position).await
        {
            self.stored = done;
        }
    }
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
