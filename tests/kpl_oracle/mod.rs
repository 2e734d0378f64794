//! What a Kinesis record must become, worked out in the simplest way there is: the message is parsed
//! into a tree first. Shared by the property tests and the fuzz target.

#![allow(
    clippy::cast_possible_truncation,
    reason = "Java takes the low 32 bits of indexes, tags and lengths"
)]
#![allow(unreachable_pub, missing_docs, reason = "part of two programs")]

use kinesis_consumer::{HashKeyRange, KinesisClientRecord};
use md5::{Digest, Md5};

/// Starts every aggregate.
pub const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

const DEPTH_MAX: u32 = 100;

/// What a Kinesis record becomes.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Delivered as it is.
    Raw,
    /// Its user records are delivered, those in range.
    Aggregated(Vec<UserRecord>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct UserRecord {
    pub partition_key: String,
    pub explicit_hash_key: Option<String>,
    pub data: Vec<u8>,
    pub sub_sequence_number: u64,
}

impl From<&KinesisClientRecord> for UserRecord {
    fn from(record: &KinesisClientRecord) -> Self {
        Self {
            partition_key: record.record.partition_key.to_string(),
            explicit_hash_key: record.explicit_hash_key.as_ref().map(ToString::to_string),
            data: record.record.data.to_vec(),
            sub_sequence_number: record.sub_sequence_number,
        }
    }
}

/// An aggregate around `message`.
pub fn seal(message: &[u8]) -> Vec<u8> {
    [&MAGIC, message, &Md5::digest(message)[..]].concat()
}

/// What must become of a record with `data`.
pub fn outcome(data: &[u8], range: HashKeyRange) -> Outcome {
    let sealed = data.len() > 20 && data.starts_with(&MAGIC);
    let message = if sealed { &data[4..data.len() - 16] } else { &[] };
    if !sealed || Md5::digest(message)[..] != data[data.len() - 16..] {
        return Outcome::Raw;
    }
    user_records(message, range).map_or(Outcome::Raw, Outcome::Aggregated)
}

fn user_records(message: &[u8], range: HashKeyRange) -> Option<Vec<UserRecord>> {
    let fields = parse(&mut &*message, 0, None)?;
    let partition_keys = texts(&fields, 1);
    let explicit_hash_keys = texts(&fields, 2);
    let mut user_records = Vec::new();
    for (sub_sequence_number, record) in (0..).zip(all_bytes(&fields, 3)) {
        let fields = parse(&mut &*record, 1, None)?;
        for tag in all_bytes(&fields, 4) {
            all_bytes(&parse(&mut &*tag, 2, None)?, 1).last()?;
        }
        let partition_key = last_varint(&fields, 1)?;
        let explicit_hash_key = last_varint(&fields, 2);
        let data = all_bytes(&fields, 3).last()?.to_vec();
        user_records.push((partition_key, explicit_hash_key, data, sub_sequence_number));
    }
    // All of them have to be parsed before one is looked at.
    let mut delivered = Vec::new();
    for (partition_key, explicit_hash_key, data, sub_sequence_number) in user_records {
        let partition_key = partition_keys.get(partition_key as u32 as usize)?.clone();
        let explicit_hash_key = match explicit_hash_key {
            Some(index) => Some(explicit_hash_keys.get(index as u32 as usize)?.clone()),
            None => None,
        };
        let inside = match &explicit_hash_key {
            Some(key) => big_integer(key)?.is_some_and(|key| range.contains(key)),
            None => range.contains(u128::from_be_bytes(Md5::digest(&partition_key).into())),
        };
        if inside {
            delivered.push(UserRecord { partition_key, explicit_hash_key, data, sub_sequence_number });
        }
    }
    Some(delivered)
}

/// `None`: not a number. `Some(None)`: not in any range.
fn big_integer(text: &str) -> Option<Option<u128>> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let ascii: String = digits.chars().map(ascii_digit).collect::<Option<_>>()?;
    let significant = ascii.trim_start_matches('0');
    match significant {
        _ if ascii.is_empty() => None,
        "" => Some(Some(0)),
        _ if text.starts_with('-') => Some(None),
        _ => Some(significant.parse().ok()),
    }
}

/// Every digit zero of the Basic Multilingual Plane (by Python's `unicodedata`); the other nine follow.
const ZEROS: &str = "\u{30}\u{660}\u{6F0}\u{7C0}\u{966}\u{9E6}\u{A66}\u{AE6}\u{B66}\u{BE6}\u{C66}\u{CE6}\
    \u{D66}\u{DE6}\u{E50}\u{ED0}\u{F20}\u{1040}\u{1090}\u{17E0}\u{1810}\u{1946}\u{19D0}\u{1A80}\
    \u{1A90}\u{1B50}\u{1BB0}\u{1C40}\u{1C50}\u{A620}\u{A8D0}\u{A900}\u{A9D0}\u{A9F0}\u{AA50}\u{ABF0}\
    \u{FF10}";

