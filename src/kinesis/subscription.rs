use std::fmt;

use async_trait::async_trait;

use super::{ChildShard, StreamError};
use crate::types::{ConsumerArn, Record, SequenceNumber};

/// One subscription of a registered consumer to one shard (SubscribeToShard of the Kinesis API). It
/// lasts for five minutes at most; dropping it ends it.
///
/// The service pushes events at up to 2 MB/s, but only as fast as they are taken: an event that is not
/// requested stays in the connection and delays those after it.
#[async_trait]
pub trait Subscription: Send + fmt::Debug {
    /// Waits for the next event. Returns `None` once the service has ended the subscription without an
    /// error: after five minutes, or after the last event of a closed shard.
    ///
    /// There is no timeout. An idle shard sends an event every few seconds, and the caller decides how
    /// long a silence is too long. Do not call this again after `None` or an error.
    ///
    /// # Cancel safety
    ///
    /// No event is lost if the future is dropped.
    async fn next(&mut self) -> Option<Result<SubscriptionEvent, StreamError>>;

    /// Reports that nothing was received for so long that the connection is considered dead. The
    /// subscription is dropped next; later ones must use another connection. Does nothing by default.
    fn connection_lost(&mut self) {}
}

/// One event pushed by the service (`SubscribeToShardEvent` of the Kinesis API).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionEvent {
    /// Records in sequence order; empty if the event is only a heartbeat.
    pub records: Vec<Record>,
    /// The sequence number after which to subscribe again; `None` at the end of a closed shard.
    pub continuation: Option<SequenceNumber>,
    /// How far the event is behind the newest record, in milliseconds.
    pub millis_behind_latest: Option<i64>,
    /// At the end of a closed shard: its child shards.
    pub child_shards: Vec<ChildShard>,
}

/// A consumer registered with a stream (`ConsumerDescription` of the Kinesis API).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamConsumerDescription {
    /// The ARN to subscribe with.
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
    /// `CREATING`: not yet usable.
    Creating,
    /// `ACTIVE`: usable.
    Active,
    /// `DELETING`: no longer usable.
    Deleting,
}
