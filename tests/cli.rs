//! The command line `kinesis-consumer` against the local endpoints: what it prints, what it does, how it ends.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use kinesis_consumer::testing::LocalAws;
use kinesis_consumer::{
    BoxError, Consumer, ConsumerHandle, ErrorPolicy, ManagementConfig, MetricsConfig, MetricsLevel,
    StartStrategy,
};
use serde_json::Value;
use tokio::process::Command;

const APP: &str = "analytics";

/// Runs the command line with the endpoints of `local`.
async fn cli(local: &LocalAws, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinesis-consumer"));
    command
        .args(arguments)
        .env("AWS_ENDPOINT_URL", local.endpoint_url())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", "local")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("USER", "eve")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    output.expect("ends in time").expect("runs")
}

/// The output of a run that ended with `code`.
async fn run(local: &LocalAws, code: i32, arguments: &[&str]) -> String {
    let output = cli(local, arguments).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
    if code == 0 || code == 3 { out.into_owned() } else { err.into_owned() }
}

async fn json(local: &LocalAws, code: i32, arguments: &[&str]) -> Value {
    let text = run(local, code, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&text).expect("JSON")
}

/// The document, whether the fleet is healthy or not.
async fn document(local: &LocalAws, command: &str) -> Value {
    let output = cli(local, &[command, "--app", APP, "--json"]).await;
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A worker that fails records whose payload is `bad`.
async fn worker(local: &LocalAws, name: &str) -> ConsumerHandle {
    let config = local.sdk_config();
    let dead = aws_sdk_dynamodb::Client::new(&config);
    let handle = |record: kinesis_consumer::KinesisClientRecord| async move {
        match record.record.data.as_ref() {
            b"bad" => Err(BoxError::from("it is bad")),
            _ => Ok(()),
        }
    };
    let consumer = Consumer::builder()
        .stream("orders")
        .application(APP)
        .worker_id(name)
        .aws_config(&config)
        .management(ManagementConfig::default().with_start_strategy(StartStrategy::Oldest))
        .metrics(MetricsConfig::default().with_level(MetricsLevel::None))
        .for_each(handle)
        .on_error(
            ErrorPolicy::attempts(1).dead_letter(kinesis_consumer::DynamoDbDeadLetters::table(dead, "dead")),
        )
        .build()
        .expect("valid settings");
    consumer.start().await.expect("started")
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A stream of two shards, a table of dead letters, and records.
async fn prepare(records: usize) -> LocalAws {
    let local = LocalAws::start().await.expect("a free port");
    local.kinesis().create_stream("orders", 2).expect("created");
    create_table(&local, "dead", "id").await;
    for number in 0..records {
        local.kinesis().put("orders", format!("customer-{}", number % 16), number.to_string()).expect("put");
    }
    local
}

async fn create_table(local: &LocalAws, name: &str, key: &str) {
    let client = aws_sdk_dynamodb::Client::new(&local.sdk_config());
    let schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build();
    let definition =
        AttributeDefinition::builder().attribute_name(key).attribute_type(ScalarAttributeType::S).build();
    let create = client.create_table().table_name(name).key_schema(schema.expect("complete"));
    let create = create.attribute_definitions(definition.expect("complete"));
    create.billing_mode(BillingMode::PayPerRequest).send().await.expect("created");
}

async fn checkpoints(local: &LocalAws) -> BTreeSet<String> {
    let status = document(local, "leases").await;
    let leases = status["leases"].as_array().expect("a list").iter();
    leases.map(|lease| lease["checkpoint"].as_str().expect("a text").to_owned()).collect()
}

/// Waits until both shards are read, and their owners have said how far.
async fn settled(local: &LocalAws) -> Value {
    until("both shards are read", async || {
        let status = document(local, "status").await;
        let leases = status["leases"].as_array()?;
        let is_read =
            |lease: &Value| lease["behindLatestMillis"] == 0 && lease["checkpointArrivedMillis"].is_u64();
        (leases.len() == 2 && leases.iter().all(is_read)).then_some(status)
    })
    .await
}

/// The document without what differs from run to run.
fn shape(document: &Value) -> Value {
    match document {
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(list) => list.iter().take(1).map(shape).collect(),
        Value::Number(_) => "number".into(),
        other => other.clone(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_is_a_table_for_people_and_a_document_for_scripts() {
    let local = prepare(64).await;
    let handle = worker(&local, "w-1").await;
    let status = settled(&local).await;
    let mut shape = shape(&status);
    shape["leases"][0]["checkpoint"] = "NUMBER".into();
    let expected = serde_json::json!({
        "application": "analytics",
        "atMillis": "number",
        "streams": ["orders"],
        "leader": null,
        "workers": [{
            "worker": "w-1",
            "leases": "number",
            "kibPerSecond": "number",
            "cpuPercent": null,
            "reportedAgoMillis": null,
            "isOfThisCrate": true,
        }],
        "leases": [{
            "lease": "shardId-000000000000",
            "stream": "orders",
            "shard": "shardId-000000000000",
            "state": "held",
            "owner": "w-1",
            "nextOwner": null,
            "counter": "number",
            "checkpoint": "NUMBER",
            "subSequenceNumber": "number",
            "checkpointArrivedMillis": "number",
            "behindLatestMillis": "number",
            "kibPerSecond": "number",
            "ownerSwitches": "number",
            "parents": [],
            "paused": null,
            "stillMillis": "number",
        }],
        "ended": "number",
        "unread": [],
        "behindLatestMaxMillis": "number",
        "problems": [],
    });
    assert_eq!(shape, expected, "the documented schema: adapt the README");
    let text = run(&local, 0, &["status", "--app", APP]).await;
    assert!(
        text.starts_with("analytics on orders   2 lease(s), 0 ended, 1 worker(s)   behind 0.0 s at most\n"),
        "{text}"
    );
    assert!(text.contains("shardId-000000000001  w-1    held   0.0 s"), "{text}");
    for (command, header) in [("lag", "LEASE "), ("leases", "LEASE "), ("workers", "WORKER ")] {
        assert!(run(&local, 0, &[command, "--app", APP]).await.contains(header), "{command}");
    }
    let lag = json(&local, 0, &["lag", "--app", APP]).await;
    assert_eq!(lag["leases"][0]["behindLatestMillis"], 0);

    // Without workers it is not healthy.
    handle.shutdown().await.expect("stops");
    let text = run(&local, 3, &["status", "--app", APP]).await;
    assert!(text.contains("! 2 lease(s) have no owner. Start workers"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seek_is_a_dry_run_unless_it_is_confirmed() {
    let local = prepare(64).await;
    let handle = worker(&local, "w-1").await;
    settled(&local).await;
    let before = checkpoints(&local).await;
    let text = run(&local, 0, &["seek", "--app", APP, "--to", "oldest"]).await;
    assert!(text.contains("2 to rewind, 0 left as they are; other applications are not touched"), "{text}");
    assert!(text.ends_with("A dry run: nothing is written. Repeat with --yes to carry it out.\n"), "{text}");
    assert_eq!(checkpoints(&local).await, before, "nothing was written");

    handle.shutdown().await.expect("stops");
    let plan = std::env::temp_dir().join(format!("kinesis-consumer-plan-{}.json", std::process::id()));
    let path = plan.to_str().expect("text");
    let document = json(&local, 0, &["seek", "--app", APP, "--to", "oldest", "--save", path]).await;
    assert_eq!(document["steps"].as_array().map(Vec::len), Some(2));
    let text = run(&local, 0, &["seek", "--app", APP, "--plan", path, "--yes"]).await;
    assert!(text.starts_with("done: 2 to rewind"), "{text}");
    let status = json(&local, 3, &["leases", "--app", APP]).await;
    assert!(
        status["leases"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|lease| lease["checkpoint"] == "TRIM_HORIZON")
    );
    // Once more, the plan finds that all is done.
    run(&local, 0, &["seek", "--app", APP, "--plan", path, "--yes"]).await;
    std::fs::remove_file(plan).expect("there");

    let handle = worker(&local, "w-2").await;
    settled(&local).await;
    assert_eq!(checkpoints(&local).await, before, "read again to the same end");
    run(&local, 0, &["seek", "--app", APP, "--to=-1h", "--yes"]).await;
    run(&local, 0, &["reset", "--app", APP, "--yes"]).await;
    settled(&local).await;
    drop(handle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_paused_resumed_and_released() {
    let local = prepare(64).await;
    let handle = worker(&local, "w-1").await;
    settled(&local).await;
    let text = run(&local, 0, &["pause", "--app", APP, "--reason", "db migration"]).await;
    assert!(text.starts_with("2 lease(s) paused"), "{text}");
    until("the worker has seen it", async || {
        handle.status().shards.iter().all(|shard| shard.paused.is_some()).then_some(())
    })
    .await;
    let text = run(&local, 0, &["status", "--app", APP]).await;
    assert!(text.contains("paused by eve: \"db migration\""), "{text}");
    local.kinesis().put("orders", "customer-1", "later").expect("put");
    let before = checkpoints(&local).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(checkpoints(&local).await, before, "nobody reads");

    run(&local, 0, &["resume", "--app", APP]).await;
    until("the new record is read", async || (checkpoints(&local).await != before).then_some(())).await;
    let text = run(&local, 0, &["release", "--app", APP, "--shard", "shardId-000000000001"]).await;
    assert!(text.starts_with("1 lease(s) released\n  shardId-000000000001\n"), "{text}");
    settled(&local).await;
    drop(handle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_shown_redriven_and_discarded() {
    let local = prepare(0).await;
    for key in ["a", "b"] {
        local.kinesis().put("orders", key, "bad").expect("put");
    }
    let handle = worker(&local, "w-1").await;
    let letters =
        async || json(&local, 0, &["dead-letter", "list", "--table", "dead"]).await["letters"].clone();
    let listed = until("both are dead", async || {
        Some(letters().await).filter(|letters| letters.as_array().is_some_and(|letters| letters.len() == 2))
    })
    .await;
    assert_eq!((&listed[0]["error"], &listed[0]["application"]), (&"it is bad".into(), &APP.into()));
    let id = listed[0]["id"].as_str().expect("a text").to_owned();
    let shown = run(&local, 0, &["dead-letter", "show", "--table", "dead", &id]).await;
    assert!(shown.ends_with("\nbad\n") && shown.contains("error: it is bad"), "{shown}");

    let text = run(&local, 0, &["dead-letter", "redrive", "--table", "dead", &id]).await;
    assert!(text.contains("A dry run: 1 letter(s)"), "{text}");
    assert_eq!(letters().await.as_array().map(Vec::len), Some(2));
    handle.shutdown().await.expect("stops");
    run(&local, 0, &["dead-letter", "redrive", "--table", "dead", &id, "--yes"]).await;
    assert_eq!(letters().await.as_array().map(Vec::len), Some(1));
    let stored: usize = local
        .kinesis()
        .shards("orders")
        .expect("a stream")
        .iter()
        .map(|shard| local.kinesis().stored_records("orders", &shard.id).expect("a shard").len())
        .sum();
    assert_eq!(stored, 3, "the record is in the stream again");
    run(&local, 0, &["dead-letter", "discard", "--table", "dead", "--all", "--yes"]).await;
    assert_eq!(letters().await.as_array().map(Vec::len), Some(0));
    assert!(run(&local, 1, &["dead-letter", "list", "--table", "none"]).await.contains("does not exist"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_shown_as_they_arrive() {
    let local = prepare(8).await;
    let text = run(&local, 0, &["tail", "orders", "--from=-1h", "--limit", "8", "--json"]).await;
    let keys: BTreeSet<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["partitionKey"].to_string())
        .collect();
    assert_eq!(keys.len(), 8);
    assert!(
        run(&local, 1, &["tail", "no-such-stream"]).await.contains("stream no-such-stream cannot be read")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_and_shown_by_the_exit_code() {
    let local = prepare(0).await;
    assert!(run(&local, 1, &["status", "--app", "nobody"]).await.contains("there is no lease table nobody"));
    assert!(
        run(&local, 1, &["status", "--app", "dead"]).await.contains("its key is id (HASH, S), not leaseKey")
    );
    run(&local, 2, &["status"]).await;
    run(&local, 2, &["seek", "--app", APP]).await;
    run(&local, 2, &["seek", "--app", APP, "--to", "now", "--plan", "x"]).await;

    create_table(&local, APP, "leaseKey").await;
    let lease = |name: &str, value: &str| (name.to_owned(), AttributeValue::S(value.to_owned()));
    let client = aws_sdk_dynamodb::Client::new(&local.sdk_config());
    let row = [lease("leaseKey", "shardId-000000000000"), lease("checkpoint", "TRIM_HORIZON")];
    let put = client.put_item().table_name(APP).set_item(Some(row.into()));
    put.item("leaseCounter", AttributeValue::N("5".to_owned())).send().await.expect("put");
    for (arguments, expected) in [
        (&["seek", "--app", APP, "--to", "oldest"][..], "do not say which stream"),
        (&["seek", "--app", APP, "--stream", "orders", "--to", "2999-01-01T00:00:00Z"], "lies in the future"),
        (&["seek", "--app", APP, "--stream", "orders", "--to", "yesterday"], "is no time"),
        (
            &["seek", "--app", APP, "--stream", "orders", "--position", "shardId-000000000000=5"],
            "is no position in shard",
        ),
        (&["seek", "--app", APP, "--stream", "gone", "--to", "oldest"], "no such stream"),
        (&["pause", "--app", APP, "--reason", " "], "a pause needs a reason"),
        (&["release", "--app", APP, "--shard", "shardId-9"], "there is no lease of shard shardId-9"),
        (&["seek", "--app", APP, "--plan", "/no/such/plan"], "cannot be read"),
    ] {
        let text = run(&local, 1, arguments).await;
        assert!(text.starts_with("error: ") && text.contains(expected), "{arguments:?}: {text}");
    }
    let text = run(&local, 0, &["completions", "bash"]).await;
    assert!(text.contains("complete -F") && text.contains("kinesis-consumer"), "{text}");
}
