//! What only DynamoDB has: a table to create, and a network in between.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription,
};
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use kinesis_consumer::internals::dynamodb_lease_store;
use kinesis_consumer::lease::{
    Lease, LeaseStore, LeaseWrite, StoreError, StoreErrorKind, TableSpec, WriteOutcome,
};
use kinesis_consumer::{Checkpoint, LeaseKey};

use crate::table::{client, dynamodb};

const TIMEOUT: Duration = Duration::from_secs(20);

fn store(client: &Client, table: &str) -> Arc<dyn LeaseStore> {
    dynamodb_lease_store(client, table, None, None, TIMEOUT)
}

pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

async fn described(client: &Client, table: &str) -> TableDescription {
    client.describe_table().table_name(table).send().await.unwrap().table.unwrap()
}

#[tokio::test]
async fn many_workers_make_one_table() {
    let (client, table) = (dynamodb().await, unique("many"));
    let workers = (0..10).map(|_| {
        let store = store(&client, &table);
        tokio::spawn(async move {
            store.ensure_table(&TableSpec::default()).await.unwrap();
            store.scan().await.unwrap().leases.len()
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        assert_eq!(worker.await.unwrap(), 0);
    }
    let table = described(&client, &table).await;
    let billing = table.billing_mode_summary().and_then(|summary| summary.billing_mode());
    assert_eq!(billing, Some(&BillingMode::PayPerRequest));
    assert!(table.global_secondary_indexes().is_empty());
}

#[tokio::test]
async fn a_table_is_made_as_specified() {
    let (client, table) = (dynamodb().await, unique("specified"));
    let mut spec = TableSpec::default();
    spec.billing = kinesis_consumer::lease::BillingMode::Provisioned { read: 7, write: 3 };
    spec.tags = BTreeMap::from([("team".to_owned(), "orders".to_owned())]);
    spec.deletion_protection = true;
    store(&client, &table).ensure_table(&spec).await.unwrap();
    let table = described(&client, &table).await;
    let capacity = table.provisioned_throughput().unwrap();
    assert_eq!((capacity.read_capacity_units(), capacity.write_capacity_units()), (Some(7), Some(3)));
    assert_eq!(table.deletion_protection_enabled(), Some(true));
    let tags = client.list_tags_of_resource().resource_arn(table.table_arn().unwrap()).send().await.unwrap();
    assert_eq!(tags.tags()[0].value(), "orders");
}

#[tokio::test]
async fn a_table_of_something_else_is_refused() {
    let (client, table) = (dynamodb().await, unique("other"));
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
    let id = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::N);
    let create = client.create_table().table_name(&table).billing_mode(BillingMode::PayPerRequest);
    create.key_schema(key).attribute_definitions(id.build().unwrap()).send().await.unwrap();
    let error = store(&client, &table).ensure_table(&TableSpec::default()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unsuitable);
    let text = error.to_string();
    assert!(text.contains("id (HASH, N)") && text.contains("choose another table name"), "{text}");
}

#[tokio::test]
async fn a_missing_table_is_said_to_be_missing() {
    let client = dynamodb().await;
    let store = store(&client, "nowhere");
    let lease = Lease::new("shardId-0", Checkpoint::Latest);
    let errors = [
        store.scan().await.unwrap_err(),
        store.lease(&lease.key).await.unwrap_err(),
        store.create(&lease).await.unwrap_err(),
        store.apply(&LeaseWrite::renew(&lease, None)).await.unwrap_err(),
        store.delete_ended(&lease.key).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::TableMissing);
        assert!(error.to_string().contains("nowhere"), "{error}");
        assert!(error.to_string().contains("ResourceNotFoundException"), "what the service said: {error}");
    }
}

/// An endpoint that answers each operation as `script` says, given how often it was asked before.
async fn scripted(script: impl Fn(&str, usize) -> (u16, &'static str) + Send + Sync + 'static) -> Client {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Mutex::new(BTreeMap::<String, usize>::new());
    let answer = Arc::new(move |headers: HeaderMap| {
        let target = headers["x-amz-target"].to_str().unwrap();
        let operation = target.rsplit('.').next().unwrap();
        let mut asked = asked.lock().unwrap();
        let times = asked.entry(operation.to_owned()).or_default();
        *times += 1;
        let (status, body) = script(operation, *times - 1);
        (StatusCode::from_u16(status).unwrap(), [("content-type", "application/x-amz-json-1.0")], body)
    });
    let app = Router::new().fallback(move |headers: HeaderMap| std::future::ready(answer(headers)));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    client(&url)
}

const ACTIVE: &str = r#"{"Table":{"TableName":"leases","TableStatus":"ACTIVE","KeySchema":[{"AttributeName":"leaseKey","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"leaseKey","AttributeType":"S"}]}}"#;
const CREATING: &str = r#"{"Table":{"TableName":"leases","TableStatus":"CREATING","KeySchema":[{"AttributeName":"leaseKey","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"leaseKey","AttributeType":"S"}]}}"#;

#[tokio::test]
async fn recovery_is_switched_on_for_a_table_as_soon_as_it_allows() {
    let updates = Arc::new(AtomicUsize::new(0));
    let seen = updates.clone();
    let client = scripted(move |operation, before| match (operation, before) {
        ("DescribeTable", 0) => (200, CREATING),
        ("DescribeTable", _) => (200, ACTIVE),
        ("UpdateContinuousBackups", times) => {
            seen.fetch_add(1, Ordering::SeqCst);
            match times {
                0 => (400, r#"{"__type":"ContinuousBackupsUnavailableException"}"#),
                _ => (200, "{}"),
            }
        }
        other => panic!("{other:?}"),
    });
    let mut spec = TableSpec::default();
    spec.point_in_time_recovery = true;
    store(&client.await, "leases").ensure_table(&spec).await.unwrap();
    assert_eq!(updates.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_table_that_never_becomes_ready_is_given_up() {
    let client = scripted(|_, _| (200, CREATING)).await;
    let mut spec = TableSpec::default();
    spec.wait_max = Duration::from_millis(300);
    let error = store(&client, "leases").ensure_table(&spec).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("did not become ready"), "{error}");
}

#[tokio::test]
async fn a_refusal_without_the_row_is_followed_by_a_read() {
    let client = scripted(|operation, _| match operation {
        "UpdateItem" => (400, r#"{"__type":"ConditionalCheckFailedException"}"#),
        "GetItem" => (
            200,
            r#"{"Item":{"leaseKey":{"S":"shardId-0"},"leaseCounter":{"N":"9"},"checkpoint":{"S":"LATEST"}}}"#,
        ),
        other => panic!("{other}"),
    });
    let renewal = LeaseWrite::renew(&Lease::new("shardId-0", Checkpoint::Latest), None);
    let outcome = store(&client.await, "leases").apply(&renewal).await.unwrap();
    assert!(matches!(outcome, WriteOutcome::Refused(Some(current)) if current.counter == 9));
}

/// An endpoint that answers everything in one way, and counts.
async fn answering(status: u16, body: &'static str, delay: Duration) -> (Client, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    let app = Router::new().fallback(move || async move {
        counter.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(delay).await;
        (StatusCode::from_u16(status).unwrap(), [("content-type", "application/x-amz-json-1.0")], body)
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (client(&url), requests)
}

async fn failing_renewal(client: &Client, timeout: Duration) -> StoreError {
    let store = dynamodb_lease_store(client, "leases", None, Some(1), timeout);
    let renewal = LeaseWrite::renew(&Lease::new("shardId-0", Checkpoint::Latest), None);
    store.apply(&renewal).await.unwrap_err()
}

#[tokio::test]
async fn writes_are_tried_once_and_reads_again() {
    let body = r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"sorry"}"#;
    let (client, requests) = answering(500, body, Duration::ZERO).await;
    let error = failing_renewal(&client, TIMEOUT).await;
    assert_eq!((error.kind(), error.is_indeterminate()), (StoreErrorKind::Unavailable, true));
    assert_eq!(requests.swap(0, Ordering::SeqCst), 1);
    let read = store(&client, "leases").lease(&LeaseKey::from("shardId-0")).await;
    assert_eq!(read.unwrap_err().kind(), StoreErrorKind::Unavailable);
    assert!(requests.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let throttled = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"slow down"}"#;
    let denied = r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"User: x is not authorized"}"#;
    for (body, kind, said) in [
        (throttled, StoreErrorKind::Throttled, "slow down"),
        (denied, StoreErrorKind::Denied, "allow dynamodb:UpdateItem; AccessDeniedException: User: x"),
        ("<html>", StoreErrorKind::Malformed, ""),
    ] {
        let (client, _) = answering(400, body, Duration::ZERO).await;
        let error = failing_renewal(&client, TIMEOUT).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.to_string().starts_with("RenewLease on lease table leases (row shardId-0)"), "{error}");
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_given_up() {
    let (silent, _) = answering(200, "{}", Duration::from_secs(60)).await;
    let error = failing_renewal(&silent, Duration::from_millis(100)).await;
    assert_eq!((error.kind(), error.is_indeterminate()), (StoreErrorKind::Unavailable, true));
    let nobody = client("http://127.0.0.1:1");
    let error = failing_renewal(&nobody, TIMEOUT).await;
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn missing_credentials_are_said_to_be_missing() {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
        .region(aws_sdk_dynamodb::config::Region::new("eu-west-1"));
    let error = failing_renewal(&Client::from_conf(config.build()), TIMEOUT).await;
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("credentials"), "{error}");
}
