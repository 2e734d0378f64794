//! Converts the SDK's types to ours. Payloads are moved, not copied.

use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::operation::describe_stream_summary::DescribeStreamSummaryOutput;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::types as sdk;

use crate::kinesis::{
    ChildShard, RecordsPage, Shard, StreamConsumerDescription, StreamConsumerStatus, StreamDescription,
    SubscriptionEvent,
};
use crate::types::{EncryptionType, HashKeyRange, Record, ShardId};

pub(super) fn description(answer: DescribeStreamSummaryOutput) -> Option<StreamDescription> {
    let summary = answer.stream_description_summary?;
    let created = SystemTime::try_from(summary.stream_creation_timestamp).ok()?;
    let open_shards = summary.open_shard_count.try_into().ok()?;
    let hours = u64::try_from(summary.retention_period_hours).ok();
    let mut description = StreamDescription::new(summary.stream_arn, open_shards, created);
    description.retention = hours.map(|hours| Duration::from_secs(3600 * hours));
    Some(description)
}

pub(super) fn shard(shard: sdk::Shard) -> Option<Shard> {
    let numbers = shard.sequence_number_range?;
    let starting = numbers.starting_sequence_number.parse().ok()?;
    let mut converted = Shard::new(shard.shard_id, range(&shard.hash_key_range?)?, starting);
    converted.parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id]
        .into_iter()
        .flatten()
        .map(ShardId::from)
        .collect();
    converted.ending_sequence_number = match numbers.ending_sequence_number {
        Some(number) => Some(number.parse().ok()?),
        None => None,
    };
    Some(converted)
}

pub(super) fn page(answer: GetRecordsOutput) -> Option<RecordsPage> {
    let children = answer.child_shards.unwrap_or_default();
    Some(RecordsPage {
        records: answer.records.into_iter().map(record).collect::<Option<_>>()?,
        next_iterator: answer.next_shard_iterator.map(Into::into),
        millis_behind_latest: answer.millis_behind_latest,
        child_shards: children.into_iter().map(child).collect::<Option<_>>()?,
    })
}

pub(super) fn event(event: sdk::SubscribeToShardEvent) -> Option<SubscriptionEvent> {
    let continuation = Some(event.continuation_sequence_number).filter(|number| !number.is_empty());
    let children = event.child_shards.unwrap_or_default();
    Some(SubscriptionEvent {
        records: event.records.into_iter().map(record).collect::<Option<_>>()?,
        continuation: continuation.map(|number| number.parse()).transpose().ok()?,
        millis_behind_latest: Some(event.millis_behind_latest),
        child_shards: children.into_iter().map(child).collect::<Option<_>>()?,
    })
}

pub(super) fn consumer(arn: String, status: &sdk::ConsumerStatus) -> StreamConsumerDescription {
    let status = match status {
        sdk::ConsumerStatus::Active => StreamConsumerStatus::Active,
        sdk::ConsumerStatus::Deleting => StreamConsumerStatus::Deleting,
        // A status that this SDK does not know: not usable yet, so it is polled again.
        _ => StreamConsumerStatus::Creating,
    };
    StreamConsumerDescription::new(arn, status)
}

fn record(record: sdk::Record) -> Option<Record> {
    let number = record.sequence_number.parse().ok()?;
    let mut converted =
        Record::new(number, record.partition_key.unwrap_or_default(), record.data.into_inner());
    let arrived = record.approximate_arrival_timestamp.and_then(|time| SystemTime::try_from(time).ok());
    converted.approximate_arrival_timestamp = arrived.map(whole_milliseconds);
    if record.encryption_type == Some(sdk::EncryptionType::Kms) {
        converted.encryption_type = EncryptionType::Kms;
    }
    Some(converted)
}

fn child(child: sdk::ChildShard) -> Option<ChildShard> {
    let parents = child.parent_shards.into_iter().map(ShardId::from);
    Some(ChildShard::new(child.shard_id, parents, range(&child.hash_key_range?)?))
}

fn range(range: &sdk::HashKeyRange) -> Option<HashKeyRange> {
    HashKeyRange::parse(&range.starting_hash_key, &range.ending_hash_key).ok()
}

/// The service uses whole milliseconds; parsed as seconds in floating point, they are slightly off.
pub(super) fn whole_milliseconds(time: SystemTime) -> SystemTime {
    let Ok(since) = time.duration_since(SystemTime::UNIX_EPOCH) else { return time };
    let rounded = (since + Duration::from_micros(500)).as_millis();
    u64::try_from(rounded).map_or(time, |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
}
