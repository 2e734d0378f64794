//! SubscribeToShard: in CBOR, whose events are read here, or in JSON, as the SDK reads them.

use std::fmt;

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::operation::subscribe_to_shard::builders::SubscribeToShardFluentBuilder;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{self as sdk, ShardIteratorType};
use aws_smithy_types::byte_stream::ByteStream;
#[cfg(feature = "internals")]
use bytes::Bytes;

use super::cbor_interceptor::{CborInterceptor, RawResponse};
use super::event_frames::{Frame, FrameKind, FrameReader};
use super::failure::Request;
use super::negotiation::Negotiation;
use super::subscription_pools::Slot;
use super::{AwsStream, cbor, convert};
use crate::connections::is_timeout;
use crate::kinesis::{IteratorPosition, StreamError, Subscription, SubscriptionEvent};
use crate::types::{ConsumerArn, ShardId, StreamId};

const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";
const SUBSCRIBE_TO_SHARD: &str = "SubscribeToShard";

impl AwsStream {
    /// Opens a subscription in CBOR or, if that is not understood, in JSON.
    pub(super) async fn open_subscription(
        &self,
        stream: &StreamId,
        consumer: &ConsumerArn,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<Box<dyn Subscription>, StreamError> {
        let request = Request::new(SUBSCRIBE_TO_SHARD, stream).of_shard(shard);
        let start = starting_position(position)
            .ok_or_else(|| request.malformed("a starting position that the SDK rejects"))?;
        let (client, mut slot) = self.subscriptions.join(self.request_timeout);
        let call = |client: &Client| {
            let call = client.subscribe_to_shard().consumer_arn(consumer.as_str()).shard_id(shard.as_str());
            call.starting_position(start.clone())
        };
        let used_cbor = self.events_format.is_cbor();
        let mut opened = None;
        if used_cbor {
            let input = cbor::subscribe_request(consumer, shard, position);
            opened = self.subscribe_in_cbor(request, call(&client), input).await;
        }
        let opened = match opened {
            Some(opened) => opened,
            None => {
                let opened = self.subscribe_in_json(request, call(&client)).await;
                if used_cbor && opened.is_ok() {
                    self.events_format.only_json_answered();
                }
                opened
            }
        };
        match opened {
            Ok(events) => {
                slot.answered();
                let (stream, shard) = (stream.clone(), shard.clone());
                Ok(Box::new(AwsSubscription { events: Some(events), slot, stream, shard }))
            }
            Err(Unopened { error, is_timeout }) => {
                if is_timeout {
                    slot.unanswered();
                } else {
                    slot.refused();
                }
                Err(error)
            }
        }
    }

    /// `None` if the response, and so perhaps the request, was not understood.
    async fn subscribe_in_cbor(
        &self,
        request: Request<'_>,
        call: SubscribeToShardFluentBuilder,
        input: Vec<u8>,
    ) -> Option<Result<Events, Unopened>> {
        let interceptor = CborInterceptor::new(cbor::CONTENT_TYPE, input).with_event_stream(EVENT_STREAM);
        let answered = self.clock.timeout(self.request_timeout, async {
            let answer = call.customize().interceptor(interceptor.clone()).send().await;
            match interceptor.response() {
                Some(response) if response.is_event_stream => Ok(Ok(response)),
                Some(refusal) => Ok(Err((refusal.status, refusal.read().await))),
                None => Err(answer),
            }
        });
        Some(match answered.await {
            Err(_) => Err(Unopened::timed_out(request.timed_out(self.request_timeout))),
            Ok(Ok(Ok(response))) => {
                let events = CborEvents::new(response, self.events_format.clone());
                Ok(Events::Cbor(Box::new(events)))
            }
            Ok(Ok(Err((status, Ok(body))))) => {
                let (code, message) = cbor::failure(&body)?;
                self.events_format.cbor_answered();
                Err(request.refused(&code, &message, status).into())
            }
            Ok(Ok(Err((_, Err(failure))))) => Err(request.interrupted(failure).into()),
            // A response in another format. What the SDK makes of it shows nothing, as it was not asked.
            Ok(Err(Ok(_) | Err(SdkError::ServiceError(_) | SdkError::ResponseError(_)))) => return None,
            Ok(Err(Err(failure))) => {
                Err(Unopened { is_timeout: is_timeout(&failure), error: request.failed(&failure) })
            }
        })
    }

    async fn subscribe_in_json(
        &self,
        request: Request<'_>,
        call: SubscribeToShardFluentBuilder,
    ) -> Result<Events, Unopened> {
        match self.clock.timeout(self.request_timeout, call.send()).await {
            Ok(Ok(answer)) => Ok(Events::Sdk(Box::new(answer))),
            Ok(Err(failure)) => {
                Err(Unopened { is_timeout: is_timeout(&failure), error: request.failed(&failure) })
            }
            Err(_) => Err(Unopened::timed_out(request.timed_out(self.request_timeout))),
        }
    }
}

/// Why a subscription was not opened.
struct Unopened {
    error: StreamError,
    /// There was no response.
    is_timeout: bool,
}

impl Unopened {
    fn timed_out(error: StreamError) -> Self {
        Self { error, is_timeout: true }
    }
}

impl From<StreamError> for Unopened {
    fn from(error: StreamError) -> Self {
        Self { error, is_timeout: false }
    }
}

/// The event stream of one SubscribeToShard request. Events stay in the connection until they are
/// requested, and its flow control makes the service wait.
pub(super) struct AwsSubscription {
    /// `None` once it has ended.
    events: Option<Events>,
    slot: Slot,
    stream: StreamId,
    shard: ShardId,
}

enum Events {
    Cbor(Box<CborEvents>),
    Sdk(Box<SubscribeToShardOutput>),
}

impl Events {
    async fn next(&mut self, request: Request<'_>) -> Result<Option<SubscriptionEvent>, StreamError> {
        match self {
            Self::Cbor(events) => events.next(request).await,
            Self::Sdk(answer) => next_of_sdk(answer, request).await,
        }
    }
}

async fn next_of_sdk(
    answer: &mut SubscribeToShardOutput,
    request: Request<'_>,
) -> Result<Option<SubscriptionEvent>, StreamError> {
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

/// Events in CBOR, whose payloads are slices of the response.
struct CborEvents {
    body: ByteStream,
    frames: FrameReader,
    format: Negotiation,
}

impl CborEvents {
    fn new(response: RawResponse, format: Negotiation) -> Self {
        Self { body: response.into_stream(), frames: FrameReader::default(), format }
    }

    async fn next(&mut self, request: Request<'_>) -> Result<Option<SubscriptionEvent>, StreamError> {
        loop {
            while let Some(frame) = self.frames.next().map_err(|error| request.interrupted(error.into()))? {
                if let Some(event) = self.event(frame, request)? {
                    return Ok(Some(event));
                }
            }
            match self.body.next().await {
                Some(Ok(piece)) => self.frames.push(piece),
                Some(Err(failure)) => return Err(request.interrupted(failure.into())),
                None if self.frames.is_empty() => return Ok(None),
                None => return Err(request.interrupted("the connection ended within an event".into())),
            }
        }
    }

    /// The event in a frame; `None` if it is of another kind.
    fn event(&self, frame: Frame, request: Request<'_>) -> Result<Option<SubscriptionEvent>, StreamError> {
        let is_cbor = frame.content_type.contains("cbor");
        match frame.kind {
            FrameKind::Event(kind) if kind != "SubscribeToShardEvent" => Ok(None),
            FrameKind::Event(_) if !is_cbor => {
                self.format.answered_in_json();
                let error = request.interrupted("an event in another format than CBOR".into());
                Err(error)
            }
            FrameKind::Event(_) => {
                let event = cbor::event(&frame.payload);
                let event = event.map_err(|_| request.malformed("an event that is not as documented"))?;
                self.format.cbor_answered();
                Ok(Some(event))
            }
            FrameKind::Exception(code) => {
                let message = if is_cbor { cbor::message(&frame.payload) } else { String::new() };
                Err(request.refused(&code, &message, 0))
            }
            FrameKind::Error(code, message) => Err(request.refused(&code, &message, 0)),
        }
    }
}

/// The events in the pieces of a response body, up to the first fault, for fuzzing. Whether there was none.
#[cfg(feature = "internals")]
pub(crate) fn events_from_frames(pieces: impl IntoIterator<Item = Bytes>) -> (Vec<SubscriptionEvent>, bool) {
    let (mut frames, mut events) = (FrameReader::default(), Vec::new());
    for piece in pieces {
        frames.push(piece);
        loop {
            let frame = match frames.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return (events, false),
            };
            match cbor::event(&frame.payload) {
                Ok(event) => events.push(event),
                Err(_) => return (events, false),
            }
        }
    }
    (events, frames.is_empty())
}

#[async_trait]
impl Subscription for AwsSubscription {
    async fn next(&mut self) -> Option<Result<SubscriptionEvent, StreamError>> {
        let request = Request::new(SUBSCRIBE_TO_SHARD, &self.stream).of_shard(&self.shard);
        let received = match &mut self.events {
            Some(events) => events.next(request).await,
            None => Ok(None),
        };
        if !matches!(received, Ok(Some(_))) {
            self.events = None;
        }
        received.transpose()
    }

    fn connection_lost(&mut self) {
        self.slot.connection_lost();
    }
}

impl fmt::Debug for AwsSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsSubscription")
            .field("stream", &self.stream.name())
            .field("shard", &self.shard)
            .field("is_open", &self.events.is_some())
            .finish()
    }
}

/// `None` if the SDK rejects the position, which cannot happen because all required members are set.
fn starting_position(position: &IteratorPosition) -> Option<sdk::StartingPosition> {
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
