//! Fleets with a leader, and fleets that migrate to one.

use std::sync::Arc;
use std::time::Duration;

use kinesis_consumer::lease::{Attribute, Fault, Item, Lease, LeaseStore, LeaseWrite, WriteOutcome};
use kinesis_consumer::{
    AssignmentStrategy, Checkpoint, ConsumerBuilder, ConsumerHandle, CoordinationConfig, CoordinationMode,
};

use crate::world::{CheckpointPolicy, FAILOVER, Observed, STREAM, World, start, until};

fn led(mode: CoordinationMode) -> CoordinationConfig {
    let mut coordination = CoordinationConfig::default();
    coordination.mode = mode;
    coordination
}

fn worker(world: &World, name: &str) -> ConsumerBuilder {
    world.worker(name, CheckpointPolicy::EveryBatch).coordination(led(CoordinationMode::Leader))
}

async fn join(world: &World, name: &str) -> ConsumerHandle {
    start(worker(world, name)).await
}

fn row(world: &World, key: &str) -> Option<Item> {
    world.table.items().get(key).cloned()
}

fn text(world: &World, key: &str, name: &str) -> String {
    match row(world, key).as_ref().and_then(|row| row.get(name)) {
        Some(Attribute::S(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

fn leader(world: &World) -> String {
    text(world, "Leader", "ownerName")
}

fn count(world: &World, owner: &str) -> usize {
    world.owners().get(owner).copied().unwrap_or_default()
}

async fn has(world: &World, owner: &str, leases: usize, within: Duration) {
    until(within, || count(world, owner) == leases, || format!("{:?}", world.owners())).await;
}

#[tokio::test(start_paused = true)]
async fn one_worker_leads_itself_and_reads_everything_at_once() {
    let world = World::new(4);
    world.put(1000);
    let started = tokio::time::Instant::now();
    let handle = join(&world, "a").await;
    world.all_delivered_within(Duration::from_secs(3)).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!((world.check_order(), count(&world, "a")), (0, 4));
    assert_eq!(
        (leader(&world).as_str(), text(&world, "Migration3.0", "cv").as_str()),
        ("a", "CLIENT_VERSION_3X")
    );
    assert_eq!(handle.status().leader, Some("a".into()));
    handle.shutdown().await.expect("processors return");
    assert_eq!(row(&world, "Leader"), None, "the lock is given up");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_joins_is_handed_its_share_without_a_duplicate() {
    let world = World::new(8);
    let _a = join(&world, "a").await;
    world.put(800);
    world.all_delivered_within(FAILOVER).await;
    let _b = join(&world, "b").await;
    has(&world, "b", 4, FAILOVER * 3).await;
    world.put(800);
    world.all_delivered_within(FAILOVER).await;
    assert_eq!(world.check_order(), 0, "a handoff repeats nothing");
    tokio::time::sleep(FAILOVER * 10).await;
    assert_eq!((count(&world, "a"), count(&world, "b")), (4, 4), "the balance holds");
    assert!(world.leases().iter().all(|lease| lease.owner_switches == 0 && lease.checkpoint_owner.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_processor_is_notified_before_its_lease_is_handed_over() {
    let world = World::new(2);
    let _a = join(&world, "a").await;
    world.put(32);
    world.all_delivered_within(FAILOVER).await;
    let _b = join(&world, "b").await;
    has(&world, "b", 1, FAILOVER * 3).await;
    let moved = world.leases().into_iter().find(|lease| lease.owner == Some("b".into())).expect("one");
    until(FAILOVER, || world.log().iter().any(|entry| entry.worker == "b"), || "b starts".into()).await;
    let observed: Vec<_> = world
        .log()
        .into_iter()
        .filter(|entry| entry.shard == moved.shard_id && !matches!(entry.observed, Observed::Record { .. }))
        .map(|entry| (entry.worker, entry.observed))
        .collect();
    let by = |worker: &str, observed| (worker.to_owned(), observed);
    assert_eq!(
        observed,
        [
            by("a", Observed::Initialized),
            by("a", Observed::ShutdownRequested),
            by("a", Observed::LeaseLost),
            by("b", Observed::Initialized)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn leases_of_a_worker_that_leaves_go_to_the_others_without_a_duplicate() {
    for leaver in ["a", "b"] {
        let world = World::new(8);
        let a = join(&world, "a").await;
        let b = join(&world, "b").await;
        has(&world, "b", 4, FAILOVER * 3).await;
        world.put(800);
        world.all_delivered_within(FAILOVER).await;
        assert_eq!(leader(&world), "a");
        let (leaves, stays) = if leaver == "a" { (a, b) } else { (b, a) };
        leaves.shutdown().await.expect("processors return");
        world.put(800);
        world.all_delivered_within(FAILOVER).await;
        assert_eq!(world.check_order(), 0, "{leaver}");
        let stays = stays.status();
        assert_eq!((stays.shards.len(), stays.leader), (8, Some(stays.worker_id.clone())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_is_replaced_after_the_failover_time() {
    let world = World::new(8);
    let _a = join(&world, "a").await;
    let b = join(&world, "b").await;
    has(&world, "b", 4, FAILOVER * 3).await;
    drop(b);
    let died = tokio::time::Instant::now();
    world.put(800);
    world.all_delivered_within(FAILOVER * 2).await;
    // The worker counts as alive until its last report is a minute old, but expired leases go to workers
    // that renew.
    assert!(died.elapsed() <= FAILOVER * 2, "{:?}", died.elapsed());
    world.check_order();
    tokio::time::sleep(Duration::from_secs(120)).await;
    has(&world, "a", 8, FAILOVER).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_is_replaced_when_its_lock_has_run_out() {
    let world = World::new(8);
    let a = join(&world, "a").await;
    let _b = join(&world, "b").await;
    let _c = join(&world, "c").await;
    until(
        FAILOVER * 4,
        || count(&world, "b") >= 2 && count(&world, "c") >= 2,
        || format!("{:?}", world.owners()),
    )
    .await;
    drop(a);
    let died = tokio::time::Instant::now();
    world.put(800);
    // The lock is valid for twice the failover time; then the new leader observes it once.
    world.all_delivered_within(FAILOVER * 5).await;
    assert!(died.elapsed() <= FAILOVER * 4, "{:?}", died.elapsed());
    assert_ne!(leader(&world), "a");
    world.check_order();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_restarts_under_its_name_takes_its_leases_back_at_once() {
    let world = World::new(4);
    let a = join(&world, "a").await;
    world.put(400);
    world.all_delivered_within(FAILOVER).await;
    drop(a);
    let _again = join(&world, "a").await;
    world.put(400);
    world.all_delivered_within(Duration::from_secs(2)).await;
    assert_eq!((world.check_order(), leader(&world).as_str()), (0, "a"));
}

#[tokio::test(start_paused = true)]
async fn children_of_split_and_merged_shards_are_read_after_their_parents() {
    let world = World::new(4);
    let _a = join(&world, "a").await;
    let _b = join(&world, "b").await;
    world.put(400);
    world.all_delivered_within(FAILOVER * 3).await;
    let shards = world.kinesis.shards(STREAM).expect("a stream");
    world.kinesis.split(STREAM, &shards[0].id).expect("split");
    world.kinesis.merge(STREAM, &shards[1].id, &shards[2].id).expect("merged");
    world.put(400);
    world.all_delivered_within(FAILOVER * 3).await;
    assert_eq!(world.check_order(), 0);
}

/// As Java's leader does: it assigns, and leaves the rows of ended shards to their owners.
async fn assign_all(world: &World, worker: &str) {
    for lease in world.leases().iter().filter(|lease| lease.owner.is_none()) {
        let assigned = world.table.apply(&LeaseWrite::assign(lease, &worker.into())).await;
        assert!(matches!(assigned, Ok(WriteOutcome::Applied(_))), "{assigned:?}");
    }
}

/// The row of the leader's lock as a worker of Java's puts it, good for a day.
fn lock_of_java() -> Item {
    let lock = [("leaseKey", "Leader"), ("ownerName", "java"), ("leaseDuration", "86400000")];
    let version = [("recordVersionNumber", "1"), ("entityType", "LEADER")];
    let text = |(name, text): (&str, &str)| (name.to_owned(), Attribute::S(text.to_owned()));
    lock.into_iter().chain(version).map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_loses_the_lock_while_it_scans_assigns_nothing() {
    for loses_the_lock in [false, true] {
        let world = World::new(2);
        for shard in world.kinesis.shards(STREAM).expect("a stream") {
            let mut lease = Lease::new(shard.id.as_str(), Checkpoint::TrimHorizon);
            lease.hash_key_range = Some(shard.hash_key_range);
            world.table.create(&lease).await.expect("created");
        }
        // Longer than it is from one heartbeat to the next, and shorter than the lock is good for.
        let slow = world.unreliable_table(Arc::new(|operation, _| match operation {
            "ListLeases" => Fault::default().delayed(Duration::from_secs(8), Duration::ZERO),
            _ => Fault::default(),
        }));
        let _a = start(worker(&world, "a").lease_store(slow)).await;
        until(FAILOVER, || leader(&world) == "a", || leader(&world)).await;
        if loses_the_lock {
            world.table.insert_item(lock_of_java());
        }
        tokio::time::sleep(FAILOVER * 2).await;
        let expected = if loses_the_lock { ("java", 0) } else { ("a", 2) };
        assert_eq!((leader(&world).as_str(), count(&world, "a")), expected, "{:?}", world.owners());
    }
}

#[tokio::test(start_paused = true)]
async fn rows_of_shards_it_has_ended_are_deleted_by_a_worker_that_another_leads() {
    let world = World::new(2);
    world.table.insert_item(lock_of_java());
    for shard in world.kinesis.shards(STREAM).expect("it is there") {
        let mut lease = Lease::new(shard.id.as_str(), Checkpoint::TrimHorizon);
        lease.hash_key_range = Some(shard.hash_key_range);
        world.table.create(&lease).await.expect("it is there");
    }
    let _a = join(&world, "a").await;
    assign_all(&world, "a").await;
    world.put(100);
    world.all_delivered_within(FAILOVER).await;
    let parent = world.kinesis.open_shards(STREAM).expect("it is there")[0].id.clone();
    world.kinesis.split(STREAM, &parent).expect("it is there");
    until(FAILOVER, || world.leases().len() == 4, || format!("{:?}", world.leases())).await;
    assign_all(&world, "a").await;
    world.put(100);
    world.all_delivered_within(FAILOVER).await;
    let cleanup = CoordinationConfig::default().lease_cleanup_interval;
    until(cleanup * 2, || world.leases().len() == 3, || format!("{:?}", world.leases())).await;
    assert_eq!(row(&world, parent.as_str()), None, "it has ended, and its children are being read");
    assert_eq!(world.check_order(), 0);
    assert_eq!(leader(&world), "java");
}

#[tokio::test(start_paused = true)]
async fn leases_are_counted_if_that_is_asked_for() {
    let world = World::new(9);
    let mut coordination = led(CoordinationMode::Leader);
    coordination.leader.assignment_strategy = AssignmentStrategy::LeaseCountBased;
    let mut handles = Vec::new();
    for name in ["a", "b", "c"] {
        handles.push(start(worker(&world, name).coordination(coordination.clone())).await);
    }
    until(
        FAILOVER * 3,
        || ["a", "b", "c"].iter().all(|name| count(&world, name) == 3),
        || format!("{:?}", world.owners()),
    )
    .await;
}

/// As a leader of KCL would: the old owner is asked, and does not respond.
#[tokio::test(start_paused = true)]
async fn a_processor_that_does_not_return_loses_a_lease_in_handoff_in_the_end() {
    let world = World::new(1);
    world.put(16);
    let mut coordination = CoordinationConfig::default();
    coordination.leader.graceful_handoff_timeout = Duration::from_secs(20);
    let _a =
        start(world.worker_with("a", crate::processors::stuck_in_first_batch()).coordination(coordination))
            .await;
    until(FAILOVER, || count(&world, "a") == 1, || "a".into()).await;
    let lease: Lease = world.leases().remove(0);
    let write = LeaseWrite::start_handoff(&lease.key, &"a".into(), &"b".into());
    let _ = world.table.apply(&write).await.expect("written");
    let began = tokio::time::Instant::now();
    let is_over = || world.leases()[0].checkpoint_owner.is_none();
    until(Duration::from_secs(60), is_over, || format!("{:?}", world.leases())).await;
    let took = began.elapsed();
    assert!(took > Duration::from_secs(20) && took < Duration::from_secs(30), "{took:?}");
    assert_eq!(world.leases()[0].owner, Some("b".into()));
}

#[tokio::test(start_paused = true)]
async fn a_fleet_of_2x_becomes_one_that_a_leader_runs() {
    let world = World::new(6);
    let mode = led(CoordinationMode::CompatibleWith2x);
    let compatible = |name: &str| {
        let builder = world.worker(name, CheckpointPolicy::EveryBatch);
        builder.coordination(mode.clone())
    };
    let old = world.start("old").await;
    let _a = start(compatible("a")).await;
    let _b = start(compatible("b")).await;
    until(
        FAILOVER * 6,
        || ["a", "b", "old"].iter().all(|name| count(&world, name) == 2),
        || format!("{:?}", world.owners()),
    )
    .await;
    let version = || text(&world, "Migration3.0", "cv");
    tokio::time::sleep(Duration::from_secs(1200)).await;
    assert_eq!(version(), "CLIENT_VERSION_UPGRADE_FROM_2X", "one worker does not report metrics");
    assert_eq!(row(&world, "Leader"), None);
    old.shutdown().await.expect("processors return");
    let _c = start(compatible("c")).await;
    until(Duration::from_secs(1200), || version() == "CLIENT_VERSION_3X_WITH_ROLLBACK", version).await;
    world.put(960);
    world.all_delivered_within(FAILOVER * 3).await;
    until(Duration::from_secs(180), || row(&world, "Leader").is_some(), || "a leader".into()).await;
    let _d = join(&world, "d").await;
    assert_eq!(version(), "CLIENT_VERSION_3X");
    until(Duration::from_secs(180), || count(&world, "d") >= 1, || format!("{:?}", world.owners())).await;
    world.put(960);
    world.all_delivered_within(FAILOVER * 3).await;
    assert_eq!(world.check_order(), 0);
}

/// KCL's migration tool rolls a fleet back by writing the row.
#[tokio::test(start_paused = true)]
async fn a_fleet_that_is_rolled_back_goes_on_as_2x() {
    let world = World::new(4);
    let mut state = Item::new();
    for (name, value) in [
        ("leaseKey", "Migration3.0"),
        ("cv", "CLIENT_VERSION_3X_WITH_ROLLBACK"),
        ("mb", "x"),
        ("entityType", "CLIENT_VERSION_MIGRATION"),
    ] {
        state.insert(name.to_owned(), Attribute::S(value.to_owned()));
    }
    world.table.insert_item(state.clone());
    let mode = led(CoordinationMode::CompatibleWith2x);
    let _a = start(world.worker("a", CheckpointPolicy::EveryBatch).coordination(mode.clone())).await;
    let b = start(world.worker("b", CheckpointPolicy::EveryBatch).coordination(mode)).await;
    has(&world, "b", 2, FAILOVER * 3).await;
    assert_eq!(leader(&world), "a");
    state.insert("cv".to_owned(), Attribute::S("CLIENT_VERSION_2X".to_owned()));
    world.table.insert_item(state);
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(row(&world, "Leader"), None);
    drop(b);
    world.put(400);
    world.all_delivered_within(FAILOVER * 3).await;
    assert_eq!(count(&world, "a"), 4);
}
