//! The local endpoints as SDK clients see them: over loopback and in process.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit, StatisticSet};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    PointInTimeRecoverySpecification, PointInTimeRecoveryStatus, ScalarAttributeType,
};
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::primitives::{Blob, DateTime};
use aws_sdk_kinesis::types::{
    EncryptionType, MetricsName, PutRecordsRequestEntry, ShardFilter, ShardFilterType, ShardIteratorType,
    StartingPosition, StreamStatus, SubscribeToShardEvent, SubscribeToShardEventStream,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use kinesis_consumer::testing::{HttpFault, LocalAws};

#[path = "../examples/support/tls.rs"]
mod tls;

type TestResult = Result<(), Box<dyn std::error::Error>>;

const FIRST_SHARD: &str = "shardId-000000000000";

#[expect(clippy::disallowed_methods, reason = "the service compares with the real time")]
fn real_time() -> SystemTime {
    SystemTime::now()
}

async fn start() -> LocalAws {
    LocalAws::start().await.expect("a free port")
}

/// Clients over both transports, which must not differ.
fn kinesis_clients(local: &LocalAws) -> [aws_sdk_kinesis::Client; 2] {
    [local.sdk_config(), local.in_process_config()].map(|config| aws_sdk_kinesis::Client::new(&config))
}

/// A client that reports the first failure instead of retrying.
fn impatient(local: &LocalAws) -> aws_sdk_kinesis::Client {
    let retry = aws_config::retry::RetryConfig::disabled();
    let config = local.sdk_config().into_builder().retry_config(retry).build();
    aws_sdk_kinesis::Client::new(&config)
}

fn code<T, E: ProvideErrorMetadata, R>(result: Result<T, SdkError<E, R>>) -> String {
    match result {
        Ok(_) => "success".to_owned(),
        Err(error) => error.code().unwrap_or("no code").to_owned(),
    }
}

async fn read(
    client: &aws_sdk_kinesis::Client,
    stream: &str,
    shard: &str,
) -> Result<aws_sdk_kinesis::operation::get_records::GetRecordsOutput, Box<dyn std::error::Error>> {
    let start = ShardIteratorType::TrimHorizon;
    let iterator = client
        .get_shard_iterator()
        .stream_name(stream)
        .shard_id(shard)
        .shard_iterator_type(start)
        .send()
        .await?;
    let iterator = iterator.shard_iterator().ok_or("no iterator")?;
    Ok(client.get_records().shard_iterator(iterator).send().await?)
}

#[tokio::test]
async fn a_record_is_read_as_it_was_put() -> TestResult {
    let local = start().await;
    for (index, client) in kinesis_clients(&local).into_iter().enumerate() {
        let stream = format!("orders-{index}");
        client.create_stream().stream_name(&stream).shard_count(1).send().await?;
        let data = Blob::new(vec![0, 1, 0xFE, 0xFF]);
        let put = client
            .put_record()
            .stream_name(&stream)
            .partition_key("ключ \"1\"")
            .data(data.clone())
            .send()
            .await?;
        let page = read(&client, &stream, FIRST_SHARD).await?;
        let [record] = page.records() else { panic!("{:?}", page.records()) };
        assert_eq!((record.data(), record.partition_key()), (&data, Some("ключ \"1\"")));
        assert_eq!(record.sequence_number(), put.sequence_number());
        let arrival = SystemTime::try_from(*record.approximate_arrival_timestamp().ok_or("no time")?)?;
        assert!(arrival.elapsed().is_ok_and(|age| age < Duration::from_secs(60)));
        assert_eq!(page.millis_behind_latest(), Some(0));
    }
    Ok(())
}

#[tokio::test]
async fn put_records_reports_each_entry() -> TestResult {
    let local = start().await;
    let [client, _] = kinesis_clients(&local);
    client.create_stream().stream_name("s").shard_count(2).send().await?;
    let entry = |hash_key: u128| {
        PutRecordsRequestEntry::builder()
            .partition_key("same")
            .explicit_hash_key(hash_key.to_string())
            .data(Blob::new("x"))
            .build()
    };
    let records = vec![entry(0)?, entry(u128::MAX)?];
    let put = client.put_records().stream_name("s").set_records(Some(records)).send().await?;
    let shards: Vec<_> = put.records().iter().filter_map(|entry| entry.shard_id()).collect();
    assert_eq!(shards, [FIRST_SHARD, "shardId-000000000001"]);
    assert_eq!(put.failed_record_count(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_split_shard_ends_with_its_children_and_a_merged_one_with_its_child() -> TestResult {
    let local = start().await;
    let [client, _] = kinesis_clients(&local);
    client.create_stream().stream_name("s").shard_count(1).send().await?;
    client.put_record().stream_name("s").partition_key("k").data(Blob::new("1")).send().await?;
    let middle = (1_u128 << 127).to_string();
    client
        .split_shard()
        .stream_name("s")
        .shard_to_split(FIRST_SHARD)
        .new_starting_hash_key(middle)
        .send()
        .await?;
    let end = read(&client, "s", FIRST_SHARD).await?;
    assert_eq!((end.records().len(), end.next_shard_iterator()), (1, None));
    let children: Vec<_> = end.child_shards().iter().map(|child| child.shard_id()).collect();
    assert_eq!(children, ["shardId-000000000001", "shardId-000000000002"]);
    assert!(end.child_shards().iter().all(|child| child.parent_shards() == [FIRST_SHARD]));

    let merge = client.merge_shards().stream_name("s").shard_to_merge(children[0]);
    merge.adjacent_shard_to_merge(children[1]).send().await?;
    for parent in children {
        let end = read(&client, "s", parent).await?;
        let [child] = end.child_shards() else { panic!("{:?}", end.child_shards()) };
        assert_eq!((child.shard_id(), child.parent_shards().len()), ("shardId-000000000003", 2));
    }
    Ok(())
}

#[tokio::test]
async fn shards_are_listed_by_filter_and_by_page() -> TestResult {
    let local = start().await;
    let [client, _] = kinesis_clients(&local);
    client.create_stream().stream_name("s").shard_count(3).send().await?;
    client
        .update_shard_count()
        .stream_name("s")
        .target_shard_count(6)
        .scaling_type("UNIFORM_SCALING".into())
        .send()
        .await?;
    let filter = ShardFilter::builder().r#type(ShardFilterType::AtLatest).build()?;
    let mut page =
        client.list_shards().stream_name("s").shard_filter(filter.clone()).max_results(4).send().await?;
    let mut open = page.shards().len();
    while let Some(token) = page.next_token().map(str::to_owned) {
        let both = client.list_shards().stream_name("s").next_token(&token).send().await;
        assert_eq!(code(both), "InvalidArgumentException");
        page = client.list_shards().next_token(token).max_results(4).send().await?;
        open += page.shards().len();
    }
    assert_eq!(open, 6);
    let horizon = ShardFilter::builder().r#type(ShardFilterType::AtTrimHorizon).build()?;
    let first = client.list_shards().stream_name("s").shard_filter(horizon).send().await?;
    assert_eq!(first.shards().len(), 3);
    Ok(())
}

#[tokio::test]
async fn errors_arrive_as_the_sdk_knows_them() -> TestResult {
    let local = start().await;
    let client = impatient(&local);
    client.create_stream().stream_name("s").shard_count(1).send().await?;
    let no_stream = client.describe_stream_summary().stream_name("nope").send().await.unwrap_err();
    assert!(no_stream.into_service_error().is_resource_not_found_exception());
    let get = |shard| client.get_shard_iterator().stream_name("s").shard_id(shard);
    let latest = ShardIteratorType::Latest;
    let no_shard = get("shardId-000000000009").shard_iterator_type(latest).send().await.unwrap_err();
    assert!(no_shard.into_service_error().is_resource_not_found_exception());
    let at = get(FIRST_SHARD).shard_iterator_type(ShardIteratorType::AtSequenceNumber);
    assert_eq!(code(at.starting_sequence_number("12345").send().await), "InvalidArgumentException");
    assert_eq!(code(client.get_records().shard_iterator("AAAA").send().await), "InvalidArgumentException");
    let future = DateTime::from(real_time() + Duration::from_secs(60));
    let at = get(FIRST_SHARD).shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(future);
    assert_eq!(code(at.send().await), "InvalidArgumentException");
    Ok(())
}

#[tokio::test]
async fn consumers_are_registered_once() -> TestResult {
    let local = start().await;
    let client = impatient(&local);
    client.create_stream().stream_name("s").shard_count(1).send().await?;
    let summary = client.describe_stream_summary().stream_name("s").send().await?;
    let summary = summary.stream_description_summary().ok_or("no summary")?;
    assert_eq!(*summary.stream_status(), StreamStatus::Active);
    let register =
        || client.register_stream_consumer().stream_arn(summary.stream_arn()).consumer_name("c").send();
    let arn = register().await?.consumer().ok_or("no consumer")?.consumer_arn().to_owned();
    assert_eq!(code(register().await), "ResourceInUseException");
    let described = client.describe_stream_consumer().consumer_arn(&arn).send().await?;
    let described = described.consumer_description().ok_or("no description")?;
    assert_eq!(described.consumer_status().as_str(), "ACTIVE");
    assert_eq!(described.stream_arn(), summary.stream_arn());
    Ok(())
}

#[tokio::test]
async fn monitoring_is_switched_on_and_off_and_shown() -> TestResult {
    let local = start().await;
    for (index, client) in kinesis_clients(&local).into_iter().enumerate() {
        let stream = format!("s{index}");
        client.create_stream().stream_name(&stream).shard_count(1).send().await?;
        let enable = client.enable_enhanced_monitoring().stream_name(&stream);
        let enabled = enable.shard_level_metrics(MetricsName::All).send().await?;
        let counts =
            (enabled.current_shard_level_metrics().len(), enabled.desired_shard_level_metrics().len());
        assert_eq!(counts, (0, 7));
        let disable = client.disable_enhanced_monitoring().stream_arn(local.kinesis().stream_arn(&stream));
        let disabled = disable.shard_level_metrics(MetricsName::IncomingBytes).send().await?;
        assert_eq!(disabled.desired_shard_level_metrics().len(), 6);
        let described = client.describe_stream().stream_name(&stream).send().await?;
        let described = described.stream_description().ok_or("no description")?.enhanced_monitoring();
        let summary = client.describe_stream_summary().stream_name(&stream).send().await?;
        let summary = summary.stream_description_summary().ok_or("no summary")?.enhanced_monitoring();
        assert_eq!(described, summary);
        let [shown] = summary else { panic!("{summary:?}") };
        assert_eq!(shown.shard_level_metrics(), disabled.desired_shard_level_metrics());
        assert!(!shown.shard_level_metrics().contains(&MetricsName::IncomingBytes));
    }
    Ok(())
}

#[tokio::test]
async fn encryption_is_shown_by_the_stream_and_by_its_records() -> TestResult {
    let local = start().await;
    let [client, _] = kinesis_clients(&local);
    client.create_stream().stream_name("s").shard_count(1).send().await?;
    let put = || client.put_record().stream_name("s").partition_key("k").data(Blob::new("x")).send();
    assert_eq!(put().await?.encryption_type(), Some(&EncryptionType::None));
    let start = client.start_stream_encryption().stream_name("s").key_id("alias/aws/kinesis");
    start.encryption_type(EncryptionType::Kms).send().await?;
    assert_eq!(put().await?.encryption_type(), Some(&EncryptionType::Kms));
    let described = client.describe_stream().stream_name("s").send().await?;
    let described = described.stream_description().ok_or("no description")?;
    assert_eq!(
        (described.encryption_type(), described.key_id()),
        (Some(&EncryptionType::Kms), Some("alias/aws/kinesis"))
    );
    let summary = client.describe_stream_summary().stream_name("s").send().await?;
    let summary = summary.stream_description_summary().ok_or("no summary")?;
    assert_eq!(
        (summary.encryption_type(), summary.key_id()),
        (described.encryption_type(), described.key_id())
    );
    let stop = client.stop_stream_encryption().stream_name("s").key_id("alias/aws/kinesis");
    stop.encryption_type(EncryptionType::Kms).send().await?;
    let summary = client.describe_stream_summary().stream_name("s").send().await?;
    let summary = summary.stream_description_summary().ok_or("no summary")?;
    assert_eq!((summary.encryption_type(), summary.key_id()), (Some(&EncryptionType::None), None));
    put().await?;
    let page = read(&client, "s", FIRST_SHARD).await?;
    let types: Vec<_> = page.records().iter().map(|record| record.encryption_type()).collect();
    assert_eq!(types, [None, Some(&EncryptionType::Kms), None]);
    let none = impatient(&local).start_stream_encryption().stream_name("s").key_id("k");
    assert_eq!(code(none.encryption_type(EncryptionType::None).send().await), "InvalidArgumentException");
    Ok(())
}

#[tokio::test]
async fn tags_and_policies_belong_to_a_stream_or_a_consumer() -> TestResult {
    let local = start().await;
    let client = impatient(&local);
    client.create_stream().stream_name("s").shard_count(1).tags("made", "with it").send().await?;
    let stream = local.kinesis().stream_arn("s");
    let register = client.register_stream_consumer().stream_arn(&stream).consumer_name("c");
    let registered = register.tags("team", "a").send().await?;
    let consumer = registered.consumer().ok_or("no consumer")?.consumer_arn().to_owned();
    client.tag_resource().resource_arn(&consumer).tags("stage", "test").tags("cost", "1").send().await?;
    client.untag_resource().resource_arn(&consumer).tag_keys("cost").send().await?;
    client.tag_resource().resource_arn(&stream).tags("stage", "prod").send().await?;
    let policy = |name: &str| format!(r#"{{"Version":"2012-10-17","Id":"{name}","Statement":[]}}"#);
    for (resource, tags) in [
        (&consumer, [("stage", Some("test")), ("team", Some("a"))]),
        (&stream, [("made", Some("with it")), ("stage", Some("prod"))]),
    ] {
        let listed = client.list_tags_for_resource().resource_arn(resource).send().await?;
        let listed: Vec<_> = listed.tags().iter().map(|tag| (tag.key(), tag.value())).collect();
        assert_eq!(listed, tags);
        let get = || client.get_resource_policy().resource_arn(resource).send();
        assert_eq!(code(get().await), "ResourceNotFoundException");
        client.put_resource_policy().resource_arn(resource).policy(policy(resource)).send().await?;
    }
    let page = client.list_tags_for_stream().stream_name("s").limit(1).send().await?;
    assert_eq!((page.tags().len(), page.has_more_tags()), (1, true));
    for resource in [&stream, &consumer] {
        let kept = client.get_resource_policy().resource_arn(resource).send().await?;
        assert_eq!(kept.policy(), policy(resource));
        client.delete_resource_policy().resource_arn(resource).send().await?;
        let get = client.get_resource_policy().resource_arn(resource);
        assert_eq!(code(get.send().await), "ResourceNotFoundException");
        let put = client.put_resource_policy().resource_arn(resource).policy("not JSON");
        assert_eq!(code(put.send().await), "InvalidArgumentException");
    }
    let gone = format!("{stream}/consumer/nobody:1");
    assert_eq!(
        code(client.tag_resource().resource_arn(gone).tags("a", "b").send().await),
        "ResourceNotFoundException"
    );
    Ok(())
}

#[tokio::test]
async fn planned_faults_hit_the_operations_they_are_for() -> TestResult {
    let local = start().await;
    let client = impatient(&local);
    client.create_stream().stream_name("s").shard_count(1).send().await?;
    let put = || client.put_record().stream_name("s").partition_key("k").data(Blob::new("x")).send();
    local.inject("kinesis:PutRecord", 1, HttpFault::error(400, "ProvisionedThroughputExceededException"));
    local.inject("kinesis:PutRecord", 1, HttpFault::DropRequest);
    local.inject("kinesis:PutRecord", 1, HttpFault::DropResponse);
    assert_eq!(code(put().await), "ProvisionedThroughputExceededException");
    for _ in 0..2 {
        assert!(matches!(put().await, Err(SdkError::DispatchFailure(_))));
    }
    put().await?;
    // The dropped request had no effect, the dropped response had one.
    assert_eq!(read(&client, "s", FIRST_SHARD).await?.records().len(), 2);
    assert_eq!(local.requests()["kinesis:PutRecord"], 4);
    Ok(())
}

#[tokio::test]
async fn a_throttled_client_retries_by_itself() -> TestResult {
    let local = start().await;
    for client in kinesis_clients(&local) {
        local.inject("kinesis:ListStreams", 1, HttpFault::error(400, "LimitExceededException"));
        client.list_streams().send().await?;
    }
    assert_eq!(local.requests()["kinesis:ListStreams"], 4);
    Ok(())
}

/// The next events up to the first that carries records or the end of the shard.
async fn next_event(events: &mut SubscribeToShardOutput) -> Option<SubscribeToShardEvent> {
    loop {
        let event = events.event_stream.recv().await.expect("an event")?;
        if let SubscribeToShardEventStream::SubscribeToShardEvent(event) = event
            && (!event.records().is_empty() || !event.child_shards().is_empty())
        {
            return Some(event);
        }
    }
}

#[tokio::test]
async fn a_subscription_pushes_until_the_shard_ends() -> TestResult {
    let local = start().await;
    for (index, client) in kinesis_clients(&local).into_iter().enumerate() {
        let stream = format!("s{index}");
        local.kinesis().create_stream(&stream, 1)?;
        let consumer = local.kinesis().register_consumer(&stream, "c")?;
        let horizon = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build()?;
        let subscribe = || {
            let request = client.subscribe_to_shard().consumer_arn(&consumer).shard_id(FIRST_SHARD);
            request.starting_position(horizon.clone()).send()
        };
        let mut events = subscribe().await?;
        assert_eq!(code(subscribe().await), "ResourceInUseException");
        let shard = local.kinesis().put(&stream, "k", "1")?.shard;
        let event = next_event(&mut events).await.ok_or("no event")?;
        let [record] = event.records() else { panic!("{event:?}") };
        assert_eq!(
            (record.data().as_ref(), event.continuation_sequence_number()),
            (&b"1"[..], record.sequence_number())
        );
        local.kinesis().split(&stream, &shard)?;
        let last = next_event(&mut events).await.ok_or("no last event")?;
        assert_eq!((last.child_shards().len(), last.continuation_sequence_number()), (2, ""));
        assert!(next_event(&mut events).await.is_none());
    }
    Ok(())
}

async fn table(client: &aws_sdk_dynamodb::Client) -> TestResult {
    let key = KeySchemaElement::builder().attribute_name("leaseKey").key_type(KeyType::Hash).build()?;
    let kind = ScalarAttributeType::S;
    let attribute = AttributeDefinition::builder().attribute_name("leaseKey").attribute_type(kind).build()?;
    let create = client.create_table().table_name("leases").key_schema(key).attribute_definitions(attribute);
    create.billing_mode(BillingMode::PayPerRequest).send().await?;
    Ok(())
}

#[tokio::test]
async fn dynamodb_writes_on_condition() -> TestResult {
    let local = start().await;
    for config in [local.sdk_config(), local.in_process_config()] {
        let client = aws_sdk_dynamodb::Client::new(&config);
        table(&client).await?;
        let number = |n: u32| AttributeValue::N(n.to_string());
        let key = HashMap::from([("leaseKey".to_owned(), AttributeValue::S("shard".to_owned()))]);
        client
            .put_item()
            .table_name("leases")
            .set_item(Some(key.clone()))
            .item("leaseCounter", number(1))
            .send()
            .await?;
        let update = || {
            client
                .update_item()
                .table_name("leases")
                .set_key(Some(key.clone()))
                .update_expression("SET leaseCounter = :new")
                .condition_expression("leaseCounter = :old")
                .expression_attribute_values(":old", number(1))
                .expression_attribute_values(":new", number(2))
                .send()
        };
        update().await?;
        let lost = update().await.expect_err("the counter moved on");
        assert!(lost.into_service_error().is_conditional_check_failed_exception());
        client.delete_table().table_name("leases").send().await?;
    }
    assert_eq!(local.requests()["dynamodb:UpdateItem"], 4);
    Ok(())
}

#[tokio::test]
async fn point_in_time_recovery_can_be_switched_on_and_off() -> TestResult {
    let local = start().await;
    let client = aws_sdk_dynamodb::Client::new(&local.sdk_config());
    let describe = || client.describe_continuous_backups().table_name("leases").send();
    let missing = describe().await.expect_err("no table").into_service_error();
    assert!(missing.is_table_not_found_exception(), "{missing:?}");
    table(&client).await?;
    for (is_enabled, expected) in
        [(true, PointInTimeRecoveryStatus::Enabled), (false, PointInTimeRecoveryStatus::Disabled)]
    {
        let wanted =
            PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(is_enabled).build()?;
        let update = client.update_continuous_backups().table_name("leases");
        update.point_in_time_recovery_specification(wanted).send().await?;
        let backups = describe().await?;
        let recovery = backups
            .continuous_backups_description()
            .and_then(|backups| backups.point_in_time_recovery_description())
            .and_then(|recovery| recovery.point_in_time_recovery_status());
        assert_eq!(recovery, Some(&expected));
    }
    Ok(())
}

#[tokio::test]
async fn metrics_are_kept_as_they_were_put() -> TestResult {
    let local = start().await;
    for config in [local.sdk_config(), local.in_process_config()] {
        let client = aws_sdk_cloudwatch::Client::new(&config);
        let before = local.metrics().len();
        let statistics =
            StatisticSet::builder().sample_count(4.0).sum(10.0).minimum(1.0).maximum(4.0).build();
        // Far above the 10 KiB from which on the SDK compresses its requests.
        let datum = |index: u32| {
            MetricDatum::builder()
                .metric_name(format!("metric-{index}"))
                .dimensions(Dimension::builder().name("Operation").value("ProcessTask").build())
                .timestamp(DateTime::from_secs(1_763_000_000))
                .unit(StandardUnit::Milliseconds)
                .statistic_values(statistics.clone())
                .build()
        };
        let data = (0..500).map(datum).collect();
        client.put_metric_data().namespace("app").set_metric_data(Some(data)).send().await?;
        let metrics = local.metrics().split_off(before);
        assert_eq!(metrics.len(), 500);
        let last = &metrics[499];
        assert_eq!((last.namespace.as_str(), last.name.as_str()), ("app", "metric-499"));
        assert_eq!(last.dimensions, [("Operation".to_owned(), "ProcessTask".to_owned())].into());
        assert_eq!((last.sample_count, last.sum, last.minimum, last.maximum), (4.0, 10.0, 1.0, 4.0));
        assert_eq!(last.timestamp, SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_000_000));
        assert_eq!(last.unit.as_deref(), Some("Milliseconds"));
    }
    Ok(())
}

#[tokio::test]
async fn a_stopped_endpoint_answers_nothing_more() -> TestResult {
    let local = start().await;
    let client = impatient(&local);
    client.create_stream().stream_name("s").shard_count(1).send().await?;
    let (address, config) = (local.address(), local.sdk_config());
    local.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let client = aws_sdk_kinesis::Client::new(&config);
    let retry = aws_sdk_kinesis::config::retry::RetryConfig::disabled();
    let once = aws_sdk_kinesis::config::Config::builder().retry_config(retry);
    let list = client.list_streams().customize().config_override(once).send().await;
    assert!(matches!(list, Err(SdkError::DispatchFailure(_))));
    Ok(())
}

#[tokio::test]
async fn all_endpoints_are_served_with_tls() -> TestResult {
    let local = start().await;
    let front = tls::TlsFront::start(([127, 0, 0, 1], 0).into(), local.address()).await?;
    let trusting = |store: TrustStore| -> Result<_, Box<dyn std::error::Error>> {
        let context = TlsContext::builder().with_trust_store(store).build()?;
        let provider = Provider::Rustls(CryptoMode::AwsLc);
        let http = aws_smithy_http_client::Builder::new().tls_provider(provider).tls_context(context);
        let retry = aws_config::retry::RetryConfig::disabled();
        let config = local.sdk_config().into_builder().endpoint_url(front.endpoint_url()).retry_config(retry);
        Ok(config.http_client(http.build_https()).build())
    };
    let certificate = front.certificate().to_owned();
    let config = trusting(TrustStore::empty().with_pem_certificate(std::fs::read(&certificate)?))?;
    let kinesis = aws_sdk_kinesis::Client::new(&config);
    kinesis.create_stream().stream_name("s").shard_count(1).send().await?;
    kinesis.put_record().stream_name("s").partition_key("k").data(Blob::new("x")).send().await?;
    assert_eq!(read(&kinesis, "s", FIRST_SHARD).await?.records().len(), 1);
    let consumer = local.kinesis().register_consumer("s", "c")?;
    let horizon = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build()?;
    let subscribe = kinesis.subscribe_to_shard().consumer_arn(consumer).shard_id(FIRST_SHARD);
    let mut events = subscribe.starting_position(horizon).send().await?;
    assert_eq!(next_event(&mut events).await.ok_or("no event")?.records().len(), 1);
    table(&aws_sdk_dynamodb::Client::new(&config)).await?;
    let cloudwatch = aws_sdk_cloudwatch::Client::new(&config);
    cloudwatch.list_metrics().send().await?;

    let stranger = aws_sdk_kinesis::Client::new(&trusting(TrustStore::default())?);
    let refused = stranger.list_streams().send().await;
    assert!(matches!(refused, Err(SdkError::DispatchFailure(_))), "its certificate is not trusted");
    drop(front);
    assert!(!certificate.exists());
    Ok(())
}
