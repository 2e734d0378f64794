use super::super::wire::{Wire, missing};
use super::{child_shards, position, stream_name};
use crate::testing::SimulatedKinesis;
use crate::testing::stream::{ErrorCode, LIMIT_MAX, NewRecord, Placement, ServiceError};
use crate::types::EncryptionType;

pub(super) fn put_record(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let (stream, record) = (stream_name(input)?, new_record(input)?);
    let (placement, encryption) = kinesis.change(|service, now| {
        let placement = service.put_record(now, &stream, record)?;
        Ok((placement, service.stream(now, &stream)?.encryption_type()))
    })?;
    let mut output = placed(&placement);
    if let Wire::Map(members) = &mut output {
        members.push(("EncryptionType".into(), encryption_name(encryption).into()));
    }
    Ok(output)
}

pub(super) fn put_records(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let stream = stream_name(input)?;
    let records = input.items("Records")?.iter().map(new_record).collect::<Result<_, _>>()?;
    let (results, encryption) = kinesis.change(|service, now| {
        let results = service.put_records(now, &stream, records)?;
        Ok((results, service.stream(now, &stream)?.encryption_type()))
    })?;
    let failed = results.iter().filter(|result| result.is_err()).count();
    let entries = results.iter().map(|result| match result {
        Ok(placement) => placed(placement),
        Err(error) => Wire::map([
            ("ErrorCode", error.code.as_str().into()),
            ("ErrorMessage", error.message.as_str().into()),
        ]),
    });
    Ok(Wire::map([
        ("FailedRecordCount", failed.into()),
        ("Records", Wire::list(entries)),
        ("EncryptionType", encryption_name(encryption).into()),
    ]))
}

pub(super) fn get_shard_iterator(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let (stream, shard) = (stream_name(input)?, input.required_text("ShardId")?);
    let position = position(input, "ShardIteratorType", "StartingSequenceNumber")?;
    let iterator = kinesis.look(|service, now| service.shard_iterator(now, &stream, shard, &position))?;
    Ok(Wire::map([("ShardIterator", iterator.into())]))
}

pub(super) fn get_records(kinesis: &SimulatedKinesis, input: &Wire) -> Result<Wire, ServiceError> {
    let iterator = input.required_text("ShardIterator")?;
    let limit = input.number::<u32>("Limit")?.unwrap_or(LIMIT_MAX);
    let page = kinesis.look(|service, now| service.records(now, iterator, limit))?;
    let is_end = page.next_iterator.is_none();
    Ok(Wire::map([
        ("Records", Wire::list(page.records.into_iter().map(Wire::Record))),
        ("NextShardIterator", page.next_iterator.into()),
        (
            "MillisBehindLatest",
            Wire::Integer(i64::try_from(page.behind_latest.as_millis()).unwrap_or(i64::MAX)),
        ),
        ("ChildShards", if is_end { child_shards(&page.children) } else { Wire::Null }),
    ]))
}

/// Its name in responses.
pub(in crate::testing::local) fn encryption_name(encryption: EncryptionType) -> &'static str {
    match encryption {
        EncryptionType::None => "NONE",
        EncryptionType::Kms => "KMS",
    }
}

fn new_record(input: &Wire) -> Result<NewRecord, ServiceError> {
    let data = input.bytes("Data")?.ok_or_else(|| missing("data"))?;
    let record = NewRecord::new(input.required_text("PartitionKey")?, data);
    let Some(hash_key) = input.text("ExplicitHashKey")? else { return Ok(record) };
    let digits = hash_key.bytes().all(|byte| byte.is_ascii_digit());
    match hash_key.parse() {
        Ok(hash_key) if digits => Ok(record.with_explicit_hash_key(hash_key)),
        _ => Err(ErrorCode::InvalidArgument
            .error(format!("Invalid ExplicitHashKey {hash_key}: an integer below 2^128 is needed."))),
    }
}

fn placed(placement: &Placement) -> Wire {
    Wire::map([
        ("ShardId", placement.shard.as_str().into()),
        ("SequenceNumber", placement.sequence_number.to_string().into()),
    ])
}
