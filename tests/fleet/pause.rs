//! Pausing, resuming and releasing leases while a fleet runs.

use std::time::Duration;

use kinesis_consumer::Event;
use kinesis_consumer::admin::{LeaseState, Scope};
use kinesis_consumer::lease::LeaseStore;

use crate::admin::operator;
use crate::world::{CheckpointPolicy, FAILOVER, World, start, until};

/// A renewal interval, and what a batch may take.
const PAUSED_WITHIN: Duration = Duration::from_millis(3400);

#[tokio::test(start_paused = true)]
async fn a_paused_shard_keeps_its_owner_and_goes_on_where_it_stopped() {
    let world = World::new(2);
    let admin = operator(&world);
    // Without checkpoints, so that going on at the checkpoint would repeat everything.
    let handle = start(world.worker("one", CheckpointPolicy::Never)).await;
    let mut events = handle.events();
    world.put(160);
    world.all_delivered_within(FAILOVER * 3).await;
    tokio::time::sleep(FAILOVER).await;
    let changes = admin.pause(Scope::All, "eve", "migration").await.expect("paused");
    assert_eq!((changes.leases.len(), changes.warnings.len()), (2, 0), "{changes:?}");
    let is_paused = || handle.status().shards.iter().all(|shard| shard.paused.is_some());
    until(PAUSED_WITHIN, is_paused, || format!("{:?}", handle.status())).await;

    world.put(160);
    tokio::time::sleep(FAILOVER * 60).await;
    assert_eq!(world.missing().len(), 160, "nothing is delivered");
    assert_eq!(world.owners().get("one"), Some(&2), "it keeps the leases");
    let status = admin.status().await.expect("readable");
    assert!(status.leases.iter().all(|lease| lease.state == LeaseState::Paused), "{status}");
    assert_eq!(status.problems, Vec::<String>::new(), "that is no fault");

    assert_eq!(admin.resume(Scope::All).await.expect("resumed").leases.len(), 2);
    world.all_delivered_within(FAILOVER).await;
    assert_eq!(world.check_order(), 0, "nothing came twice");
    let mut seen = (0, 0);
    while seen != (2, 2) {
        match tokio::time::timeout(FAILOVER, events.next()).await.expect("in time") {
            Some(Event::Paused { by, reason, .. }) if by == "eve" && reason == "migration" => seen.0 += 1,
            Some(Event::Resumed { .. }) => seen.1 += 1,
            Some(_) => {}
            None => panic!("the events ended"),
        }
    }
    assert!(admin.resume(Scope::All).await.expect("nothing to do").leases.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_paused_lease_stays_paused_with_its_next_owner_and_others_are_read() {
    let world = World::new(2);
    let admin = operator(&world);
    let one = world.start("one").await;
    world.put(32);
    world.all_stored_within(FAILOVER * 3).await;
    let shard = world.leases()[0].shard_id.clone();
    admin.pause(Scope::Shards([shard.clone()].into()), "eve", "why").await.expect("paused");
    one.shutdown().await.expect("stops");
    world.put(32);
    let two = world.start("two").await;
    until(FAILOVER * 3, || world.owners().get("two") == Some(&2), || format!("{:?}", world.owners())).await;
    tokio::time::sleep(FAILOVER * 3).await;
    let paused = world.kinesis.stored_records("orders", &shard).expect("a shard").len();
    let missing = world.missing().len();
    assert!(missing > 0 && missing < 32 && missing <= paused, "{missing} of {paused}");
    admin.resume(Scope::All).await.expect("resumed");
    world.all_delivered_within(FAILOVER).await;
    world.check_order();
    drop(two);
}

#[tokio::test(start_paused = true)]
async fn a_paused_worker_stops_at_once_and_a_released_lease_finds_an_owner() {
    let world = World::new(2);
    let admin = operator(&world);
    let one = world.start("one").await;
    world.put(32);
    world.all_stored_within(FAILOVER * 3).await;
    admin.pause(Scope::All, "eve", "why").await.expect("paused");
    let is_paused = || one.status().shards.iter().all(|shard| shard.paused.is_some());
    until(PAUSED_WITHIN, is_paused, || format!("{:?}", one.status())).await;
    tokio::time::timeout(Duration::from_secs(1), one.shutdown()).await.expect("at once").expect("stops");

    let two = world.start("two").await;
    admin.resume(Scope::All).await.expect("resumed");
    until(FAILOVER * 3, || world.owners().get("two") == Some(&2), || format!("{:?}", world.owners())).await;
    let counters = |world: &World| world.leases().iter().map(|lease| lease.counter).collect::<Vec<_>>();
    let before = counters(&world);
    assert_eq!(admin.release(Scope::All).await.expect("released").leases.len(), 2);
    assert!(counters(&world).iter().zip(&before).all(|(now, before)| now > before));
    assert_eq!(world.owners().get("-"), Some(&2), "free at once");
    until(FAILOVER * 3, || world.owners().get("two") == Some(&2), || format!("{:?}", world.owners())).await;
    world.put(32);
    world.all_delivered_within(FAILOVER * 3).await;
    drop(two);
}

#[tokio::test(start_paused = true)]
async fn owners_that_may_be_of_java_are_named() {
    let world = World::new(1);
    let mut lease =
        kinesis_consumer::lease::Lease::new("shardId-000000000000", kinesis_consumer::Checkpoint::Latest);
    lease.owner = Some("java-1".into());
    world.table.create(&lease).await.expect("created");
    let changes = operator(&world).pause(Scope::All, "eve", "why").await.expect("paused");
    assert!(changes.warnings[0].contains("java-1") && changes.warnings[0].contains("go on"), "{changes:?}");
    assert!(operator(&world).pause(Scope::All, "eve", " ").await.is_err(), "a reason is needed");
}
