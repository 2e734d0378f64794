use std::convert::Infallible;

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue as HttpValue};

use super::kinesis;
use super::protocol::{Body, Protocol};
use super::wire::{Wire, missing};
use crate::testing::SimulatedKinesis;
use crate::testing::stream::{Event, ServiceError, SimulatedSubscription};

/// SubscribeToShard: a response that lasts as long as the subscription, with one frame per event.
pub(super) fn answer(
    kinesis: &SimulatedKinesis,
    input: &Wire,
    protocol: Protocol,
) -> Result<Response<Body>, ServiceError> {
    let position = input.get("StartingPosition").ok_or_else(|| missing("startingPosition"))?;
    let position = kinesis::position(position, "Type", "SequenceNumber")?;
    let (consumer, shard) = (input.required_text("ConsumerARN")?, input.required_text("ShardId")?);
    let subscription = kinesis.subscribe(consumer, &shard.into(), &position)?;
    let opened = frame("initial-response", protocol, protocol.encode(&Wire::Map(Vec::new())));
    let frames = stream::iter([opened]).chain(events(subscription, protocol)).fuse();
    // Fused, because the SDK polls once more after the end.
    let body = StreamBody::new(frames.map(|frame| Ok::<_, Infallible>(Frame::data(frame))));
    let mut response = Response::new(BodyExt::boxed(body));
    let content_type = HttpValue::from_static("application/vnd.amazon.eventstream");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// The events of the subscription; an error is the last.
fn events(subscription: SimulatedSubscription, protocol: Protocol) -> impl stream::Stream<Item = Bytes> {
    stream::unfold(Some(subscription), move |subscription| async move {
        let mut subscription = subscription?;
        match subscription.next_stored().await? {
            Ok(event) => {
                let payload = protocol.encode(&event_body(event));
                Some((frame("SubscribeToShardEvent", protocol, payload), Some(subscription)))
            }
            Err(error) => Some((exception(&error, protocol), None)),
        }
    })
}

fn event_body(event: Event) -> Wire {
    let is_end = event.continuation.is_none();
    let behind = i64::try_from(event.behind_latest.as_millis()).unwrap_or(i64::MAX);
    Wire::map([
        ("Records", Wire::list(event.records.into_iter().map(Wire::Record))),
        ("ContinuationSequenceNumber", event.continuation.map(|number| number.to_string()).into()),
        ("MillisBehindLatest", Wire::Integer(behind)),
        ("ChildShards", if is_end { kinesis::child_shards(&event.children) } else { Wire::Null }),
    ])
}

fn frame(kind: &'static str, protocol: Protocol, payload: Bytes) -> Bytes {
    message(
        [(":message-type", "event"), (":event-type", kind), (":content-type", protocol.content_type())],
        payload,
    )
}

fn exception(error: &ServiceError, protocol: Protocol) -> Bytes {
    let payload = protocol.encode(&Wire::map([("message", error.message.as_str().into())]));
    message(
        [
            (":message-type", "exception"),
            (":exception-type", error.code.as_str()),
            (":content-type", protocol.content_type()),
        ],
        payload,
    )
}

fn message(headers: [(&'static str, &'static str); 3], payload: Bytes) -> Bytes {
    let header =
        |(name, value): (&'static str, &'static str)| Header::new(name, HeaderValue::String(value.into()));
    let message = Message::new_from_parts(headers.map(header).to_vec(), payload);
    let mut frame = Vec::with_capacity(message.payload().len() + 256);
    match write_message_to(&message, &mut frame) {
        Ok(()) => Bytes::from(frame),
        // Only a frame larger than the format allows would fail, and no event is.
        Err(_) => Bytes::new(),
    }
}
