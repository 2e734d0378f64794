//! Several streams in one fleet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kinesis_consumer::kinesis::StreamErrorKind;
use kinesis_consumer::lease::{Attribute, Lease, LeaseStore, MemoryLeaseStore};
use kinesis_consumer::testing::Fault;
use kinesis_consumer::{
    Checkpoint, ConsumerHandle, CoordinationConfig, CoordinationMode, ErrorKind, Event, Health,
    StartStrategy, StreamConfig, WorkerId,
};

use crate::world::{CheckpointPolicy, FAILOVER, Observed, STREAM, World, start, until};

const PAYMENTS: &str = "payments";
/// The world begins at that second, and so do its streams.
const EPOCH: u64 = 1_750_000_000;

/// A world with a second stream.
fn world(orders: u32, payments: u32) -> World {
    let world = World::new(orders);
    world.kinesis.create_stream(PAYMENTS, payments).expect("a new stream");
    world
}

fn both() -> [&'static str; 2] {
    [STREAM, PAYMENTS]
}

fn serialized(world: &World, stream: &str) -> String {
    let account = world.kinesis.stream_arn(stream).split(':').nth(4).expect("an ARN").to_owned();
    format!("{account}:{stream}:{EPOCH}")
}

/// The leases of one stream that have not ended.
fn running(world: &World, stream: &str) -> Vec<Lease> {
    let stream = Some(serialized(world, stream));
    let mut leases = world.leases();
    leases.retain(|lease| lease.stream_name == stream && !lease.checkpoint.is_shard_end());
    leases
}

fn owners(world: &World, stream: &str) -> Vec<Option<WorkerId>> {
    running(world, stream).into_iter().map(|lease| lease.owner).collect()
}

fn are_all(owners: &[Option<WorkerId>], owner: Option<&str>) -> bool {
    !owners.is_empty() && owners.iter().all(|is| is.as_ref().map(AsRef::as_ref) == owner)
}

/// The problem of the stream of this name.
fn problem(handle: &ConsumerHandle, stream: &str) -> Option<String> {
    let status = handle.status();
    status.streams.into_iter().find(|status| status.stream.name() == stream).expect("a stream").problem
}

