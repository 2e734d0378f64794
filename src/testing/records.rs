use std::time::{Duration, SystemTime};

use crate::types::{KinesisClientRecord, PartitionKey, Payload, Record, SequenceNumber};

/// A record as a processor gets it, for calling a processor in a test: not aggregated, with this sequence
/// number, and an arrival time that many seconds after the epoch.
///
/// ```
/// use kinesis_consumer::testing;
///
/// let record = testing::record(41, "customer-17", r#"{"total": 12}"#);
/// assert_eq!(record.extended_sequence_number().to_string(), "41/0");
/// ```
pub fn record(
    sequence_number: u64,
    partition_key: impl Into<PartitionKey>,
    data: impl Into<Payload>,
) -> KinesisClientRecord {
    let number = SequenceNumber::from(u128::from(sequence_number));
    let mut record = Record::new(number, partition_key, data);
    record.approximate_arrival_timestamp =
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(sequence_number));
    KinesisClientRecord::from(record)
}

/// A user record of a KPL aggregate: number `sub_sequence_number` of the Kinesis record
/// `sequence_number`.
pub fn aggregated_record(
    sequence_number: u64,
    sub_sequence_number: u64,
    partition_key: impl Into<PartitionKey>,
    data: impl Into<Payload>,
) -> KinesisClientRecord {
    let mut record = record(sequence_number, partition_key, data);
    record.sub_sequence_number = sub_sequence_number;
    record.aggregated = true;
    record
}
