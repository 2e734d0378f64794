use std::fmt;

use async_trait::async_trait;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{self as sdk, ShardIteratorType};

use super::convert;
use super::failure::Request;
use crate::kinesis::{IteratorPosition, StreamError, Subscription, SubscriptionEvent};
use crate::types::{ShardId, StreamId};

/// The event stream of one SubscribeToShard request. Events stay in the connection until they are
/// requested, and its flow control makes the service wait.
pub(super) struct AwsSubscription {
    /// `None` once it has ended.
    answer: Option<SubscribeToShardOutput>,
    stream: StreamId,
    shard: ShardId,
}

impl AwsSubscription {
    pub(super) fn new(answer: SubscribeToShardOutput, stream: StreamId, shard: ShardId) -> Self {
        Self { answer: Some(answer), stream, shard }
    }

    async fn receive(&mut self) -> Result<Option<SubscriptionEvent>, StreamError> {
        let request = Request::new("SubscribeToShard", &self.stream).of_shard(&self.shard);
        let Some(answer) = &mut self.answer else { return Ok(None) };
        loop {
            return match answer.event_stream.recv().await {
                Ok(Some(sdk::SubscribeToShardEventStream::SubscribeToShardEvent(event))) => {
                    let event = convert::event(event);
                    event
                        .map(Some)
                        .ok_or_else(|| request.malformed("an invalid sequence number or range of hash keys"))
                }
                // A kind of event that this SDK does not know.
                Ok(Some(_)) => continue,
                Ok(None) => Ok(None),
                Err(failure) => Err(request.stream_failed(&failure)),
            };
        }
    }
}

#[async_trait]
impl Subscription for AwsSubscription {
    async fn next(&mut self) -> Option<Result<SubscriptionEvent, StreamError>> {
        let received = self.receive().await;
        if !matches!(received, Ok(Some(_))) {
            self.answer = None;
        }
        received.transpose()
    }
}

impl fmt::Debug for AwsSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsSubscription")
            .field("stream", &self.stream.name())
            .field("shard", &self.shard)
            .field("is_open", &self.answer.is_some())
            .finish()
    }
}

/// `None` if the SDK rejects the position, which cannot happen because all required members are set.
pub(super) fn starting_position(position: &IteratorPosition) -> Option<sdk::StartingPosition> {
    let builder = sdk::StartingPosition::builder();
    match position {
        IteratorPosition::TrimHorizon => builder.r#type(ShardIteratorType::TrimHorizon),
        IteratorPosition::Latest => builder.r#type(ShardIteratorType::Latest),
        IteratorPosition::AtTimestamp(time) => {
            builder.r#type(ShardIteratorType::AtTimestamp).timestamp(DateTime::from(*time))
        }
        IteratorPosition::At(number) => {
            builder.r#type(ShardIteratorType::AtSequenceNumber).sequence_number(number.to_string())
        }
        IteratorPosition::After(number) => {
            builder.r#type(ShardIteratorType::AfterSequenceNumber).sequence_number(number.to_string())
        }
    }
    .build()
    .ok()
}
