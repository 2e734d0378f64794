use std::borrow::Cow;

use bytes::Bytes;
use ciborium::Value;

use super::kinesis::encryption_name;
use super::time;
use super::wire::Wire;
use crate::testing::stream::{ErrorCode, ServiceError, StoredRecord};
use crate::types::EncryptionType;

/// How a CBOR protocol encodes times, which are tagged 1 in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// Whole milliseconds since the epoch, as in `application/x-amz-cbor-1.1`.
    Milliseconds,
    /// Seconds since the epoch with a fraction, as in RFC 8949 and rpc-v2-cbor.
    Seconds,
}

const TAG_TIME: u64 = 1;

/// Parses the body of a CBOR request; an empty body is an empty map.
pub(super) fn decode(body: &[u8], times: Times) -> Result<Wire, ServiceError> {
    if body.is_empty() {
        return Ok(Wire::Map(Vec::new()));
    }
    let value: Value = ciborium::from_reader(body)
        .map_err(|error| ErrorCode::Serialization.error(format!("The body is not CBOR: {error}")))?;
    Ok(from_value(value, times))
}

fn from_value(value: Value, times: Times) -> Wire {
    match value {
        Value::Bool(value) => Wire::Bool(value),
        Value::Integer(number) => Wire::Integer(i64::try_from(number).unwrap_or(i64::MAX)),
        Value::Float(value) => Wire::Float(value),
        Value::Text(text) => Wire::Text(text),
        Value::Bytes(bytes) => Wire::Bytes(Bytes::from(bytes)),
        Value::Tag(TAG_TIME, value) => match from_value(*value, times).float() {
            Some(number) if times == Times::Milliseconds => Wire::Time(time::from_seconds(number / 1e3)),
            Some(number) => Wire::Time(time::from_seconds(number)),
            None => Wire::Null,
        },
        Value::Array(items) => Wire::list(items.into_iter().map(|item| from_value(item, times))),
        Value::Map(members) => Wire::Map(
            members
                .into_iter()
                .filter_map(|(name, value)| {
                    Some((Cow::Owned(name.into_text().ok()?), from_value(value, times)))
                })
                .collect(),
        ),
        _ => Wire::Null,
    }
}

/// Writes the body of a CBOR response.
pub(super) fn encode(body: &Wire, times: Times) -> Bytes {
    let mut out = Vec::with_capacity(size_hint(body));
    write(&mut out, body, times);
    Bytes::from(out)
}

fn write(out: &mut Vec<u8>, value: &Wire, times: Times) {
    match value {
        Wire::Null => out.push(0xF6),
        Wire::Bool(value) => out.push(if *value { 0xF5 } else { 0xF4 }),
        Wire::Integer(value) => match u64::try_from(*value) {
            Ok(value) => write_head(out, 0, value),
            Err(_) => write_head(out, 1, value.unsigned_abs() - 1),
        },
        Wire::Float(value) => write_float(out, *value),
        Wire::Time(time) => {
            write_head(out, 6, TAG_TIME);
            match times {
                Times::Milliseconds => write_head(out, 0, time::millis(*time)),
                Times::Seconds => write_float(out, time::seconds(*time)),
            }
        }
        Wire::Text(text) => write_text(out, text),
        Wire::Bytes(bytes) => {
            write_head(out, 2, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        Wire::List(items) => {
            write_head(out, 4, items.len() as u64);
            items.iter().for_each(|item| write(out, item, times));
        }
        Wire::Map(members) => {
            let present = || members.iter().filter(|(_, value)| !matches!(value, Wire::Null));
            write_head(out, 5, present().count() as u64);
            for (name, value) in present() {
                write_text(out, name);
                write(out, value, times);
            }
        }
        Wire::Record(stored) => out.extend_from_slice(record_cbor(stored)),
    }
}

/// The record as encoded by GetRecords and SubscribeToShard; encoded once.
fn record_cbor(stored: &StoredRecord) -> &Bytes {
    stored.cbor.get_or_init(|| {
        let record = &stored.record;
        let is_encrypted = record.encryption_type != EncryptionType::None;
        let members = Wire::map([
            ("SequenceNumber", record.sequence_number.to_string().into()),
            ("ApproximateArrivalTimestamp", record.approximate_arrival_timestamp.into()),
            ("Data", Wire::Bytes(record.data.to_bytes())),
            ("PartitionKey", record.partition_key.as_str().into()),
            ("EncryptionType", is_encrypted.then(|| encryption_name(record.encryption_type)).into()),
        ]);
        let mut out = Vec::with_capacity(record.data.len() + record.partition_key.len() + 192);
        write(&mut out, &members, Times::Milliseconds);
        out.shrink_to_fit();
        Bytes::from(out)
    })
}

/// Large bodies consist of records: their size, which also encodes them.
fn size_hint(value: &Wire) -> usize {
    match value {
        Wire::Record(stored) => record_cbor(stored).len(),
        Wire::List(items) => items.iter().map(size_hint).sum::<usize>() + 16,
        Wire::Map(members) => members.iter().map(|(name, value)| name.len() + 16 + size_hint(value)).sum(),
        _ => 64,
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    write_head(out, 3, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn write_float(out: &mut Vec<u8>, value: f64) {
    out.push(0xFB);
    out.extend_from_slice(&value.to_be_bytes());
}

/// The major type and argument of a data item, in the shortest form.
#[expect(clippy::cast_possible_truncation, reason = "each arm holds its argument")]
fn write_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..24 => out.push(major | argument as u8),
        24..0x100 => out.extend_from_slice(&[major | 24, argument as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend_from_slice(&(argument as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_204_849_250);
        let body = Wire::map([
            ("Text", "é".repeat(300).into()),
            ("Absent", Wire::Null),
            ("Data", Wire::Bytes(Bytes::from(vec![7; 70_000]))),
            ("Time", time.into()),
            ("Numbers", Wire::list([-1, 23, 24, 65_536, i64::MAX, i64::MIN].map(Wire::Integer))),
            ("Float", 0.1.into()),
        ]);
        for times in [Times::Milliseconds, Times::Seconds] {
            let read = decode(&encode(&body, times), times).unwrap();
            assert_eq!(read.time("Time").unwrap(), Some(time));
            assert_eq!(read.text("Text").unwrap().map(str::len), Some(600));
            assert_eq!(read.bytes("Data").unwrap().map(|data| data.len()), Some(70_000));
            assert_eq!(read.get("Float").and_then(Wire::float), Some(0.1));
            let numbers: Vec<_> = read.items("Numbers").unwrap().iter().map(|n| format!("{n:?}")).collect();
            assert_eq!(
                numbers.join(" "),
                "Integer(-1) Integer(23) Integer(24) Integer(65536) Integer(9223372036854775807) \
                 Integer(-9223372036854775808)"
            );
        }
    }

    #[test]
    fn times_are_tagged_milliseconds_for_kinesis() {
        let time = Wire::Time(SystemTime::UNIX_EPOCH + Duration::from_millis(256));
        assert_eq!(encode(&time, Times::Milliseconds)[..], [0xC1, 0x19, 0x01, 0x00]);
    }
}
