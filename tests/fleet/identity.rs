//! Which stream, and which instant, a lease belongs to: streams that are created again, `LATEST`, lost
//! lineage, tables of other consumers, and deleted rows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kinesis_consumer::lease::{EntityKind, Fault, FaultHook, Lease, LeaseStore, StoreErrorKind};
use kinesis_consumer::{
    Checkpoint, ConsumerBuilder, ConsumerHandle, CoordinationConfig, CoordinationMode, ErrorKind, Event,
    Events, Health, LeaseKey, ManagementConfig, OnRecreatedStream, StartStrategy,
};

use crate::world::{CheckpointPolicy, FAILOVER, Observed, STREAM, World, start, until};

const PAYMENTS: &str = "payments";
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn at_latest(builder: ConsumerBuilder) -> ConsumerBuilder {
    builder
        .management(ManagementConfig { start_strategy: StartStrategy::Latest, ..ManagementConfig::default() })
}

fn starting_over(builder: ConsumerBuilder, mode: CoordinationMode) -> ConsumerBuilder {
    let mut coordination = CoordinationConfig::default();
    coordination.mode = mode;
    coordination.on_recreated_stream = OnRecreatedStream::StartOver;
    builder.coordination(coordination)
}

/// As if the process was killed: no shutdown, nothing released.
fn kill(handle: ConsumerHandle) {
    drop(handle);
}

fn problem(handle: &ConsumerHandle) -> Option<String> {
    handle.status().streams.into_iter().find_map(|stream| stream.problem)
}

/// The events so far.
async fn drain(events: &mut Events) -> Vec<Event> {
    let mut drained = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
        drained.push(event);
        // Otherwise the runtime suspends a task that reads this much.
        tokio::task::yield_now().await;
    }
    drained
}

/// The records delivered to `worker`, including duplicates: key and number.
fn delivered_to(world: &World, worker: &str) -> Vec<(String, u64)> {
    let of_worker = world.log().into_iter().filter(|entry| entry.worker == worker);
    let record = |observed| match observed {
        Observed::Record { key, text, .. } => Some((key, text.parse().expect("a number"))),
        _ => None,
    };
    of_worker.filter_map(|entry| record(entry.observed)).collect()
}

/// A stream of two shards that was read and split before it was deleted.
async fn earlier_stream(world: &World) {
    world.put(32);
    world.all_delivered_within(FAILOVER * 2).await;
    let first = world.kinesis.open_shards(STREAM).expect("a stream")[0].id.clone();
    world.kinesis.split(STREAM, &first).expect("split");
    world.put(32);
    world.all_delivered_within(FAILOVER * 6).await;
    world.all_stored_within(FAILOVER * 6).await;
}

