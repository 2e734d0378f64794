//! The limits of the service, shared among applications, shards and workers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kinesis_consumer::kinesis::StreamErrorKind;
use kinesis_consumer::lease::{Lease, MemoryLeaseStore};
use kinesis_consumer::testing::{Fault, Limits, NewRecord};
use kinesis_consumer::{Checkpoint, ConsumerHandle, Event, LeaseConfig, RetrievalConfig};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::world::{CheckpointPolicy, STREAM, World, start, until};

/// Counts calls by operation and whole second.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<BTreeMap<(&'static str, u64), usize>>>);

impl Calls {
    fn watch(world: &World) -> Self {
        let (calls, began) = (Self::default(), Instant::now());
        let counting = calls.clone();
        world.kinesis.set_faults(move |call| {
            let second = began.elapsed().as_secs();
            *counting.0.lock().expect("not poisoned").entry((call.operation, second)).or_default() += 1;
            None
        });
        calls
    }

    /// The maximum number of calls of an operation in one second.
    fn peak(&self, operation: &str) -> usize {
        let calls = self.0.lock().expect("not poisoned");
        let peak =
            calls.iter().filter(|((called, _), _)| *called == operation).map(|(_, count)| *count).max();
        peak.unwrap_or(0)
    }

    fn total(&self, operation: &str) -> usize {
        let calls = self.0.lock().expect("not poisoned");
        calls.iter().filter(|((called, _), _)| *called == operation).map(|(_, count)| *count).sum()
    }
}

#[tokio::test(start_paused = true)]
async fn five_hundred_leases_at_once_stay_below_the_rates_of_the_control_plane() {
    for lease_config in [LeaseConfig::default(), LeaseConfig::fan_out()] {
        let world = World::new(500);
        world.put(2000);
        let calls = Calls::watch(&world);
        let mut fleet = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            let worker = world.worker(name, CheckpointPolicy::EveryBatch).lease_config(lease_config.clone());
            fleet.push(start(worker).await);
        }
        world.all_delivered_within(Duration::from_secs(60)).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        for (operation, per_second) in [
            ("DescribeStreamSummary", 20),
            ("DescribeStreamConsumer", 20),
            ("RegisterStreamConsumer", 5),
            ("ListShards", 100),
        ] {
            let peak = calls.peak(operation);
            assert!(peak <= per_second, "{peak} of {operation} in a second with {lease_config:?}");
        }
        // One for each time a worker acquired a lease, and few were acquired twice.
        let opened = calls.total("GetShardIterator") + calls.total("SubscribeToShard");
        assert!(opened < 2500, "{opened} with {lease_config:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_applications_with_half_a_share_each_are_not_throttled() {
    let world = World::new(2);
    world.kinesis.set_limits(Limits::service());
    let mut retrieval = RetrievalConfig::default();
    (retrieval.reads_per_second, retrieval.bytes_per_second) = (Some(2.5), Some(1 << 20));
    let (first, second) = two_applications(&world, &retrieval).await;
    for _ in 0..120 {
        world.put(40);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(first.is_done(&world) && second.is_done(&world));
    assert_eq!((first.failures(), second.failures()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn two_greedy_applications_are_throttled_and_both_go_on() {
    let world = World::new(1);
    world.kinesis.set_limits(Limits::service());
    // As much as one shard accepts, of which each application would read twice as much.
    let write = async |seconds: usize| {
        for _ in 0..seconds {
            for _ in 0..9 {
                let record = NewRecord::new("key", vec![b'x'; 100_000]);
                world.kinesis.put_record(STREAM, record).expect("accepted");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    write(60).await;
    let (first, second) = two_applications(&world, &RetrievalConfig::default()).await;
    write(180).await;
    let rows = || [&first, &second].map(|application| application.checkpoint());
    let done = || rows().into_iter().all(|row| row == world.last_position());
    until(Duration::from_secs(300), done, || format!("{:?}, not {:?}", rows(), world.last_position())).await;
    assert!(first.failures() > 0 && second.failures() > 0, "neither was spared");
}

/// A worker with its own lease table.
struct Application {
    table: MemoryLeaseStore,
    _handle: ConsumerHandle,
    failures: Arc<AtomicUsize>,
    _counting: AbortOnDropHandle<()>,
}

async fn two_applications(world: &World, retrieval: &RetrievalConfig) -> (Application, Application) {
    let application = async |name: &str| {
        let table = MemoryLeaseStore::default();
        let worker = world.worker(name, CheckpointPolicy::EveryBatch).application(name);
        let worker = worker.lease_store(Arc::new(table.clone())).retrieval(retrieval.clone());
        let handle = start(worker).await;
        let (failures, mut events) = (Arc::new(AtomicUsize::new(0)), handle.events());
        let failed = Arc::clone(&failures);
        let counting = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                failed.fetch_add(usize::from(matches!(event, Event::FetchFailed { .. })), Ordering::Relaxed);
            }
        });
        Application { table, _handle: handle, failures, _counting: AbortOnDropHandle::new(counting) }
    };
    (application("first").await, application("second").await)
}

impl Application {
    /// The number of failed fetches.
    fn failures(&self) -> usize {
        self.failures.load(Ordering::Relaxed)
    }

    fn checkpoints(&self) -> Vec<Checkpoint> {
        let items = self.table.items();
        let rows = items.values().filter_map(|item| Lease::from_item(item).expect("readable"));
        rows.map(|row| row.checkpoint).collect()
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoints().pop()
    }

    /// Whether it has checkpointed the last record of every shard.
    fn is_done(&self, world: &World) -> bool {
        let last = world.last_positions();
        self.checkpoints() == last
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttling_storm_passes_without_a_loss() {
    for lease_config in [LeaseConfig::default(), LeaseConfig::fan_out()] {
        let world = World::new(4);
        let _handle = start(world.worker("a", CheckpointPolicy::EveryBatch).lease_config(lease_config)).await;
        world.put(100);
        world.all_delivered_within(Duration::from_secs(10)).await;
        let calls = Arc::new(Mutex::new(0_u32));
        let counting = Arc::clone(&calls);
        world.kinesis.set_faults(move |_| {
            *counting.lock().expect("not poisoned") += 1;
            Some(Fault::Error(StreamErrorKind::Throttled))
        });
        for _ in 0..30 {
            world.put(20);
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        let asked = *calls.lock().expect("not poisoned");
        assert!(asked < 4 * 120, "{asked} requests in five minutes of refusals");
        world.kinesis.clear_faults();
        world.all_delivered_within(Duration::from_secs(60)).await;
        assert_eq!(world.check_order(), 0);
    }
}
