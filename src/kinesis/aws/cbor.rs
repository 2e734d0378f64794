//! GetRecords and SubscribeToShard in the CBOR form of the Kinesis API (`application/x-amz-cbor-1.1`), which
//! the SDK for Java uses. It avoids base64 and a copy: payloads are slices of the response.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use minicbor::data::{IanaTag, Type};
use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};

use super::convert::whole_milliseconds;
use crate::kinesis::{ChildShard, IteratorPosition, RecordsPage, ShardIterator, SubscriptionEvent};
use crate::types::{
    ConsumerArn, EncryptionType, HashKeyRange, PartitionKey, Payload, Record, SequenceNumber, ShardId,
};

pub(super) const CONTENT_TYPE: &str = "application/x-amz-cbor-1.1";

/// The input of GetRecords.
pub(super) fn request(iterator: &ShardIterator, limit: u32, stream_arn: Option<&str>) -> Vec<u8> {
    let mut request = Encoder::new(Vec::with_capacity(512));
    // Writing to a Vec cannot fail.
    let _ = request
        .map(if stream_arn.is_some() { 3 } else { 2 })
        .and_then(|request| request.str("ShardIterator")?.str(iterator.as_str()))
        .and_then(|request| request.str("Limit")?.u32(limit))
        .and_then(|request| match stream_arn {
            Some(arn) => request.str("StreamARN")?.str(arn),
            None => Ok(request),
        });
    request.into_writer()
}

/// The input of SubscribeToShard.
pub(super) fn subscribe_request(
    consumer: &ConsumerArn,
    shard: &ShardId,
    position: &IteratorPosition,
) -> Vec<u8> {
    let mut request = Encoder::new(Vec::with_capacity(512));
    // Writing to a Vec cannot fail.
    let _ = request
        .map(3)
        .and_then(|request| request.str("ConsumerARN")?.str(consumer.as_str()))
        .and_then(|request| request.str("ShardId")?.str(shard.as_str()))
        .and_then(|request| starting_position(request.str("StartingPosition")?, position));
    request.into_writer()
}

fn starting_position<'a>(
    request: &'a mut Encoder<Vec<u8>>,
    position: &IteratorPosition,
) -> Result<&'a mut Encoder<Vec<u8>>, minicbor::encode::Error<Infallible>> {
    let (kind, number, time) = match position {
        IteratorPosition::TrimHorizon => ("TRIM_HORIZON", None, None),
        IteratorPosition::Latest => ("LATEST", None, None),
        IteratorPosition::AtTimestamp(time) => ("AT_TIMESTAMP", None, Some(time)),
        IteratorPosition::At(number) => ("AT_SEQUENCE_NUMBER", Some(number), None),
        IteratorPosition::After(number) => ("AFTER_SEQUENCE_NUMBER", Some(number), None),
    };
    let members = 1 + u64::from(number.is_some()) + u64::from(time.is_some());
    request.map(members)?.str("Type")?.str(kind)?;
    if let Some(number) = number {
        request.str("SequenceNumber")?.str(&number.to_string())?;
    }
    if let Some(time) = time {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        request.str("Timestamp")?.tag(IanaTag::Timestamp)?.u64(milliseconds)?;
    }
    Ok(request)
}

/// An event of SubscribeToShard. Unknown members are skipped.
///
/// # Errors
///
/// If the event is not what the API documents, or contains an invalid number.
pub(super) fn event(payload: &Bytes) -> Result<SubscriptionEvent, Error> {
    let mut event = SubscriptionEvent::default();
    let mut input = Decoder::new(payload);
    let payload = Payload::from(payload.clone());
    members(&mut input, |input, name| {
        match name {
            "Records" => elements(input, |input| {
                event.records.push(record(input, &payload)?);
                Ok(())
            })?,
            "ContinuationSequenceNumber" => {
                // Empty at the end of a shard.
                let number = input.str()?;
                if !number.is_empty() {
                    event.continuation = Some(parse_number(number)?);
                }
            }
            "MillisBehindLatest" => event.millis_behind_latest = Some(input.i64()?),
            "ChildShards" => elements(input, |input| {
                event.child_shards.push(child(input)?);
                Ok(())
            })?,
            _ => input.skip()?,
        }
        Ok(())
    })?;
    Ok(event)
}

/// The message of an exception in an event stream.
pub(super) fn message(payload: &[u8]) -> String {
    let mut message = String::new();
    // Without one, the name of the exception has to do.
    let _ = members(&mut Decoder::new(payload), |input, name| {
        match name {
            "message" | "Message" => input.str()?.clone_into(&mut message),
            _ => input.skip()?,
        }
        Ok(())
    });
    message
}