async fn create_again(world: &World, shards: u32) {
    world.kinesis.delete_stream(STREAM).expect("deleted");
    tokio::time::sleep(MINUTE).await;
    world.kinesis.create_stream(STREAM, shards).expect("created");
    world.put(64);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_created_again_while_nobody_read_it_is_reported() {
    for shards in [1, 2, 3, 5] {
        let world = World::new(2);
        let a = world.start("a").await;
        earlier_stream(&world).await;
        a.shutdown().await.expect("processors return");
        create_again(&world, shards).await;
        let b = world.start("b").await;
        let mut events = b.events();
        let is_reported = || b.status().health == Health::Degraded && problem(&b).is_some();
        until(2 * MINUTE, is_reported, || format!("{shards}: {:?}", b.status())).await;
        let problem = problem(&b).expect("a problem");
        assert!(problem.contains("StartOver"), "{shards}: {problem}");
        tokio::time::sleep(5 * MINUTE).await;
        let reported = drain(&mut events).await;
        let reported = reported.iter().filter(|event| matches!(event, Event::StreamRecreated { .. }));
        assert!(reported.count() <= 4, "reported once, not again and again");
        assert!(is_reported(), "{shards}: {:?}", b.status());
    }
}

#[tokio::test(start_paused = true)]
async fn by_a_setting_a_stream_that_was_created_again_is_read_from_its_oldest_record() {
    for mode in [CoordinationMode::Independent, CoordinationMode::Leader] {
        for shards in [1, 2, 3, 5] {
            let world = World::new(2);
            let worker = |name| starting_over(world.worker(name, CheckpointPolicy::EveryBatch), mode);
            let a = start(worker("a")).await;
            earlier_stream(&world).await;
            a.shutdown().await.expect("processors return");
            create_again(&world, shards).await;
            let b = start(worker("b")).await;
            world.all_delivered_within(10 * MINUTE).await;
            until(2 * MINUTE, || problem(&b).is_none(), || format!("{:?}", b.status())).await;
            assert_eq!(b.status().health, Health::Healthy, "{shards}");
            let open: BTreeSet<_> = world
                .kinesis
                .open_shards(STREAM)
                .expect("a stream")
                .into_iter()
                .map(|shard| shard.id)
                .collect();
            let rows: BTreeSet<_> = world.leases().into_iter().map(|lease| lease.shard_id).collect();
            assert_eq!(rows, open, "rows of the earlier stream are gone");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn several_streams_go_on_where_one_was_created_again() {
    let world = World::new(1);
    world.kinesis.create_stream(PAYMENTS, 1).expect("a new stream");
    let worker = |name| at_latest(world.worker_of(name, [STREAM, PAYMENTS]));
    let a = start(worker("a")).await;
    tokio::time::sleep(SECOND).await;
    world.put(16);
    world.put_to(PAYMENTS, "pay", 16);
    world.all_delivered_within(FAILOVER * 2).await;
    world.all_stored_within(FAILOVER * 2).await;
    a.shutdown().await.expect("processors return");
    world.kinesis.delete_stream(STREAM).expect("deleted");
    tokio::time::sleep(MINUTE).await;
    world.kinesis.create_stream(STREAM, 2).expect("created");
    world.put(32);
    tokio::time::sleep(MINUTE).await;
    let _b = start(worker("b")).await;
    world.put_to(PAYMENTS, "pay", 16);
    // Including what was written before `b` started.
    world.all_delivered_within(5 * MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn latest_is_one_instant_across_a_crash() {
    for mode in [CoordinationMode::Independent, CoordinationMode::Leader] {
        let world = World::new(2);
        let mut coordination = CoordinationConfig::default();
        coordination.mode = mode;
        let worker = |name, policy| at_latest(world.worker(name, policy)).coordination(coordination.clone());
        world.put(16);
        let before: BTreeSet<_> = world.missing();
        tokio::time::sleep(SECOND).await;
        let a = start(worker("a", CheckpointPolicy::Never)).await;
        tokio::time::sleep(SECOND).await;
        world.put(32);
        until(FAILOVER, || world.missing() == before, || format!("{:?}", world.missing())).await;
        kill(a);
        tokio::time::sleep(SECOND).await;
        world.put(32);
        tokio::time::sleep(3 * FAILOVER).await;
        let _b = start(worker("b", CheckpointPolicy::EveryBatch)).await;
        until(5 * MINUTE, || delivered_to(&world, "b").len() >= 64, || format!("{:?}", world.missing()))
            .await;
        tokio::time::sleep(MINUTE).await;
        assert_eq!(world.missing(), before, "what was written before the application started is not read");
        assert_eq!(
            delivered_to(&world, "b").len(),
            64,
            "what was delivered and not checkpointed comes again"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn latest_is_the_same_instant_after_a_steal_before_the_first_checkpoint() {
    let world = World::new(4);
    let worker = |name| at_latest(world.worker(name, CheckpointPolicy::Never));
    let _a = start(worker("a")).await;
    tokio::time::sleep(SECOND).await;
    world.put(64);
    world.all_delivered_within(FAILOVER).await;
    let b = start(worker("b")).await;
    let shares = || b.status().shards.len() == 2;
    until(5 * MINUTE, shares, || format!("{:?}", world.owners())).await;
    world.put(64);
    world.all_delivered_within(FAILOVER * 2).await;
    let again = delivered_to(&world, "b").iter().filter(|(_, number)| *number < 4).count();
    assert!(again > 0, "what a had processed of these shards without a checkpoint comes again");
}

/// The other leases move on at once, so the one that failed must not be planned again.
#[tokio::test(start_paused = true)]
async fn a_first_lease_that_could_not_be_created_starts_at_the_same_instant_as_the_others() {
    let world = World::new(2);
    world.put(16);
    let before: BTreeSet<_> = world.missing();
    tokio::time::sleep(SECOND).await;
    let refusals = AtomicU32::new(3);
    let last = world.kinesis.open_shards(STREAM).expect("a stream")[1].id.to_string();
    let hook: FaultHook = Arc::new(move |operation, key| {
        let is_last = operation == "CreateLease" && key.is_some_and(|key| key.as_str() == last);
        let refuses = is_last
            && refusals
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok();
        if refuses { Fault::refused(StoreErrorKind::Throttled) } else { Fault::default() }
    });
    let worker = at_latest(world.worker("a", CheckpointPolicy::EveryBatch));
    let _a = start(worker.lease_store(world.unreliable_table(hook))).await;
    world.put(32);
    until(FAILOVER, || world.missing() == before, || format!("{:?}", world.missing())).await;
    assert_eq!(world.leases().len(), 2);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.missing(), before, "what was written before the application started is not read");
}

/// A row at `LATEST` that another library created does not contain the instant.
#[tokio::test(start_paused = true)]
async fn the_instant_is_stored_when_a_lease_is_first_acquired() {
    let world = World::new(1);
    let shard = world.kinesis.open_shards(STREAM).expect("a stream").remove(0);
    let mut lease = Lease::new(shard.id.as_str(), Checkpoint::Latest);
    lease.hash_key_range = Some(shard.hash_key_range);
    assert!(world.table.insert_item(lease.to_item()));
    let a = start(at_latest(world.worker("a", CheckpointPolicy::Never))).await;
    tokio::time::sleep(SECOND).await;
    world.put(16);
    world.all_delivered_within(FAILOVER).await;
    assert!(world.leases()[0].latest_since.is_some(), "{:?}", world.leases());
    kill(a);
    world.put(16);
    tokio::time::sleep(3 * FAILOVER).await;
    let _b = start(at_latest(world.worker("b", CheckpointPolicy::EveryBatch))).await;
    until(
        5 * MINUTE,
        || delivered_to(&world, "b").len() == 32,
        || format!("{:?}", delivered_to(&world, "b")),
    )
    .await;
    world.all_stored_within(FAILOVER).await;
    assert_eq!(world.leases()[0].latest_since, None, "a checkpoint says more");
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_lineage_has_expired_is_read_from_its_oldest_record() {
    for strategy in [StartStrategy::Latest, StartStrategy::Timestamp(1_750_000_000_000)] {
        let world = World::new(1);
        let worker = |name| {
            world
                .worker(name, CheckpointPolicy::EveryBatch)
                .management(ManagementConfig { start_strategy: strategy, ..ManagementConfig::default() })
        };
        let a = start(worker("a")).await;
        tokio::time::sleep(SECOND).await;
        world.put(16);
        world.all_delivered_within(FAILOVER).await;
        world.all_stored_within(FAILOVER).await;
        a.shutdown().await.expect("processors return");
        let mut shard = world.kinesis.open_shards(STREAM).expect("a stream")[0].id.clone();
        for _ in 0..3 {
            let (lower, upper) = world.kinesis.split(STREAM, &shard).expect("split");
            tokio::time::sleep(MINUTE).await;
            shard = world.kinesis.merge(STREAM, &lower, &upper).expect("merged");
        }
        tokio::time::sleep(25 * HOUR).await;
        assert_eq!(world.kinesis.shards(STREAM).expect("a stream").len(), 1, "the others have expired");
        world.put(16);
        tokio::time::sleep(MINUTE).await;
        let _b = start(worker("b")).await;
        world.all_delivered_within(10 * MINUTE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_application_for_two_single_streams_is_refused() {
    let world = World::new(2);
    world.kinesis.create_stream(PAYMENTS, 2).expect("a new stream");
    let _orders = world.start("orders-1").await;
    tokio::time::sleep(SECOND).await;
    let payments = world.worker_of_one("payments-1", PAYMENTS).build().expect("valid");
    let error = payments.start().await.expect_err("another stream's table");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(text.contains("orders") && text.contains("payments") && text.contains("application"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn two_single_streams_that_start_at_once_on_one_table_are_seen() {
    let world = World::new(2);
    world.kinesis.create_stream(PAYMENTS, 2).expect("a new stream");
    let orders = world.worker("orders-1", CheckpointPolicy::EveryBatch).build().expect("valid");
    let payments = world.worker_of_one("payments-1", PAYMENTS).build().expect("valid");
    let (orders, payments) = tokio::join!(orders.start(), payments.start());
    let handles: Vec<ConsumerHandle> = [orders, payments].into_iter().flatten().collect();
    world.put(64);
    world.put_to(PAYMENTS, "pay", 64);
    tokio::time::sleep(2 * MINUTE).await;
    let degraded: Vec<_> =
        handles.iter().filter(|handle| handle.status().health == Health::Degraded).collect();
    assert!(
        handles.len() == 1 || degraded.len() == 1,
        "{:?}",
        handles.iter().map(|h| h.status()).collect::<Vec<_>>()
    );
    for handle in degraded {
        let problem = problem(handle).expect("a problem");
        assert!(problem.contains("one application reads one stream"), "{problem}");
        assert!(handle.status().shards.is_empty(), "it takes no leases of the other stream");
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_of_the_other_mode_is_refused() {
    let world = World::new(2);
    world.kinesis.create_stream(PAYMENTS, 1).expect("a new stream");
    let a = world.start("a").await;
    world.put(16);
    world.all_delivered_within(FAILOVER).await;
    a.shutdown().await.expect("processors return");
    let one_more = world.worker("b", CheckpointPolicy::EveryBatch).stream(PAYMENTS);
    for builder in [one_more, world.worker_of("b", [STREAM, PAYMENTS])] {
        let error = builder.build().expect("valid").start().await.expect_err("the other mode");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("a consumer of a single stream"), "{error}");
    }
    let again = world.start("a").await;
    world.put(16);
    world.all_delivered_within(FAILOVER).await;
    again.shutdown().await.expect("processors return");
}

/// As a person or a TTL does.
async fn delete(world: &World, key: &LeaseKey) {
    world.table.delete_entity(EntityKind::Leader, key, &[]).await.expect("in memory");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_somebody_deletes_is_created_again_at_its_checkpoint() {
    for mode in [CoordinationMode::Independent, CoordinationMode::Leader] {
        for deleted in [1, 4] {
            let world = World::new(4);
            let mut coordination = CoordinationConfig::default();
            coordination.mode = mode;
            let worker =
                at_latest(world.worker("a", CheckpointPolicy::EveryBatch)).coordination(coordination);
            let a = start(worker).await;
            let mut events = a.events();
            tokio::time::sleep(SECOND).await;
            world.put(64);
            world.all_delivered_within(FAILOVER).await;
            world.all_stored_within(FAILOVER).await;
            // The leader knows only what it has scanned.
            tokio::time::sleep(FAILOVER).await;
            let before = world.leases();
            for lease in &before[..deleted] {
                delete(&world, &lease.key).await;
            }
            let are_back = || world.leases().iter().filter(|lease| lease.owner.is_some()).count() == 4;
            tokio::time::sleep(SECOND).await;
            until(MINUTE, are_back, || format!("{:?}", world.leases())).await;
            let checkpoint = |lease: &Lease| lease.checkpoint.clone();
            assert_eq!(
                world.leases().iter().map(checkpoint).collect::<Vec<_>>(),
                before.iter().map(checkpoint).collect::<Vec<_>>(),
                "at the checkpoints last known"
            );
            world.put(64);
            world.all_delivered_within(2 * MINUTE).await;
            world.all_stored_within(MINUTE).await;
            assert_eq!(world.check_order(), 0, "nothing comes again: {mode:?}, {deleted} deleted");
            let all = drain(&mut events).await;
            let recreated: BTreeSet<_> = all
                .iter()
                .filter_map(|event| match event {
                    Event::LeaseRecreated { lease, .. } => Some(lease),
                    _ => None,
                })
                .collect();
            assert_eq!(recreated.len(), deleted, "{mode:?} {all:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_row_of_a_closed_shard_that_children_wait_for_is_created_again() {
    let world = World::new(1);
    let a = start(world.worker("a", CheckpointPolicy::EveryBatch)).await;
    world.put(16);
    world.all_delivered_within(FAILOVER).await;
    world.all_stored_within(FAILOVER).await;
    kill(a);
    world.put(16);
    let parent = world.kinesis.open_shards(STREAM).expect("a stream")[0].id.clone();
    world.kinesis.split(STREAM, &parent).expect("split");
    world.put(16);
    let key: LeaseKey = parent.as_str().into();
    let _b = world.start("b").await;
    delete(&world, &key).await;
    world.all_delivered_within(5 * MINUTE).await;
    world.check_order();
}
