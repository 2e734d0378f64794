mod dynamodb;
mod kinesis;

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;

pub use self::dynamodb::DynamoDbDeadLetters;
pub use self::kinesis::KinesisDeadLetters;
use super::BoxError;
use crate::types::{
    ExplicitHashKey, ExtendedSequenceNumber, KinesisClientRecord, PartitionKey, Payload, ShardId, StreamId,
    WorkerId,
};

/// A record that was not handled, and what is known about that.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The application that failed to handle it.
    pub application: String,
    /// The worker.
    pub worker: WorkerId,
    /// The stream it was read from.
    pub stream: StreamId,
    /// The shard.
    pub shard: ShardId,
    /// Its position in the shard.
    pub position: ExtendedSequenceNumber,
    /// Its partition key.
    pub partition_key: PartitionKey,
    /// The explicit hash key its producer gave it; only KPL aggregates carry one.
    pub explicit_hash_key: Option<ExplicitHashKey>,
    /// When the service received it.
    pub arrival: Option<SystemTime>,
    /// Its payload, complete.
    pub payload: Payload,
    /// What the handler failed with at last, with all causes.
    pub error: String,
    /// Why it was not tried again.
    pub reason: String,
    /// The number of failed attempts under this lease.
    pub attempts: u32,
}

impl DeadLetter {
    /// Identifies the record: `<stream>/<shard>/<sequence number>/<sub-sequence number>`. A letter that is sent again
    /// has the same, so that it can replace the one before.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}/{}", self.stream.name(), self.shard, self.position)
    }

    pub(super) fn new(
        record: &KinesisClientRecord,
        place: &Place<'_>,
        error: &str,
        reason: String,
        attempts: u32,
    ) -> Self {
        Self {
            application: place.application.to_owned(),
            worker: place.worker.clone(),
            stream: place.stream.clone(),
            shard: place.shard.clone(),
            position: record.extended_sequence_number(),
            partition_key: record.record.partition_key.clone(),
            explicit_hash_key: record.explicit_hash_key.clone(),
            arrival: record.record.approximate_arrival_timestamp,
            payload: record.record.data.clone(),
            error: error.to_owned(),
            reason,
            attempts,
        }
    }

    fn arrival_milliseconds(&self) -> Option<u128> {
        let since = self.arrival?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(since.as_millis())
    }
}

/// Where a record was being handled.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) application: &'a str,
    pub(super) worker: &'a WorkerId,
    pub(super) stream: &'a StreamId,
    pub(super) shard: &'a ShardId,
}

/// Shows sizes and positions; never the payload.
impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("id", &self.id())
            .field("payload_bytes", &self.payload.len())
            .field("attempts", &self.attempts)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// A destination for records that were not handled.
///
/// ```
/// use async_trait::async_trait;
/// use kinesis_consumer::{BoxError, DeadLetter, DeadLetters};
///
/// #[derive(Debug)]
/// struct Log;
///
/// #[async_trait]
/// impl DeadLetters for Log {
///     async fn send(&self, letters: &[DeadLetter]) -> Result<(), BoxError> {
///         for letter in letters {
///             eprintln!("{}: {}", letter.id(), letter.error);
///         }
///         Ok(())
///     }
/// }
///
/// let policy = kinesis_consumer::ErrorPolicy::attempts(3).dead_letter(Log);
/// ```
#[async_trait]
pub trait DeadLetters: Send + Sync + fmt::Debug {
    /// Makes all of `letters`, 1 to 100, durable before it returns `Ok`. A letter may be sent more than once.
    ///
    /// # Errors
    ///
    /// Any: all letters are sent again after a pause, for as long as it takes.
    ///
    /// # Cancel safety
    ///
    /// A call that takes longer than 30 seconds is dropped, and all letters are sent again. It is also dropped when the
    /// lease is lost or to be given back; the next owner of the lease handles the record again.
    async fn send(&self, letters: &[DeadLetter]) -> Result<(), BoxError>;
}
