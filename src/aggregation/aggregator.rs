use std::collections::HashMap;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::encoded_len_varint;

use super::MAGIC;
use super::md5::{DIGEST_BYTES, Hasher};
use super::messages::{AggregatedRecord, UserRecord};

/// Packs user records into KPL aggregates.
///
/// All user records of an aggregate must belong to the same shard: a consumer drops those whose hash key
/// is outside the range of the shard in which it finds them. To be sure, add only records with one
/// partition key, or with one explicit hash key.
///
/// ```
/// use kinesis_consumer::aggregation::{Added, Aggregator};
///
/// let mut aggregator = Aggregator::new();
/// let mut puts = Vec::new();
/// for payload in [b"one".as_slice(), b"two", b"three"] {
///     while aggregator.add("customer-1", None, payload) == Added::Full {
///         puts.extend(aggregator.finish());
///     }
/// }
/// puts.extend(aggregator.finish());
/// assert_eq!(puts.len(), 1);
/// assert_eq!(puts[0].partition_key, "customer-1");
/// ```
pub struct Aggregator {
    bytes_max: usize,
    /// The size of the message so far.
    message_bytes: usize,
    partition_keys: Table,
    explicit_hash_keys: Table,
    records: Vec<UserRecord>,
}

/// The result of offering a user record to an [`Aggregator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the record may not have been added"]
pub enum Added {
    /// The record was added.
    Yes,
    /// Not added: the aggregate is full. [`finish`](Aggregator::finish) it and offer the record again.
    Full,
    /// Not added: the record does not fit even into an empty aggregate. Put it as a plain record.
    TooLarge,
}

/// A finished aggregate, to be put into the stream.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Aggregate {
    /// The partition key to put it with: that of its first user record.
    pub partition_key: String,
    /// The explicit hash key to put it with: that of its first user record, if it has one.
    pub explicit_hash_key: Option<u128>,
    /// The payload.
    pub data: Bytes,
    /// The number of user records in it.
    pub user_records: usize,
}

impl Aggregator {
    /// The maximum size of a Kinesis record in a stream with default settings: 1 MiB.
    pub const BYTES_MAX_DEFAULT: usize = 1 << 20;

    /// The maximum size of a Kinesis record in a stream that allows large records: 10 MiB.
    pub const BYTES_MAX_LARGE: usize = 10 << 20;

    /// An aggregator for records of up to [`BYTES_MAX_DEFAULT`](Self::BYTES_MAX_DEFAULT).
    #[must_use]
    pub fn new() -> Self {
        Self::with_bytes_max(Self::BYTES_MAX_DEFAULT)
    }

    /// An aggregator for records whose payload and partition key together have at most `bytes_max`
    /// bytes, capped at [`BYTES_MAX_LARGE`](Self::BYTES_MAX_LARGE).
    #[must_use]
    pub fn with_bytes_max(bytes_max: usize) -> Self {
        Self {
            bytes_max: bytes_max.min(Self::BYTES_MAX_LARGE),
            message_bytes: 0,
            partition_keys: Table::default(),
            explicit_hash_keys: Table::default(),
            records: Vec::new(),
        }
    }

    /// Adds a user record, if there is room for it. Kinesis requires partition keys of 1 to 256
    /// characters; this is not checked.
    pub fn add(&mut self, partition_key: &str, explicit_hash_key: Option<u128>, data: &[u8]) -> Added {
        let explicit_hash_key = explicit_hash_key.map(|key| key.to_string());
        let (partition_key_index, partition_key_bytes) = self.partition_keys.place(partition_key);
        let (explicit_hash_key_index, explicit_hash_key_bytes) = match &explicit_hash_key {
            Some(key) => {
                let (index, bytes) = self.explicit_hash_keys.place(key);
                (Some(index), bytes)
            }
            None => (None, 0),
        };
        let record_bytes = 1
            + encoded_len_varint(partition_key_index)
            + explicit_hash_key_index.map_or(0, |index| 1 + encoded_len_varint(index))
            + delimited_bytes(data.len());
        let message_bytes = self.message_bytes
            + partition_key_bytes
            + explicit_hash_key_bytes
            + delimited_bytes(record_bytes);
        let outer_key_bytes = self.partition_keys.keys.first().map_or(partition_key.len(), String::len);
        if MAGIC.len() + message_bytes + DIGEST_BYTES + outer_key_bytes > self.bytes_max {
            return if self.records.is_empty() { Added::TooLarge } else { Added::Full };
        }
        self.message_bytes = message_bytes;
        self.partition_keys.insert(partition_key);
        if let Some(key) = &explicit_hash_key {
            self.explicit_hash_keys.insert(key);
        }
        self.records.push(UserRecord {
            partition_key_index,
            explicit_hash_key_index,
            data: Bytes::copy_from_slice(data),
        });
        Added::Yes
    }

