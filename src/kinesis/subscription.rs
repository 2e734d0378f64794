use std::fmt;

use async_trait::async_trait;

use super::{ChildShard, StreamError};
use crate::types::{ConsumerArn, Record, SequenceNumber};

/// One subscription of a registered consumer to one shard (SubscribeToShard of the Kinesis API). It
/// lives for five minutes at most; dropping it ends it.
///
/// The service pushes, at up to 2 MB/s, only as fast as events are taken: one that nobody asks for
/// stays in the connection and holds up what follows.
#[async_trait]
pub trait Subscription: Send + fmt::Debug {
    /// Waits for the next event. `None` once the service has ended the subscription in good order:
    /// after five minutes, or behind the last event of a closed shard.
    ///
    /// There is no timeout: an idle shard has an event every few seconds, and the caller decides how
    /// long a silence is too long. After `None` or an error there is nothing more to ask for.
    ///
    /// # Cancel safety
    ///
    /// No event is lost if the future is dropped.
    async fn next(&mut self) -> Option<Result<SubscriptionEvent, StreamError>>;
}

/// What the service pushed at once (`SubscribeToShardEvent` of the Kinesis API).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionEvent {
    /// Records in sequence order; none if the event only says that the subscription lives.
    pub records: Vec<Record>,
    /// The number after which to subscribe again; `None` at the end of a closed shard.
    pub continuation: Option<SequenceNumber>,
    /// How far the event is behind the newest record, in milliseconds.
    pub millis_behind_latest: Option<i64>,
    /// At the end of a closed shard: the shards that follow it.
    pub child_shards: Vec<ChildShard>,
}

/// A consumer registered with a stream (`ConsumerDescription` of the Kinesis API).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamConsumerDescription {
    /// What subscriptions are made with.
    pub arn: ConsumerArn,
    /// Whether it can be used.
    pub status: StreamConsumerStatus,
}

impl StreamConsumerDescription {
    /// A description of the consumer `arn`.
    #[must_use]
    pub fn new(arn: impl Into<ConsumerArn>, status: StreamConsumerStatus) -> Self {
        Self { arn: arn.into(), status }
    }
}

/// Whether a registered consumer can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StreamConsumerStatus {
    /// `CREATING`: soon.
    Creating,
    /// `ACTIVE`: now.
    Active,
    /// `DELETING`: not any more.
    Deleting,
}
