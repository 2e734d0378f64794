//! The consumer with real SDK clients over the local endpoints: starting, failing to start, handing
//! over, and user code that blocks its runtime.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use kinesis_consumer::aggregation::{Added, Aggregator};
use kinesis_consumer::lease::TableSpec;
use kinesis_consumer::testing::{HttpFault, LocalAws, NewRecord};
use kinesis_consumer::{
    BoxError, Checkpointer, Consumer, ConsumerBuilder, CoordinationConfig, CoordinationMode, Error,
    ErrorKind, Event, FanOutConsumer, Health, ItemKey, KinesisClientRecord, LeaseConfig, ManagementConfig,
    MetricsConfig, ShardRecordProcessor, ShardRecordProcessorFactory, StartStrategy, StreamConfig,
};

/// Counts payloads and checkpoints every batch; the first batch may take its time.
#[derive(Clone, Default)]
struct Counting {
    payloads: Arc<Mutex<BTreeMap<String, u32>>>,
    block_first: Option<Duration>,
}

struct CountingProcessor {
    counting: Counting,
    checkpointer: Checkpointer,
    blocked: Mutex<bool>,
}

impl Counting {
    fn distinct(&self) -> usize {
        self.payloads.lock().expect("not poisoned").len()
    }

    fn all(&self) -> u32 {
        self.payloads.lock().expect("not poisoned").values().sum()
    }
}

#[async_trait]
impl ShardRecordProcessorFactory for Counting {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        Box::new(CountingProcessor { counting: self.clone(), checkpointer, blocked: Mutex::new(false) })
    }
}

#[async_trait]
impl ShardRecordProcessor for CountingProcessor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        if let Some(time) = self.counting.block_first
            && !std::mem::replace(&mut *self.blocked.lock().expect("not poisoned"), true)
        {
            // Not how it is done, but how it happens.
            std::thread::sleep(time);
        }
        for record in &records {
            let payload = String::from_utf8_lossy(record.record.data.as_ref()).into_owned();
            *self.counting.payloads.lock().expect("not poisoned").entry(payload).or_default() += 1;
        }
        if let Err(error) =
            self.checkpointer.checkpoint(records[records.len() - 1].extended_sequence_number()).await
        {
            assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
        }
    }
    async fn lease_lost(&self) {}
    async fn shard_ended(&self) {
        self.checkpointer.end().await.expect("the shard has ended");
    }
    async fn shutdown_requested(&self) {}
}

fn builder(local: &LocalAws, counting: &Counting) -> ConsumerBuilder {
    builder_of_no_stream(local, counting).stream("orders")
}

fn builder_of_no_stream(local: &LocalAws, counting: &Counting) -> ConsumerBuilder {
    Consumer::builder()
        .application("end-to-end")
        .processor_factory(counting.clone())
        .aws_config(&local.sdk_config())
        .management(ManagementConfig { start_strategy: StartStrategy::Oldest, ..ManagementConfig::default() })
}

async fn local(shards: u32) -> LocalAws {
    let local = LocalAws::start().await.expect("started");
    local.kinesis().create_stream("orders", shards).expect("a new stream");
    local
}

fn put(local: &LocalAws, numbers: std::ops::Range<usize>) {
    put_to(local, "orders", numbers);
}

fn put_to(local: &LocalAws, stream: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let key = format!("key-{}", number % 50);
        if number % 2 == 0 {
            local.kinesis().put(stream, key, format!("payload-{number}")).expect("put");
            continue;
        }
        let mut aggregator = Aggregator::new();
        assert_eq!(aggregator.add(&key, None, format!("payload-{number}").as_bytes()), Added::Yes);
        let aggregate = aggregator.finish().expect("a record");
        let record = NewRecord::new(aggregate.partition_key, aggregate.data);
        local.kinesis().put_record(stream, record).expect("put");
    }
}

