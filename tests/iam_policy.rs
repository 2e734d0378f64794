//! The IAM policy in the README against the requests a consumer really makes.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use kinesis_consumer::testing::LocalAws;
use kinesis_consumer::{
    Checkpointer, Consumer, CoordinationConfig, CoordinationMode, Event, KinesisClientRecord, LeaseConfig,
    ManagementConfig, MetricsConfig, ShardRecordProcessor, ShardRecordProcessorFactory, StartStrategy,
};

struct Checkpointing;
struct Processor(Checkpointer);

#[async_trait]
impl ShardRecordProcessorFactory for Checkpointing {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        Box::new(Processor(checkpointer))
    }
}

#[async_trait]
impl ShardRecordProcessor for Processor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        self.0.checkpoint(records[records.len() - 1].extended_sequence_number()).await.expect("stored");
    }
    async fn lease_lost(&self) {}
    async fn shard_ended(&self) {
        self.0.end().await.expect("stored");
    }
    async fn shutdown_requested(&self) {}
}

/// The actions of the policies, as the README has them: what is always needed, for fan-out, and where
/// there is a leader.
fn policies() -> [BTreeSet<String>; 3] {
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once("### The IAM policy").expect("the section");
    let mut blocks = section.split("```json").skip(1).map(actions);
    [(); 3].map(|()| blocks.next().expect("a policy"))
}

fn actions(json: &str) -> BTreeSet<String> {
    let (json, _) = json.split_once("```").expect("its end");
    let policy: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let statements = policy["Statement"].as_array().expect("statements");
    let actions = statements.iter().flat_map(|statement| statement["Action"].as_array().expect("actions"));
    actions.map(|action| action.as_str().expect("an action").to_owned()).collect()
}

#[tokio::test]
async fn the_policy_in_the_readme_allows_what_is_needed_and_no_more() {
    let [polling, ..] = policies();
    assert_eq!(requests(LeaseConfig::default(), CoordinationMode::Independent).await, polling);
}

#[tokio::test]
async fn so_does_the_one_for_fan_out() {
    let [polling, fan_out, _] = policies();
    let requested = requests(LeaseConfig::fan_out(), CoordinationMode::Independent).await;
    assert!(requested.is_subset(&polling.union(&fan_out).cloned().collect()), "{requested:?}");
    assert!(fan_out.is_subset(&requested), "{requested:?}");
}

#[tokio::test]
async fn so_does_the_one_for_a_leader() {
    let [polling, _, leader] = policies();
    let requested = requests(LeaseConfig::default(), CoordinationMode::Leader).await;
    assert_eq!(requested, polling.union(&leader).cloned().collect());
}

/// What is requested from an empty account through records, a split and the clean-up of the parent to
/// the shutdown.
async fn requests(lease_config: LeaseConfig, mode: CoordinationMode) -> BTreeSet<String> {
    let local = LocalAws::start().await.expect("started");
    let kinesis = local.kinesis();
    kinesis.create_stream("orders", 1).expect("a new stream");
    let mut coordination = CoordinationConfig::default();
    coordination.mode = mode;
    coordination.failover_time = Duration::from_secs(1);
    coordination.lease_cleanup_interval = Duration::from_secs(1);
    let mut metrics = MetricsConfig::default();
    metrics.buffer_time = Duration::from_millis(500);
    let handle = Consumer::builder()
        .stream("orders")
        .application("order-notifications")
        .processor_factory(Checkpointing)
        .aws_config(&local.sdk_config())
        .management(ManagementConfig { start_strategy: StartStrategy::Oldest, ..ManagementConfig::default() })
        .coordination(coordination)
        .metrics(metrics)
        .lease_config(lease_config)
        .build()
        .expect("valid settings")
        .start()
        .await
        .expect("started");
    let mut events = handle.events();
    let parent = kinesis.open_shards("orders").expect("a stream")[0].id.clone();
    kinesis.split("orders", &parent).expect("split");
    let keys = (0..).map(|number| format!("key-{number}"));
    let cleaned_up = async {
        for key in keys {
            // Both children have to be started before the parent's row goes.
            kinesis.put("orders", key, "a payload").expect("put");
            let deleted = async { while !matches!(events.next().await, Some(Event::LeaseDeleted { .. })) {} };
            if tokio::time::timeout(Duration::from_millis(100), deleted).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), cleaned_up).await.expect("the parent's row is deleted");
    handle.shutdown().await.expect("processors return");

    let requested: BTreeSet<String> = local.requests().into_keys().collect();
    local.shutdown().await;
    requested
}
