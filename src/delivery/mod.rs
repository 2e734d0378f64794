//! Streams: records that are taken and acknowledged, instead of code that is called with them; and handlers of records
//! that run at the same time, which are built on the same.
//!
//! A processor of this module takes the records of a shard into a queue, from which a stream, or a task that runs handlers,
//! takes them. Another task for each shard stores how far they are done, and does as the error policy says with those that
//! failed.

mod ack;
mod keyed;
mod options;
mod processor;
mod queue;
mod ready;
mod shard;
mod shard_task;
mod shards;
mod stream;
mod watermark;

pub use self::ack::Delivery;
pub use self::options::StreamOptions;
pub use self::shards::{ShardStream, ShardStreams};
pub use self::stream::RecordStream;

pub(crate) use self::keyed::KeyedFactory;
pub(crate) use self::processor::{DeliveryFactory, Grace, Taking};
pub(crate) use self::ready::ReadyList;
