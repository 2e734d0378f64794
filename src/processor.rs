//! Stop 7 on the data's way: the user's code.

use async_trait::async_trait;

use crate::checkpoint::Checkpointer;
use crate::types::KinesisClientRecord;

/// Makes a processor for every lease this worker acquires.
#[async_trait]
pub trait ShardRecordProcessorFactory: Send + Sync {
    /// A lease was acquired; the checkpointer is valid for this lease only.
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor>;
}

/// The user's code for one shard.
#[async_trait]
pub trait ShardRecordProcessor: Send + Sync {
    /// Records have arrived.
    async fn process_records(&self, records: Vec<KinesisClientRecord>, millis_behind_latest: i64);
    /// Another worker has the lease, or nobody.
    async fn lease_lost(&self);
    /// Every record of the shard was delivered.
    async fn shard_ended(&self);
    /// The worker is about to stop.
    async fn shutdown_requested(&self);
}
