//! The destinations for dead letters that come with the crate, on endpoints of their own.

use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use kinesis_consumer::testing::LocalAws;
use kinesis_consumer::{
    BoxError, Consumer, ConsumerHandle, DynamoDbDeadLetters, ErrorPolicy, Event, Events, Failure,
    KinesisDeadLetters, ManagementConfig, StartStrategy,
};

const STREAM: &str = "orders";
const LETTERS: &str = "orders-dead";

/// Endpoints with a stream of three records, the second of which is bad.
async fn endpoints() -> LocalAws {
    let aws = LocalAws::start().await.expect("endpoints");
    aws.kinesis().create_stream(STREAM, 1).expect("new");
    for payload in ["one", "bad", "three"] {
        aws.kinesis().put(STREAM, "customer-7", payload).expect("written");
    }
    aws
}

async fn start(aws: &LocalAws, policy: ErrorPolicy) -> (ConsumerHandle, Events) {
    let consumer = Consumer::builder()
        .stream(STREAM)
        .application("dead-letters")
        .aws_config(&aws.sdk_config())
        .for_each(|record| async move {
            if *record.record.data == *b"bad" {
                Err(Failure::poison("no order"))?
            }
            Ok::<_, BoxError>(())
        })
        .on_error(policy.pause(Duration::from_millis(10), Duration::from_millis(50)))
        .management(ManagementConfig::default().with_start_strategy(StartStrategy::Oldest))
        .build()
        .expect("valid");
    let events = consumer.events();
    (consumer.start().await.expect("started"), events)
}

/// Waits for such an event.
async fn until(events: &mut Events, is_wanted: impl Fn(&Event) -> bool) {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(30), events.next()).await.expect("in time");
        if is_wanted(&event.expect("the consumer runs")) {
            return;
        }
    }
}

#[tokio::test]
async fn a_table_gets_the_record_and_all_that_is_known_of_its_failure() {
    let aws = endpoints().await;
    let client = aws_sdk_dynamodb::Client::new(&aws.sdk_config());
    let id = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash);
    let create = client.create_table().table_name(LETTERS).billing_mode(BillingMode::PayPerRequest);
    let create = create.attribute_definitions(id.build().expect("complete"));
    create.key_schema(key.build().expect("complete")).send().await.expect("created");

    let letters = DynamoDbDeadLetters::table(client.clone(), LETTERS);
    let (handle, mut events) = start(&aws, ErrorPolicy::default().dead_letter(letters)).await;
    until(&mut events, |event| matches!(event, Event::DeadLettered { .. })).await;
    let items = client.scan().table_name(LETTERS).send().await.expect("scanned").items.unwrap_or_default();
    assert_eq!(items.len(), 1, "{items:?}");
    let shown = format!("{:?}", items[0]);
    for known in
        ["orders/shardId-000000000000/", "customer-7", "no order", "it can never be handled", "dead-letters"]
    {
        assert!(shown.contains(known), "{known}: {shown}");
    }
    let payload = items[0].values().find_map(|value| value.as_b().ok()).expect("a payload");
    assert_eq!(payload.as_ref(), b"bad");
    handle.shutdown().await.expect("stopped");
}

#[tokio::test]
async fn a_stream_gets_the_record_under_its_key_as_soon_as_it_exists() {
    let aws = endpoints().await;
    let letters = KinesisDeadLetters::stream(aws_sdk_kinesis::Client::new(&aws.sdk_config()), LETTERS);
    let (handle, mut events) = start(&aws, ErrorPolicy::default().dead_letter(letters)).await;
    until(&mut events, |event| matches!(event, Event::DeadLetterFailed { .. })).await;
    aws.kinesis().create_stream(LETTERS, 1).expect("new");
    until(&mut events, |event| matches!(event, Event::DeadLettered { .. })).await;
    let shard = aws.kinesis().shards(LETTERS).expect("a stream")[0].id.clone();
    let kept = aws.kinesis().stored_records(LETTERS, &shard).expect("a shard");
    let kept: Vec<_> = kept.iter().map(|kept| (kept.partition_key.to_string(), kept.data.to_vec())).collect();
    assert_eq!(kept, [("customer-7".to_owned(), b"bad".to_vec())]);
    handle.shutdown().await.expect("stopped");
}
