//! Stop 6 on the data's way: KPL aggregates taken apart, and put together.
//!
//! The Kinesis Producer Library packs many *user records* into one Kinesis record: four magic bytes,
//! a protobuf message, and the MD5 of that message. [`Deaggregator`] turns a fetched page, plain
//! records and aggregates mixed, into user records; [`Aggregator`] makes aggregates.
//!
//! What Java's KCL makes of an aggregate is what is made of it here, down to the corners of protobuf,
//! except where Java loses records:
//!
//! - A user record whose hash key lies outside the shard's range is left out, because its producer has
//!   sent it again to the right shard. Java leaves out the whole aggregate.
//! - An aggregate with a reference outside its tables, or with an explicit hash key that is no number,
//!   is delivered whole, as the plain record it may well be, like every other malformed one. Java
//!   delivers the user records before the fault and loses the rest.
//!
//! Everything malformed and everything left out is counted in [`Counts`].

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

/// What an aggregate starts with.
const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

/// For the bench: the parts that are not public.
#[doc(hidden)]
#[cfg(feature = "internals")]
pub mod internals {
    pub use super::md5::Hasher;
    use crate::HashKeyRange;
    use crate::aggregation::Deaggregator;

    /// A de-aggregator that hashes with certain instructions.
    #[must_use]
    pub fn deaggregator(range: Option<HashKeyRange>, hasher: Hasher) -> Deaggregator {
        Deaggregator::with_hasher(range, hasher)
    }
}