fn ascii_digit(character: char) -> Option<char> {
    let value = |zero: char| u32::from(character).checked_sub(zero.into()).filter(|value| *value < 10);
    char::from_digit(ZEROS.chars().find_map(value)?, 10)
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

type Field<'a> = (u32, Value<'a>);

/// The fields up to the end of `rest`, or of the group with number `group`.
fn parse<'a>(rest: &mut &'a [u8], depth: u32, group: Option<u32>) -> Option<Vec<Field<'a>>> {
    if depth > DEPTH_MAX {
        return None;
    }
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let tag = varint(rest)? as u32;
        let number = tag >> 3;
        let value = match tag & 7 {
            _ if number == 0 => return None,
            0 => Value::Varint(varint(rest)?),
            1 => take(rest, 8).map(|_| Value::Other)?,
            2 => {
                let len = varint(rest)? as u32;
                Value::Bytes(take(rest, len as usize)?)
            }
            3 => parse(rest, depth + 1, Some(number)).map(|_| Value::Other)?,
            4 => return (group == Some(number)).then_some(fields),
            5 => take(rest, 4).map(|_| Value::Other)?,
            _ => return None,
        };
        fields.push((number, value));
    }
    group.is_none().then_some(fields)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let len = rest.iter().take(10).position(|byte| byte & 0x80 == 0)? + 1;
    let bytes = take(rest, len)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7F)))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn all_bytes<'a>(fields: &[Field<'a>], wanted: u32) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    fields.iter().filter_map(move |(number, value)| match value {
        Value::Bytes(bytes) if *number == wanted => Some(*bytes),
        _ => None,
    })
}

fn texts(fields: &[Field<'_>], wanted: u32) -> Vec<String> {
    all_bytes(fields, wanted).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
}

fn last_varint(fields: &[Field<'_>], wanted: u32) -> Option<u64> {
    fields.iter().rev().find_map(|(number, value)| match value {
        Value::Varint(varint) if *number == wanted => Some(*varint),
        _ => None,
    })
}

/// The same as read by prost, which knows nothing of this crate; `None` if prost, stricter here and
/// there, does not take the message.
pub fn according_to_prost(message: &[u8]) -> Option<Outcome> {
    let message = <messages::AggregatedRecord as prost::Message>::decode(message).ok()?;
    Some(match message.user_records() {
        Some(user_records) => Outcome::Aggregated(user_records),
        None => Outcome::Raw,
    })
}

/// Every field is optional or bytes, so that prost checks nothing: what it takes for required it fills
/// in, and texts that are not UTF-8 it refuses.
pub mod messages {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct AggregatedRecord {
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub partition_key_table: Vec<Vec<u8>>,
        #[prost(bytes = "vec", repeated, tag = "2")]
        pub explicit_hash_key_table: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "3")]
        pub records: Vec<Record>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Record {
        #[prost(uint64, optional, tag = "1")]
        pub partition_key_index: Option<u64>,
        #[prost(uint64, optional, tag = "2")]
        pub explicit_hash_key_index: Option<u64>,
        #[prost(bytes = "vec", optional, tag = "3")]
        pub data: Option<Vec<u8>>,
        #[prost(message, repeated, tag = "4")]
        pub tags: Vec<Tag>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Tag {
        #[prost(bytes = "vec", optional, tag = "1")]
        pub key: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "2")]
        pub value: Option<Vec<u8>>,
    }

    impl AggregatedRecord {
        /// `None` if a required field is missing or an index or hash key is wrong.
        pub fn user_records(&self) -> Option<Vec<super::UserRecord>> {
            let text = |table: &[Vec<u8>], index: u64| {
                Some(String::from_utf8_lossy(table.get(index as u32 as usize)?).into_owned())
            };
            let mut user_records = Vec::new();
            for (number, record) in self.records.iter().enumerate() {
                if record.tags.iter().any(|tag| tag.key.is_none()) {
                    return None;
                }
                let explicit_hash_key = match record.explicit_hash_key_index {
                    Some(index) => Some(text(&self.explicit_hash_key_table, index)?),
                    None => None,
                };
                let partition_key = text(&self.partition_key_table, record.partition_key_index?)?;
                let data = record.data.clone()?;
                let reachable = match &explicit_hash_key {
                    Some(key) => super::big_integer(key)?.is_some(),
                    None => true,
                };
                if reachable {
                    let sub_sequence_number = number as u64;
                    user_records.push(super::UserRecord {
                        partition_key,
                        explicit_hash_key,
                        data,
                        sub_sequence_number,
                    });
                }
            }
            Some(user_records)
        }
    }
}
