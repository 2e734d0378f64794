//! Handlers: user code for a record or a batch that may fail, and what to do when it does.
//!
//! A handler is run by a [`ShardRecordProcessor`](crate::ShardRecordProcessor) of this module, one for each
//! shard, which repeats, splits, sets aside and checkpoints as an [`ErrorPolicy`] says.

mod batch_work;
mod closures;
mod concurrency;
mod dead_letter;
mod failure;
mod handle;
mod policy;
mod processor;
mod serial_batch;
mod shard_handler;
mod suspicion;
mod transactional;

pub use self::concurrency::{Concurrency, Order};
pub use self::dead_letter::{DeadLetter, DeadLetters, DynamoDbDeadLetters, KinesisDeadLetters};
pub use self::failure::{BatchFailure, BoxError, Failure};
pub use self::policy::{ErrorPolicy, Isolate, Pause, Then};

pub(crate) use self::closures::{ForEach, ForEachBatch, ForEachJson};
pub(crate) use self::concurrency::validate_limits;
pub(crate) use self::handle::{Batches, Handle, Records};
pub(crate) use self::policy::{Failed, FailureKind, GiveUp, Next};
pub(crate) use self::processor::HandlerFactory;
pub(crate) use self::shard_handler::{
    Called, Filter, HandlerOptions, Interrupted, ShardHandler, call, kind_and_text,
};
pub(crate) use self::transactional::{RecordEffects, TransactionFactory};

use std::future::Future;
use std::time::Duration;

use crate::types::{KinesisClientRecord, Moment};

/// User code for one record.
///
/// ```
/// use kinesis_consumer::{Attempt, Failure, KinesisClientRecord, RecordHandler};
///
/// struct Emails;
///
/// impl RecordHandler for Emails {
///     type Error = std::str::Utf8Error;
///
///     async fn handle(&self, record: &KinesisClientRecord, _: &Attempt) -> Result<(), Failure<Self::Error>> {
///         // What cannot be read today cannot be read tomorrow.
///         let address = std::str::from_utf8(&record.record.data).map_err(Failure::Poison)?;
///         println!("to {address}");
///         Ok(())
///     }
/// }
///
/// let builder = kinesis_consumer::Consumer::builder().handler(Emails);
/// ```
///
/// # Guarantees
///
/// - The records of a shard are handled one after the other, in the order of sequence numbers, unless
///   [`Concurrency`] allows more; those of different shards at the same time.
/// - A record is passed over only if it was handled, if a [dead letter](DeadLetters) of it is durable, or if the
///   policy says [`Then::Skip`], which is counted and reported.
/// - A checkpoint never passes a record that is not done with. After a crash, records come again from the last
///   checkpoint on.
///
/// # Panics
///
/// A panic counts as a failed attempt.
///
/// # Cancel safety
///
/// A call is never dropped half-way, except when the [`ConsumerHandle`](crate::ConsumerHandle) is dropped or a
/// shutdown exceeds its time.
pub trait RecordHandler: Send + Sync + 'static {
    /// What it fails with.
    type Error: Into<BoxError> + Send;

    /// Handles one record, whose effects are durable when this returns `Ok`.
    fn handle(
        &self,
        record: &KinesisClientRecord,
        attempt: &Attempt,
    ) -> impl Future<Output = Result<(), Failure<Self::Error>>> + Send;
}

/// User code for several records at once. Otherwise like [`RecordHandler`].
///
/// ```
/// use kinesis_consumer::{Attempt, BatchFailure, BatchHandler, KinesisClientRecord};
/// # struct Database;
/// # impl Database {
/// #     async fn insert(&self, _: &KinesisClientRecord) -> Result<(), std::io::Error> { Ok(()) }
/// # }
///
/// struct Inserts(Database);
///
/// impl BatchHandler for Inserts {
///     type Error = std::io::Error;
///
///     async fn handle(
///         &self,
///         batch: &[KinesisClientRecord],
///         _: &Attempt,
///     ) -> Result<(), BatchFailure<Self::Error>> {
///         for (index, record) in batch.iter().enumerate() {
///             self.0.insert(record).await.map_err(|error| BatchFailure::From { index, error })?;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait BatchHandler: Send + Sync + 'static {
    /// What it fails with.
    type Error: Into<BoxError> + Send;

    /// Handles consecutive records, at least one, whose effects are durable when this returns `Ok`.
    fn handle(
        &self,
        batch: &[KinesisClientRecord],
        attempt: &Attempt,
    ) -> impl Future<Output = Result<(), BatchFailure<Self::Error>>> + Send;
}

/// Which attempt a call of a handler is. A crash or another owner of the lease begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// 1 for the first call with these records under this lease.
    pub number: u32,
    /// How many calls with these records have failed so far and count for the policy's attempts: all but
    /// [`Transient`](Failure::Transient) failures.
    pub failures: u32,
    /// How long ago the first of the calls with these records failed; `None` at the first attempt.
    pub failing_for: Option<Duration>,
}

impl Attempt {
    /// The attempt with this number after failures that all count, for tests of handlers.
    #[must_use]
    pub fn new(number: u32) -> Self {
        let failures = number.saturating_sub(1);
        Self { number, failures, failing_for: (failures > 0).then_some(Duration::ZERO) }
    }

    /// The attempt after these failures, the first of which was at that moment.
    pub(crate) fn after(failures: u32, transient: u32, first_failed: Option<Moment>, now: Moment) -> Self {
        Self {
            number: failures.saturating_add(transient).saturating_add(1),
            failures,
            failing_for: first_failed.map(|first| now.since(first)),
        }
    }
}
