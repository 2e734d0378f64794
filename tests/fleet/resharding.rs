//! Shards that split and merge while they are read.

use std::time::Duration;

use kinesis_consumer::{ManagementConfig, StartStrategy};

use crate::world::{CheckpointPolicy, FAILOVER, STREAM, World, start, until};

#[tokio::test(start_paused = true)]
async fn order_survives_splits_and_merges() {
    let world = World::new(2);
    let _a = world.start("a").await;
    let _b = world.start("b").await;
    for _ in 0..4 {
        world.put(320);
        let open = world.kinesis.open_shards(STREAM).expect("a stream");
        world.kinesis.split(STREAM, &open[0].id).expect("split");
        world.put(320);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut open = world.kinesis.open_shards(STREAM).expect("a stream");
        open.sort_by_key(|shard| shard.hash_key_range);
        world.kinesis.merge(STREAM, &open[1].id, &open[2].id).expect("merge");
    }
    world.put(320);
    world.all_delivered_within(FAILOVER * 6).await;
    world.check_order();
}

#[tokio::test(start_paused = true)]
async fn children_start_as_soon_as_their_parent_has_ended() {
    let world = World::new(1);
    let _a = world.start("a").await;
    world.put(160);
    world.all_delivered_within(FAILOVER).await;
    let open = world.kinesis.open_shards(STREAM).expect("a stream");
    world.kinesis.split(STREAM, &open[0].id).expect("split");
    world.put(160);
    let split = tokio::time::Instant::now();
    world.all_delivered_within(FAILOVER).await;
    // The parent is idle, so its end is noticed at its next read.
    assert!(split.elapsed() < Duration::from_secs(3), "{:?}", split.elapsed());
    assert_eq!(world.check_order(), 0);
}

#[tokio::test(start_paused = true)]
async fn rows_of_finished_shards_are_deleted() {
    let world = World::new(1);
    let _a = world.start("a").await;
    let open = world.kinesis.open_shards(STREAM).expect("a stream");
    world.kinesis.split(STREAM, &open[0].id).expect("split");
    world.put(160);
    world.all_delivered_within(FAILOVER).await;
    until(Duration::from_secs(200), || world.leases().len() == 2, || format!("{:?}", world.leases())).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.leases().len(), 2, "and not created again");
}

#[tokio::test(start_paused = true)]
async fn latest_on_a_stream_that_was_resharded_before_loses_nothing_written_after_the_start() {
    let world = World::new(2);
    for _ in 0..2 {
        let open = world.kinesis.open_shards(STREAM).expect("a stream");
        world.kinesis.split(STREAM, &open[0].id).expect("split");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let latest = ManagementConfig { start_strategy: StartStrategy::Latest, ..ManagementConfig::default() };
    let _a = start(world.worker("a", CheckpointPolicy::EveryBatch).management(latest)).await;
    world.put(320);
    let open = world.kinesis.open_shards(STREAM).expect("a stream");
    world.kinesis.split(STREAM, &open[1].id).expect("split");
    world.put(320);
    world.all_delivered_within(FAILOVER).await;
    assert_eq!(world.check_order(), 0);
}
