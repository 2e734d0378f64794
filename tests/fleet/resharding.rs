//! Shards that split and merge while they are read.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kinesis_consumer::kinesis::{
    IteratorPosition, RecordsPage, ShardIterator, ShardPage, ShardPageRequest, StreamApi, StreamDescription,
    StreamError,
};
use kinesis_consumer::lease::{Lease, LeaseStore};
use kinesis_consumer::testing::SimulatedKinesis;
use kinesis_consumer::{Checkpoint, ManagementConfig, ShardId, StartStrategy, StreamId};

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

/// A stream that has forgotten one of its shards.
#[derive(Debug)]
struct Forgetful {
    stream: SimulatedKinesis,
    forgotten: ShardId,
}

#[async_trait]
impl StreamApi for Forgetful {
    async fn describe_stream(&self, stream: &StreamId) -> Result<StreamDescription, StreamError> {
        self.stream.describe_stream(stream).await
    }

    async fn list_shards(
        &self,
        stream: &StreamId,
        request: &ShardPageRequest,
    ) -> Result<ShardPage, StreamError> {
        let mut page = StreamApi::list_shards(&self.stream, stream, request).await?;
        page.shards.retain(|shard| shard.id != self.forgotten);
        Ok(page)
    }

    async fn shard_iterator(
        &self,
        stream: &StreamId,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, StreamError> {
        StreamApi::shard_iterator(&self.stream, stream, shard, position).await
    }

    async fn records(
        &self,
        stream: &StreamId,
        iterator: &ShardIterator,
        limit: u32,
    ) -> Result<RecordsPage, StreamError> {
        StreamApi::records(&self.stream, stream, iterator, limit).await
    }
}

/// Two shards of which only the first has a lease; that the other has none, only the audit notices.
async fn with_one_lease() -> (World, [ShardId; 2]) {
    let world = World::new(2);
    let shards = world.kinesis.open_shards(STREAM).expect("a stream");
    let mut lease = Lease::new(shards[0].id.as_str(), Checkpoint::TrimHorizon);
    lease.hash_key_range = Some(shards[0].hash_key_range);
    world.table.create(&lease).await.expect("created");
    (world, [shards[0].id.clone(), shards[1].id.clone()])
}

#[tokio::test(start_paused = true)]
async fn a_merged_shard_does_not_wait_for_a_parent_that_the_service_has_forgotten() {
    let (world, [known, forgotten]) = with_one_lease().await;
    let stream = Forgetful { stream: world.kinesis.clone(), forgotten: forgotten.clone() };
    let _a = start(world.worker("a", CheckpointPolicy::EveryBatch).stream_api(Arc::new(stream))).await;
    until(FAILOVER, || world.owners().get("a") == Some(&1), || format!("{:?}", world.leases())).await;
    world.kinesis.merge(STREAM, &known, &forgotten).expect("merge");
    world.put(32);
    world.all_delivered_within(FAILOVER).await;
    assert!(world.leases().iter().all(|lease| lease.shard_id != forgotten), "{:?}", world.leases());
}

#[tokio::test(start_paused = true)]
async fn a_merged_shard_has_no_lease_before_each_of_its_listed_parents_has_one() {
    let (world, [leased, other]) = with_one_lease().await;
    world.put(32);
    let _a = world.start("a").await;
    until(FAILOVER, || world.owners().get("a") == Some(&1), || format!("{:?}", world.leases())).await;
    let child = world.kinesis.merge(STREAM, &leased, &other).expect("merge");
    let has_lease = |shard: &ShardId| world.leases().iter().any(|lease| lease.shard_id == *shard);
    let is_child_leased = || {
        assert!(!has_lease(&child) || has_lease(&other), "{:?}", world.leases());
        has_lease(&child)
    };
    until(Duration::from_secs(1200), is_child_leased, || format!("{:?}", world.leases())).await;
    world.put(32);
    // The end of the first parent is tried again every half minute by now.
    world.all_delivered_within(FAILOVER * 12).await;
    assert_eq!(world.check_order(), 0);
}