/// Looks again and again, for real time is not ours to pause.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn start_error(builder: ConsumerBuilder) -> Error {
    let started = builder.build().expect("valid settings").start();
    let outcome = tokio::time::timeout(Duration::from_secs(60), started).await.expect("bounded");
    outcome.expect_err("it cannot start")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_flow_through_a_split_and_a_handover() {
    let (local, counting) = (local(4).await, Counting::default());
    put(&local, 0..500);
    let a = builder(&local, &counting).build().expect("valid").start().await.expect("started");
    until("the first records", || counting.distinct() == 500).await;
    let open = local.kinesis().open_shards("orders").expect("a stream");
    local.kinesis().split("orders", &open[0].id).expect("split");
    put(&local, 500..1000);
    until("the records after the split", || counting.distinct() == 1000).await;

    let b = builder(&local, &counting).build().expect("valid").start().await.expect("started");
    let before = counting.all();
    a.shutdown().await.expect("processors return");
    put(&local, 1000..1500);
    let handed_over = Instant::now();
    until("the records after the handover", || counting.distinct() == 1500).await;
    assert!(handed_over.elapsed() < Duration::from_secs(5), "{:?}", handed_over.elapsed());
    assert_eq!(counting.all() - before, 500, "no duplicates after a graceful handover");
    b.shutdown().await.expect("processors return");
    local.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fan_out_delivers_through_a_split_a_broken_connection_and_a_second_worker() {
    let (local, counting) = (local(3).await, Counting::default());
    put(&local, 0..500);
    let subscriber =
        |worker: &str| builder(&local, &counting).lease_config(LeaseConfig::fan_out()).worker_id(worker);
    let a = subscriber("a").build().expect("valid").start().await.expect("started");
    until("the first records", || counting.distinct() == 500).await;
    let open = local.kinesis().open_shards("orders").expect("a stream");
    local.inject("kinesis:SubscribeToShard", 1, HttpFault::DropResponse);
    local.kinesis().split("orders", &open[0].id).expect("split");
    put(&local, 500..1000);
    until("the records after the split", || counting.distinct() == 1000).await;

    let b = subscriber("b").build().expect("valid").start().await.expect("started");
    a.shutdown().await.expect("processors return");
    put(&local, 1000..1500);
    until("the records after the handover", || counting.distinct() == 1500).await;
    assert_eq!(counting.all(), 1500, "no duplicates");
    let requests = local.requests();
    assert!(!requests.contains_key("kinesis:GetRecords"), "{requests:?}");
    assert_eq!(requests["kinesis:RegisterStreamConsumer"], 1);
    assert_eq!(local.kinesis().consumers("orders").expect("a stream").len(), 1);

    b.shutdown().await.expect("processors return");
    b.deregister_fan_out_consumer().await.expect("deregistered");
    assert_eq!(local.kinesis().consumers("orders").expect("a stream").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_permission_to_subscribe_shards_are_polled_and_it_is_reported() {
    let (local, counting) = (local(2).await, Counting::default());
    put(&local, 0..100);
    let denied = HttpFault::Error { status: 400, code: "AccessDeniedException".into() };
    local.inject("kinesis:RegisterStreamConsumer", 1000, denied);
    let fan_out = LeaseConfig::FanOutConfig {
        consumer: FanOutConsumer::Application,
        fall_back_to_polling_after: Some(Duration::from_secs(1)),
    };
    let consumer = builder(&local, &counting).lease_config(fan_out).build().expect("valid");
    let handle = consumer.start().await.expect("started");
    let mut events = handle.events();
    let reported = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let Some(Event::FanOutUnavailable { reason, .. }) = events.next().await {
                return reason;
            }
        }
    });
    let reason = reported.await.expect("an event");
    assert!(reason.contains("RegisterStreamConsumer"), "{reason}");
    until("the records", || counting.distinct() == 100).await;
    handle.shutdown().await.expect("processors return");
}

