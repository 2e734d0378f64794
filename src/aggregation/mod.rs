//! Stage 6 of the data flow: KPL aggregation and de-aggregation.
//!
//! The Kinesis Producer Library packs many *user records* into one Kinesis record: four magic bytes, a
//! protobuf message, and the MD5 of that message. [`Deaggregator`] turns a fetched page of plain records
//! and aggregates into user records. [`Aggregator`] creates aggregates.
//!
//! De-aggregation gives the same result as Java's KCL, down to the corner cases of protobuf, except
//! where Java loses records:
//!
//! - A user record whose hash key is outside the range of the shard is dropped, because its producer has
//!   sent it again to the right shard. Java drops the whole aggregate.
//! - An aggregate with a reference outside its tables, or with an explicit hash key that is not a
//!   number, is delivered whole, as the plain record it may well be, like every other malformed one.
//!   Java delivers the user records before the fault and loses the rest.
//!
//! Everything malformed and everything dropped is counted in [`Counts`].

mod aggregator;
mod counts;
mod deaggregator;
mod entry;
mod hash_key;
mod index;
mod md5;
mod messages;
mod wire;

pub use self::aggregator::{Added, Aggregate, Aggregator};
pub use self::counts::{Counts, Malformation};
pub use self::deaggregator::{Batches, Deaggregator};

/// The magic bytes at the start of an aggregate.
const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

/// Private parts for the bench.
#[doc(hidden)]
#[cfg(feature = "internals")]
pub mod internals {
    pub use super::md5::Hasher;
    use crate::HashKeyRange;
    use crate::aggregation::Deaggregator;

    /// A de-aggregator that hashes with specific instructions.
    #[must_use]
    pub fn deaggregator(range: Option<HashKeyRange>, hasher: Hasher) -> Deaggregator {
        Deaggregator::with_hasher(range, hasher)
    }
}
