use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{StreamConsumerDescription, StreamError, StreamErrorKind, Subscription};
use crate::types::{ConsumerArn, HashKeyRange, Record, SequenceNumber, ShardId, StreamId};

/// The part of the Kinesis API that a consumer uses. It is implemented over the AWS SDK, and by the
/// simulated stream in [`testing`](crate::testing).
///
/// # Guarantees an implementation gives
///
/// Each method is one request: it does not retry or page, and it returns within the request timeout it
/// was built with. Retrying, pacing and paging belong to the callers, which handle every error by its
/// [`kind`](StreamError::kind).
///
/// # Cancel safety
///
/// Every method may be dropped at any await point.
#[async_trait]
pub trait StreamApi: Send + Sync + fmt::Debug {
    /// DescribeStreamSummary.
    async fn describe_stream(&self, stream: &StreamId) -> Result<StreamDescription, StreamError>;

    /// One page of ListShards.
    async fn list_shards(
        &self,
        stream: &StreamId,
        request: &ShardPageRequest,
    ) -> Result<ShardPage, StreamError>;

    /// GetShardIterator.
    async fn shard_iterator(
        &self,
        stream: &StreamId,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, StreamError>;

    /// GetRecords: at most `limit` records (1 to 10,000) or 10 MiB.
    async fn records(
        &self,
        stream: &StreamId,
        iterator: &ShardIterator,
        limit: u32,
    ) -> Result<RecordsPage, StreamError>;

    // An implementation without enhanced fan-out omits the remaining methods: its shards are polled.

    /// DescribeStreamConsumer, by the stream's ARN and the consumer's name; `NotFound` if there is none.
    async fn describe_consumer(
        &self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumerDescription, StreamError> {
        let _ = name;
        Err(no_fan_out("DescribeStreamConsumer", stream_arn))
    }

    /// RegisterStreamConsumer; `InUse` if there is a consumer of this name.
    async fn register_consumer(
        &self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumerDescription, StreamError> {
        let _ = name;
        Err(no_fan_out("RegisterStreamConsumer", stream_arn))
    }

    /// DeregisterStreamConsumer.
    async fn deregister_consumer(&self, consumer: &ConsumerArn) -> Result<(), StreamError> {
        Err(no_fan_out("DeregisterStreamConsumer", consumer.as_str()))
    }

    /// SubscribeToShard. Replaces an earlier subscription of this consumer to the shard, but is refused
    /// with `InUse` within five seconds of the last one that succeeded.
    async fn subscribe(
        &self,
        stream: &StreamId,
        consumer: &ConsumerArn,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<Box<dyn Subscription>, StreamError> {
        let _ = (consumer, shard, position);
        Err(no_fan_out("SubscribeToShard", stream.name()))
    }
}

// Each method must be passed on: one inherited from the trait would hide what is shared.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: StreamApi + ?Sized> StreamApi for Arc<T> {
    async fn describe_stream(&self, stream: &StreamId) -> Result<StreamDescription, StreamError> {
        (**self).describe_stream(stream).await
    }

    async fn list_shards(
        &self,
        stream: &StreamId,
        request: &ShardPageRequest,
    ) -> Result<ShardPage, StreamError> {
        (**self).list_shards(stream, request).await
    }

    async fn shard_iterator(
        &self,
        stream: &StreamId,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, StreamError> {
        (**self).shard_iterator(stream, shard, position).await
    }

    async fn records(
        &self,
        stream: &StreamId,
        iterator: &ShardIterator,
        limit: u32,
    ) -> Result<RecordsPage, StreamError> {
        (**self).records(stream, iterator, limit).await
    }

    async fn describe_consumer(
        &self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumerDescription, StreamError> {
        (**self).describe_consumer(stream_arn, name).await
    }

    async fn register_consumer(
        &self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumerDescription, StreamError> {
        (**self).register_consumer(stream_arn, name).await
    }

    async fn deregister_consumer(&self, consumer: &ConsumerArn) -> Result<(), StreamError> {
        (**self).deregister_consumer(consumer).await
    }

    async fn subscribe(
        &self,
        stream: &StreamId,
        consumer: &ConsumerArn,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<Box<dyn Subscription>, StreamError> {
        (**self).subscribe(stream, consumer, shard, position).await
    }
}

fn no_fan_out(operation: &'static str, subject: &str) -> StreamError {
    StreamError::new(StreamErrorKind::Unavailable, operation, subject)
        .with_source("this StreamApi has no enhanced fan-out")
}

/// The result of DescribeStreamSummary.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamDescription {
    /// The stream's ARN.
    pub arn: String,
    /// The number of open shards.
    pub open_shards: u32,
    /// When the stream was created.
    pub created: SystemTime,
    /// For how long it keeps records, if that is known.
    pub retention: Option<Duration>,
}

impl StreamDescription {
    /// A description of the stream `arn`.
    #[must_use]
    pub fn new(arn: impl Into<String>, open_shards: u32, created: SystemTime) -> Self {
        Self { arn: arn.into(), open_shards, created, retention: None }
    }
}

/// A shard as ListShards describes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Shard {
    /// The shard's identifier.
    pub id: ShardId,
    /// The shards it was split or merged from: none, one or two. They may have expired.
    pub parents: BTreeSet<ShardId>,
    /// The range of hash keys whose records it holds.
    pub hash_key_range: HashKeyRange,
    /// Its first sequence number.
    pub starting_sequence_number: SequenceNumber,
    /// Its last sequence number; `None` while the shard is open.
    pub ending_sequence_number: Option<SequenceNumber>,
}

impl Shard {
    /// An open shard without parents.
    #[must_use]
    pub fn new(
        id: impl Into<ShardId>,
        hash_key_range: HashKeyRange,
        starting_sequence_number: SequenceNumber,
    ) -> Self {
        Self {
            id: id.into(),
            parents: BTreeSet::new(),
            hash_key_range,
            starting_sequence_number,
            ending_sequence_number: None,
        }
    }

    /// Whether records can still be written to it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ending_sequence_number.is_none()
    }
}

/// Which shards ListShards returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardFilter {
    /// `AT_LATEST`: the open shards.
    AtLatest,
    /// `AT_TRIM_HORIZON`: the shards that were open at the trim horizon.
    AtTrimHorizon,
    /// `AT_TIMESTAMP`: the shards that were open at a time.
    AtTimestamp(SystemTime),
    /// `FROM_TIMESTAMP`: the shards that were open at a time, and those that were opened since.
    FromTimestamp(SystemTime),
}

/// Which page of ListShards to return.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardPageRequest {
    /// The first page: of all shards, or of those that match a filter.
    First(Option<ShardFilter>),
    /// The page after one that returned this token. The service does not accept a stream or filter here.
    Next(String),
}

/// A page of ListShards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardPage {
    /// The shards on this page.
    pub shards: Vec<Shard>,
    /// The token of the next page, if there is one.
    pub next_token: Option<String>,
}

impl ShardPage {
    /// A page with `shards`; `next_token` if more pages follow.
    #[must_use]
    pub fn new(shards: Vec<Shard>, next_token: Option<String>) -> Self {
        Self { shards, next_token }
    }
}

/// Where in a shard an iterator starts (`ShardIteratorType` of the Kinesis API).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IteratorPosition {
    /// The oldest record the stream still has.
    TrimHorizon,
    /// After the newest record.
    Latest,
    /// The first record that arrived at or after a time.
    AtTimestamp(SystemTime),
    /// The record with this sequence number.
    At(SequenceNumber),
    /// The record that follows this sequence number.
    After(SequenceNumber),
}

