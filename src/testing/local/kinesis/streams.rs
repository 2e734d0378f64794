use std::time::Duration;

use super::super::wire::Wire;
use super::attached::tags;
use super::{settings, shards, stream_name};
use crate::testing::SimulatedKinesis;
use crate::testing::stream::{ErrorCode, Resource, ServiceError, StreamMode, StreamState};

const HOUR: Duration = Duration::from_secs(3600);
/// The retention range of the service, in hours.
const RETENTION_HOURS: std::ops::RangeInclusive<u64> = 24..=8760;

pub(super) fn create(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let name = input.required_text("StreamName")?;
    let shards = match mode(input)? {
        Some(StreamMode::OnDemand) => None,
        Some(StreamMode::Provisioned) | None => Some(input.number::<u32>("ShardCount")?.unwrap_or(1)),
    };
    let tags = tags(input)?;
    kinesis.change(|service, now| {
        service.create_stream(now, name, shards)?;
        service.attached(now, &Resource::Stream(name.to_owned()))?.tags.extend(tags);
        Ok(())
    })?;
    Ok(Wire::Null)
}

pub(super) fn delete(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let stream = stream_name(input)?;
    let force = input.boolean("EnforceConsumerDeletion")?.unwrap_or(false);
    kinesis.change(|service, now| service.delete_stream(now, &stream, force))?;
    Ok(Wire::Null)
}

pub(super) fn list(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let limit = input.number::<usize>("Limit")?.unwrap_or(100);
    let after = match input.text("NextToken")? {
        Some(token) => token,
        None => input.text("ExclusiveStartStreamName")?.unwrap_or_default(),
    };
    kinesis.look(|service, now| {
        let mut page: Vec<&StreamState> = service.streams_after(now, after).take(limit + 1).collect();
        let has_more = page.len() > limit;
        page.truncate(limit);
        let last = page.last().filter(|_| has_more).map(|stream| stream.name.as_str());
        let summary = |stream: &&StreamState| {
            Wire::map([
                ("StreamName", stream.name.as_str().into()),
                ("StreamARN", stream.arn.as_str().into()),
                ("StreamStatus", stream.status.as_str().into()),
                ("StreamModeDetails", mode_details(stream.mode)),
                ("StreamCreationTimestamp", stream.creation_time().into()),
            ])
        };
        Ok(Wire::map([
            ("StreamNames", Wire::list(page.iter().map(|stream| stream.name.as_str().into()))),
            ("HasMoreStreams", has_more.into()),
            ("NextToken", last.into()),
            ("StreamSummaries", Wire::list(page.iter().map(summary))),
        ]))
    })
}

pub(super) fn describe(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let stream = stream_name(input)?;
    let limit = input.number::<usize>("Limit")?.unwrap_or(100);
    let after = input.text("ExclusiveStartShardId")?;
    kinesis.look(|service, now| {
        let stream = service.describe_stream(now, &stream)?;
        let wanted = |id: &str| after.is_none_or(|after| id > after);
        let mut page: Vec<_> =
            stream.shards().filter(|shard| wanted(shard.id.as_str())).take(limit + 1).collect();
        let has_more = page.len() > limit;
        page.truncate(limit);
        let mut description = description(stream);
        description.extend([
            ("Shards", Wire::list(page.into_iter().map(shards::describe))),
            ("HasMoreShards", has_more.into()),
        ]);
        Ok(wrap("StreamDescription", description))
    })
}

pub(super) fn describe_summary(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let stream = stream_name(input)?;
    kinesis.look(|service, now| {
        let stream = service.describe_stream(now, &stream)?;
        let mut description = description(stream);
        description.extend([
            ("OpenShardCount", stream.open_shards().into()),
            ("ConsumerCount", stream.consumers.len().into()),
            ("MaxRecordSizeInKiB", (stream.record_bytes_max / 1024).into()),
        ]);
        Ok(wrap("StreamDescriptionSummary", description))
    })
}

