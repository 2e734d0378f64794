//! The status of shards as a user sees it.

use std::time::Duration;

use kinesis_consumer::{ConsumerHandle, LeaseConfig};

use crate::world::{CheckpointPolicy, FAILOVER, World, start, until};

/// How far behind the only shard is.
fn behind(handle: &ConsumerHandle) -> Option<Duration> {
    handle.status().shards.first().and_then(|shard| shard.behind_latest)
}

#[tokio::test(start_paused = true)]
async fn a_shard_without_records_is_not_behind_once_it_was_read() {
    let world = World::new(1);
    let handle = world.start("a").await;
    assert_eq!(behind(&handle), None, "before the first answer");
    until(FAILOVER, || behind(&handle) == Some(Duration::ZERO), || format!("{:?}", handle.status())).await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_behind_until_its_last_record_was_processed() {
    const APART: Duration = Duration::from_secs(60);
    let world = World::new(1);
    // Each record is a page of its own.
    for _ in 0..4 {
        world.put(1);
        tokio::time::sleep(APART).await;
    }
    let single = LeaseConfig::PollingConfig { limit: 1 };
    let handle = start(world.worker("a", CheckpointPolicy::EveryBatch).lease_config(single)).await;
    for records in 1..=4_u32 {
        let status = || handle.status().shards.into_iter().next();
        let is_delivered = || status().is_some_and(|shard| shard.records_delivered == u64::from(records));
        until(FAILOVER, is_delivered, || format!("{:?}", handle.status())).await;
        // Those after it, and the time since the last.
        let range = match 4 - records {
            0 => Duration::ZERO..=Duration::ZERO,
            left => APART * left..=APART * (left + 1) + FAILOVER,
        };
        assert!(
            behind(&handle).is_some_and(|time| range.contains(&time)),
            "{records}: {:?}",
            behind(&handle)
        );
    }
}
