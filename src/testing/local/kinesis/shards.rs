use super::super::wire::Wire;
use super::stream_name;
use crate::testing::SimulatedKinesis;
use crate::testing::stream::{ErrorCode, ListFilter, ServiceError, ShardState, stream_arn};
use crate::types::HashKeyRange;

pub(super) fn list_shards(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let page = input.number::<usize>("MaxResults")?;
    let token = input.text("NextToken")?;
    let with_token =
        ["StreamName", "StreamARN", "ExclusiveStartShardId", "ShardFilter", "StreamCreationTimestamp"];
    if token.is_some()
        && let Some(name) = with_token.iter().find(|name| input.get(name).is_some())
    {
        return Err(
            ErrorCode::InvalidArgument.error(format!("NextToken and {name} cannot be provided together."))
        );
    }
    kinesis.look(|service, now| {
        let listing = match token {
            Some(token) => service.list_more_shards(now, token, page),
            None => service.list_shards(now, &stream_name(input)?, filter(input)?, page),
        }?;
        Ok(Wire::map([
            ("Shards", Wire::list(listing.shards.iter().map(|shard| describe(shard)))),
            ("NextToken", listing.next_token.into()),
        ]))
    })
}

pub(super) fn split_shard(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let (stream, shard) = (stream_name(input)?, input.required_text("ShardToSplit")?);
    let key = input.required_text("NewStartingHashKey")?;
    let key = key.parse().map_err(|_| {
        ErrorCode::InvalidArgument.error(format!("NewStartingHashKey {key} is not an integer below 2^128."))
    })?;
    kinesis.change(|service, now| service.split_shard(now, &stream, shard, key))?;
    Ok(Wire::Null)
}

pub(super) fn merge_shards(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let (stream, shard) = (stream_name(input)?, input.required_text("ShardToMerge")?);
    let adjacent = input.required_text("AdjacentShardToMerge")?;
    kinesis.change(|service, now| service.merge_shards(now, &stream, shard, adjacent))?;
    Ok(Wire::Null)
}

pub(super) fn update_shard_count(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let stream = stream_name(input)?;
    let target = input.number::<u32>("TargetShardCount")?.unwrap_or(0);
    let current = kinesis.change(|service, now| service.update_shard_count(now, &stream, target))?;
    Ok(Wire::map([
        ("StreamName", stream.as_str().into()),
        ("StreamARN", stream_arn(&stream).into()),
        ("CurrentShardCount", current.into()),
        ("TargetShardCount", Wire::Integer(target.into())),
    ]))
}

pub(super) fn describe(shard: &ShardState) -> Wire {
    let description = shard.describe();
    Wire::map([
        ("ShardId", shard.id.as_str().into()),
        ("ParentShardId", shard.parent.as_ref().map(|parent| parent.as_str()).into()),
        ("AdjacentParentShardId", shard.adjacent_parent.as_ref().map(|parent| parent.as_str()).into()),
        ("HashKeyRange", hash_key_range(&shard.hash_key_range)),
        (
            "SequenceNumberRange",
            Wire::map([
                ("StartingSequenceNumber", description.starting_sequence_number.to_string().into()),
                ("EndingSequenceNumber", description.ending_sequence_number.map(|n| n.to_string()).into()),
            ]),
        ),
    ])
}

pub(super) fn hash_key_range(range: &HashKeyRange) -> Wire {
    Wire::map([
        ("StartingHashKey", range.start().to_string().into()),
        ("EndingHashKey", range.end().to_string().into()),
    ])
}

fn filter(input: &Wire) -> Result<ListFilter, ServiceError> {
    if let Some(shard) = input.text("ExclusiveStartShardId")? {
        return ListFilter::after_shard(shard);
    }
    let Some(filter) = input.get("ShardFilter") else { return Ok(ListFilter::FromTrimHorizon) };
    let needs = |name| ErrorCode::InvalidArgument.error(format!("This ShardFilter needs a {name}."));
    let time = || filter.time("Timestamp")?.ok_or_else(|| needs("Timestamp"));
    match filter.required_text("Type")? {
        "AFTER_SHARD_ID" => ListFilter::after_shard(filter.text("ShardId")?.ok_or_else(|| needs("ShardId"))?),
        "AT_TRIM_HORIZON" => Ok(ListFilter::AtTrimHorizon),
        "FROM_TRIM_HORIZON" => Ok(ListFilter::FromTrimHorizon),
        "AT_LATEST" => Ok(ListFilter::AtLatest),
        "AT_TIMESTAMP" => Ok(ListFilter::AtTimestamp(time()?)),
        "FROM_TIMESTAMP" => Ok(ListFilter::FromTimestamp(time()?)),
        other => Err(ErrorCode::Validation.error(format!("{other} is not a type of ShardFilter."))),
    }
}
