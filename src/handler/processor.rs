use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::handle::Handle;
use super::serial_batch::SerialBatch;
use super::shard_handler::{Batch, HandlerOptions, Interrupted, ShardHandler};
use super::suspicion::{Mark, Step, Suspicion};
use crate::checkpoint::Checkpointer;
use crate::processor::{ShardRecordProcessor, ShardRecordProcessorFactory};
use crate::types::KinesisClientRecord;

/// Makes a processor that runs a handler, for every lease.
pub(crate) struct HandlerFactory<H> {
    handler: Arc<H>,
    options: Arc<HandlerOptions>,
}

impl<H: Handle> HandlerFactory<H> {
    pub(crate) fn new(handler: H, options: HandlerOptions) -> Self {
        Self { handler: Arc::new(handler), options: Arc::new(options) }
    }
}

#[async_trait]
impl<H: Handle> ShardRecordProcessorFactory for HandlerFactory<H> {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        checkpointer.parts().stopped.set(None);
        let (handler, options) = (Arc::clone(&self.handler), Arc::clone(&self.options));
        Box::new(HandlerProcessor::new(ShardHandler::new(handler, options, checkpointer)))
    }
}

/// Runs a handler for one shard.
struct HandlerProcessor<H> {
    shard: ShardHandler<H>,
    suspicion: Mutex<Suspicion>,
}

impl<H: Handle> HandlerProcessor<H> {
    fn new(shard: ShardHandler<H>) -> Self {
        let suspicion = Mutex::new(shard.suspicion());
        Self { shard, suspicion }
    }

    /// Handles the records in parts, with marks, for as long as one of them may end the process. What is left then.
    async fn handle_suspects(&self, mut batch: Batch) -> Result<Batch, Interrupted> {
        while !self.suspicion.lock().is_off() {
            let positions: Vec<_> =
                batch.records.iter().map(KinesisClientRecord::extended_sequence_number).collect();
            let step = self.suspicion.lock().next(&positions);
            let (count, mark) = match step {
                Step::All => return Ok(batch),
                Step::Unmarked(count) => (count, None),
                Step::Marked(count, mark) => (count, Some(mark)),
                Step::GiveUp(times) => (1, Some(Mark::One { times })),
            };
            let rest = batch.records.split_off(count);
            let end = if rest.is_empty() { batch.end.clone() } else { positions[count - 1].clone() };
            let part = Batch { records: std::mem::replace(&mut batch.records, rest), end };
            match (step, mark) {
                (Step::GiveUp(times), _) => self.shard.give_up_crashed(part, times).await?,
                (_, None) => SerialBatch::new(&self.shard, part).run().await?,
                (_, Some(mark)) => {
                    let marked = positions[count - 1].clone();
                    self.shard.mark(&marked, Some(mark)).await;
                    if SerialBatch::new(&self.shard, part).run().await.is_err() {
                        // The process goes on: nobody is to think that it has died here.
                        self.shard.mark(&marked, None).await;
                        return Err(Interrupted);
                    }
                }
            }
            self.suspicion.lock().done(count);
        }
        Ok(batch)
    }
}

#[async_trait]
impl<H: Handle> ShardRecordProcessor for HandlerProcessor<H> {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        let Some(end) = records.last().map(KinesisClientRecord::extended_sequence_number) else { return };
        let batch = Batch { records: self.shard.filtered(records), end };
        if batch.records.is_empty() {
            self.shard.checkpoint(batch.end).await;
            return;
        }
        let Ok(batch) = self.handle_suspects(batch).await else { return };
        if !batch.records.is_empty() {
            // What is done counts, also if the rest has to wait for the next owner of the lease.
            let _ = SerialBatch::new(&self.shard, batch).run().await;
        }
    }

    async fn shard_ended(&self) {
        self.shard.end().await;
    }
}