/// Two streams from the start, one of them read as a consumer of its own; a third that comes and goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_streams_are_read_by_polling_and_with_fan_out() {
    let own = "payments-reader";
    for (lease_config, consumer) in
        [(LeaseConfig::default(), None), (LeaseConfig::fan_out(), Some(FanOutConsumer::Named(own.into())))]
    {
        let (local, counting) = (local(2).await, Counting::default());
        for stream in ["payments", "refunds"] {
            local.kinesis().create_stream(stream, 1).expect("a new stream");
        }
        let mut payments = StreamConfig::new(local.kinesis().stream_arn("payments"));
        if let Some(consumer) = consumer.clone() {
            payments = payments.with_consumer(consumer);
        }
        put(&local, 0..300);
        put_to(&local, "payments", 300..600);
        let a = builder(&local, &counting).stream(payments).lease_config(lease_config);
        let a = a.build().expect("valid").start().await.expect("started");
        until("the records of both streams", || counting.distinct() == 600).await;

        put_to(&local, "refunds", 600..900);
        a.add_stream("refunds").await.expect("added");
        until("the records of the third", || counting.distinct() == 900).await;
        let open = local.kinesis().open_shards("payments").expect("a stream");
        local.kinesis().split("payments", &open[0].id).expect("split");
        put_to(&local, "payments", 900..1000);
        until("the records after the split", || counting.distinct() == 1000).await;
        a.remove_stream("refunds").await.expect("its processors return");
        assert!(a.status().shards.iter().all(|shard| shard.stream.name() != "refunds"));
        a.shutdown().await.expect("processors return");
        assert_eq!(counting.all(), 1000, "no duplicates");

        let rows = lease_rows(&local).await;
        assert_eq!(rows.len(), 6, "{rows:?}");
        for (key, stream, shard) in rows {
            assert_eq!(key, format!("{stream}:{shard}"));
        }
        let consumers = |stream| local.kinesis().consumers(stream).expect("a stream");
        let expected = usize::from(consumer.is_some());
        for stream in ["orders", "payments", "refunds"] {
            assert_eq!(consumers(stream).len(), expected, "{stream}");
        }
        assert_eq!(consumers("payments").iter().filter(|arn| arn.contains(own)).count(), expected);
        a.deregister_fan_out_consumer().await.expect("deregistered");
        assert!(consumers("orders").is_empty() && consumers("payments").is_empty());
        assert_eq!(consumers("refunds").len(), expected, "it was removed before");
        let shown = format!("{:?}", local.metrics());
        assert!(shown.contains(":payments:") && shown.contains("ActiveStreams.Count"), "{shown}");
        local.shutdown().await;
    }
}

/// Key, stream and shard of every lease.
async fn lease_rows(local: &LocalAws) -> Vec<(String, String, String)> {
    let dynamodb = aws_sdk_dynamodb::Client::new(&local.sdk_config());
    let rows = dynamodb.scan().table_name("end-to-end").send().await.expect("scanned").items.expect("rows");
    let text = |row: &HashMap<String, AttributeValue>, name: &str| row[name].as_s().expect("a text").clone();
    rows.iter().map(|row| (text(row, "leaseKey"), text(row, "streamName"), text(row, "shardId"))).collect()
}

#[tokio::test]
async fn a_stream_that_does_not_exist_fails_the_start() {
    let local = LocalAws::start().await.expect("started");
    let error = start_error(builder(&local, &Counting::default())).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let message = format!("{error:#}");
    assert!(message.contains("ListShards") && message.contains("orders"), "{message}");
}

#[tokio::test]
async fn missing_permissions_fail_the_start_and_are_named() {
    for (operation, named) in
        [("dynamodb:CreateTable", "dynamodb:CreateTable"), ("kinesis:ListShards", "ListShards")]
    {
        let local = local(1).await;
        local.inject(operation, u64::MAX, HttpFault::error(400, "AccessDeniedException"));
        let error = start_error(builder(&local, &Counting::default())).await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:#}");
        assert!(
            format!("{error:#}").contains(named) && format!("{error:#}").contains("IAM policy"),
            "{error:#}"
        );
    }
}

