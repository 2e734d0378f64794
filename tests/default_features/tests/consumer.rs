//! Consumers from start to end: over a stream and a lease table in memory, and through SDK clients over HTTP.

mod processors;
mod stream;

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_kinesis::primitives::Blob;
use kinesis_consumer::lease::{LeaseStore, MemoryLeaseStore};
use kinesis_consumer::{Checkpoint, Consumer, ConsumerBuilder, Health, ManagementConfig, StartStrategy};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use processors::Counting;
use stream::OneShard;

/// For a real DynamoDB client and a process of its own; nothing here takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(60);

fn builder(counting: &Counting) -> ConsumerBuilder {
    Consumer::builder()
        .application("default-features")
        .stream("orders")
        .processor_factory(counting.clone())
        .management(ManagementConfig { start_strategy: StartStrategy::Oldest, ..ManagementConfig::default() })
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let reached = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(reached.await.is_ok(), "{what}");
}

/// Reads what `put` writes with one consumer, and what it writes next with another that goes on.
async fn hands_over(
    builder: impl Fn(&Counting) -> ConsumerBuilder,
    put: impl AsyncFn(std::ops::Range<usize>),
) {
    for part in [0..100, 100..200] {
        put(part.clone()).await;
        let counting = Counting::default();
        let handle = builder(&counting).build().expect("valid settings").start().await.expect("started");
        until(&format!("{part:?}: {counting:?}"), || counting.all() >= part.len()).await;
        assert_eq!(handle.status().health, Health::Healthy);
        handle.shutdown().await.expect("processors return");
        let expected: Vec<String> = part.map(|number| format!("payload-{number}")).collect();
        assert_eq!(counting.sorted(), expected, "each once, and none of those before");
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_over_ports_of_ones_own_goes_on_where_another_stopped() {
    let (stream, table) = (OneShard::default(), MemoryLeaseStore::default());
    let consumer = |counting: &Counting| {
        builder(counting).stream_api(Arc::new(stream.clone())).lease_store(Arc::new(table.clone()))
    };
    hands_over(consumer, async |numbers| stream.put(numbers)).await;
    let leases = table.scan().await.expect("in memory").leases;
    assert!(leases.len() == 1 && leases[0].owner.is_none(), "given back: {leases:?}");
    assert!(leases[0].checkpoint > Checkpoint::Latest, "{leases:?}");
}

/// The endpoints of the example `local_aws`, in a process of their own that ends with this value.
struct Endpoints {
    url: String,
    _process: Child,
}

impl Endpoints {
    async fn start() -> Self {
        let program = std::env::var("LOCAL_AWS").expect("LOCAL_AWS is the path of the example local_aws");
        let mut process = Command::new(program)
            .args(["--port", "0", "--stream", "orders:2"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the example starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let line = lines.next_line().await.expect("readable").expect("a line");
        let url = line.strip_prefix("export AWS_ENDPOINT_URL=").expect("the URL first");
        // Until then it writes to the pipe, which must stay open for it.
        while lines.next_line().await.expect("readable").is_some_and(|line| !line.contains("SECRET")) {}
        Self { url: url.to_owned(), _process: process }
    }

    /// Settings with an HTTP client of their own: connections belong to the runtime that opened them, and a
    /// consumer that stops takes its runtime along.
    fn config(&self) -> SdkConfig {
        let credentials = Credentials::new("local", "local", None, None, "a test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.url)
            .region(Region::from_static("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build()
    }
}

#[tokio::test]
#[ignore = "needs the example local_aws, in LOCAL_AWS; .ci/run runs it"]
async fn a_consumer_of_sdk_clients_goes_on_where_another_stopped() {
    let endpoints = Endpoints::start().await;
    let kinesis = aws_sdk_kinesis::Client::new(&endpoints.config());
    let consumer = |counting: &Counting| builder(counting).aws_config(&endpoints.config());
    hands_over(consumer, async |numbers| {
        for number in numbers {
            let put = kinesis.put_record().stream_name("orders").partition_key(number.to_string());
            put.data(Blob::new(format!("payload-{number}"))).send().await.expect("written");
        }
    })
    .await;
}
