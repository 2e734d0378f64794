//! Pages of records over HTTP, in both formats.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_kinesis::Client;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};

use super::AwsStream;
use crate::kinesis::KinesisProtocol;
use crate::kinesis::{IteratorPosition, RecordsPage, StreamApi, StreamErrorKind, SubscriptionEvent};
use crate::runtime::Clock;
use crate::testing::{HttpFault, LocalAws};
use crate::types::{ConsumerArn, StreamId};

const SECOND: Duration = Duration::from_secs(1);

fn stream() -> StreamId {
    "orders".parse().expect("a name")
}

fn aws(client: &Client, protocol: KinesisProtocol) -> AwsStream {
    AwsStream::new(client, Clock::system(), 5 * SECOND, protocol)
}

async fn first_page(local: &LocalAws, protocol: KinesisProtocol) -> RecordsPage {
    let api = aws(&Client::new(&local.sdk_config()), protocol);
    let shard = &local.kinesis().shards("orders").unwrap()[0].id;
    let start = IteratorPosition::TrimHorizon;
    let iterator = api.shard_iterator(&stream(), shard, &start).await.unwrap();
    let mut page = api.records(&stream(), &iterator, 10_000).await.unwrap();
    // Depends on the current time.
    page.next_iterator = page.next_iterator.map(|_| String::new().into());
    page
}

#[tokio::test]
async fn a_page_is_the_same_in_cbor_and_in_json() {
    let local = LocalAws::start().await.unwrap();
    local.kinesis().create_stream("orders", 1).unwrap();
    for (key, payload) in
        [("a", "1".to_owned()), ("a much longer key than fits inside a record", "x".repeat(70_000))]
    {
        local.kinesis().put("orders", key, payload).unwrap();
    }
    let page = first_page(&local, KinesisProtocol::Cbor).await;
    assert_eq!(page, first_page(&local, KinesisProtocol::Json).await);
    assert_eq!(page.records.len(), 2);
    assert!(page.records[0].approximate_arrival_timestamp.is_some());

    let parent = local.kinesis().shards("orders").unwrap()[0].id.clone();
    local.kinesis().split("orders", &parent).unwrap();
    let page = first_page(&local, KinesisProtocol::Cbor).await;
    assert_eq!(page, first_page(&local, KinesisProtocol::Json).await);
    assert_eq!((page.next_iterator, page.child_shards.len()), (None, 2));
}

#[tokio::test]
async fn what_the_service_refuses_is_understood_in_both_forms() {
    let local = LocalAws::start().await.unwrap();
    local.kinesis().create_stream("orders", 1).unwrap();
    for protocol in [KinesisProtocol::Cbor, KinesisProtocol::Json] {
        let api = aws(&Client::new(&local.sdk_config()), protocol);
        let throttled =
            HttpFault::Error { status: 400, code: "ProvisionedThroughputExceededException".into() };
        local.inject("kinesis:GetRecords", 1, throttled);
        let error = api.records(&stream(), &"any".to_owned().into(), 1).await.unwrap_err();
        assert_eq!(error.kind(), StreamErrorKind::Throttled, "{error}");
        local.inject("kinesis:GetRecords", 1, HttpFault::DropResponse);
        let error = api.records(&stream(), &"any".to_owned().into(), 1).await.unwrap_err();
        assert_eq!(error.kind(), StreamErrorKind::Unavailable, "{error}");
        let error = api.records(&stream(), &"any".to_owned().into(), 1).await.unwrap_err();
        assert_eq!(error.kind(), StreamErrorKind::InvalidArgument, "{error}");
    }
    let requests = local.requests();
    assert_eq!(requests["kinesis:GetRecords"], 6, "no request is made twice");
}

/// The response to a request, by whether the request is in CBOR.
type Answer = fn(bool) -> Response;

/// An endpoint that responds to GetRecords with `answer`, and the formats of the requests it got.
async fn endpoint(answer: Answer) -> (AwsStream, Arc<Mutex<Vec<bool>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let forms = Arc::clone(&asked);
    let app = Router::new().fallback(move |headers: HeaderMap| async move {
        let is_cbor = headers["content-type"] == super::cbor::CONTENT_TYPE;
        forms.lock().unwrap().push(is_cbor);
        answer(is_cbor)
    });
    (serve(app).await, asked)
}

