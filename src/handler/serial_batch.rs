use super::batch_work::BatchWork;
use super::failure::IsFirst;
use super::handle::Handle;
use super::policy::{Failed, Next};
use super::shard_handler::{Batch, CHECKPOINT_INTERVAL, Called, Interrupted, ShardHandler, kind_and_text};
use crate::types::Moment;

/// A batch whose records are handled in order, several at once or one by one.
pub(super) struct SerialBatch<'a, H> {
    shard: &'a ShardHandler<H>,
    batch: Batch,
    work: BatchWork,
    /// How many records the last checkpoint covers, and when the next one is due.
    stored: usize,
    due: Moment,
}

impl<'a, H: Handle> SerialBatch<'a, H> {
    pub(super) fn new(shard: &'a ShardHandler<H>, batch: Batch) -> Self {
        let due = shard.parts().clock.now() + CHECKPOINT_INTERVAL;
        Self { shard, work: BatchWork::new(batch.records.len(), H::STEP), batch, stored: 0, due }
    }

    /// Handles the records, and stores how far that came.
    pub(super) async fn run(mut self) -> Result<(), Interrupted> {
        let outcome = self.handle_all().await;
        self.checkpoint().await;
        outcome
    }

    async fn handle_all(&mut self) -> Result<(), Interrupted> {
        while let Some(range) = self.work.next() {
            if self.shard.is_interrupted() {
                return Err(Interrupted);
            }
            let attempt = self.work.attempt(self.shard.parts().clock.now());
            match self.shard.call(&self.batch.records[range.clone()], attempt).await {
                Called::Done => {
                    self.work.complete();
                    if self.shard.parts().clock.now() >= self.due {
                        self.checkpoint().await;
                    }
                }
                Called::Failed(done, ..) if done > 0 => self.work.complete_before(done),
                Called::Failed(_, failure, is_first) => {
                    let (kind, error) = kind_and_text(failure);
                    let now = self.shard.parts().clock.now();
                    let (failed, count) = match is_first {
                        IsFirst(true) => (self.work.fail_first(kind, now), 1),
                        IsFirst(false) => (self.work.fail(kind, now), range.len()),
                    };
                    self.failed(failed, count, &error).await?;
                }
            }
        }
        Ok(())
    }

    /// The next `count` records have failed.
    async fn failed(&mut self, failed: Failed, count: usize, error: &str) -> Result<(), Interrupted> {
        let done = self.work.done();
        match self.shard.decide(&self.batch.records[done..done + count], failed, error) {
            Next::Split => self.work.split(),
            Next::OneByOne => self.work.one_by_one(),
            Next::Retry(pause) => {
                self.checkpoint().await;
                self.shard.pause(pause).await?;
            }
            Next::GiveUp(reason) => {
                self.checkpoint().await;
                let records = &self.batch.records[done..done + count];
                self.shard.give_up(records, failed, reason, error).await?;
                self.work.complete();
            }
        }
        Ok(())
    }

    async fn checkpoint(&mut self) {
        self.due = self.shard.parts().clock.now() + CHECKPOINT_INTERVAL;
        let done = self.work.done();
        if done > self.stored
            && let Some(position) = self.batch.position_after(done)
            && self.shard.checkpoint(position).await
        {
            self.stored = done;
        }
    }
}
