//! Refusals by the stream: shards it does not find, positions it does not accept, and a stream that is
//! missing for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use kinesis_consumer::aggregation::{Added, Aggregator};
use kinesis_consumer::kinesis::{
    IteratorPosition, RecordsPage, ShardIterator, ShardPage, ShardPageRequest, StreamApi, StreamDescription,
    StreamError, StreamErrorKind,
};
use kinesis_consumer::lease::Lease;
use kinesis_consumer::testing::{Fault, NewRecord, SimulatedKinesis};
use kinesis_consumer::{
    Checkpoint, ConsumerBuilder, ConsumerHandle, CoordinationConfig, Event, Health, LeaseConfig,
    OnRecreatedStream, OnRefusedCheckpoint, OutOfRangeRecords, RetrievalConfig, ShardId, StreamId,
};

use crate::world::{CheckpointPolicy, FAILOVER, Observed, STREAM, World, start, until};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Makes these calls of one operation fail, counted from 0; returns how many have failed.
fn not_found(
    world: &World,
    operation: &'static str,
    shard: Option<&'static str>,
    calls: std::ops::Range<usize>,
) -> Arc<AtomicUsize> {
    let (refused, mut seen) = (Arc::new(AtomicUsize::new(0)), 0);
    let count = Arc::clone(&refused);
    world.kinesis.set_faults(move |call| match call.operation {
        // Forces a new iterator.
        "GetRecords" if operation == "GetShardIterator" && seen < calls.end => {
            Some(Fault::Error(StreamErrorKind::ExpiredIterator))
        }
        called if called == operation && shard.is_none_or(|shard| call.shard == Some(shard)) => {
            seen += 1;
            calls.contains(&(seen - 1)).then(|| {
                count.fetch_add(1, Ordering::Relaxed);
                Fault::Error(StreamErrorKind::NotFound)
            })
        }
        _ => None,
    });
    refused
}

fn ended(world: &World) -> Vec<Lease> {
    world.leases().into_iter().filter(|lease| lease.checkpoint.is_shard_end()).collect()
}

/// The events of a consumer so far.
async fn drain(events: &mut kinesis_consumer::Events) -> Vec<Event> {
    let mut drained = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(1), events.next()).await {
        drained.push(event);
    }
    drained
}

fn problems(consumer: &ConsumerHandle) -> Vec<String> {
    consumer.status().shards.into_iter().filter_map(|shard| shard.problem).collect()
}

