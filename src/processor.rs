//! Stop 7 on the data's way: the user's code.

use async_trait::async_trait;

use crate::checkpoint::Checkpointer;
use crate::types::KinesisClientRecord;

/// Makes a processor for every lease this worker acquires.
///
/// ```
/// use async_trait::async_trait;
/// use kinesis_consumer::{
///     Checkpointer, KinesisClientRecord, ShardRecordProcessor, ShardRecordProcessorFactory,
/// };
///
/// struct Printers;
///
/// struct Printer(Checkpointer);
///
/// #[async_trait]
/// impl ShardRecordProcessorFactory for Printers {
///     async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
///         Box::new(Printer(checkpointer))
///     }
/// }
///
/// #[async_trait]
/// impl ShardRecordProcessor for Printer {
///     async fn process_records(&self, records: Vec<KinesisClientRecord>, millis_behind_latest: i64) {
///         for record in &records {
///             println!("{}: {} bytes", record.record.partition_key, record.record.data.len());
///         }
///         if let Some(last) = records.last() {
///             if let Err(error) = self.0.checkpoint(last.extended_sequence_number()).await {
///                 eprintln!("not checkpointed: {error:#}");
///             }
///         }
///     }
///
///     async fn lease_lost(&self) {}
///
///     async fn shard_ended(&self) {
///         if let Err(error) = self.0.end().await {
///             eprintln!("the end is not checkpointed: {error:#}");
///         }
///     }
///
///     async fn shutdown_requested(&self) {}
/// }
/// ```
#[async_trait]
pub trait ShardRecordProcessorFactory: Send + Sync {
    /// A lease was acquired; the checkpointer is valid for this lease only.
    ///
    /// Called once per acquisition, when every parent of the shard has ended, and again after a
    /// callback of the processor panicked. May run for several shards at once. The lease is renewed
    /// while this runs, however long it takes; records are already being fetched.
    ///
    /// If it panics, it is called again after a pause.
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor>;
}

/// The user's code for one shard (KCL's `ShardRecordProcessor`).
///
/// # Guarantees
///
/// - The calls of one processor never overlap; processors of different shards run concurrently.
/// - Batches come in the order of sequence numbers. A child shard starts only after every parent has
///   ended, so the order per partition key survives resharding.
/// - At least once: a record is skipped only after a checkpoint at or beyond it was stored. It may
///   come again if this worker, or another one, starts again from the last checkpoint.
/// - The last call is [`shard_ended`](Self::shard_ended) (again until the end is stored) or
///   [`lease_lost`](Self::lease_lost), unless the processor panicked or the consumer was dropped.
/// - The lease is renewed while a call runs, even if it blocks its thread.
///
/// # Panics
///
/// A panic in a call is caught. Nothing is checkpointed, the processor is dropped without another
/// call, its checkpointers stop working, and after a pause (`task_backoff_time`, doubling up to 30 s)
/// a new processor starts from the last checkpoint. Other shards do not notice. Java KCL skips the
/// batch instead.
///
/// # Cancel safety
///
/// A call is never dropped half-way, except when the [`ConsumerHandle`](crate::ConsumerHandle) is
/// dropped or a shutdown exceeds its time.
#[async_trait]
pub trait ShardRecordProcessor: Send + Sync {
    /// Records have arrived: at least one, unless empty batches are asked for in the settings, and at
    /// most 32,768. `millis_behind_latest` tells how far the page they came in was behind the newest
    /// record of the shard.
    ///
    /// The next batch comes after this returns. Checkpoint when their effects are safe.
    async fn process_records(&self, records: Vec<KinesisClientRecord>, millis_behind_latest: i64);

    /// The lease is no longer held: another worker has it, it expired, or it was given back at
    /// shutdown. Checkpoints are refused from now on. Called after the batch that was running.
    async fn lease_lost(&self);

    /// Every record of the shard was delivered: finish what is pending, then call
    /// [`Checkpointer::end`], which lets the child shards start. If the end is not stored when this
    /// returns, it is called again after a pause.
    async fn shard_ended(&self);

    /// The worker is about to stop. The lease is still held: the last opportunity to checkpoint. It is
    /// given back when this returns.
    async fn shutdown_requested(&self);
}
