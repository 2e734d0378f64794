//! Handlers of several records at the same time, over many batches.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kinesis_consumer::lease::{LeaseStore, LeaseWrite, WriteOutcome};
use kinesis_consumer::{
    BoxError, Checkpoint, Concurrency, ConsumerBuilder, ErrorPolicy, Event, KinesisClientRecord, LeaseConfig,
};
use tokio::sync::Notify;

use crate::world::{FAILOVER, STREAM, World, start, until};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A handler that notes what it has handled, and waits at records that say so until it may go on.
#[derive(Clone, Default)]
struct Gate {
    handled: Arc<Mutex<Vec<String>>>,
    /// Keys that are being handled.
    busy: Arc<Mutex<BTreeSet<String>>>,
    running: Arc<AtomicUsize>,
    is_open: Arc<AtomicBool>,
    opened: Arc<Notify>,
}

impl Gate {
    async fn handle(&self, record: KinesisClientRecord) -> Result<(), BoxError> {
        let key = record.record.partition_key.to_string();
        assert!(
            self.busy.lock().expect("not poisoned").insert(key.clone()),
            "{key} is handled twice at once"
        );
        self.running.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(&record.record.data).into_owned();
        while text.starts_with("slow") && !self.is_open.load(Ordering::Relaxed) {
            self.opened.notified().await;
        }
        self.handled.lock().expect("not poisoned").push(text);
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.busy.lock().expect("not poisoned").remove(&key);
        Ok(())
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
        self.opened.notify_waiters();
    }

    fn handled(&self) -> Vec<String> {
        self.handled.lock().expect("not poisoned").clone()
    }

    fn has_handled(&self, text: &str) -> bool {
        self.handled().iter().any(|handled| handled == text)
    }
}

/// A record of the key `slow`, and this number of others.
fn world(others: usize) -> World {
    let world = World::new(1);
    world.kinesis.put(STREAM, "slow", "slow").expect("written");
    for number in 0..others {
        world.kinesis.put(STREAM, format!("key-{}", number % 7), number.to_string()).expect("written");
    }
    world
}

/// A worker that gets records ten at a time.
fn worker(world: &World, gate: &Gate, concurrency: Concurrency) -> ConsumerBuilder {
    let gate = gate.clone();
    world
        .worker_without_code("a")
        .stream(STREAM)
        .lease_config(LeaseConfig::PollingConfig { limit: 10 })
        .concurrency(concurrency)
        .for_each(move |record| {
            let gate = gate.clone();
            async move { gate.handle(record).await }
        })
}