pub(super) fn describe_limits(kinesis: &SimulatedKinesis) -> Result<Wire, ServiceError> {
    kinesis.look(|service, now| {
        let (mut open, mut on_demand) = (0, 0_usize);
        for stream in service.streams_after(now, "") {
            open += stream.open_shards();
            on_demand += usize::from(stream.mode == StreamMode::OnDemand);
        }
        Ok(Wire::map([
            ("ShardLimit", Wire::Integer(100_000)),
            ("OpenShardCount", open.into()),
            ("OnDemandStreamCount", on_demand.into()),
            ("OnDemandStreamCountLimit", Wire::Integer(50)),
        ]))
    })
}

pub(super) fn change_retention(
    kinesis: &SimulatedKinesis,
    input: &Wire,
    is_increase: bool,
) -> Result<Wire, ServiceError> {
    let stream = stream_name(input)?;
    let hours = input.number::<u64>("RetentionPeriodHours")?.unwrap_or(0);
    kinesis.change(|service, now| {
        let current = hours_of(service.stream(now, &stream)?.retention);
        let is_possible = if is_increase { hours >= current } else { hours <= current };
        if !is_possible || !RETENTION_HOURS.contains(&hours) {
            return Err(ErrorCode::InvalidArgument.error(format!(
                "The retention of {current} hours cannot be changed to {hours} by this operation."
            )));
        }
        service.set_retention(now, &stream, HOUR * u32::try_from(hours).unwrap_or(u32::MAX))
    })?;
    Ok(Wire::Null)
}

pub(super) fn update_mode(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let stream = stream_name(input)?;
    let mode = mode(input)?.ok_or_else(|| super::missing("streamModeDetails"))?;
    kinesis.change(|service, now| service.update_stream(now, &stream, |stream| stream.mode = mode))?;
    Ok(Wire::Null)
}

pub(super) fn update_max_record_size(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let stream = stream_name(input)?;
    let kib = input.number::<usize>("MaxRecordSizeInKiB")?.unwrap_or(0);
    if !(1024..=10_240).contains(&kib) {
        return Err(ErrorCode::Validation.error("MaxRecordSizeInKiB must be from 1024 to 10240."));
    }
    kinesis.change(|service, now| {
        service.update_stream(now, &stream, |stream| stream.record_bytes_max = kib * 1024)
    })?;
    Ok(Wire::Null)
}

/// The members that both kinds of description have.
fn description(stream: &StreamState) -> Vec<(&'static str, Wire)> {
    let mut members = vec![
        ("StreamName", stream.name.as_str().into()),
        ("StreamARN", stream.arn.as_str().into()),
        ("StreamStatus", stream.status.as_str().into()),
        ("StreamModeDetails", mode_details(stream.mode)),
        ("RetentionPeriodHours", hours_of(stream.retention).into()),
        ("StreamCreationTimestamp", stream.creation_time().into()),
    ];
    members.extend(settings::describe(stream));
    members
}

fn wrap(name: &'static str, members: Vec<(&'static str, Wire)>) -> Wire {
    Wire::map([(name, Wire::Map(members.into_iter().map(|(name, value)| (name.into(), value)).collect()))])
}

fn mode(input: &Wire) -> Result<Option<StreamMode>, ServiceError> {
    let Some(details) = input.get("StreamModeDetails") else { return Ok(None) };
    match details.required_text("StreamMode")? {
        "PROVISIONED" => Ok(Some(StreamMode::Provisioned)),
        "ON_DEMAND" => Ok(Some(StreamMode::OnDemand)),
        other => Err(ErrorCode::Validation.error(format!("{other} is not a StreamMode."))),
    }
}

fn mode_details(mode: StreamMode) -> Wire {
    let mode = match mode {
        StreamMode::Provisioned => "PROVISIONED",
        StreamMode::OnDemand => "ON_DEMAND",
    };
    Wire::map([("StreamMode", mode.into())])
}

fn hours_of(retention: Duration) -> u64 {
    retention.as_secs() / HOUR.as_secs()
}
