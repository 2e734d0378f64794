use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::kinesis::encryption_name;
use super::time;
use super::wire::Wire;
use crate::testing::stream::{ErrorCode, ServiceError, StoredRecord};
use crate::types::EncryptionType;

/// Parses the body of a JSON request; an empty body is an empty map.
pub(super) fn decode(body: &[u8]) -> Result<Wire, ServiceError> {
    if body.is_empty() {
        return Ok(Wire::Map(Vec::new()));
    }
    let value = serde_json::from_slice(body)
        .map_err(|error| ErrorCode::Serialization.error(format!("The body is not JSON: {error}")))?;
    Ok(from_value(value))
}

fn from_value(value: Value) -> Wire {
    match value {
        Value::Null => Wire::Null,
        Value::Bool(value) => Wire::Bool(value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Wire::Float(number.as_f64().unwrap_or_default()), Wire::Integer)
        }
        Value::String(text) => Wire::Text(text),
        Value::Array(items) => Wire::list(items.into_iter().map(from_value)),
        Value::Object(members) => Wire::Map(
            members.into_iter().map(|(name, value)| (Cow::Owned(name), from_value(value))).collect(),
        ),
    }
}

/// Writes the body of a JSON response.
pub(super) fn encode(body: &Wire) -> Bytes {
    let mut out = Vec::with_capacity(size_hint(body));
    write(&mut out, body);
    Bytes::from(out)
}

fn write(out: &mut Vec<u8>, value: &Wire) {
    match value {
        Wire::Null => out.extend_from_slice(b"null"),
        Wire::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Wire::Integer(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Wire::Float(value) => write_float(out, *value),
        Wire::Time(time) => write_float(out, time::seconds(*time)),
        Wire::Text(text) => write_text(out, text),
        Wire::Bytes(bytes) => write_base64(out, bytes),
        Wire::Record(record) => out.extend_from_slice(record_json(record)),
        Wire::List(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, item);
            }
            out.push(b']');
        }
        Wire::Map(members) => {
            out.push(b'{');
            let present = members.iter().filter(|(_, value)| !matches!(value, Wire::Null));
            for (index, (name, value)) in present.enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_text(out, name);
                out.push(b':');
                write(out, value);
            }
            out.push(b'}');
        }
    }
}

/// The record as encoded by GetRecords and SubscribeToShard; encoded once.
fn record_json(stored: &StoredRecord) -> &Bytes {
    stored.json.get_or_init(|| {
        let record = &stored.record;
        let mut out = Vec::with_capacity(base64_len(record.data.len()) + record.partition_key.len() + 192);
        out.extend_from_slice(b"{\"SequenceNumber\":\"");
        out.extend_from_slice(record.sequence_number.to_string().as_bytes());
        out.extend_from_slice(b"\",\"ApproximateArrivalTimestamp\":");
        write_float(&mut out, record.approximate_arrival_timestamp.map_or(0.0, time::seconds));
        out.extend_from_slice(b",\"Data\":");
        write_base64(&mut out, &record.data);
        out.extend_from_slice(b",\"PartitionKey\":");
        write_text(&mut out, &record.partition_key);
        if record.encryption_type != EncryptionType::None {
            out.extend_from_slice(b",\"EncryptionType\":");
            write_text(&mut out, encryption_name(record.encryption_type));
        }
        out.push(b'}');
        Bytes::from(out)
    })
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

fn write_float(out: &mut Vec<u8>, value: f64) {
    // JSON has no infinities, and none of the APIs sends one.
    let value = if value.is_finite() { value } else { 0.0 };
    out.extend_from_slice(value.to_string().as_bytes());
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + base64_len(bytes.len()), 0);
    let written = out.get_mut(start..).and_then(|space| STANDARD.encode_slice(bytes, space).ok());
    out.truncate(start + written.unwrap_or(0));
    out.push(b'"');
}

fn base64_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Large bodies consist of records: their size, which also encodes them.
fn size_hint(value: &Wire) -> usize {
    match value {
        Wire::Record(record) => record_json(record).len() + 1,
        Wire::List(items) => items.iter().map(size_hint).sum::<usize>() + 2,
        Wire::Map(members) => members.iter().map(|(name, value)| name.len() + 4 + size_hint(value)).sum(),
        _ => 32,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_204_849_250);
        let body = encode(&Wire::map([
            ("Text", "a \"b\"\n".into()),
            ("Absent", Wire::Null),
            ("Data", Wire::Bytes(Bytes::from_static(b"\x00\xff"))),
            ("Time", time.into()),
            ("List", Wire::list([Wire::Integer(-1), true.into()])),
        ]));
        assert_eq!(
            String::from_utf8_lossy(&body),
            r#"{"Text":"a \"b\"\n","Data":"AP8=","Time":1795204849.25,"List":[-1,true]}"#
        );
        let read = decode(&body).unwrap();
        assert_eq!(read.time("Time").unwrap(), Some(time));
        assert_eq!(read.bytes("Data").unwrap().as_deref(), Some(&b"\x00\xff"[..]));
        assert_eq!(read.text("Absent").unwrap(), None);
        assert_eq!(read.text("List").unwrap_err().code, ErrorCode::Serialization);
    }
}
