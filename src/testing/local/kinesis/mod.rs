//! The Kinesis API on top of the simulated service.

mod attached;
mod consumers;
mod records;
mod settings;
mod shards;
mod streams;

pub(super) use self::records::encryption_name;
use crate::kinesis::{ChildShard, IteratorPosition};
use crate::testing::SimulatedKinesis;
use crate::testing::stream::{ErrorCode, ServiceError};
use crate::types::{SequenceNumber, StreamId};

use super::wire::{Wire, missing};

/// Handles one request.
pub(super) fn answer(
    kinesis: &SimulatedKinesis,
    operation: &str,
    input: &Wire,
) -> Result<Wire, ServiceError> {
    match operation {
        "PutRecord" => records::put_record(kinesis, input),
        "PutRecords" => records::put_records(kinesis, input),
        "GetShardIterator" => records::get_shard_iterator(kinesis, input),
        "GetRecords" => records::get_records(kinesis, input),
        "ListShards" => shards::list_shards(kinesis, input),
        "SplitShard" => shards::split_shard(kinesis, input),
        "MergeShards" => shards::merge_shards(kinesis, input),
        "UpdateShardCount" => shards::update_shard_count(kinesis, input),
        "CreateStream" => streams::create(kinesis, input),
        "DeleteStream" => streams::delete(kinesis, input),
        "ListStreams" => streams::list(kinesis, input),
        "DescribeStream" => streams::describe(kinesis, input),
        "DescribeStreamSummary" => streams::describe_summary(kinesis, input),
        "DescribeLimits" => streams::describe_limits(kinesis),
        "IncreaseStreamRetentionPeriod" => streams::change_retention(kinesis, input, true),
        "DecreaseStreamRetentionPeriod" => streams::change_retention(kinesis, input, false),
        "UpdateStreamMode" => streams::update_mode(kinesis, input),
        "UpdateMaxRecordSize" => streams::update_max_record_size(kinesis, input),
        "EnableEnhancedMonitoring" => settings::enable_monitoring(kinesis, input),
        "DisableEnhancedMonitoring" => settings::disable_monitoring(kinesis, input),
        "StartStreamEncryption" => settings::start_encryption(kinesis, input),
        "StopStreamEncryption" => settings::stop_encryption(kinesis, input),
        "AddTagsToStream" | "TagResource" => attached::add_tags(kinesis, input),
        "RemoveTagsFromStream" | "UntagResource" => attached::remove_tags(kinesis, input),
        "ListTagsForStream" => attached::list_stream_tags(kinesis, input),
        "ListTagsForResource" => attached::list_tags(kinesis, input),
        "PutResourcePolicy" => attached::put_policy(kinesis, input),
        "GetResourcePolicy" => attached::get_policy(kinesis, input),
        "DeleteResourcePolicy" => attached::delete_policy(kinesis, input),
        "RegisterStreamConsumer" => consumers::register(kinesis, input),
        "DeregisterStreamConsumer" => consumers::deregister(kinesis, input),
        "DescribeStreamConsumer" => consumers::describe(kinesis, input),
        "ListStreamConsumers" => consumers::list(kinesis, input),
        _ => Err(ErrorCode::UnknownOperation
            .error(format!("The local endpoint has no Kinesis operation {operation}."))),
    }
}

/// The name of the stream that a request is about, given by name or by ARN.
fn stream_name(input: &Wire) -> Result<String, ServiceError> {
    if let Some(name) = input.text("StreamName")? {
        return Ok(name.to_owned());
    }
    let arn = match input.text("StreamARN")? {
        Some(arn) => arn,
        None => input.text("ResourceARN")?.ok_or_else(|| missing("streamName"))?,
    };
    name_in_arn(arn)
}

/// The name in a stream's ARN. The endpoint accepts any account and region.
fn name_in_arn(arn: &str) -> Result<String, ServiceError> {
    let id = arn.parse::<StreamId>().ok().filter(|id| id.arn().is_some());
    id.map(|id| id.name().to_owned())
        .ok_or_else(|| ErrorCode::InvalidArgument.error(format!("{arn} is not the ARN of a stream.")))
}

/// The child shards in responses of GetRecords and SubscribeToShard.
pub(super) fn child_shards(children: &[ChildShard]) -> Wire {
    Wire::list(children.iter().map(|child| {
        Wire::map([
            ("ShardId", child.id.as_str().into()),
            ("ParentShards", Wire::list(child.parents.iter().map(|parent| parent.as_str().into()))),
            ("HashKeyRange", shards::hash_key_range(&child.hash_key_range)),
        ])
    }))
}

/// A position in a shard, whose members have different names in GetShardIterator and SubscribeToShard.
pub(super) fn position(input: &Wire, kind: &str, number: &str) -> Result<IteratorPosition, ServiceError> {
    let sequence_number = || -> Result<SequenceNumber, ServiceError> {
        let text = input.text(number)?.ok_or_else(|| {
            ErrorCode::InvalidArgument.error(format!("{number} is needed for this {kind}."))
        })?;
        text.parse().map_err(|_| {
            ErrorCode::InvalidArgument.error(format!("{number} {text} is not a sequence number."))
        })
    };
    match input.required_text(kind)? {
        "TRIM_HORIZON" => Ok(IteratorPosition::TrimHorizon),
        "LATEST" => Ok(IteratorPosition::Latest),
        "AT_SEQUENCE_NUMBER" => Ok(IteratorPosition::At(sequence_number()?)),
        "AFTER_SEQUENCE_NUMBER" => Ok(IteratorPosition::After(sequence_number()?)),
        "AT_TIMESTAMP" => input
            .time("Timestamp")?
            .map(IteratorPosition::AtTimestamp)
            .ok_or_else(|| ErrorCode::InvalidArgument.error(format!("Timestamp is needed for this {kind}."))),
        other => Err(ErrorCode::Validation.error(format!("{other} is not a {kind}."))),
    }
}
