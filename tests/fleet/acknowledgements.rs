//! Streams of records that are acknowledged one by one: late, in any order, never, and after the lease is lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kinesis_consumer::lease::{LeaseStore, LeaseWrite, WriteOutcome};
use kinesis_consumer::{
    BoxError, Checkpoint, Consumer, ConsumerBuilder, ConsumerHandle, DeadLetter, DeadLetters, Delivery,
    ErrorKind, ErrorPolicy, Event, Failure, LeaseConfig, LifecycleConfig, RecordStream, StreamOptions,
};

use crate::world::{CheckpointPolicy, FAILOVER, STREAM, World, until};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A stream of one shard with the records `0`, `1` and so on, and their positions.
fn world(records: usize) -> (World, Vec<Checkpoint>) {
    let world = World::new(1);
    let placements = (0..records).map(|number| world.kinesis.put(STREAM, "key", number.to_string()));
    let numbers = placements.map(|placement| placement.expect("written").sequence_number);
    let positions =
        numbers.map(|number| kinesis_consumer::ExtendedSequenceNumber::new(number, 0).into()).collect();
    (world, positions)
}

fn worker(world: &World) -> ConsumerBuilder {
    let policy = ErrorPolicy::default().pause(Duration::from_millis(100), SECOND);
    world.worker_without_code("a").stream(STREAM).on_error(policy)
}

async fn open(builder: ConsumerBuilder) -> (RecordStream, ConsumerHandle) {
    let consumer = builder.build().expect("valid settings");
    consumer.into_stream(StreamOptions::default()).await.expect("started")
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.record.data).into_owned()
}

/// The next record, which has to come within a minute.
async fn next(records: &mut RecordStream) -> Delivery {
    let next = tokio::time::timeout(MINUTE, records.next()).await;
    next.expect("a record within a minute").expect("the stream goes on")
}

async fn take(records: &mut RecordStream, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(next(records).await);
    }
    taken
}

