//! The user's code.

use async_trait::async_trait;

use crate::checkpoint::Checkpointer;
use crate::types::KinesisClientRecord;

/// Makes a processor for every lease this worker acquires.
///
/// A closure is one:
///
/// ```
/// use async_trait::async_trait;
/// use kinesis_consumer::{Checkpointer, Consumer, KinesisClientRecord, ShardRecordProcessor};
///
/// struct Printer {
///     checkpointer: Checkpointer,
/// }
///
/// #[async_trait]
/// impl ShardRecordProcessor for Printer {
///     async fn process_records(&self, records: Vec<KinesisClientRecord>, millis_behind_latest: i64) {
///         for record in &records {
///             println!("{}: {} bytes", record.record.partition_key, record.record.data.len());
///         }
///         if let Err(error) = self.checkpointer.checkpoint_delivered().await {
///             eprintln!("not checkpointed: {error:#}");
///         }
///     }
///
///     async fn shard_ended(&self) {
///         if let Err(error) = self.checkpointer.end().await {
///             eprintln!("the end is not checkpointed: {error:#}");
///         }
///     }
/// }
///
/// let builder = Consumer::builder().processor_factory(|checkpointer| Printer { checkpointer });
/// ```
///
/// One that has something to await implements the trait:
///
/// ```
/// # use async_trait::async_trait;
/// # use kinesis_consumer::{Checkpointer, KinesisClientRecord, ShardRecordProcessor, ShardRecordProcessorFactory};
/// # struct Printer(Checkpointer, u64);
/// # #[async_trait]
/// # impl ShardRecordProcessor for Printer {
/// #     async fn process_records(&self, _: Vec<KinesisClientRecord>, _: i64) {}
/// #     async fn shard_ended(&self) {}
/// # }
/// # async fn load_state(shard: &kinesis_consumer::ShardId) -> u64 { 0 }
/// struct Printers;
///
/// #[async_trait]
/// impl ShardRecordProcessorFactory for Printers {
///     async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
///         let state = load_state(checkpointer.shard_id()).await;
///         Box::new(Printer(checkpointer, state))
///     }
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

/// The closure is called once per acquisition, with what [`initialize`](ShardRecordProcessorFactory::initialize)
/// gets.
#[async_trait]
impl<F, P> ShardRecordProcessorFactory for F
where
    F: Fn(Checkpointer) -> P + Send + Sync,
    P: ShardRecordProcessor + 'static,
{
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        Box::new(self(checkpointer))
    }
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
/// call, its checkpointers stop working, and after a pause
/// ([`task_backoff_time`](crate::LifecycleConfig::task_backoff_time), doubling up to 30 s) a new processor starts from the last checkpoint. Other shards do not notice. Java KCL skips the
/// batch instead.
///
/// In a program built with `panic = "abort"`, a panic ends the process, and all its leases expire.
///
/// # Cancel safety
///
/// A call is never dropped half-way, except when the [`ConsumerHandle`](crate::ConsumerHandle) is
/// dropped or a shutdown exceeds its time.
#[async_trait]
pub trait ShardRecordProcessor: Send + Sync {
    /// Records have arrived: at least one, unless empty batches are asked for
    /// ([`ProcessorConfig`](crate::ProcessorConfig)), and at most 32,768. `millis_behind_latest` says how far the page they came in was behind the newest
    /// record of the shard.
    ///
    /// The next batch comes after this returns. Checkpoint when their effects are safe.
    async fn process_records(&self, records: Vec<KinesisClientRecord>, millis_behind_latest: i64);

    /// The lease is no longer held: another worker has it, it expired, or it was given back at
    /// shutdown. Checkpoints are refused from now on. Called after the batch that was running.
    ///
    /// By default nothing is done.
    async fn lease_lost(&self) {}

    /// Every record of the shard was delivered: finish what is pending, then call
    /// [`Checkpointer::end`], which lets the child shards start. If the end is not stored when this
    /// returns, it is called again after a pause.
    async fn shard_ended(&self);

    /// The worker is about to stop. The lease is still held: the last opportunity to checkpoint. It is
    /// given back when this returns.
    ///
    /// By default nothing is done: what was not checkpointed comes again, on the worker that takes the lease.
    async fn shutdown_requested(&self) {}
}

/// For closures that make processors of different types.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<P: ShardRecordProcessor + ?Sized> ShardRecordProcessor for Box<P> {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, millis_behind_latest: i64) {
        (**self).process_records(records, millis_behind_latest).await;
    }

    async fn lease_lost(&self) {
        (**self).lease_lost().await;
    }

    async fn shard_ended(&self) {
        (**self).shard_ended().await;
    }

    async fn shutdown_requested(&self) {
        (**self).shutdown_requested().await;
    }
}