    /// The size in bytes of the aggregate if it were finished now; 0 if it is empty.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        if self.records.is_empty() { 0 } else { MAGIC.len() + self.message_bytes + DIGEST_BYTES }
    }

    /// The number of user records added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no user record has been added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the aggregate and leaves the aggregator empty; `None` if no record was added.
    pub fn finish(&mut self) -> Option<Aggregate> {
        let len = self.encoded_len();
        let Self { partition_keys, explicit_hash_keys, records, .. } =
            std::mem::replace(self, Self::with_bytes_max(self.bytes_max));
        let explicit_hash_key = records.first()?.explicit_hash_key_index.and_then(|_| {
            // The hash key of the first record, if it has one, is the first of the table.
            explicit_hash_keys.keys.first()?.parse().ok()
        });
        let partition_key = partition_keys.keys.first()?.clone();
        let user_records = records.len();
        let message = AggregatedRecord {
            partition_key_table: partition_keys.keys,
            explicit_hash_key_table: explicit_hash_keys.keys,
            records,
        };
        let mut data = BytesMut::with_capacity(len);
        data.put_slice(&MAGIC);
        message.encode_raw(&mut data);
        let digest = Hasher::digest(&data[MAGIC.len()..]);
        data.put_slice(&digest);
        Some(Aggregate { partition_key, explicit_hash_key, data: data.freeze(), user_records })
    }
}

/// Shows sizes, never contents.
impl fmt::Debug for Aggregator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregator")
            .field("bytes_max", &self.bytes_max)
            .field("encoded_len", &self.encoded_len())
            .field("user_records", &self.len())
            .finish_non_exhaustive()
    }
}

/// Shows sizes, never contents.
impl fmt::Debug for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregate")
            .field("data_bytes", &self.data.len())
            .field("user_records", &self.user_records)
            .finish_non_exhaustive()
    }
}

impl Default for Aggregator {
    fn default() -> Self {
        Self::new()
    }
}

/// The size of a length-delimited field with a one-byte tag.
fn delimited_bytes(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// The distinct keys of an aggregate.
#[derive(Default)]
struct Table {
    keys: Vec<String>,
    places: HashMap<String, u64>,
}

impl Table {
    /// The index that `key` has or would get, and the bytes by which it would enlarge the message.
    fn place(&self, key: &str) -> (u64, usize) {
        match self.places.get(key) {
            Some(&place) => (place, 0),
            None => (self.keys.len() as u64, delimited_bytes(key.len())),
        }
    }

    fn insert(&mut self, key: &str) {
        if !self.places.contains_key(key) {
            self.places.insert(key.to_owned(), self.keys.len() as u64);
            self.keys.push(key.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aggregate_is_as_long_as_reported_and_no_longer_than_allowed() {
        for bytes_max in [100, 1000, 20_000, Aggregator::BYTES_MAX_DEFAULT] {
            let mut aggregator = Aggregator::with_bytes_max(bytes_max);
            let mut number = 0_u128;
            while aggregator.add(&format!("key-{}", number % 200), Some(number % 150), &[7; 40]) == Added::Yes
            {
                number += 1;
            }
            let said = aggregator.encoded_len();
            let aggregate = aggregator.finish().expect("records were added");
            assert_eq!(aggregate.data.len(), said);
            let whole = said + aggregate.partition_key.len();
            assert!(whole <= bytes_max && whole + 100 > bytes_max, "{whole} of {bytes_max}");
            assert_eq!(aggregate.explicit_hash_key, Some(0));
        }
    }

    #[test]
    fn a_record_that_never_fits_differs_from_one_that_does_not_fit_now() {
        let mut aggregator = Aggregator::with_bytes_max(200);
        assert_eq!(aggregator.add("key", None, &[0; 200]), Added::TooLarge);
        assert_eq!(aggregator.add("key", None, &[0; 100]), Added::Yes);
        assert_eq!(aggregator.add("key", None, &[0; 100]), Added::Full);
        assert_eq!(aggregator.len(), 1);
        assert!(aggregator.finish().is_some());
        assert!(aggregator.is_empty() && aggregator.finish().is_none());
    }

    #[test]
    fn debug_output_shows_no_payload() {
        let mut aggregator = Aggregator::new();
        assert_eq!(aggregator.add("key", None, b"secret"), Added::Yes);
        assert!(!format!("{aggregator:?}").contains("115"));
        let aggregate = aggregator.finish().expect("a record was added");
        assert!(!format!("{aggregate:?}").contains("secret"));
    }
}