/// The output of GetRecords. Unknown members are skipped.
///
/// # Errors
///
/// If the response is not what the API documents, or contains an invalid number.
pub(super) fn page(response: &Bytes) -> Result<RecordsPage, Error> {
    let mut page = RecordsPage::default();
    let mut input = Decoder::new(response);
    let response = Payload::from(response.clone());
    members(&mut input, |input, name| {
        match name {
            "Records" => elements(input, |input| {
                page.records.push(record(input, &response)?);
                Ok(())
            })?,
            "NextShardIterator" => page.next_iterator = Some(input.str()?.to_owned().into()),
            "MillisBehindLatest" => page.millis_behind_latest = Some(input.i64()?),
            "ChildShards" => elements(input, |input| {
                page.child_shards.push(child(input)?);
                Ok(())
            })?,
            _ => input.skip()?,
        }
        Ok(())
    })?;
    Ok(page)
}

/// The code and the message of an error response.
pub(super) fn failure(response: &[u8]) -> Option<(String, String)> {
    let (mut code, mut message) = (None, String::new());
    members(&mut Decoder::new(response), |input, name| {
        match name {
            "__type" => {
                let kind = input.str()?;
                code = Some(kind.rsplit_once('#').map_or(kind, |(_, code)| code).to_owned());
            }
            "message" | "Message" => message = input.str()?.to_owned(),
            _ => input.skip()?,
        }
        Ok(())
    })
    .ok()?;
    Some((code?, message))
}

fn record(input: &mut Decoder<'_>, response: &Payload) -> Result<Record, Error> {
    let (mut number, mut key, mut data, mut arrived) = (None, PartitionKey::default(), None, None);
    let mut encryption_type = EncryptionType::None;
    members(input, |input, name| {
        match name {
            "SequenceNumber" => number = Some(sequence_number(input)?),
            "PartitionKey" => key = input.str()?.into(),
            "Data" => {
                let len = input.bytes()?.len();
                data = Some(response.slice(input.position() - len..input.position()));
            }
            "ApproximateArrivalTimestamp" => arrived = Some(time(input)?),
            "EncryptionType" if input.str()? == "KMS" => encryption_type = EncryptionType::Kms,
            "EncryptionType" => {}
            _ => input.skip()?,
        }
        Ok(())
    })?;
    let (Some(number), Some(data)) = (number, data) else {
        return Err(Error::message("a record without sequence number or data"));
    };
    let mut record = Record::new(number, key, data);
    record.approximate_arrival_timestamp = arrived;
    record.encryption_type = encryption_type;
    Ok(record)
}

fn child(input: &mut Decoder<'_>) -> Result<ChildShard, Error> {
    let (mut id, mut parents, mut start, mut end) = ("", Vec::new(), "", "");
    members(input, |input, name| {
        match name {
            "ShardId" => id = input.str()?,
            "ParentShards" => elements(input, |input| {
                parents.push(ShardId::from(input.str()?));
                Ok(())
            })?,
            "HashKeyRange" => members(input, |input, name| {
                match name {
                    "StartingHashKey" => start = input.str()?,
                    "EndingHashKey" => end = input.str()?,
                    _ => input.skip()?,
                }
                Ok(())
            })?,
            _ => input.skip()?,
        }
        Ok(())
    })?;
    let range = HashKeyRange::parse(start, end)
        .map_err(|_| Error::message("a child shard with an invalid range of hash keys"))?;
    Ok(ChildShard::new(id, parents, range))
}

fn sequence_number(input: &mut Decoder<'_>) -> Result<SequenceNumber, Error> {
    parse_number(input.str()?)
}

fn parse_number(number: &str) -> Result<SequenceNumber, Error> {
    number.parse().map_err(|_| Error::message("an invalid sequence number"))
}

/// An integer is a number of milliseconds, a float a number of seconds; with or without a tag.
fn time(input: &mut Decoder<'_>) -> Result<SystemTime, Error> {
    if input.datatype()? == Type::Tag {
        input.tag()?;
    }
    let since_epoch = match input.datatype()? {
        Type::F16 | Type::F32 | Type::F64 => Duration::try_from_secs_f64(input.f64()?).ok(),
        _ => Some(Duration::from_millis(input.u64()?)),
    };
    let time = since_epoch.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    time.map(whole_milliseconds).ok_or_else(|| Error::message("an invalid timestamp"))
}

/// Visits the members of a map that are not null; null counts as absent.
fn members<'b>(
    input: &mut Decoder<'b>,
    mut visit: impl FnMut(&mut Decoder<'b>, &'b str) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut left = input.map()?;
    while has_next(input, &mut left)? {
        let name = input.str()?;
        match input.datatype()? {
            Type::Null | Type::Undefined => input.skip()?,
            _ => visit(input, name)?,
        }
    }
    Ok(())
}