#[tokio::test(start_paused = true)]
async fn a_fleet_reads_all_its_streams_in_order_through_a_split_of_one() {
    let world = world(3, 2);
    let _a = start(world.worker_of("a", both())).await;
    let _b = start(world.worker_of("b", both())).await;
    for round in 0..6 {
        world.put(320);
        world.put_to(PAYMENTS, "pay", 320);
        if round == 2 {
            let open = world.kinesis.open_shards(PAYMENTS).expect("a stream");
            world.kinesis.split(PAYMENTS, &open[0].id).expect("split");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.all_delivered_within(FAILOVER * 6).await;
    world.check_order();
    until(FAILOVER * 6, || world.owners().len() == 2, || format!("{:?}", world.owners())).await;
    tokio::time::sleep(FAILOVER * 3).await;
    let balanced: Vec<usize> = world.owners().into_values().collect();
    assert_eq!(balanced, [3, 3], "the leases of both streams are one amount");
}

#[tokio::test(start_paused = true)]
async fn rows_are_as_kcl_writes_them_in_multi_stream_mode() {
    let world = world(1, 1);
    let _a = start(world.worker_of("a", both())).await;
    let parent = world.kinesis.open_shards(PAYMENTS).expect("a stream")[0].id.clone();
    world.kinesis.split(PAYMENTS, &parent).expect("split");
    world.put(16);
    world.put_to(PAYMENTS, "pay", 160);
    world.all_delivered_within(FAILOVER * 2).await;
    until(FAILOVER, || world.leases().len() == 4, || format!("{:?}", world.leases())).await;
    let stream = serialized(&world, PAYMENTS);
    let rows = world.table.items();
    let row = |shard: &str| &rows[format!("{stream}:{shard}").as_str()];
    let text = |text: &str| Attribute::S(text.to_owned());
    for shard in world.kinesis.shards(PAYMENTS).expect("a stream") {
        let row = row(shard.id.as_str());
        assert_eq!(row["streamName"], text(&stream));
        assert_eq!(row["shardId"], text(shard.id.as_str()));
        assert_eq!(row["entityType"], text("LEASE"));
    }
    let parents = &row("shardId-000000000001")["parentShardId"];
    assert_eq!(*parents, Attribute::Ss([parent.to_string()].into()), "bare shard ids");
    let children: BTreeSet<String> = ["shardId-000000000001", "shardId-000000000002"].map(Into::into).into();
    assert_eq!(row(parent.as_str())["childShardIds"], Attribute::Ss(children.into_iter().collect()));
    assert!(rows.contains_key(format!("{}:{parent}", serialized(&world, STREAM)).as_str()));
}

#[tokio::test(start_paused = true)]
async fn rows_of_finished_shards_are_deleted_stream_by_stream() {
    let world = world(1, 1);
    let _a = start(world.worker_of("a", both())).await;
    for stream in both() {
        let open = world.kinesis.open_shards(stream).expect("a stream");
        world.kinesis.split(stream, &open[0].id).expect("split");
    }
    world.put(160);
    until(Duration::from_secs(300), || world.leases().len() == 5, || format!("{:?}", world.leases())).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.leases().len(), 5, "children that nobody has started keep their parent's row");
    world.put_to(PAYMENTS, "pay", 160);
    until(Duration::from_secs(300), || world.leases().len() == 4, || format!("{:?}", world.leases())).await;
    world.all_delivered_within(FAILOVER).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_added_while_others_are_read() {
    let world = world(2, 2);
    let a = start(world.worker_of("a", [STREAM])).await;
    world.put(160);
    world.put_to(PAYMENTS, "pay", 160);
    until(FAILOVER, || world.missing().len() == 160, || format!("{}", world.missing().len())).await;
    assert!(running(&world, PAYMENTS).is_empty());

    let added = a.add_stream(PAYMENTS).await.expect("added");
    assert_eq!(added.serialized(), Some(&*serialized(&world, PAYMENTS)));
    world.all_delivered_within(Duration::from_secs(1)).await;
    assert_eq!(world.check_order(), 0);
    let error = a.add_stream(PAYMENTS).await.expect_err("once is enough");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("read already"), "{error}");
    let error = a.add_stream("no-such-stream").await.expect_err("not there");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(a.status().streams.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn latest_counts_from_when_the_stream_was_added() {
    let world = world(1, 1);
    let a = start(world.worker_of("a", [STREAM])).await;
    world.kinesis.put(PAYMENTS, "early", "not for us").expect("put");
    tokio::time::sleep(Duration::from_secs(5)).await;
    a.add_stream(StreamConfig::new(PAYMENTS).with_start_strategy(StartStrategy::Latest))
        .await
        .expect("added");
    world.put_to(PAYMENTS, "pay", 160);
    world.all_delivered_within(FAILOVER).await;
    assert_eq!(world.check_order(), 0);
}

#[tokio::test(start_paused = true)]
async fn latest_counts_from_the_start_for_a_stream_that_is_found_late_and_was_split_meanwhile() {
    let world = world(1, 1);
    world
        .kinesis
        .set_faults(|call| (call.stream == PAYMENTS).then_some(Fault::Error(StreamErrorKind::Denied)));
    let latest = StreamConfig::new(PAYMENTS).with_start_strategy(StartStrategy::Latest);
    let _a = start(world.worker_of("a", [StreamConfig::new(STREAM), latest])).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.put_to(PAYMENTS, "pay", 160);
    let open = world.kinesis.open_shards(PAYMENTS).expect("a stream");
    world.kinesis.split(PAYMENTS, &open[0].id).expect("split");
    world.put_to(PAYMENTS, "pay", 160);
    world.kinesis.clear_faults();
    world.all_delivered_within(Duration::from_secs(80)).await;
    assert_eq!(world.check_order(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_removed_stream_is_handed_over_and_comes_back_where_it_was_left() {
    let world = world(2, 2);
    let a = start(world.worker_of("a", both())).await;
    world.put(160);
    world.put_to(PAYMENTS, "pay", 160);
    world.all_delivered_within(FAILOVER).await;

    a.remove_stream(PAYMENTS).await.expect("its processors return");
    assert!(are_all(&owners(&world, PAYMENTS), None), "{:?}", owners(&world, PAYMENTS));
    assert!(are_all(&owners(&world, STREAM), Some("a")));
    let count = |observed: &Observed| world.log().iter().filter(|entry| entry.observed == *observed).count();
    assert_eq!((count(&Observed::ShutdownRequested), count(&Observed::LeaseLost)), (2, 2));
    assert_eq!(a.remove_stream(PAYMENTS).await.expect_err("gone").kind(), ErrorKind::Invalid);
    world.put_to(PAYMENTS, "pay", 160);
    tokio::time::sleep(FAILOVER * 10).await;
    assert!(are_all(&owners(&world, PAYMENTS), None), "nobody reads it");
    assert_eq!(world.missing().len(), 160);
    assert_eq!(a.status().shards.len(), 2);

    a.add_stream(PAYMENTS).await.expect("added");
    world.all_delivered_within(Duration::from_secs(1)).await;
    assert_eq!(world.check_order(), 0, "it continues from its checkpoints");
}

#[tokio::test(start_paused = true)]
async fn other_workers_go_on_with_a_stream_that_one_has_removed() {
    let world = world(2, 4);
    let a = start(world.worker_of("a", both())).await;
    let _b = start(world.worker_of("b", both())).await;
    let is_balanced = || world.owners().values().all(|&leases| leases == 3);
    until(FAILOVER * 6, is_balanced, || format!("{:?}", world.owners())).await;
    a.remove_stream(PAYMENTS).await.expect("its processors return");
    let are_bs = || are_all(&owners(&world, PAYMENTS), Some("b"));
    // The last of them is more than its share, so it is taken once no other worker has for long enough.
    until(FAILOVER * 4, are_bs, || format!("{:?}", owners(&world, PAYMENTS))).await;
    world.put(160);
    world.put_to(PAYMENTS, "pay", 160);
    world.all_delivered_within(FAILOVER * 2).await;
    world.check_order();
}

#[tokio::test(start_paused = true)]
async fn what_a_leader_assigns_to_a_worker_that_does_not_read_the_stream_is_read_by_others() {
    let world = world(4, 4);
    let mut coordination = CoordinationConfig::default();
    coordination.mode = CoordinationMode::Leader;
    // It leads, and assumes that the other worker reads both streams too.
    let _a = start(world.worker_of("a", both()).coordination(coordination.clone())).await;
    let _b = start(world.worker_of("b", [STREAM]).coordination(coordination)).await;
    for _ in 0..6 {
        world.put(160);
        world.put_to(PAYMENTS, "pay", 160);
        world.all_delivered_within(FAILOVER).await;
        tokio::time::sleep(FAILOVER).await;
    }
    assert!(are_all(&owners(&world, PAYMENTS), Some("a")), "{:?}", owners(&world, PAYMENTS));
    world.check_order();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_missing_at_the_start_is_read_when_it_is_there() {
    let world = World::new(2);
    let a = start(world.worker_of("a", both())).await;
    world.put(160);
    world.all_delivered_within(Duration::from_secs(1)).await;
    assert!(problem(&a, PAYMENTS).is_some_and(|problem| problem.contains("no such stream")));
    assert_eq!((problem(&a, STREAM), a.status().health), (None, Health::Degraded));

    tokio::time::sleep(Duration::from_secs(600)).await;
    world.kinesis.create_stream(PAYMENTS, 2).expect("a new stream");
    world.put_to(PAYMENTS, "pay", 160);
    world.all_delivered_within(Duration::from_secs(70)).await;
    assert_eq!((problem(&a, PAYMENTS), a.status().health), (None, Health::Healthy));
    assert_eq!(world.check_order(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_holds_up_no_other() {
    let world = world(2, 2);
    world.kinesis.set_faults(|call| {
        let is_hit = call.stream == PAYMENTS && call.operation != "DescribeStreamSummary";
        is_hit.then_some(Fault::Error(StreamErrorKind::Denied))
    });
    let a = start(world.worker_of("a", both())).await;
    world.put(160);
    world.put_to(PAYMENTS, "pay", 160);
    until(Duration::from_secs(2), || world.missing().len() == 160, || world.missing().len().to_string())
        .await;
    assert!(problem(&a, PAYMENTS).is_some_and(|problem| problem.contains("IAM policy")));

    // The remaining requests hang, and a shard of the other stream changes hands meanwhile.
    world
        .kinesis
        .set_faults(|call| (call.stream == PAYMENTS).then_some(Fault::NoAnswer(Duration::from_secs(30))));
    let open = world.kinesis.open_shards(STREAM).expect("a stream");
    world.kinesis.split(STREAM, &open[0].id).expect("split");
    world.put(160);
    let are_read = || world.missing().iter().all(|(key, _)| key.starts_with("pay"));
    until(Duration::from_secs(10), are_read, || format!("{:?}", world.missing())).await;
    let _b = start(world.worker_of("b", both())).await;
    until(FAILOVER * 3, || world.owners().get("b") == Some(&1), || format!("{:?}", world.owners())).await;
    world.kinesis.clear_faults();
    world.all_delivered_within(Duration::from_secs(80)).await;
    world.check_order();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_can_no_longer_be_listed_costs_little_and_is_reported() {
    let world = world(2, 1);
    let a = start(world.worker_of("a", both())).await;
    world.put(160);
    world.all_delivered_within(FAILOVER).await;
    world.kinesis.delete_stream(PAYMENTS).expect("deleted");
    until(FAILOVER * 6, || a.status().health == Health::Degraded, || format!("{:?}", a.status())).await;
    world.put(160);
    world.all_delivered_within(FAILOVER).await;
    assert_eq!(world.check_order(), 0);
    assert!(are_all(&owners(&world, STREAM), Some("a")));
}

#[tokio::test(start_paused = true)]
async fn if_no_stream_can_be_read_the_start_fails() {
    let world = World::new(1);
    let consumer = world.worker_of("a", ["no-such-stream", "nor-this"]).build().expect("valid settings");
    let error = consumer.start().await.expect_err("no stream");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(format!("{error:#}").contains("no-such-stream"), "{error:#}");
}

#[tokio::test(start_paused = true)]
async fn javas_epochs_and_own_start_strategies_are_kept_to() {
    let world = world(1, 1);
    let arn = world.kinesis.stream_arn(PAYMENTS);
    let account = arn.split(':').nth(4).expect("an ARN").to_owned();
    world.kinesis.set_faults(|call| {
        let is_needless = call.operation == "DescribeStreamSummary" && call.stream == PAYMENTS;
        is_needless.then_some(Fault::Error(StreamErrorKind::Denied))
    });
    let streams = [
        StreamConfig::new(format!("{account}:{STREAM}:1")).with_start_strategy(StartStrategy::Latest),
        StreamConfig::new(arn).with_creation_epoch(7),
    ];
    let _a = start(world.worker_of("a", streams)).await;
    until(FAILOVER, || world.leases().len() == 2, || format!("{:?}", world.leases())).await;
    let rows: Vec<_> =
        world.leases().into_iter().map(|lease| (lease.key.to_string(), lease.checkpoint)).collect();
    assert_eq!(
        rows,
        [
            (format!("{account}:{STREAM}:1:shardId-000000000000"), Checkpoint::Latest),
            (format!("{account}:{PAYMENTS}:7:shardId-000000000000"), Checkpoint::TrimHorizon)
        ]
    );
    let error = world.worker_of("b", [format!("999:{STREAM}:1")]).build().expect("valid").start().await;
    let error = error.expect_err("another account's");
    assert!(format!("{error:#}").contains("another account"), "{error:#}");
}

/// Leftover rows of the other mode are neither used nor changed, in either mode, and an event reports
/// them.
#[tokio::test(start_paused = true)]
async fn leases_of_the_other_mode_are_left_alone() {
    let world = world(2, 1);
    let single = start(world.worker("single", CheckpointPolicy::EveryBatch)).await;
    world.put(160);
    world.all_delivered_within(FAILOVER).await;
    single.shutdown().await.expect("processors return");
    let of_single = world.table.items();

    // As if the streams had used another table and their leases were copied here.
    let elsewhere = MemoryLeaseStore::default();
    let first = start(world.worker_of("multi", both()).lease_store(Arc::new(elsewhere.clone()))).await;
    until(FAILOVER, || elsewhere.items().len() == 3, || format!("{:?}", elsewhere.items())).await;
    first.shutdown().await.expect("processors return");
    for item in elsewhere.items().into_values() {
        assert!(world.table.insert_item(item));
    }
    let multi = start(world.worker_of("multi", both())).await;
    let mut events = multi.events();
    let reported = async {
        loop {
            if let Some(Event::LeasesOfOtherMode { lease, count, .. }) = events.next().await {
                return (lease, count);
            }
        }
    };
    let (lease, count) = tokio::time::timeout(FAILOVER, reported).await.expect("reported");
    assert_eq!((lease.as_str(), count), ("shardId-000000000000", 2));
    until(FAILOVER, || running(&world, STREAM).len() == 2, || format!("{:?}", world.leases())).await;
    until(FAILOVER, || world.log().len() > 320, || world.log().len().to_string()).await;
    tokio::time::sleep(FAILOVER * 10).await;
    multi.shutdown().await.expect("processors return");
    let mut items = world.table.items();
    let of_multi: Vec<_> = items.extract_if(.., |key, _| key.as_str().contains(':')).collect();
    assert_eq!(items, of_single);

    let again = start(world.worker("single", CheckpointPolicy::EveryBatch)).await;
    world.put(160);
    world.all_delivered_within(FAILOVER).await;
    tokio::time::sleep(FAILOVER * 10).await;
    assert_eq!(again.status().shards.len(), 2);
    again.shutdown().await.expect("processors return");
    let items = world.table.items();
    assert!(of_multi.iter().all(|(key, row)| items.get(key) == Some(row)));
    assert_eq!(world.table.scan().await.expect("in memory").leases.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_of_a_single_stream_gets_no_others() {
    let world = world(1, 1);
    let a = world.start("a").await;
    for error in [
        a.add_stream(PAYMENTS).await.expect_err("a single stream"),
        a.remove_stream(STREAM).await.expect_err("a single stream"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("streams(["), "{error}");
    }
}