#[tokio::test(start_paused = true)]
async fn a_slow_key_holds_up_no_other_of_later_batches() {
    let (world, gate) = (world(200), Gate::default());
    world.kinesis.put(STREAM, "slow", "slow, too").expect("written");
    let consumer = worker(&world, &gate, Concurrency::per_key(8)).build().expect("valid");
    let mut events = consumer.events();
    let handle = consumer.start().await.expect("started");
    until(MINUTE, || gate.handled().len() == 200, || format!("{} of 200", gate.handled().len())).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.checkpoint(0), Some(Checkpoint::TrimHorizon), "the first record is not done");
    let numbers: Vec<usize> = gate.handled().iter().map(|text| text.parse().expect("a number")).collect();
    for key in 0..7 {
        let of_key = numbers.iter().filter(|number| **number % 7 == key);
        assert!(of_key.is_sorted(), "{numbers:?}");
    }
    gate.open();
    until(MINUTE, || world.checkpoint(0) == world.last_position(), || format!("{:?}", world.checkpoint(0)))
        .await;
    assert!(gate.handled().ends_with(&["slow".to_owned(), "slow, too".to_owned()]));
    handle.shutdown().await.expect("stopped");
    while let Some(event) = events.next().await {
        assert!(!matches!(event, Event::KeyBlocksShard { .. }), "{event:?}: there was room");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_key_blocks_its_shard_when_the_span_is_full_and_that_is_reported() {
    let (world, gate) = (world(200), Gate::default());
    let concurrency = Concurrency::per_key(8).with_span_max(50);
    let consumer = worker(&world, &gate, concurrency).build().expect("valid");
    let mut events = consumer.events();
    let handle = consumer.start().await.expect("started");
    tokio::time::sleep(MINUTE).await;
    let handled = gate.handled().len();
    assert!((50..60).contains(&handled), "{handled} were handled");
    gate.open();
    until(MINUTE, || gate.handled().len() == 201, || format!("{} of 201", gate.handled().len())).await;
    handle.shutdown().await.expect("stopped");
    let mut blocking = Vec::new();
    while let Some(event) = events.next().await {
        if let Event::KeyBlocksShard { position, since, .. } = event {
            blocking.push((position, world.now().duration_since(since).expect("earlier")));
        }
    }
    let shard = &world.kinesis.shards(STREAM).expect("shards")[0].id;
    let first = world.kinesis.stored_records(STREAM, shard).expect("records")[0].sequence_number.clone();
    assert_eq!(blocking.len(), 1, "{blocking:?}");
    assert_eq!(blocking[0].0.sequence_number, first);
    assert!(blocking[0].1 >= MINUTE, "{blocking:?}");
}

#[tokio::test(start_paused = true)]
async fn memory_for_what_is_not_done_is_bounded() {
    let (world, gate) = (World::new(1), Gate::default());
    world.kinesis.put(STREAM, "slow", "slow").expect("written");
    for number in 0..100 {
        // Each batch has a record that has to wait for the slow one.
        let key = if number % 5 == 0 { "slow".to_owned() } else { format!("key-{number}") };
        world.kinesis.put(STREAM, key, vec![b'x'; 100_000]).expect("written");
    }
    let concurrency = Concurrency::per_key(8).with_bytes_max(4 << 20);
    let handle = start(worker(&world, &gate, concurrency)).await;
    tokio::time::sleep(MINUTE).await;
    let bytes = handle.status().shards[0].bytes_delivered;
    assert!((4_000_000..6_000_000).contains(&bytes), "{bytes} bytes were taken in");
    gate.open();
    until(MINUTE, || world.checkpoint(0) == world.last_position(), || format!("{:?}", world.checkpoint(0)))
        .await;
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_starts_nothing_new_and_stores_what_the_running_handlers_have_done() {
    let (world, gate) = (world(0), Gate::default());
    for number in 0..20 {
        world.kinesis.put(STREAM, "slow", format!("slow {number}")).expect("written");
    }
    let handle = start(worker(&world, &gate, Concurrency::per_key(8))).await;
    until(MINUTE, || gate.running.load(Ordering::Relaxed) == 1, || "none runs".to_owned()).await;
    let stopping = tokio::spawn(async move { handle.shutdown().await });
    tokio::time::sleep(20 * SECOND).await;
    assert!(!stopping.is_finished(), "a handler runs");
    gate.open();
    let before = tokio::time::Instant::now();
    stopping.await.expect("no panic").expect("stopped");
    assert!(before.elapsed() < SECOND);
    assert_eq!(gate.handled(), ["slow"], "the other records of the key are not started");
    assert_ne!(world.checkpoint(0), Some(Checkpoint::TrimHorizon), "it is stored");
    assert_eq!(world.owners().get("-"), Some(&1), "{:?}", world.owners());
}

#[tokio::test(start_paused = true)]
async fn handlers_that_run_when_the_lease_is_lost_return_before_the_shard_is_read_again() {
    let (world, gate) = (world(30), Gate::default());
    let handle = start(worker(&world, &gate, Concurrency::per_key(8))).await;
    until(MINUTE, || gate.handled().len() == 30, || format!("{:?}", gate.handled())).await;
    let lease = world.leases().remove(0);
    let taken = world.table.apply(&LeaseWrite::take(&lease, &"thief".into())).await.expect("answered");
    assert!(matches!(taken, WriteOutcome::Applied(_)), "{taken:?}");
    // The thief never renews. That the handler of a key runs once at a time is checked by the gate.
    tokio::time::sleep(5 * FAILOVER).await;
    assert_eq!((gate.running.load(Ordering::Relaxed), gate.handled().len()), (1, 30));
    assert_eq!(world.checkpoint(0), Some(Checkpoint::TrimHorizon));
    gate.open();
    until(5 * MINUTE, || world.checkpoint(0) == world.last_position(), || format!("{:?}", world.leases()))
        .await;
    assert_eq!(gate.handled().iter().filter(|text| *text == "slow").count(), 2, "once under each lease");
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_panics_starts_the_shard_again_after_the_handlers_that_run() {
    let (world, gate) = (world(30), Gate::default());
    let panics = Arc::new(AtomicBool::new(true));
    let panicking = Arc::clone(&panics);
    let builder = worker(&world, &gate, Concurrency::per_key(8)).filter(move |record| {
        assert!(*record.record.data != *b"25" || !panicking.load(Ordering::Relaxed), "a filter that panics");
        true
    });
    let handle = start(builder).await;
    until(MINUTE, || gate.has_handled("17"), || format!("{:?}", gate.handled())).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(gate.running.load(Ordering::Relaxed), 1, "it is waited for");
    panics.store(false, Ordering::Relaxed);
    gate.open();
    until(5 * MINUTE, || world.checkpoint(0) == world.last_position(), || format!("{:?}", gate.handled()))
        .await;
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_the_policy_stops_handles_what_is_there_and_takes_in_no_more() {
    let (world, gate) = (world(200), Gate::default());
    let running = gate.clone();
    let builder = world
        .worker_without_code("a")
        .stream(STREAM)
        .lease_config(LeaseConfig::PollingConfig { limit: 10 })
        .concurrency(Concurrency::per_key(8))
        .for_each(move |record| {
            let gate = running.clone();
            async move {
                if *record.record.data == *b"slow" {
                    return Err("never".into());
                }
                gate.handle(record).await
            }
        })
        .on_error(ErrorPolicy::attempts(1).stop_shard());
    let handle = start(builder).await;
    tokio::time::sleep(MINUTE).await;
    let handled = gate.handled().len();
    assert!((9..=19).contains(&handled), "{handled} were handled");
    assert!(handle.status().shards[0].stopped.is_some());
    let before = tokio::time::Instant::now();
    handle.shutdown().await.expect("stopped");
    assert!(before.elapsed() < SECOND);
    assert_eq!(world.checkpoint(0), Some(Checkpoint::TrimHorizon));
}