/// A client of an endpoint of its own.
async fn serve(app: Router) -> AwsStream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let config = aws_config::defaults(BehaviorVersion::latest()).region("us-east-1").endpoint_url(url);
    let config = config.test_credentials().load().await;
    aws(&Client::new(&config), KinesisProtocol::Cbor)
}

const JSON: [(&str, &str); 1] = [("content-type", "application/x-amz-json-1.1")];
const CBOR: [(&str, &str); 1] = [("content-type", super::cbor::CONTENT_TYPE)];
const PAGE: &[u8] = br#"{"NextShardIterator":"next","MillisBehindLatest":7,"Records":[]}"#;

#[tokio::test]
async fn an_endpoint_without_cbor_is_spoken_to_in_json() {
    let (api, asked) = endpoint(|is_cbor| match is_cbor {
        true => (StatusCode::BAD_REQUEST, JSON, br#"{"__type":"SerializationException"}"#),
        false => (StatusCode::OK, JSON, PAGE),
    })
    .await;
    for _ in 0..4 {
        let page = api.records(&stream(), &"any".to_owned().into(), 1).await.unwrap();
        assert_eq!(page.millis_behind_latest, Some(7));
    }
    assert_eq!(*asked.lock().unwrap(), [true, false, true, false, true, false, false]);
}

#[tokio::test]
async fn cbor_that_makes_no_sense_is_asked_for_again_in_json() {
    let (api, asked) = endpoint(|is_cbor| match is_cbor {
        true => (StatusCode::OK, CBOR, b"\xa1\x67Records\x18"),
        false => (StatusCode::OK, JSON, PAGE),
    })
    .await;
    for _ in 0..4 {
        assert!(api.records(&stream(), &"any".to_owned().into(), 1).await.is_ok());
    }
    assert_eq!(*asked.lock().unwrap(), [true, false, true, false, true, false, false]);
}

#[tokio::test]
async fn an_endpoint_that_is_down_for_both_forms_is_asked_in_cbor_again() {
    let (api, asked) =
        endpoint(|_| (StatusCode::BAD_GATEWAY, [("content-type", "text/html")], b"<html>")).await;
    for _ in 0..2 {
        let error = api.records(&stream(), &"any".to_owned().into(), 1).await.unwrap_err();
        assert_eq!(error.kind(), StreamErrorKind::Unavailable, "{error}");
    }
    assert_eq!(*asked.lock().unwrap(), [true, false, true, false]);
}

type Response = (StatusCode, [(&'static str, &'static str); 1], &'static [u8]);

/// Responses to a request in CBOR that are not the service's.
const ODD_RESPONSES: [Response; 3] = [
    (StatusCode::BAD_GATEWAY, [("content-type", "text/html")], b"<html>"),
    (StatusCode::BAD_REQUEST, JSON, br#"{"__type":"UnknownOperationException"}"#),
    (StatusCode::OK, CBOR, b""),
];

#[tokio::test]
async fn after_one_odd_response_records_are_requested_in_cbor_again() {
    for odd in ODD_RESPONSES {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let forms = Arc::clone(&asked);
        let api = serve(Router::new().fallback(move |headers: HeaderMap| async move {
            let mut forms = forms.lock().unwrap();
            forms.push(headers["content-type"] == super::cbor::CONTENT_TYPE);
            match (forms.len(), forms.last()) {
                (1, _) => odd,
                (_, Some(true)) => (StatusCode::OK, CBOR, &b"\xa1\x67Records\x80"[..]),
                _ => (StatusCode::OK, JSON, PAGE),
            }
        }))
        .await;
        for _ in 0..3 {
            api.records(&stream(), &"any".to_owned().into(), 1).await.unwrap();
        }
        assert_eq!(*asked.lock().unwrap(), [true, false, true, true], "{odd:?}");
    }
}

/// The events of a subscription by `consumer`, up to the one that has caught up.
async fn events(local: &LocalAws, consumer: &str, protocol: KinesisProtocol) -> Vec<SubscriptionEvent> {
    let consumer: ConsumerArn = local.kinesis().register_consumer("orders", consumer).unwrap().into();
    let api = aws(&Client::new(&local.sdk_config()), protocol);
    let shard = &local.kinesis().shards("orders").unwrap()[0].id;
    let start = IteratorPosition::AtTimestamp(std::time::SystemTime::UNIX_EPOCH);
    let mut subscription = api.subscribe(&stream(), &consumer, shard, &start).await.unwrap();
    let mut events = Vec::new();
    loop {
        let mut event = subscription.next().await.expect("an event").unwrap();
        let is_last = event.millis_behind_latest == Some(0) || event.continuation.is_none();
        // Depends on the current time.
        event.millis_behind_latest = event.millis_behind_latest.map(|behind| behind.min(1));
        events.push(event);
        if is_last {
            return events;
        }
    }
}

#[tokio::test]
async fn events_are_the_same_in_cbor_and_in_json() {
    let local = LocalAws::start().await.unwrap();
    local.kinesis().create_stream("orders", 1).unwrap();
    for number in 0..5 {
        local.kinesis().put("orders", "key", "x".repeat(400_000 + number)).unwrap();
    }
    let in_cbor = events(&local, "a", KinesisProtocol::Cbor).await;
    assert_eq!(in_cbor, events(&local, "b", KinesisProtocol::Json).await);
    assert!(in_cbor.len() > 1 && in_cbor[0].continuation.is_some());
    assert_eq!(in_cbor.iter().map(|event| event.records.len()).sum::<usize>(), 5);

    let parent = local.kinesis().shards("orders").unwrap()[0].id.clone();
    local.kinesis().split("orders", &parent).unwrap();
    let in_cbor = events(&local, "c", KinesisProtocol::Cbor).await;
    assert_eq!(in_cbor, events(&local, "d", KinesisProtocol::Json).await);
    let last = in_cbor.last().unwrap();
    assert_eq!((last.continuation.is_none(), last.child_shards.len()), (true, 2));
}

#[tokio::test]
async fn a_refused_or_interrupted_subscription_is_understood_in_both_formats() {
    let local = LocalAws::start().await.unwrap();
    local.kinesis().create_stream("orders", 1).unwrap();
    let shard = local.kinesis().shards("orders").unwrap()[0].id.clone();
    for (name, protocol) in [("cbor", KinesisProtocol::Cbor), ("json", KinesisProtocol::Json)] {
        let api = aws(&Client::new(&local.sdk_config()), protocol);
        let start = IteratorPosition::TrimHorizon;
        let missing: ConsumerArn =
            "arn:aws:kinesis:us-east-1:000000000000:stream/orders/consumer/x:1".to_owned().into();
        let error = api.subscribe(&stream(), &missing, &shard, &start).await.unwrap_err();
        assert_eq!(error.kind(), StreamErrorKind::NotFound, "{error:?}");
        let consumer: ConsumerArn = local.kinesis().register_consumer("orders", name).unwrap().into();
        let mut first = api.subscribe(&stream(), &consumer, &shard, &start).await.unwrap();
        assert!(first.next().await.is_some_and(|event| event.is_ok()));
        let error = api.subscribe(&stream(), &consumer, &shard, &start).await.unwrap_err();
        assert_eq!(error.kind(), StreamErrorKind::InUse, "{error}");
        local.kinesis().deregister_consumer(consumer.as_str()).unwrap();
        let error = loop {
            match first.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("it ended as if it were complete"),
            }
        };
        assert_eq!(error.kind(), StreamErrorKind::NotFound, "{name}: {error:?}");
    }
    let requests = local.requests();
    assert_eq!(requests["kinesis:SubscribeToShard"], 6, "no request is made twice");
}

#[tokio::test]
async fn subscriptions_fall_back_to_json_where_cbor_is_not_understood() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let forms = Arc::clone(&asked);
    let api = serve(Router::new().fallback(move |headers: HeaderMap| async move {
        let is_cbor = headers["content-type"] == super::cbor::CONTENT_TYPE;
        forms.lock().unwrap().push(is_cbor);
        match is_cbor {
            true => (StatusCode::BAD_REQUEST, JSON, &br#"{"__type":"SerializationException"}"#[..]),
            false => (StatusCode::BAD_REQUEST, JSON, &br#"{"__type":"ResourceInUseException"}"#[..]),
        }
    }))
    .await;
    let (consumer, start) = (ConsumerArn::from("arn".to_owned()), IteratorPosition::Latest);
    let error = api.subscribe(&stream(), &consumer, &"shard".into(), &start).await.unwrap_err();
    assert_eq!(error.kind(), StreamErrorKind::InUse, "{error}");
    assert_eq!(*asked.lock().unwrap(), [true, false]);
}
