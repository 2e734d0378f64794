//! A stream and a lease table that fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kinesis_consumer::kinesis::StreamErrorKind;
use kinesis_consumer::lease::{Attribute, Fault, FaultHook, StoreErrorKind};
use kinesis_consumer::testing::{Fault as StreamFault, FaultTable};
use kinesis_consumer::{Checkpoint, Event};

use crate::world::{CheckpointPolicy, FAILOVER, Observed, STREAM, World, start, until};

/// Injects `fault(random number)` into requests with probability `share`.
fn random(seed: u64, share: f64, fault: impl Fn(u64) -> Fault + Send + Sync + 'static) -> FaultHook {
    let rng = Mutex::new(fastrand::Rng::with_seed(seed));
    Arc::new(move |_, _| {
        let mut rng = rng.lock().expect("not poisoned");
        if rng.f64() < share { fault(rng.u64(..)) } else { Fault::default() }
    })
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_in_every_way_loses_nothing() {
    for seed in 0..8 {
        let world = World::new(3);
        let kinds = [
            StreamErrorKind::Throttled,
            StreamErrorKind::Unavailable,
            StreamErrorKind::ExpiredIterator,
            StreamErrorKind::InUse,
        ];
        let table = kinds
            .into_iter()
            .fold(FaultTable::seeded(seed), |table, kind| table.with_any(0.05, StreamFault::Error(kind)));
        let mut table = table.with_any(0.02, StreamFault::NoAnswer(Duration::from_secs(60)));
        world.kinesis.set_faults(move |call| table.fault_for(call));
        // The first listing may fail as a whole; then the caller retries.
        let _a = loop {
            let worker = world.worker("a", CheckpointPolicy::EveryBatch).build().expect("valid settings");
            if let Ok(handle) = worker.start().await {
                break handle;
            }
        };
        for _ in 0..5 {
            world.put(160);
            let open = world.kinesis.open_shards(STREAM).expect("a stream");
            world.kinesis.split(STREAM, &open[0].id).expect("split");
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        world.all_delivered_within(FAILOVER * 60).await;
        assert_eq!(world.check_order(), 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_table_that_fails_and_loses_answers_loses_nothing() {
    for seed in 0..8 {
        let world = World::new(3);
        let hook = random(seed, 0.2, |number| match number % 4 {
            0 => Fault::refused(StoreErrorKind::Throttled),
            1 => Fault::never_sent(),
            2 => Fault::answer_lost(),
            _ => Fault::stale(5),
        });
        let worker = |name: &str| {
            world
                .worker(name, CheckpointPolicy::EveryBatch)
                .lease_store(world.unreliable_table(Arc::clone(&hook)))
        };
        let _a = start(worker("a")).await;
        let _b = start(worker("b")).await;
        for _ in 0..5 {
            world.put(160);
            let open = world.kinesis.open_shards(STREAM).expect("a stream");
            world.kinesis.split(STREAM, &open[0].id).expect("split");
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        world.all_delivered_within(FAILOVER * 60).await;
        world.check_order();
        until(
            FAILOVER * 60,
            || world.leases().iter().all(|lease| lease.owner.is_some()),
            || format!("{:?}", world.leases()),
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_cost_no_lease_and_no_duplicate() {
    let world = World::new(4);
    let lose = |operations: &'static [&'static str]| -> FaultHook {
        let turns = Mutex::new(BTreeMap::new());
        Arc::new(move |operation, key| {
            let mut turns = turns.lock().expect("not poisoned");
            let turn: &mut u32 = turns.entry((operation, key.cloned())).or_default();
            *turn += 1;
            // Every second response to each kind of write on each row.
            if operations.contains(&operation) && turn.is_multiple_of(2) {
                Fault::answer_lost()
            } else {
                Fault::default()
            }
        })
    };
    let hook = lose(&["RenewLease", "UpdateLease", "TakeLease", "CreateLease", "ReleaseLease"]);
    let a = start(world.worker("a", CheckpointPolicy::EveryBatch).lease_store(world.unreliable_table(hook)))
        .await;
    let mut events = a.events();
    for _ in 0..20 {
        world.put(64);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    world.all_delivered_within(FAILOVER).await;
    assert_eq!(world.check_order(), 0);
    a.shutdown().await.expect("processors return");
    drop(a);
    while let Some(event) = events.next().await {
        assert!(!matches!(event, Event::LeaseLost { .. }), "{event:?}");
    }
    assert_eq!(world.owners().get("-"), Some(&4), "released, although answers were lost");
}

#[tokio::test(start_paused = true)]
async fn a_worker_cut_off_from_the_table_stops_before_others_take_over() {
    let world = World::new(2);
    let cut_off = Arc::new(AtomicBool::new(false));
    let hook: FaultHook = {
        let cut_off = Arc::clone(&cut_off);
        Arc::new(
            move |_, _| if cut_off.load(Ordering::Relaxed) { Fault::never_sent() } else { Fault::default() },
        )
    };
    let _a = start(world.worker("a", CheckpointPolicy::EveryBatch).lease_store(world.unreliable_table(hook)))
        .await;
    world.put(32);
    world.all_delivered_within(FAILOVER).await;
    cut_off.store(true, Ordering::Relaxed);
    tokio::time::sleep(FAILOVER).await;
    let before = world.log().len();
    world.put(32);
    tokio::time::sleep(FAILOVER * 2).await;
    let records = |from: usize| {
        world.log()[from..].iter().filter(|entry| matches!(entry.observed, Observed::Record { .. })).count()
    };
    assert_eq!(records(before), 0, "nothing is delivered without a lease");
    let _b = world.start("b").await;
    world.all_delivered_within(FAILOVER * 3).await;
    assert_eq!(world.check_order(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_worker_killed_while_shards_split_and_merge_loses_nothing() {
    let world = World::new(2);
    let mut names = (0..).map(|number| format!("worker-{number}"));
    let mut running = Vec::new();
    for round in 0..6 {
        running.push(world.start(&names.next().expect("endless")).await);
        world.put(160);
        let mut open = world.kinesis.open_shards(STREAM).expect("a stream");
        open.sort_by_key(|shard| shard.hash_key_range);
        if round % 2 == 0 {
            world.kinesis.split(STREAM, &open[0].id).expect("split");
        } else {
            world.kinesis.merge(STREAM, &open[0].id, &open[1].id).expect("merge");
        }
        world.put(160);
        tokio::time::sleep(Duration::from_secs(7)).await;
        // Killed: no shutdown, no release.
        drop(running.remove(0));
    }
    let _last = world.start("last").await;
    world.put(160);
    world.all_delivered_within(FAILOVER * 12).await;
    world.check_order();
}

#[tokio::test(start_paused = true)]
async fn unreadable_rows_are_reported_and_left_alone() {
    let world = World::new(2);
    let text = |text: &str| Attribute::S(text.to_owned());
    let broken: [(&str, &str, Option<Attribute>); 4] = [
        ("broken-1", "leaseCounter", Some(text("seven"))),
        ("broken-2", "leaseCounter", None),
        ("broken-3", "checkpoint", Some(text("SOMEWHERE"))),
        ("broken-4", "startingHashKey", Some(Attribute::N("5".to_owned()))),
    ];
    let row = |key: &str| {
        BTreeMap::from([
            ("leaseKey".to_owned(), text(key)),
            ("leaseCounter".to_owned(), Attribute::N("3".to_owned())),
            ("checkpoint".to_owned(), text("TRIM_HORIZON")),
            ("startingHashKey".to_owned(), text("0")),
            ("endingHashKey".to_owned(), text("9")),
        ])
    };
    for (key, attribute, value) in &broken {
        let mut row = row(key);
        match value {
            Some(value) => row.insert((*attribute).to_owned(), value.clone()),
            None => row.remove(*attribute),
        };
        assert!(world.table.insert_item(row));
    }
    // A lease row as another implementation may have left it: optional attributes missing, others added.
    let open = world.kinesis.open_shards(STREAM).expect("a stream");
    for shard in &open {
        let mut row = row(shard.id.as_str());
        row.insert("startingHashKey".to_owned(), text(&shard.hash_key_range.start().to_string()));
        row.insert("endingHashKey".to_owned(), text(&shard.hash_key_range.end().to_string()));
        row.insert("somethingElse".to_owned(), Attribute::Bool(true));
        assert!(world.table.insert_item(row));
    }
    let before = world.table.items();
    world.put(160);
    let handle = start(world.worker("a", CheckpointPolicy::EveryBatch)).await;
    let mut events = handle.events();
    world.all_delivered_within(FAILOVER).await;
    handle.shutdown().await.expect("processors return");
    drop(handle);
    let mut reported = Vec::new();
    while let Some(event) = events.next().await {
        if let Event::LeaseUnreadable { row, .. } = event {
            reported.push(row);
        }
    }
    let after = world.table.items();
    for (key, attribute, _) in &broken {
        assert_eq!(after.get(*key), before.get(*key), "left alone");
        assert!(
            reported.iter().any(|row| row.contains(key) && row.contains(attribute)),
            "{key} {attribute}: {reported:?}"
        );
    }
    assert_eq!(reported.len(), broken.len(), "reported once each: {reported:?}");
    for shard in &open {
        let row = &after[shard.id.as_str()];
        assert_eq!(row.get("somethingElse"), Some(&Attribute::Bool(true)), "unknown attributes survive");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hole_in_the_leases_is_filled() {
    let world = World::new(4);
    let a = world.start("a").await;
    world.put(64);
    world.all_delivered_within(FAILOVER).await;
    a.shutdown().await.expect("processors return");
    // A row is deleted by hand: its shard has to start from scratch.
    let rows = world.table.items();
    let table = kinesis_consumer::lease::MemoryLeaseStore::default();
    for (_, row) in rows.into_iter().skip(1) {
        assert!(table.insert_item(row));
    }
    let b = world.worker("b", CheckpointPolicy::EveryBatch).lease_store(Arc::new(table.clone()));
    let _b = start(b).await;
    until(Duration::from_secs(60), || table.items().len() == 4, || format!("{:?}", table.items().keys()))
        .await;
    world.put(64);
    world.all_delivered_within(FAILOVER).await;
    let leases = world.leases();
    assert!(leases.iter().all(|lease| lease.checkpoint > Checkpoint::Latest));
}

#[tokio::test(start_paused = true)]
async fn hash_key_ranges_that_old_rows_lack_are_filled_in() {
    let world = World::new(2);
    for shard in world.kinesis.open_shards(STREAM).expect("a stream") {
        let mut row =
            kinesis_consumer::lease::Lease::new(shard.id.as_str(), Checkpoint::TrimHorizon).to_item();
        row.remove("entityType");
        assert!(world.table.insert_item(row));
    }
    world.put(32);
    let _a = world.start("a").await;
    world.all_delivered_within(FAILOVER).await;
    let all_known = || world.leases().iter().all(|lease| lease.hash_key_range.is_some());
    until(Duration::from_secs(60), all_known, || format!("{:?}", world.leases())).await;
    assert!(
        world.table.items().values().all(|row| !row.contains_key("entityType")),
        "and nothing else is invented"
    );
}