fn elements<'b>(
    input: &mut Decoder<'b>,
    mut visit: impl FnMut(&mut Decoder<'b>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut left = input.array()?;
    while has_next(input, &mut left)? {
        visit(input)?;
    }
    Ok(())
}

/// Whether a map or array has another element: either its length is known, or a break ends it.
fn has_next(input: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, Error> {
    match left {
        Some(0) => Ok(false),
        Some(count) => {
            *count -= 1;
            Ok(true)
        }
        None if input.datatype()? == Type::Break => input.skip().map(|()| false),
        None => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page as written by the SDK for Java: maps and arrays of indefinite length.
    fn sample() -> Vec<u8> {
        let mut out = Encoder::new(Vec::new());
        out.begin_map().unwrap();
        out.str("MillisBehindLatest").unwrap().i64(12).unwrap();
        out.str("NextShardIterator").unwrap().null().unwrap();
        out.str("New")
            .unwrap()
            .array(2)
            .unwrap()
            .f32(0.5)
            .unwrap()
            .map(1)
            .unwrap()
            .u8(1)
            .unwrap()
            .u8(2)
            .unwrap();
        out.str("Records").unwrap().begin_array().unwrap();
        for (number, data) in [("7", &b"one"[..]), ("8", b"")] {
            out.begin_map().unwrap().str("SequenceNumber").unwrap().str(number).unwrap();
            out.str("Data").unwrap().bytes(data).unwrap();
            out.str("PartitionKey").unwrap().str("k").unwrap();
            out.str("EncryptionType").unwrap().str("KMS").unwrap();
            out.str("ApproximateArrivalTimestamp").unwrap();
            out.tag(minicbor::data::Tag::new(1)).unwrap().u64(1_795_204_849_250).unwrap().end().unwrap();
        }
        out.end().unwrap().end().unwrap();
        out.into_writer()
    }

    #[test]
    fn payloads_are_slices_of_the_response() {
        let response = Bytes::from(sample());
        let page = page(&response).expect("a page");
        let arrived = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_204_849_250);
        assert_eq!((page.millis_behind_latest, page.next_iterator), (Some(12), None));
        assert_eq!(page.records.len(), 2);
        let record = &page.records[0];
        assert_eq!((&record.data[..], record.partition_key.as_str()), (&b"one"[..], "k"));
        assert_eq!(record.approximate_arrival_timestamp, Some(arrived));
        assert_eq!(record.encryption_type, EncryptionType::Kms);
        assert!(response.as_ptr_range().contains(&record.data.as_ptr()));
    }

    #[test]
    fn a_truncated_page_is_an_error() {
        let whole = sample();
        for end in 0..whole.len() {
            assert!(page(&Bytes::copy_from_slice(&whole[..end])).is_err(), "{end} bytes");
            assert!(event(&Bytes::copy_from_slice(&whole[..end])).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn the_payloads_of_events_are_slices_and_an_empty_continuation_is_none() {
        let payload = Bytes::from(sample());
        let records = event(&payload).expect("an event").records;
        assert_eq!(records, page(&payload).expect("a page").records);
        assert!(payload.as_ptr_range().contains(&records[0].data.as_ptr()));
        for (continuation, expected) in [("", None), ("77", Some("77".parse().unwrap()))] {
            let mut out = Encoder::new(Vec::new());
            out.map(1).unwrap().str("ContinuationSequenceNumber").unwrap().str(continuation).unwrap();
            assert_eq!(event(&out.into_writer().into()).expect("an event").continuation, expected);
        }
    }

    #[test]
    fn an_exception_has_a_message_or_none() {
        let mut out = Encoder::new(Vec::new());
        out.map(1).unwrap().str("message").unwrap().str("in use").unwrap();
        assert_eq!(message(out.writer()), "in use");
        assert_eq!(message(b"\xff"), "");
    }

    #[test]
    fn arbitrary_input_does_not_panic() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let mut bytes = sample();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            let _ = page(&Bytes::from(bytes.clone()));
            let _ = event(&Bytes::from(bytes.clone()));
            let _ = failure(&bytes);
        }
    }

    #[test]
    fn times_are_whole_milliseconds_or_seconds() {
        let read = |write: &dyn Fn(&mut Encoder<Vec<u8>>)| {
            let mut out = Encoder::new(Vec::new());
            write(&mut out);
            time(&mut Decoder::new(out.writer())).ok()
        };
        let expected = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500));
        assert_eq!(read(&|out| _ = out.u64(1_500).unwrap()), expected);
        assert_eq!(read(&|out| _ = out.f64(1.5).unwrap()), expected);
        assert_eq!(read(&|out| _ = out.f64(f64::NAN).unwrap()), None);
    }
}
