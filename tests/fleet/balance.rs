//! Lease distribution as workers start, join, leave and die.

use std::time::Duration;

use crate::world::{CheckpointPolicy, FAILOVER, Observed, World, start, until};

#[tokio::test(start_paused = true)]
async fn one_worker_reads_everything_in_order() {
    let world = World::new(4);
    world.put(1000);
    let handle = world.start("a").await;
    world.all_delivered_within(Duration::from_secs(2)).await;
    assert_eq!(world.check_order(), 0);
    assert_eq!(world.owners().get("a"), Some(&4));
    handle.shutdown().await.expect("processors return");
}

#[tokio::test(start_paused = true)]
async fn the_first_record_comes_without_waiting_for_a_round() {
    let world = World::new(4);
    world.put(16);
    let started = tokio::time::Instant::now();
    let _handle = world.start("a").await;
    world.all_delivered_within(Duration::from_secs(1)).await;
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_second_worker_gets_its_share() {
    let world = World::new(8);
    let _a = world.start("a").await;
    until(FAILOVER, || world.owners().get("a") == Some(&8), || format!("{:?}", world.owners())).await;
    let _b = world.start("b").await;
    until(FAILOVER * 3, || world.owners().get("b") == Some(&4), || format!("{:?}", world.owners())).await;
    world.put(800);
    world.all_delivered_within(FAILOVER).await;
    tokio::time::sleep(FAILOVER * 10).await;
    let owners = world.owners();
    assert_eq!((owners.get("a"), owners.get("b")), (Some(&4), Some(&4)), "the balance holds");
}

#[tokio::test(start_paused = true)]
async fn leases_of_a_worker_that_leaves_are_taken_without_a_duplicate() {
    let world = World::new(4);
    let a = world.start("a").await;
    let _b = world.start("b").await;
    world.put(400);
    world.all_delivered_within(FAILOVER * 3).await;
    let duplicates = world.check_order();
    a.shutdown().await.expect("processors return");
    world.put(400);
    world.all_delivered_within(FAILOVER / 2).await;
    assert_eq!(world.check_order(), duplicates);
    assert_eq!(world.owners().get("b"), Some(&4));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_leaves_calls_shutdown_requested_while_it_holds_the_lease() {
    let world = World::new(1);
    world.put(10);
    let a = world.start("a").await;
    world.all_delivered_within(FAILOVER).await;
    a.shutdown().await.expect("processors return");
    let observed: Vec<_> = world
        .log()
        .into_iter()
        .map(|entry| entry.observed)
        .filter(|observed| !matches!(observed, Observed::Record { .. }))
        .collect();
    assert_eq!(observed, [Observed::Initialized, Observed::ShutdownRequested, Observed::LeaseLost]);
    assert_eq!(world.owners().get("-"), Some(&1), "the lease is free");
}

#[tokio::test(start_paused = true)]
async fn leases_of_a_worker_that_died_are_taken_after_the_failover_time() {
    let world = World::new(4);
    let a = world.start("a").await;
    world.put(400);
    world.all_delivered_within(FAILOVER).await;
    let b = world.start("b").await;
    until(FAILOVER * 3, || world.owners().get("b") == Some(&2), || format!("{:?}", world.owners())).await;
    drop(a);
    let died = tokio::time::Instant::now();
    world.put(400);
    world.all_delivered_within(FAILOVER * 2).await;
    assert!(died.elapsed() <= FAILOVER + Duration::from_secs(6), "{:?}", died.elapsed());
    world.check_order();
    b.shutdown().await.expect("processors return");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_restarts_under_its_name_takes_its_leases_back_at_once() {
    let world = World::new(4);
    let a = world.start("a").await;
    world.put(400);
    world.all_delivered_within(FAILOVER).await;
    drop(a);
    let _again = world.start("a").await;
    world.put(400);
    world.all_delivered_within(Duration::from_secs(1)).await;
    assert_eq!(world.check_order(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_checkpointed_comes_again() {
    let world = World::new(2);
    world.put(100);
    let a = start(world.worker("a", CheckpointPolicy::Never)).await;
    world.all_delivered_within(FAILOVER).await;
    a.shutdown().await.expect("processors return");
    let _b = world.start("b").await;
    until(
        FAILOVER,
        || {
            world.log().iter().filter(|entry| matches!(entry.observed, Observed::Record { .. })).count()
                == 200
        },
        || "again".into(),
    )
    .await;
    assert_eq!(world.check_order(), 100);
    world.all_stored_within(FAILOVER).await;
}
