//! Stage 1 of the data flow: which shards exist, and the [`StreamApi`] through which they are read.

mod api;
mod aws;
mod error;
pub(crate) mod list;
mod protocol;
pub(crate) mod registration;
mod subscription;

pub(crate) use self::api::ends_consistently;
pub use self::api::{
    ChildShard, IteratorPosition, RecordsPage, Shard, ShardFilter, ShardIterator, ShardPage,
    ShardPageRequest, StreamApi, StreamDescription,
};
pub(crate) use self::aws::AwsStream;
#[cfg(feature = "internals")]
pub(crate) use self::aws::{events_from_frames, page_from_cbor};
pub use self::error::{StreamError, StreamErrorKind};
pub use self::protocol::KinesisProtocol;
pub use self::subscription::{
    StreamConsumerDescription, StreamConsumerStatus, Subscription, SubscriptionEvent,
};