/// Whether no record comes for a while.
async fn is_quiet(records: &mut RecordStream) -> bool {
    tokio::time::timeout(10 * SECOND, records.next()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_is_before_the_first_record_that_is_not_acknowledged() {
    let (world, positions) = world(5);
    let (mut records, handle) = open(worker(&world)).await;
    let mut taken = take(&mut records, 5).await;
    assert_eq!(taken.iter().map(text).collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
    assert!(taken.iter().all(|delivery| delivery.attempt().number == 1));
    taken.remove(3).ack();
    taken.remove(1).ack();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(world.checkpoint(0), Some(Checkpoint::TrimHorizon), "the first one is not acknowledged");
    taken.remove(0).ack();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(world.checkpoint(0).as_ref(), Some(&positions[1]));
    for delivery in taken {
        delivery.ack();
    }
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(world.checkpoint(0).as_ref(), Some(&positions[4]));
    handle.shutdown().await.expect("stopped");
    assert!(records.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_is_known_to_be_so_once_everything_before_is_acknowledged() {
    let (world, positions) = world(3);
    let (mut records, handle) = open(worker(&world)).await;
    let mut taken = take(&mut records, 3).await;
    let third = taken.remove(2);
    let stored = tokio::spawn(third.ack_durably());
    taken.remove(1).ack();
    tokio::time::sleep(MINUTE).await;
    assert!(!stored.is_finished());
    let before = tokio::time::Instant::now();
    taken.remove(0).ack();
    stored.await.expect("no panic").expect("stored");
    assert!(before.elapsed() < Duration::from_millis(100), "{:?}: it is not waited for", before.elapsed());
    assert_eq!(world.checkpoint(0).as_ref(), Some(&positions[2]));
    handle.shutdown().await.expect("stopped");
}

/// Keeps letters.
#[derive(Debug, Clone, Default)]
struct Letters(Arc<Mutex<Vec<DeadLetter>>>);

#[async_trait]
impl DeadLetters for Letters {
    async fn send(&self, letters: &[DeadLetter]) -> Result<(), BoxError> {
        self.0.lock().expect("not poisoned").extend_from_slice(letters);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_or_refused_comes_again_until_the_policy_gives_it_up() {
    let (world, positions) = world(4);
    let letters = Letters::default();
    let policy = ErrorPolicy::attempts(2).pause(Duration::from_millis(100), SECOND);
    let consumer = worker(&world).on_error(policy.dead_letter(letters.clone())).build().expect("valid");
    let mut events = consumer.events();
    let (mut records, handle) = consumer.into_stream(StreamOptions::default()).await.expect("started");
    let mut attempts = Vec::new();
    while attempts.len() < 8 {
        let delivery = next(&mut records).await;
        attempts.push(format!("{}#{}", text(&delivery), delivery.attempt().number));
        match text(&delivery).as_str() {
            "0" if delivery.attempt().number == 1 => drop(delivery),
            "1" => delivery.nack("cannot be handled"),
            "2" => delivery.nack(Failure::poison("never")),
            "3" if delivery.attempt().number < 4 => delivery.nack(Failure::transient("not yet")),
            _ => delivery.ack(),
        }
    }
    attempts.sort();
    assert_eq!(attempts, ["0#1", "0#2", "1#1", "1#2", "2#1", "3#1", "3#2", "3#3"]);
    next(&mut records).await.ack();
    let last = || world.checkpoint(0).as_ref() == Some(&positions[3]);
    until(MINUTE, last, || format!("{:?}", world.checkpoint(0))).await;
    let kept = letters.0.lock().expect("not poisoned").clone();
    let mut kept: Vec<_> =
        kept.iter().map(|letter| (letter.payload.to_vec(), letter.error.as_str())).collect();
    kept.sort();
    assert_eq!(kept, [(b"1".to_vec(), "cannot be handled"), (b"2".to_vec(), "never")]);
    handle.shutdown().await.expect("stopped");
    let mut failures = Vec::new();
    while let Some(event) = events.next().await {
        if let Event::HandlerFailed { reason, .. } = event {
            failures.push(reason.to_string());
        }
    }
    assert_eq!(failures.len(), 7, "{failures:?}");
    assert!(failures.contains(&"it was dropped without an acknowledgement".to_owned()), "{failures:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_polled_keeps_its_leases_and_fetches_no_more_than_fits() {
    let (world, _) = world(100);
    let limit = LeaseConfig::PollingConfig { limit: 10 };
    let consumer = worker(&world).lease_config(limit).build().expect("valid");
    let options = StreamOptions::default().with_span_max(20);
    let (mut records, handle) = consumer.into_stream(options).await.expect("started");
    next(&mut records).await.ack();
    let other = crate::world::start(world.worker("b", CheckpointPolicy::EveryBatch)).await;
    tokio::time::sleep(10 * FAILOVER).await;
    assert_eq!(world.owners().get("a"), Some(&1), "{:?}", world.owners());
    let delivered = handle.status().shards[0].records_delivered;
    assert!(delivered <= 40, "{delivered} records were taken in");
    let mut texts = vec!["0".to_owned()];
    while texts.len() < 100 {
        let delivery = next(&mut records).await;
        texts.push(text(&delivery));
        delivery.ack();
    }
    assert_eq!(texts, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    other.shutdown().await.expect("stopped");
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn the_span_is_bounded_while_a_record_is_not_acknowledged() {
    let (world, positions) = world(200);
    let limit = LeaseConfig::PollingConfig { limit: 10 };
    let consumer = worker(&world).lease_config(limit).build().expect("valid");
    let options = StreamOptions::default().with_span_max(50);
    let (mut records, handle) = consumer.into_stream(options).await.expect("started");
    let first = next(&mut records).await;
    let mut taken = 1;
    while let Ok(delivery) = tokio::time::timeout(10 * SECOND, records.next()).await {
        delivery.expect("the stream goes on").ack();
        taken += 1;
    }
    assert!((50..=60).contains(&taken), "{taken} were delivered");
    first.ack();
    while taken < 200 {
        next(&mut records).await.ack();
        taken += 1;
    }
    let last = || world.checkpoint(0).as_ref() == Some(&positions[199]);
    until(MINUTE, last, || format!("{:?}", world.checkpoint(0))).await;
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_the_stream_and_waits_for_what_is_out() {
    let (world, positions) = world(10);
    let (mut records, handle) = open(worker(&world)).await;
    let mut taken = take(&mut records, 3).await.into_iter();
    let stopping = tokio::spawn({
        let handle = handle.clone();
        async move { handle.shutdown().await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(records.next().await.is_none(), "the others are not delivered any more");
    taken.next().expect("out").ack();
    tokio::time::sleep(20 * SECOND).await;
    assert!(!stopping.is_finished() && world.owners().contains_key("a"), "{:?}", world.owners());
    taken.next().expect("out").ack();
    drop(taken);
    let before = tokio::time::Instant::now();
    stopping.await.expect("no panic").expect("stopped");
    assert!(before.elapsed() < SECOND, "{:?}: it is not waited for what is dropped", before.elapsed());
    assert_eq!(world.checkpoint(0).as_ref(), Some(&positions[1]));
    assert_eq!(world.owners().get("-"), Some(&1), "the lease is given back");

    let (mut records, handle) = open(world.worker_without_code("b").stream(STREAM)).await;
    assert_eq!(text(&next(&mut records).await), "2");
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn leases_go_back_before_the_shutdown_timeout_whatever_is_out() {
    let (world, positions) = world(10);
    let (mut records, handle) =
        open(worker(&world).lifecycle(LifecycleConfig::default().with_shutdown_timeout(30 * SECOND))).await;
    let mut taken = take(&mut records, 3).await;
    taken.remove(0).ack();
    let before = tokio::time::Instant::now();
    handle.shutdown().await.expect("stopped in time");
    assert!((20 * SECOND..30 * SECOND).contains(&before.elapsed()), "{:?}", before.elapsed());
    assert_eq!(world.owners().get("-"), Some(&1), "the lease is given back");
    let late = taken.remove(0);
    assert_eq!(late.ack_durably().await.expect_err("too late").kind(), ErrorKind::LeaseLost);
    drop(taken);
    assert_eq!(world.checkpoint(0).as_ref(), Some(&positions[0]));
}

#[tokio::test(start_paused = true)]
async fn after_the_lease_is_lost_acknowledgements_do_not_count_and_nothing_is_delivered() {
    let (world, positions) = world(10);
    let (mut records, handle) = open(worker(&world)).await;
    let mut taken = take(&mut records, 4).await;
    taken.remove(0).ack_durably().await.expect("stored");
    let waiting = tokio::spawn(taken.remove(2).ack_durably());
    let lease = world.leases().remove(0);
    let taken_by_thief =
        world.table.apply(&LeaseWrite::take(&lease, &"thief".into())).await.expect("answered");
    assert!(matches!(taken_by_thief, WriteOutcome::Applied(_)), "{taken_by_thief:?}");
    // Noticed with the next renewal.
    let error = waiting.await.expect("no panic").expect_err("lost");
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    assert!(error.to_string().contains("orders") && error.to_string().contains("shardId-"), "{error}");
    taken.remove(0).ack();
    let late = taken.remove(0);
    assert_eq!(late.ack_durably().await.expect_err("lost").kind(), ErrorKind::LeaseLost);
    let quiet = tokio::time::timeout(FAILOVER / 2, records.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert_eq!(world.checkpoint(0).as_ref(), Some(&positions[0]));
    // The thief never renews: the worker takes the lease again, and goes on from the checkpoint.
    assert_eq!(text(&next(&mut records).await), "1");
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_stops_the_consumer_and_gives_its_leases_back() {
    let (world, positions) = world(3);
    let (mut records, handle) = open(worker(&world)).await;
    let first = next(&mut records).await;
    drop(records);
    first.ack();
    handle.wait().await.expect("stopped");
    assert_eq!(world.owners().get("-"), Some(&1), "{:?}", world.owners());
    assert_eq!(world.checkpoint(0).as_ref(), Some(&positions[0]));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_the_handle_is_dropped() {
    let (world, _) = world(3);
    let (mut records, handle) = open(worker(&world)).await;
    let first = next(&mut records).await;
    drop(handle);
    while let Some(delivery) = tokio::time::timeout(MINUTE, records.next()).await.expect("it ends") {
        delivery.ack();
    }
    assert_ne!(first.ack_durably().await.expect_err("too late").kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn each_shard_is_a_stream_and_comes_again_if_it_is_dropped() {
    let world = World::new(4);
    world.put(160);
    let consumer = worker(&world).build().expect("valid");
    let (mut shards, handle) = consumer.into_shards(StreamOptions::default()).await.expect("started");
    let (mut tasks, mut seen) = (tokio::task::JoinSet::new(), Vec::new());
    let count = Arc::new(AtomicUsize::new(0));
    let mut dropped = None;
    while seen.len() < 4 {
        let next = tokio::time::timeout(MINUTE, shards.next()).await.expect("a shard within a minute");
        let mut shard = next.expect("it goes on");
        if dropped.is_none() {
            // One of its records is out, and comes again, too.
            let delivery = shard.next().await.expect("a record");
            dropped = Some((shard.shard_id().clone(), text(&delivery)));
            continue;
        }
        seen.push(shard.shard_id().clone());
        let count = Arc::clone(&count);
        tasks.spawn(async move {
            while let Some(delivery) = shard.next().await {
                assert_eq!(delivery.shard_id(), shard.shard_id());
                count.fetch_add(1, Ordering::Relaxed);
                delivery.ack();
            }
        });
    }
    let (dropped, _) = dropped.expect("one was");
    assert!(seen.contains(&dropped));
    let all = || count.load(Ordering::Relaxed) == 160;
    until(MINUTE, all, || format!("{} of 160", count.load(Ordering::Relaxed))).await;
    handle.shutdown().await.expect("stopped");
    assert!(shards.next().await.is_none());
    tasks.join_all().await;
    let stored: Vec<_> = world.leases().into_iter().map(|lease| lease.checkpoint).collect();
    assert_eq!(stored, world.last_positions());
}

#[tokio::test(start_paused = true)]
async fn a_shard_ends_and_its_children_start_when_all_its_records_are_acknowledged() {
    let (world, _) = world(3);
    let parent = world.kinesis.shards(STREAM).expect("shards")[0].id.clone();
    let (mut records, handle) = open(worker(&world)).await;
    let mut taken = take(&mut records, 3).await;
    world.kinesis.split(STREAM, &parent).expect("split");
    world.kinesis.put(STREAM, "key", "of a child").expect("written");
    taken.remove(2).ack();
    taken.remove(0).ack();
    assert!(is_quiet(&mut records).await, "the parent is not done");
    let last = taken.remove(0);
    last.ack_durably().await.expect("stored");
    let child = next(&mut records).await;
    assert_eq!(text(&child), "of a child");
    assert_ne!(child.shard_id(), &parent);
    child.ack();
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_taken_from_a_consumer_without_other_code() {
    let (world, _) = world(1);
    let error = worker(&world).build().expect("valid").start().await.expect_err("no code");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("the code for records is missing; call for_each(closure)"), "{error}");
    let builder = worker(&world).for_each(|record| async move {
        drop(record);
        Ok::<_, BoxError>(())
    });
    let error =
        builder.build().expect("valid").into_stream(StreamOptions::default()).await.expect_err("code");
    assert!(error.to_string().contains("into_stream") && error.to_string().contains("for_each"), "{error}");
    for options in [
        StreamOptions::default().with_span_max(0),
        StreamOptions::default().with_bytes_max(1),
        StreamOptions::default().with_checkpoint_every(Duration::ZERO),
    ] {
        let consumer: Consumer = worker(&world).build().expect("valid");
        let error = consumer.into_shards(options).await.expect_err("out of range");
        assert!(error.to_string().contains("must be"), "{error}");
    }
}