/// The builders of workers for each way to read.
fn each_way(world: &World) -> [(&'static str, &'static str, ConsumerBuilder); 4] {
    let worker = |name| world.worker(name, CheckpointPolicy::EveryBatch);
    [
        ("polling", "GetRecords", worker("polling")),
        ("polling", "GetShardIterator", worker("polling")),
        ("fan-out", "SubscribeToShard", worker("fan-out").lease_config(LeaseConfig::fan_out())),
        ("several", "GetRecords", world.worker_of("several", [STREAM])),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_not_found_is_read_all_the_same() {
    for way in 0..4 {
        for times in [1, 2, 6, 30] {
            let world = World::new(2);
            let (name, operation, worker) = each_way(&world).into_iter().nth(way).expect("four ways");
            let consumer = start(worker).await;
            world.put(32);
            world.all_delivered_within(2 * FAILOVER).await;
            let refused = not_found(&world, operation, None, 0..times);
            until(3 * HOUR, || refused.load(Ordering::Relaxed) == times, || format!("{name}: set-up")).await;
            world.kinesis.clear_faults();
            world.put(32);
            world.all_delivered_within(2 * MINUTE).await;
            assert_eq!(ended(&world), [], "{name} {operation} {times}");
            assert_eq!(world.check_order(), 0);
            assert_eq!(consumer.status().health, Health::Healthy);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_missing_for_a_while_is_read_on() {
    for way in 0..4 {
        let world = World::new(2);
        let (name, _, worker) = each_way(&world).into_iter().nth(way).expect("four ways");
        let consumer = start(worker).await;
        world.put(32);
        world.all_delivered_within(2 * FAILOVER).await;
        world.kinesis.set_faults(|call| {
            (call.operation != "SubscribeToShardEvent").then_some(Fault::Error(StreamErrorKind::NotFound))
        });
        tokio::time::sleep(10 * MINUTE).await;
        if name != "fan-out" {
            assert_eq!(consumer.status().health, Health::Degraded, "{name}");
        }
        assert_eq!(ended(&world), [], "{name}");
        world.kinesis.clear_faults();
        world.put(32);
        world.all_delivered_within(2 * MINUTE).await;
        assert_eq!(consumer.status().health, Health::Healthy, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_has_expired_ends_and_its_children_are_read() {
    for fan_out in [false, true] {
        let world = World::new(1);
        world.kinesis.set_retention(STREAM, 24 * HOUR).expect("set");
        let config = || if fan_out { LeaseConfig::fan_out() } else { LeaseConfig::default() };
        let first = start(world.worker("a", CheckpointPolicy::EveryBatch).lease_config(config())).await;
        world.put(8);
        world.all_delivered_within(FAILOVER).await;
        world.all_stored_within(FAILOVER).await;
        first.shutdown().await.expect("stopped");
        world.kinesis.split(STREAM, &"shardId-000000000000".into()).expect("split");
        tokio::time::sleep(30 * HOUR).await;
        world.put(32);
        let second = start(world.worker("b", CheckpointPolicy::EveryBatch).lease_config(config())).await;
        let mut events = second.events();
        world.all_delivered_within(5 * MINUTE).await;
        let reported = drain(&mut events).await;
        let gaps =
            reported.iter().filter(|event| matches!(event, Event::RecordsExpired { oldest: None, .. }));
        assert_eq!(gaps.count(), 1, "{reported:?}");
    }
}

/// Two shards with leases, the first at a checkpoint that is not one of its own.
fn with_a_foreign_checkpoint(number: impl Fn(&World) -> String) -> World {
    let world = World::new(2);
    world.put(32);
    let open = world.kinesis.open_shards(STREAM).expect("a stream");
    let number = number(&world);
    for (shard, checkpoint) in open.iter().zip([number.as_str(), "TRIM_HORIZON"]) {
        let mut lease =
            Lease::new(shard.id.as_str(), Checkpoint::parse(checkpoint, 0).expect("a checkpoint"));
        lease.hash_key_range = Some(shard.hash_key_range);
        assert!(world.table.insert_item(lease.to_item()));
    }
    world
}

/// Picks a sequence number.
type Number = fn(&World) -> String;

/// Changes the settings of a worker.
type Setting<'a> = &'a dyn Fn(ConsumerBuilder) -> ConsumerBuilder;

/// A number beyond those of the stream.
fn of_a_younger_stream(_: &World) -> String {
    "9".repeat(56)
}

/// A number before those of the stream.
fn of_an_older_stream(_: &World) -> String {
    "495900000000000000000000000000000000000000000000000000".to_owned()
}

/// A number of the second shard.
fn of_another_shard(world: &World) -> String {
    let shards = world.kinesis.shards(STREAM).expect("a stream");
    world.kinesis.stored_records(STREAM, &shards[1].id).expect("records")[0].sequence_number.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_refused_checkpoint_is_reported_while_the_other_shards_and_their_children_are_read() {
    for (number, is_foreign) in
        [(of_a_younger_stream as Number, false), (of_another_shard, false), (of_an_older_stream, true)]
    {
        let world = with_a_foreign_checkpoint(number);
        let consumer = start(world.worker("a", CheckpointPolicy::EveryBatch)).await;
        let mut events = consumer.events();
        tokio::time::sleep(MINUTE).await;
        let reported = drain(&mut events).await;
        let reported: Vec<_> = reported
            .into_iter()
            .filter(|event| match event {
                Event::PositionRefused { .. } => !is_foreign,
                Event::StreamRecreated { .. } => is_foreign,
                _ => false,
            })
            .collect();
        assert_eq!(reported.len(), 1, "once: {reported:?}");
        let problems = problems(&consumer);
        assert!(problems[0].contains("checkpoint") && problems[0].contains(STREAM), "{problems:?}");
        assert_eq!(consumer.status().health, Health::Degraded);
        // Beside it, and after it.
        let (one, _) = world.kinesis.split(STREAM, &"shardId-000000000001".into()).expect("split");
        world.put(32);
        tokio::time::sleep(MINUTE).await;
        world.kinesis.split(STREAM, &one).expect("split");
        world.put(32);
        tokio::time::sleep(MINUTE).await;
        let refused = world.kinesis.stored_records(STREAM, &"shardId-000000000000".into()).expect("records");
        let of_refused: std::collections::BTreeSet<_> =
            refused.iter().map(|record| record.partition_key.to_string()).collect();
        let missing = world.missing();
        assert!(
            !missing.is_empty() && missing.iter().all(|(key, _)| of_refused.contains(key)),
            "{missing:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_checkpoint_is_discarded_if_the_settings_say_so() {
    let from_oldest = |worker: ConsumerBuilder| {
        let mut config = RetrievalConfig::default();
        config.on_refused_checkpoint = OnRefusedCheckpoint::ReadFromOldest;
        worker.retrieval(config)
    };
    let start_over = |worker: ConsumerBuilder| {
        let mut config = CoordinationConfig::default();
        config.on_recreated_stream = OnRecreatedStream::StartOver;
        worker.coordination(config)
    };
    let settings: [(Number, Setting<'_>); 4] = [
        (of_a_younger_stream, &from_oldest),
        (of_another_shard, &from_oldest),
        (of_an_older_stream, &from_oldest),
        (of_an_older_stream, &start_over),
    ];
    for (index, (number, setting)) in settings.into_iter().enumerate() {
        for lease_config in [LeaseConfig::default(), LeaseConfig::fan_out()] {
            let world = with_a_foreign_checkpoint(number);
            let worker = world.worker("a", CheckpointPolicy::EveryBatch).lease_config(lease_config);
            let consumer = start(setting(worker)).await;
            let mut events = consumer.events();
            world.all_delivered_within(MINUTE).await;
            assert_eq!(world.check_order(), 0);
            world.all_stored_within(MINUTE).await;
            let reported = drain(&mut events).await;
            let resets = reported.iter().filter(|event| matches!(event, Event::LeaseReset { .. })).count();
            assert_eq!(resets, 1, "{index}: {reported:?}");
            let is_healthy = || consumer.status().health == Health::Healthy;
            until(MINUTE, is_healthy, || format!("{:?}", consumer.status())).await;
            let lease = &world.leases()[0];
            assert_eq!(lease.owner.as_ref().map(|owner| owner.as_str()), Some("a"));
        }
    }
}

/// Writes an aggregate of two records to the first of two shards, the second with this hash key.
fn put_aggregate(world: &World, second: u128) {
    let mut aggregator = Aggregator::new();
    assert_eq!(aggregator.add("key-0", Some(1), b"0"), Added::Yes);
    assert_eq!(aggregator.add("key-1", Some(second), b"0"), Added::Yes);
    let aggregate = aggregator.finish().expect("a record");
    let record = NewRecord::new(aggregate.partition_key, aggregate.data).with_explicit_hash_key(1);
    world.kinesis.put_record(STREAM, record).expect("put");
}

fn records(world: &World) -> usize {
    world.log().iter().filter(|entry| matches!(entry.observed, Observed::Record { .. })).count()
}

#[tokio::test(start_paused = true)]
async fn records_outside_the_hash_keys_of_the_shard_are_counted_and_reported_once_a_minute() {
    let world = World::new(2);
    let consumer = start(world.worker("a", CheckpointPolicy::EveryBatch)).await;
    let mut events = consumer.events();
    tokio::time::sleep(FAILOVER).await;
    put_aggregate(&world, 2);
    tokio::time::sleep(FAILOVER).await;
    let counts = |reported: Vec<Event>| -> Vec<u64> {
        let count = |event| match event {
            Event::RecordsOutOfRange { count, .. } => Some(count),
            _ => None,
        };
        reported.into_iter().filter_map(count).collect()
    };
    assert_eq!(counts(drain(&mut events).await), Vec::<u64>::new());
    for _ in 0..20 {
        put_aggregate(&world, u128::MAX);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let first = counts(drain(&mut events).await);
    assert!(matches!(first[..], [1, 11 | 12]), "{first:?}");
    tokio::time::sleep(MINUTE).await;
    assert_eq!(counts(drain(&mut events).await), [20 - first[0] - first[1]]);
    assert_eq!(records(&world), 22);
}

#[tokio::test(start_paused = true)]
async fn records_outside_the_hash_keys_of_the_shard_are_delivered_if_the_settings_say_so() {
    let world = World::new(2);
    let mut config = RetrievalConfig::default();
    config.out_of_range_records = OutOfRangeRecords::Deliver;
    let _consumer = start(world.worker("a", CheckpointPolicy::EveryBatch).retrieval(config)).await;
    put_aggregate(&world, u128::MAX);
    until(FAILOVER, || records(&world) == 2, || format!("{:?}", world.log())).await;
}

#[tokio::test(start_paused = true)]
async fn records_that_expired_unread_are_reported_with_the_gap() {
    for fan_out in [false, true] {
        for (down, lost) in [(HOUR, false), (30 * HOUR, true)] {
            let world = World::new(1);
            world.kinesis.set_retention(STREAM, 24 * HOUR).expect("set");
            let config = || if fan_out { LeaseConfig::fan_out() } else { LeaseConfig::default() };
            let first = start(world.worker("a", CheckpointPolicy::EveryBatch).lease_config(config())).await;
            world.put(5);
            world.all_delivered_within(FAILOVER).await;
            world.all_stored_within(FAILOVER).await;
            let stored = world.checkpoint(0);
            first.shutdown().await.expect("stopped");
            tokio::time::sleep(HOUR).await;
            world.put(20);
            tokio::time::sleep(down).await;
            world.put(20);
            let before = records(&world);
            let second = start(world.worker("b", CheckpointPolicy::EveryBatch).lease_config(config())).await;
            let mut events = second.events();
            let expected = if lost { 20 } else { 40 };
            until(10 * MINUTE, || records(&world) == before + expected, || format!("{}", records(&world)))
                .await;
            let reported = drain(&mut events).await;
            let gaps: Vec<_> = reported
                .into_iter()
                .filter_map(|event| match event {
                    Event::RecordsExpired { checkpoint, oldest, arrived, .. } => {
                        Some((Some(checkpoint), oldest.is_some(), arrived.is_some()))
                    }
                    _ => None,
                })
                .collect();
            assert_eq!(gaps, Vec::from_iter(lost.then_some((stored, true, true))), "{fan_out}");
        }
    }
}

/// A stream whose sequence numbers restarted a day earlier, and which opens a shard at its oldest record
/// if it does not know a number.
#[derive(Debug)]
struct Restarted(SimulatedKinesis);

#[async_trait]
impl StreamApi for Restarted {
    async fn describe_stream(&self, stream: &StreamId) -> Result<StreamDescription, StreamError> {
        self.0.describe_stream(stream).await
    }

    async fn list_shards(
        &self,
        stream: &StreamId,
        request: &ShardPageRequest,
    ) -> Result<ShardPage, StreamError> {
        StreamApi::list_shards(&self.0, stream, request).await
    }

    async fn shard_iterator(
        &self,
        stream: &StreamId,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, StreamError> {
        match StreamApi::shard_iterator(&self.0, stream, shard, position).await {
            Err(error) if error.kind() == StreamErrorKind::InvalidArgument => {
                StreamApi::shard_iterator(&self.0, stream, shard, &IteratorPosition::TrimHorizon).await
            }
            answer => answer,
        }
    }

    async fn records(
        &self,
        stream: &StreamId,
        iterator: &ShardIterator,
        limit: u32,
    ) -> Result<RecordsPage, StreamError> {
        StreamApi::records(&self.0, stream, iterator, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_that_begin_again_are_reported_or_the_stream_is_started_over() {
    for starts_over in [false, true] {
        let world = World::new(1);
        let first = start(world.worker("a", CheckpointPolicy::EveryBatch)).await;
        world.put(16);
        world.all_delivered_within(FAILOVER).await;
        world.all_stored_within(FAILOVER).await;
        first.shutdown().await.expect("stopped");
        // A row that does not store where its shard began.
        for mut item in world.table.items().into_values() {
            item.remove("startingSequenceNumber");
            assert!(world.table.insert_item(item));
        }
        let earlier = SystemTime::UNIX_EPOCH + Duration::from_secs(1_749_900_000);
        let again = SimulatedKinesis::starting_at(earlier);
        again.create_stream(STREAM, 1).expect("a new stream");
        let mut coordination = CoordinationConfig::default();
        if starts_over {
            coordination.on_recreated_stream = OnRecreatedStream::StartOver;
        }
        let worker = world.worker("b", CheckpointPolicy::EveryBatch).coordination(coordination);
        let second = start(worker.stream_api(Arc::new(Restarted(again.clone())))).await;
        let mut events = second.events();
        for number in 0..16 {
            again.put(STREAM, "again", number.to_string()).expect("put");
        }
        tokio::time::sleep(5 * MINUTE).await;
        let reported = drain(&mut events).await;
        let is_restart = |event: &&Event| matches!(event, Event::SequenceNumbersRestarted { .. });
        assert_eq!(reported.iter().filter(is_restart).count(), 1, "{reported:?}");
        let expected = if starts_over { Health::Healthy } else { Health::Degraded };
        assert_eq!((second.status().health, problems(&second).is_empty()), (expected, starts_over));
        assert_eq!(records(&world), if starts_over { 32 } else { 16 });
    }
}
