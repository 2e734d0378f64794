//! Pages of records over HTTP, in both formats.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_kinesis::Client;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};

use super::AwsStream;
use crate::kinesis::KinesisProtocol;
use crate::kinesis::{IteratorPosition, RecordsPage, StreamApi, StreamErrorKind};
use crate::runtime::Clock;
use crate::testing::{HttpFault, LocalAws};
use crate::types::StreamId;

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
type Answer = fn(bool) -> (StatusCode, [(&'static str, &'static str); 1], &'static [u8]);

/// An endpoint that responds to GetRecords with `answer`, and the formats of the requests it got.
async fn endpoint(answer: Answer) -> (AwsStream, Arc<Mutex<Vec<bool>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let forms = Arc::clone(&asked);
    let app = Router::new().fallback(move |headers: HeaderMap| async move {
        let is_cbor = headers["content-type"] == super::cbor::CONTENT_TYPE;
        forms.lock().unwrap().push(is_cbor);
        answer(is_cbor)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let config = aws_config::defaults(BehaviorVersion::latest()).region("us-east-1").endpoint_url(url);
    let config = config.test_credentials().load().await;
    (aws(&Client::new(&config), KinesisProtocol::Cbor), asked)
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
    for _ in 0..2 {
        let page = api.records(&stream(), &"any".to_owned().into(), 1).await.unwrap();
        assert_eq!(page.millis_behind_latest, Some(7));
    }
    assert_eq!(*asked.lock().unwrap(), [true, false, false]);
}

#[tokio::test]
async fn cbor_that_makes_no_sense_is_asked_for_again_in_json() {
    let (api, asked) = endpoint(|is_cbor| match is_cbor {
        true => (StatusCode::OK, CBOR, b"\xa1\x67Records\x18"),
        false => (StatusCode::OK, JSON, PAGE),
    })
    .await;
    assert!(api.records(&stream(), &"any".to_owned().into(), 1).await.is_ok());
    assert!(api.records(&stream(), &"any".to_owned().into(), 1).await.is_ok());
    assert_eq!(*asked.lock().unwrap(), [true, false, false]);
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
