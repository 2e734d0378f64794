use std::sync::Arc;

use async_trait::async_trait;

use super::handle::Handle;
use super::serial_batch::SerialBatch;
use super::shard_handler::{Batch, HandlerOptions, ShardHandler};
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
        Box::new(HandlerProcessor(ShardHandler::new(handler, options, checkpointer)))
    }
}

/// Runs a handler for one shard.
struct HandlerProcessor<H>(ShardHandler<H>);

#[async_trait]
impl<H: Handle> ShardRecordProcessor for HandlerProcessor<H> {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        let Some(end) = records.last().map(KinesisClientRecord::extended_sequence_number) else { return };
        let batch = Batch { records: self.0.filtered(records), end };
        if batch.records.is_empty() {
            self.0.checkpoint(batch.end).await;
        } else {
            SerialBatch::new(&self.0, batch).run().await;
        }
    }

    async fn shard_ended(&self) {
        self.0.end().await;
    }
}
