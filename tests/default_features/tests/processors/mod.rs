//! Processors that keep the payloads they are given and checkpoint every batch.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kinesis_consumer::{
    Checkpointer, KinesisClientRecord, ShardRecordProcessor, ShardRecordProcessorFactory,
};

#[derive(Debug, Clone, Default)]
pub(crate) struct Counting(Arc<Mutex<Vec<String>>>);

impl Counting {
    pub(crate) fn all(&self) -> usize {
        self.0.lock().expect("not poisoned").len()
    }

    /// By the numbers they end with.
    pub(crate) fn sorted(&self) -> Vec<String> {
        let mut payloads = self.0.lock().expect("not poisoned").clone();
        payloads.sort_by_key(|payload| (payload.len(), payload.clone()));
        payloads
    }
}

struct CountingProcessor {
    counting: Counting,
    checkpointer: Checkpointer,
}

#[async_trait]
impl ShardRecordProcessorFactory for Counting {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        Box::new(CountingProcessor { counting: self.clone(), checkpointer })
    }
}

#[async_trait]
impl ShardRecordProcessor for CountingProcessor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _millis_behind_latest: i64) {
        for record in &records {
            let payload = String::from_utf8_lossy(record.record.data.as_ref()).into_owned();
            self.counting.0.lock().expect("not poisoned").push(payload);
        }
        let last = records[records.len() - 1].extended_sequence_number();
        self.checkpointer.checkpoint(last).await.expect("the lease is held");
    }

    async fn lease_lost(&self) {}

    async fn shard_ended(&self) {
        self.checkpointer.end().await.expect("the shard has ended");
    }

    async fn shutdown_requested(&self) {}
}
