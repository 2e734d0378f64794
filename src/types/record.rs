use std::fmt;
use std::time::SystemTime;

use super::{ExplicitHashKey, ExtendedSequenceNumber, PartitionKey, Payload, SequenceNumber};

/// How the service encrypts a record at rest (`EncryptionType` of the Kinesis API).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EncryptionType {
    /// Not encrypted, or not stated.
    #[default]
    None,
    /// Encrypted with a KMS key.
    Kms,
}

/// A record as it is in the stream, or one user record inside a KPL aggregate with the metadata of
/// the Kinesis record around it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The partition key.
    pub partition_key: PartitionKey,
    /// The sequence number of the Kinesis record.
    pub sequence_number: SequenceNumber,
    /// When the service received the Kinesis record, to the millisecond.
    pub approximate_arrival_timestamp: Option<SystemTime>,
    /// How the Kinesis record is encrypted at rest.
    pub encryption_type: EncryptionType,
    /// The payload: a slice of the fetched buffer, never copied.
    pub data: Payload,
}

impl Record {
    /// A record without arrival time, not encrypted.
    pub fn new(
        sequence_number: SequenceNumber,
        partition_key: impl Into<PartitionKey>,
        data: impl Into<Payload>,
    ) -> Self {
        Self {
            data: data.into(),
            partition_key: partition_key.into(),
            sequence_number,
            approximate_arrival_timestamp: None,
            encryption_type: EncryptionType::None,
        }
    }
}

/// Shows sizes and positions; never the payload.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("sequence_number", &self.sequence_number)
            .field("data_bytes", &self.data.len())
            .field("approximate_arrival_timestamp", &self.approximate_arrival_timestamp)
            .field("encryption_type", &self.encryption_type)
            .finish_non_exhaustive()
    }
}

/// A record as the processor gets it: a Kinesis record that was not aggregated, or one user record
/// out of a KPL aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KinesisClientRecord {
    /// Payload, partition key and the metadata of the Kinesis record.
    pub record: Record,
    /// The index of this user record in its aggregate, from 0; 0 for a record that was not
    /// aggregated.
    pub sub_sequence_number: u64,
    /// Whether this record came out of a KPL aggregate.
    pub aggregated: bool,
    /// The explicit hash key its producer gave it; only KPL aggregates carry one.
    pub explicit_hash_key: Option<ExplicitHashKey>,
}

impl KinesisClientRecord {
    /// The position of this record in its shard. [`Checkpointer::checkpoint`](crate::Checkpointer::checkpoint)
    /// takes the record itself, too.
    #[must_use]
    pub fn extended_sequence_number(&self) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(self.record.sequence_number.clone(), self.sub_sequence_number)
    }
}

/// The position of the record in its shard.
impl From<&KinesisClientRecord> for ExtendedSequenceNumber {
    fn from(record: &KinesisClientRecord) -> Self {
        record.extended_sequence_number()
    }
}

/// A record that was not aggregated.
impl From<Record> for KinesisClientRecord {
    fn from(record: Record) -> Self {
        Self { record, sub_sequence_number: 0, aggregated: false, explicit_hash_key: None }
    }
}
