use std::fmt;

use crate::config::with_settings;
use crate::error::{Error, invalid};
use crate::types::KinesisClientRecord;

/// How many records of a shard are handled at the same time.
///
/// ```
/// use kinesis_consumer::{Concurrency, Consumer};
///
/// let builder = Consumer::builder().concurrency(Concurrency::per_key(64));
/// ```
///
/// # Guarantees
///
/// - Records of the same key are handled one after the other, in the order of the shard, retries included.
/// - A checkpoint never passes a record that is not done with.
/// - A record that fails, or takes long, holds up its key. Others go on until there are [`span_max`](Self::span_max)
///   records from it on, or those take the memory of [`bytes_max`](Self::bytes_max): then the shard waits for it, which is
///   reported after 10 seconds ([`Event::KeyBlocksShard`](crate::Event::KeyBlocksShard)).
/// - What is done is stored once a second, and when the lease is given back. After a crash, records come again from the first
///   one that was not done with, those included that were done after it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Concurrency {
    /// At most this many at the same time, in each shard (1 to 10,000; default 1).
    pub tasks: usize,
    /// Which records follow each other.
    pub order: Order,
    /// No further batch of a shard is taken in while there are more records than this from the first one that is not done
    /// to the newest (1 to 10,000,000; default 20,000). A batch is at most 32,768 records.
    pub span_max: usize,
    /// The memory for all batches with records that are not done, over all shards, in bytes (1 MiB to 1 TiB; default
    /// 64 MiB). It comes in addition to [`RetrievalConfig::memory_bytes_max`](crate::RetrievalConfig::memory_bytes_max). A
    /// batch counts until its last record is done. Where it is used up, a shard takes in its next batch when the one
    /// before is done.
    pub bytes_max: u64,
}

/// Which records of a shard are handled one after the other.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub enum Order {
    /// All.
    #[default]
    Shard,
    /// Those with the same partition key: of the user record, also if it came in a KPL aggregate.
    PartitionKey,
    /// Those for which this returns the same.
    Key(fn(&KinesisClientRecord) -> u64),
    /// None.
    None,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { tasks: 1, order: Order::Shard, span_max: 20_000, bytes_max: 64 << 20 }
    }
}

with_settings!(Concurrency {
    with_span_max = span_max: usize,
    with_bytes_max = bytes_max: u64,
});

impl Concurrency {
    /// Up to `tasks` records at the same time, each of another partition key.
    #[must_use]
    pub fn per_key(tasks: usize) -> Self {
        Self { tasks, order: Order::PartitionKey, ..Self::default() }
    }

    /// Up to `tasks` records at the same time, each of another result of `key`.
    #[must_use]
    pub fn per(tasks: usize, key: fn(&KinesisClientRecord) -> u64) -> Self {
        Self { tasks, order: Order::Key(key), ..Self::default() }
    }

    /// Up to `tasks` records at the same time, in any order.
    #[must_use]
    pub fn unordered(tasks: usize) -> Self {
        Self { tasks, order: Order::None, ..Self::default() }
    }

    /// Whether records are handled one after the other.
    pub(crate) fn is_serial(&self) -> bool {
        self.tasks == 1 || matches!(self.order, Order::Shard)
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let Self { tasks, span_max, bytes_max, .. } = self;
        if !(1..=10_000).contains(tasks) {
            return Err(invalid(format!("the concurrency is {tasks} tasks; it must be 1 to 10000")));
        }
        validate_limits(*span_max, *bytes_max)
    }
}

/// Checks the limits of records that are in hand and not done.
pub(crate) fn validate_limits(span_max: usize, bytes_max: u64) -> Result<(), Error> {
    if !(1..=10_000_000).contains(&span_max) {
        return Err(invalid(format!("span_max is {span_max}; it must be 1 to 10000000 records")));
    }
    if !(1 << 20..=1 << 40).contains(&bytes_max) {
        return Err(invalid(format!("bytes_max is {bytes_max}; it must be 1048576 to 1099511627776 bytes")));
    }
    Ok(())
}

/// The same variant; keys by function are never equal.
impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Shard, Self::Shard) | (Self::PartitionKey, Self::PartitionKey) | (Self::None, Self::None)
        )
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shard => "Shard",
            Self::PartitionKey => "PartitionKey",
            Self::Key(_) => "Key(..)",
            Self::None => "None",
        })
    }
}
