use std::fmt;

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
/// - A record that fails holds up its key. Others of the same batch go on; the next batch begins when all of this one
///   are done with. A batch is what was fetched at once: up to 10,000 records, and all records of their KPL aggregates.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Concurrency {
    /// At most this many at the same time, in each shard (1 to 10,000; default 1).
    pub tasks: usize,
    /// Which records follow each other.
    pub order: Order,
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
        Self { tasks: 1, order: Order::Shard }
    }
}

impl Concurrency {
    /// Up to `tasks` records at the same time, each of another partition key.
    #[must_use]
    pub fn per_key(tasks: usize) -> Self {
        Self { tasks, order: Order::PartitionKey }
    }

    /// Up to `tasks` records at the same time, each of another result of `key`.
    #[must_use]
    pub fn per(tasks: usize, key: fn(&KinesisClientRecord) -> u64) -> Self {
        Self { tasks, order: Order::Key(key) }
    }

    /// Up to `tasks` records at the same time, in any order.
    #[must_use]
    pub fn unordered(tasks: usize) -> Self {
        Self { tasks, order: Order::None }
    }

    /// Whether records are handled one after the other.
    pub(crate) fn is_serial(&self) -> bool {
        self.tasks == 1 || matches!(self.order, Order::Shard)
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        if (1..=10_000).contains(&self.tasks) {
            return Ok(());
        }
        Err(invalid(format!("the concurrency is {} tasks; it must be 1 to 10000", self.tasks)))
    }
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