/// An opaque position returned by the service; valid for five minutes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ShardIterator(String);

impl ShardIterator {
    /// The iterator as the service sent it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for ShardIterator {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for ShardIterator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShardIterator(..)")
    }
}

/// The result of one GetRecords call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordsPage {
    /// Records in sequence order; may be empty even though more records follow.
    pub records: Vec<Record>,
    /// Where to continue; `None` at the end of a closed shard.
    pub next_iterator: Option<ShardIterator>,
    /// How far the page is behind the newest record, in milliseconds.
    pub millis_behind_latest: Option<i64>,
    /// At the end of a closed shard: its child shards.
    pub child_shards: Vec<ChildShard>,
}

/// A child of a closed shard (`ChildShard` of the Kinesis API).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct ChildShard {
    /// The child's identifier.
    pub id: ShardId,
    /// All its parents: one after a split, two after a merge.
    pub parents: BTreeSet<ShardId>,
    /// The range of hash keys whose records it holds.
    pub hash_key_range: HashKeyRange,
}

/// Whether a response is consistent: it either continues and has no children, or ends the shard and
/// names children with their parents. The service has been seen to return other responses. Treating one
/// as the end of the shard would lose the rest of it (KCL's `DataRetrievalUtil`).
pub(crate) fn ends_consistently(is_end: bool, children: &[ChildShard]) -> bool {
    is_end != children.is_empty() && children.iter().all(|child| !child.parents.is_empty())
}

impl ChildShard {
    /// A child of `parents`.
    #[must_use]
    pub fn new(
        id: impl Into<ShardId>,
        parents: impl IntoIterator<Item = ShardId>,
        hash_key_range: HashKeyRange,
    ) -> Self {
        Self { id: id.into(), parents: parents.into_iter().collect(), hash_key_range }
    }
}