#[tokio::test]
async fn a_table_of_another_kind_fails_the_start() {
    let by_id: &[_] = &[("id", KeyType::Hash)];
    for keys in [by_id, &[("leaseKey", KeyType::Hash), ("shardId", KeyType::Range)]] {
        let local = local(1).await;
        let dynamodb = aws_sdk_dynamodb::Client::new(&local.sdk_config());
        let mut create =
            dynamodb.create_table().table_name("end-to-end").billing_mode(BillingMode::PayPerRequest);
        for (name, kind) in keys {
            let key = KeySchemaElement::builder().attribute_name(*name).key_type(kind.clone());
            let attribute =
                AttributeDefinition::builder().attribute_name(*name).attribute_type(ScalarAttributeType::S);
            create = create
                .key_schema(key.build().expect("complete"))
                .attribute_definitions(attribute.build().expect("complete"));
        }
        create.send().await.expect("created");
        let error = start_error(builder(&local, &Counting::default())).await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:#}");
        let message = format!("{error:#}");
        assert!(message.starts_with("table end-to-end is no lease table: its key is "), "{message}");
        assert!(
            message.contains("leaseKey (HASH, S)") && message.contains(keys[keys.len() - 1].0),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_created_with_the_index_of_owners_if_that_is_asked_for() {
    for mode in [CoordinationMode::Independent, CoordinationMode::Leader] {
        for is_asked_for in [false, true] {
            let local = local(1).await;
            let mut coordination = CoordinationConfig::default();
            coordination.mode = mode;
            let mut table = TableSpec::default();
            table.owner_index = is_asked_for;
            let consumer =
                builder(&local, &Counting::default()).lease_table(table).coordination(coordination);
            let _handle = consumer.build().expect("valid").start().await.expect("started");
            let dynamodb = aws_sdk_dynamodb::Client::new(&local.sdk_config());
            let table = dynamodb.describe_table().table_name("end-to-end").send().await.expect("described");
            let indexes = table.table.expect("a table").global_secondary_indexes.unwrap_or_default();
            let expected = is_asked_for || mode == CoordinationMode::Leader;
            assert_eq!(indexes.len(), usize::from(expected), "{mode:?} {is_asked_for}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_table_that_is_deleted_comes_back_with_its_leases() {
    for mode in [CoordinationMode::Independent, CoordinationMode::Leader] {
        let (local, counting) = (local(2).await, Counting::default());
        let mut coordination = CoordinationConfig::default();
        coordination.failover_time = Duration::from_secs(2);
        coordination.mode = mode;
        let consumer = builder(&local, &counting).coordination(coordination).build().expect("valid");
        let mut events = consumer.events();
        let handle = consumer.start().await.expect("started");
        put(&local, 0..100);
        until("the records", || counting.distinct() == 100).await;
        let dynamodb = aws_sdk_dynamodb::Client::new(&local.sdk_config());
        dynamodb.delete_table().table_name("end-to-end").send().await.expect("deleted");
        let reported = tokio::time::timeout(Duration::from_secs(60), async {
            while !matches!(events.next().await, Some(Event::LeaseTableMissing)) {}
        });
        reported.await.expect("an event");
        let is_back = || {
            let status = handle.status();
            status.health == Health::Healthy && status.shards.len() == 2
        };
        until("the leases are held again", is_back).await;
        put(&local, 100..200);
        until("the records after the deletion", || counting.distinct() == 200).await;
        let rows =
            dynamodb.scan().table_name("end-to-end").send().await.expect("scanned").items.expect("rows");
        let leases = rows.iter().filter(|row| row.contains_key("checkpoint")).count();
        assert_eq!(leases, 2, "{mode:?} {rows:?}");
        handle.shutdown().await.expect("processors return");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_fails_the_start_in_time() {
    let local = local(1).await;
    let gone = local.sdk_config();
    local.shutdown().await;
    let consumer = Consumer::builder()
        .stream("orders")
        .application("end-to-end")
        .processor_factory(Counting::default())
        .aws_config(&gone);
    let error = start_error(consumer).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn build_names_the_setting_that_is_wrong_and_its_range() {
    let local = local(1).await;
    let builder = || builder(&local, &Counting::default());
    let management = |leases_to_acquire, max_leases| ManagementConfig {
        leases_to_acquire,
        max_leases,
        start_strategy: StartStrategy::Latest,
    };
    let cases = [
        (
            builder().lease_config(LeaseConfig::PollingConfig { limit: 0 }),
            "limit is 0; it must be between 1 and 10000",
        ),
        (
            builder().lease_config(LeaseConfig::PollingConfig { limit: 10_001 }),
            "limit is 10001; it must be between 1 and 10000",
        ),
        (builder().management(management(1, 0)), "max_leases is 0; it must be between 1 and"),
        (builder().management(management(0, 1)), "leases_to_acquire is 0; it must be between 1 and"),
        (builder().application(""), "application is \"\""),
        (builder().table_name("no spaces"), "table_name is \"no spaces\""),
        (builder().worker_id(""), "worker_id is empty"),
        (builder().stream("another").stream("orders"), "stream orders is given more than once"),
        (
            builder().stream(StreamConfig::new("another").with_consumer(FanOutConsumer::Application)),
            "stream another has a fan-out consumer, but shards are polled",
        ),
        (Consumer::builder(), "stream is missing"),
        (Consumer::builder().stream(""), "stream is not valid"),
        (Consumer::builder().stream("orders"), "application is missing"),
        (
            Consumer::builder().stream("orders").application("app").processor_factory(Counting::default()),
            "a Kinesis client is missing",
        ),
    ];
    for (builder, expected) in cases {
        let error = builder.build().expect_err(expected);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(expected), "{error}\n  should say {expected}");
    }
}

#[tokio::test]
async fn a_cloudwatch_that_fails_or_hangs_is_not_noticed() {
    for fault in [HttpFault::error(500, "InternalFailure"), HttpFault::DropRequest] {
        let (local, counting) = (local(2).await, Counting::default());
        local.inject("cloudwatch:PutMetricData", u64::MAX, fault);
        let mut metrics = MetricsConfig::default();
        metrics.buffer_time = Duration::from_millis(100);
        put(&local, 0..200);
        let handle = builder(&local, &counting)
            .metrics(metrics)
            .build()
            .expect("valid")
            .start()
            .await
            .expect("started");
        until("the records", || counting.distinct() == 200).await;
        let asked = Instant::now();
        handle.shutdown().await.expect("processors return");
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        assert_eq!(counting.all(), 200);
    }
}

#[tokio::test]
async fn metrics_arrive_under_the_names_and_dimensions_of_kcl() {
    let (local, counting) = (local(1).await, Counting::default());
    put(&local, 0..100);
    let handle = builder(&local, &counting).build().expect("valid").start().await.expect("started");
    until("the records", || counting.distinct() == 100).await;
    handle.shutdown().await.expect("processors return");
    let shown = format!("{:?}", local.metrics());
    for name in [
        "RecordsProcessed",
        "MillisBehindLatest",
        "DataBytesProcessed",
        "UpdateLease.Success",
        "TakenLeases",
        "CreateLease_TRIM_HORIZON.Success",
    ] {
        assert!(shown.contains(&format!("{name:?}")), "{name}: {shown}");
    }
    for dimension in
        ["Operation", "ProcessTask", "ShardId", "shardId-000000000000", "WorkerIdentifier", "end-to-end"]
    {
        assert!(shown.contains(dimension), "{dimension}: {shown}");
    }
    local.shutdown().await;
}

/// The only thread of one worker's runtime sleeps for twice the failover time; its renewals go on, so the
/// other worker finds nothing to take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_code_that_blocks_its_runtime_keeps_its_lease() {
    let local = local(1).await;
    put(&local, 0..10);
    let mut coordination = CoordinationConfig::default();
    coordination.failover_time = Duration::from_secs(2);
    let blocking = Counting { block_first: Some(Duration::from_secs(5)), ..Counting::default() };
    let blocked = builder(&local, &blocking).worker_id("blocked").coordination(coordination.clone());
    let (lost_tx, lost) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let handle = blocked.build().expect("valid").start().await.expect("started");
            let mut events = handle.events();
            // The other end is dropped at the end of the test.
            let _ = stopped.await;
            handle.shutdown().await.expect("processors return");
            drop(handle);
            while let Some(event) = events.next().await {
                if matches!(event, Event::LeaseLost { .. }) {
                    lost_tx.send(event).expect("the test waits");
                }
            }
        });
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let other = Counting::default();
    let handle =
        builder(&local, &other).worker_id("other").coordination(coordination).build().expect("valid");
    let handle = handle.start().await.expect("started");
    until("the records", || blocking.distinct() == 10).await;
    assert_eq!((handle.status().shards.len(), other.all()), (0, 0), "nobody took the lease");
    handle.shutdown().await.expect("processors return");
    drop(stop);
    thread.join().expect("no panic");
    assert_eq!(lost.try_recv().ok(), None);
}

/// SIGTERM and SIGINT, sent to a process that runs a consumer.
#[cfg(unix)]
mod signals {
    use std::process::{Child, Command, ExitStatus};

    use super::*;

    /// Says where the endpoints are to the process that a test starts.
    const ENDPOINT: &str = "CONSUMER_ENDPOINT";

    /// The consumer in a process of its own, which the other tests start; nothing by itself.
    #[tokio::test]
    async fn process() {
        let Ok(endpoint) = std::env::var(ENDPOINT) else { return };
        let local = LocalAws::start().await.expect("a client");
        let config = local.sdk_config().into_builder().endpoint_url(endpoint).build();
        let consumer = builder(&local, &Counting::default()).aws_config(&config).build().expect("valid");
        let handle = consumer.start().await.expect("started");
        let second = handle.clone();
        let both = tokio::join!(handle.shutdown_on_signal(), second.shutdown_on_signal());
        assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
    }

    fn start(local: &LocalAws) -> Child {
        Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "signals::process", "--nocapture"])
            .env(ENDPOINT, local.endpoint_url())
            .spawn()
            .expect("started")
    }

    fn send(signal: &str, process: &Child) {
        let kill = Command::new("kill").args(["-s", signal, &process.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
    }

    async fn ended(mut process: Child) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = process.try_wait().expect("a child") {
                return status;
            }
            if Instant::now() > deadline {
                process.kill().expect("killed");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The owners of the leases; none if the table is not there yet.
    async fn owners(local: &LocalAws) -> Vec<String> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&local.sdk_config());
        let Ok(page) = dynamodb.scan().table_name("end-to-end").send().await else { return Vec::new() };
        let rows = page.items.unwrap_or_default();
        let owner = |row: &HashMap<String, AttributeValue>| row.get("leaseOwner")?.as_s().ok().cloned();
        rows.iter().filter(|row| row.contains_key("checkpoint")).filter_map(owner).collect()
    }

    #[tokio::test]
    async fn a_process_that_is_asked_to_end_gives_its_leases_back_first() {
        for signal in ["TERM", "INT"] {
            let local = local(3).await;
            let process = start(&local);
            let deadline = Instant::now() + Duration::from_secs(60);
            while owners(&local).await.len() < 3 {
                assert!(Instant::now() < deadline, "the leases are taken");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            send(signal, &process);
            let status = ended(process).await;
            assert!(status.success(), "{signal}: {status}");
            assert_eq!(owners(&local).await, Vec::<String>::new(), "{signal}");
            local.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_consumer_is_shut_down_on_request_or_returns_when_it_has_stopped_already() {
    let (local, counting) = (local(1).await, Counting::default());
    let handle = builder(&local, &counting).build().expect("valid").start().await.expect("started");
    let given_up =
        tokio::time::timeout(Duration::from_millis(50), handle.shutdown_on(std::future::pending()));
    given_up.await.expect_err("nobody asked for it");
    assert_eq!(handle.status().health, Health::Healthy);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.shutdown_on(std::future::pending()).await }
    });
    stop.send(()).expect("waited for");
    handle.shutdown_on(async { stopped.await.expect("sent") }).await.expect("processors return");
    assert_eq!(handle.status().health, Health::Stopped);
    waiting.await.expect("no panic").expect("it stopped by another request");
    handle.shutdown_on(std::future::pending()).await.expect("it has stopped");
}

/// A table of totals beside the lease table.
async fn create_totals(client: &aws_sdk_dynamodb::Client) {
    let key = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    let schema = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash);
    let create = client
        .create_table()
        .table_name("totals")
        .attribute_definitions(key.build().expect("complete"))
        .key_schema(schema.build().expect("complete"))
        .billing_mode(BillingMode::PayPerRequest);
    create.send().await.expect("created");
}

#[tokio::test]
async fn effects_count_once_when_transactions_conflict_and_responses_are_lost() {
    let local = local(2).await;
    let client = aws_sdk_dynamodb::Client::new(&local.sdk_config());
    create_totals(&client).await;
    for number in 0..500_u32 {
        local.kinesis().put("orders", format!("key-{number}"), number.to_string()).expect("written");
    }
    let faults = [HttpFault::DropResponse, HttpFault::transaction_conflict(), HttpFault::DropRequest];
    for fault in faults {
        local.inject("dynamodb:TransactWriteItems", 2, fault);
    }
    let consumer = Consumer::builder()
        .application("end-to-end")
        .stream("orders")
        .aws_config(&local.sdk_config())
        .management(ManagementConfig { start_strategy: StartStrategy::Oldest, ..ManagementConfig::default() })
        .for_each_transaction(|record, transaction| {
            let total = ItemKey::new("totals").with("id", "all");
            transaction.add(&total, "count", 1.into())?;
            transaction.add(&total, "sum", std::str::from_utf8(&record.record.data)?.parse()?)?;
            Ok::<_, BoxError>(())
        });
    let handle = consumer.build().expect("valid settings").start().await.expect("started");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let get = client.get_item().table_name("totals").key("id", AttributeValue::S("all".to_owned()));
        let item = get.consistent_read(true).send().await.expect("read").item.unwrap_or_default();
        let number =
            |name: &str| item.get(name).and_then(|value| value.as_n().ok()).cloned().unwrap_or_default();
        let (count, sum) = (number("count"), number("sum"));
        if (count.as_str(), sum.as_str()) == ("500", "124750") {
            break;
        }
        assert!(Instant::now() < deadline, "{count} records, sum {sum}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    handle.shutdown().await.expect("stopped");
    let requests = local.requests()["dynamodb:TransactWriteItems"];
    assert!(requests > 2, "{requests} transactions for two shards, with faults");
    local.shutdown().await;
}
