//! Lease tables with too little write capacity.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kinesis_consumer::lease::{Fault, FaultHook, StoreErrorKind};
use kinesis_consumer::{Checkpoint, Event, LeaseKey};
use tokio::time::Instant;

use crate::world::{CheckpointPolicy, FAILOVER, Observed, STREAM, World, start};

/// A table that accepts this many writes per second and keeps unused capacity for a second at most.
/// Throttled requests cost nothing, as with DynamoDB; reads are free.
#[derive(Debug)]
struct Capacity {
    units: f64,
    left: f64,
    at: Instant,
    accepted: u64,
    throttled: u64,
}

impl Capacity {
    fn new(units: f64) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { units, left: units, at: Instant::now(), accepted: 0, throttled: 0 }))
    }

    fn write(&mut self) -> Fault {
        let now = Instant::now();
        self.left = f64::min(self.left + (now - self.at).as_secs_f64() * self.units, self.units.max(1.0));
        self.at = now;
        if self.left < 1.0 {
            self.throttled += 1;
            return Fault::refused(StoreErrorKind::Throttled);
        }
        self.left -= 1.0;
        self.accepted += 1;
        Fault::default()
    }
}

fn hook(capacity: &Arc<Mutex<Capacity>>) -> FaultHook {
    let capacity = Arc::clone(capacity);
    Arc::new(move |operation, _| match operation {
        "EnsureTable" | "ListLeases" | "GetLease" | "ListLeaseKeysForWorker" | "GetEntity" => {
            Fault::default()
        }
        _ => capacity.lock().expect("not poisoned").write(),
    })
}

#[derive(Debug, Default)]
struct Outcome {
    lost: usize,
    duplicates: usize,
    missing: usize,
    failed: usize,
    /// The longest time in seconds for which the checkpoint of a shard did not move.
    stalled: u64,
    reports: Vec<(usize, Option<usize>)>,
    accepted: u64,
    throttled: u64,
}

/// `workers` workers hold all leases of `shards` shards when the capacity of the table drops to `units`
/// writes per second. Records arrive for `seconds`, and each batch is checkpointed.
async fn run(units: f64, shards: u32, workers: usize, seconds: u64) -> Outcome {
    let world = World::new(shards);
    let capacity = Capacity::new(100_000.0);
    let mut handles = Vec::new();
    for index in 0..workers {
        let worker = world.worker(&format!("w{index}"), CheckpointPolicy::EveryBatch);
        handles.push(start(worker.lease_store(world.unreliable_table(hook(&capacity)))).await);
    }
    tokio::time::sleep(FAILOVER * 6).await;
    assert!(world.owners().values().all(|held| *held == shards as usize / workers), "{:?}", world.owners());
    let mut events: Vec<_> = handles.iter().map(|handle| handle.events()).collect();
    {
        let mut capacity = capacity.lock().expect("not poisoned");
        (capacity.units, capacity.left, capacity.accepted) = (units, units, 0);
    }
    let before = world.log().len();
    let mut moved: BTreeMap<LeaseKey, (Checkpoint, u64)> = BTreeMap::new();
    let mut outcome = Outcome::default();
    for second in 0..seconds {
        // Some for every shard.
        for prefix in (0..shards / 2).filter(|_| second % 4 == 0) {
            world.put_to(STREAM, &format!("key-{prefix}"), 16);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        for lease in world.leases() {
            let (checkpoint, at) = moved.entry(lease.key).or_insert((lease.checkpoint.clone(), second));
            if *checkpoint != lease.checkpoint {
                (*checkpoint, *at) = (lease.checkpoint, second);
            }
            outcome.stalled = outcome.stalled.max(second - *at);
        }
    }
    // A fetched page waits until those before it are checkpointed.
    for _ in 0..12 {
        tokio::time::sleep(FAILOVER).await;
        if world.missing().is_empty() {
            break;
        }
    }
    for events in &mut events {
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(1), events.next()).await {
            match event {
                Event::LeaseTableThrottled { leases, sustainable, reason, .. } => {
                    assert!(reason.contains("was throttled"), "{reason}");
                    outcome.reports.push((leases, sustainable));
                }
                Event::CheckpointFailed { .. } => outcome.failed += 1,
                _ => {}
            }
        }
    }
    outcome.lost = world.log()[before..].iter().filter(|entry| entry.observed == Observed::LeaseLost).count();
    outcome.duplicates = world.check_order();
    outcome.missing = world.missing().len();
    let capacity = capacity.lock().expect("not poisoned");
    (outcome.accepted, outcome.throttled) = (capacity.accepted, capacity.throttled);
    outcome
}

#[tokio::test(start_paused = true)]
async fn a_table_that_just_suffices_costs_no_lease_and_no_duplicate() {
    for (units, shards, workers) in [
        (1.0, 8, 1),
        (2.0, 8, 1),
        (5.0, 8, 1),
        (2.0, 16, 1),
        (5.0, 16, 1),
        (5.0, 32, 1),
        (3.0, 16, 2),
        (3.0, 12, 3),
    ] {
        let outcome = run(units, shards, workers, 110).await;
        assert_eq!((outcome.lost, outcome.duplicates, outcome.missing), (0, 0, 0), "{outcome:?}");
        assert_eq!(outcome.failed, 0, "{outcome:?}");
        assert!(outcome.stalled <= 12, "{outcome:?}");
        assert!((1..=3 * workers).contains(&outcome.reports.len()), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_cannot_suffice_is_reported_and_every_shard_is_read_now_and_then() {
    for (units, shards, stalled) in [(1.0, 16, 300), (1.0, 32, 400)] {
        let outcome = run(units, shards, 1, 400).await;
        assert!(outcome.stalled < stalled, "{outcome:?}");
        let (leases, sustainable) = outcome.reports.last().copied().expect("reported");
        assert!(sustainable.is_some_and(|sustainable| sustainable < shards as usize), "{outcome:?}");
        assert!(leases <= shards as usize);
        assert!(outcome.reports.len() <= 10, "{outcome:?}");
    }
}
