//! Effects and checkpoints in one transaction: each record counts once, whatever crashes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kinesis_consumer::lease::{Attribute, Fault, FaultHook, Item, StoreErrorKind};
use kinesis_consumer::{
    BoxError, Checkpoint, ConsumerBuilder, Effect, ErrorPolicy, Event, ItemKey, KinesisClientRecord, Number,
    Requirement, Transaction,
};

use crate::world::{STREAM, World, start, until};

const MINUTE: Duration = Duration::from_secs(60);

/// Each record adds 1 to an item of its own, and to a total of its key.
fn count(record: &KinesisClientRecord, transaction: &mut Transaction) -> Result<(), BoxError> {
    let position = record.extended_sequence_number().to_string();
    transaction.add(&ItemKey::new("records").with("position", position), "count", 1.into())?;
    let key = ItemKey::new("totals").with("key", record.record.partition_key.as_str());
    transaction.add(&key, "count", 1.into())?;
    Ok(())
}

fn world(shards: u32) -> World {
    let world = World::new(shards);
    world.table.create_user_table("records", &["position"]);
    world.table.create_user_table("totals", &["key"]);
    world
}

fn worker(world: &World, name: &str) -> ConsumerBuilder {
    world.worker_without_code(name).stream(STREAM).for_each_transaction(count)
}

fn number(item: &Item, name: &str) -> u64 {
    let Some(Attribute::N(number)) = item.get(name) else { unreachable!("{name}: {item:?}") };
    number.parse().expect("a whole number")
}

fn text(item: &Item, name: &str) -> String {
    let Some(Attribute::S(text)) = item.get(name) else { unreachable!("{name}: {item:?}") };
    text.clone()
}

/// How often each record counts, by position.
fn counts(world: &World) -> BTreeMap<String, u64> {
    let items = world.table.user_items("records");
    items.iter().map(|item| (text(item, "position"), number(item, "count"))).collect()
}

/// At every moment: records up to the checkpoint of their shard count once, and those after it do not.
fn assert_exactly_once(world: &World) {
    let counts = counts(world);
    let leases: BTreeMap<_, _> =
        world.leases().into_iter().map(|lease| (lease.shard_id.clone(), lease.checkpoint)).collect();
    for shard in world.kinesis.shards(STREAM).expect("a stream") {
        let checkpoint = leases.get(&shard.id);
        for record in world.kinesis.stored_records(STREAM, &shard.id).expect("a shard") {
            let position = kinesis_consumer::ExtendedSequenceNumber::new(record.sequence_number.clone(), 0);
            let expected = checkpoint.is_some_and(|stored| Checkpoint::from(position.clone()) <= *stored);
            let count = counts.get(&position.to_string()).copied().unwrap_or(0);
            assert_eq!(count, u64::from(expected), "{position} of {}, stored {checkpoint:?}", shard.id);
        }
    }
}

/// Faults of about a third of the commits, and some of the other writes.
fn faults(seed: u64) -> FaultHook {
    let rng = std::sync::Mutex::new(fastrand::Rng::with_seed(seed));
    Arc::new(move |operation, _| {
        let mut rng = rng.lock().expect("not poisoned");
        let (there, back) = (rng.u64(..40), rng.u64(..40));
        let fault = match (operation, rng.u8(..12)) {
            ("CommitTransaction", 0 | 1) => Fault::answer_lost(),
            ("CommitTransaction", 2) => Fault::never_sent(),
            ("CommitTransaction", 3) => Fault::refused(StoreErrorKind::Conflict),
            ("RenewLease" | "TakeLease", 0) => Fault::answer_lost(),
            _ => Fault::default(),
        };
        fault.delayed(Duration::from_millis(there), Duration::from_millis(back))
    })
}

#[tokio::test(start_paused = true)]
async fn each_record_counts_once_across_crashes_and_lost_responses() {
    for seed in 0..12 {
        let world = world(3);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut workers = Vec::new();
        for name in ["a", "b", "c"] {
            let store = world.unreliable_table(faults(rng.u64(..)));
            workers.push((name, start(worker(&world, name).lease_store(store)).await));
        }
        for round in 0..20_u32 {
            world.put(rng.usize(1..60));
            if round == 8 {
                let shard = world.kinesis.shards(STREAM).expect("a stream")[0].id.clone();
                world.kinesis.split(STREAM, &shard).expect("split");
            }
            for _ in 0..rng.u32(5..60) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert_exactly_once(&world);
            }
            if rng.u8(..3) == 0 {
                // As kill -9: nothing is stored or given back.
                let (name, handle) = workers.swap_remove(rng.usize(..workers.len()));
                drop(handle);
                let store = world.unreliable_table(faults(rng.u64(..)));
                workers.push((name, start(worker(&world, name).lease_store(store)).await));
            }
        }
        let written: usize = world
            .kinesis
            .shards(STREAM)
            .expect("a stream")
            .iter()
            .map(|shard| world.kinesis.stored_records(STREAM, &shard.id).expect("a shard").len())
            .sum();
        let all = || counts(&world).len() == written;
        until(5 * MINUTE, all, || format!("seed {seed}: {} of {written}", counts(&world).len())).await;
        assert_exactly_once(&world);
        let total: u64 = world.table.user_items("totals").iter().map(|item| number(item, "count")).sum();
        assert_eq!(total, written as u64, "seed {seed}");
        for (_, handle) in workers {
            handle.shutdown().await.expect("stopped");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_many_items_is_written_in_several_transactions() {
    let world = world(1);
    world.put(250);
    let handle = start(worker(&world, "a")).await;
    let done = || counts(&world).len() == 250;
    until(MINUTE, done, || format!("{}", counts(&world).len())).await;
    // The transactions that are larger than what is stored at once are 99 items each.
    assert_exactly_once(&world);
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_is_subject_to_the_policy_and_has_no_effects() {
    let world = world(1);
    for payload in ["1", "2", "x", "4"] {
        world.kinesis.put(STREAM, "key", payload).expect("written");
    }
    let sum = |record: &KinesisClientRecord, transaction: &mut Transaction| -> Result<(), BoxError> {
        let key = ItemKey::new("totals").with("key", "sum");
        transaction.add(&key, "records", 1.into())?;
        let number: Number = std::str::from_utf8(&record.record.data)?.parse()?;
        transaction.add(&key, "count", number)?;
        Ok(())
    };
    let builder = world.worker_without_code("a").stream(STREAM).for_each_transaction(sum);
    let consumer = builder.on_error(ErrorPolicy::attempts(3).skip()).build().expect("valid settings");
    let mut events = consumer.events();
    let handle = consumer.start().await.expect("started");
    let mut failures = 0;
    loop {
        match events.next().await {
            Some(Event::HandlerFailed { .. }) => failures += 1,
            Some(Event::RecordSkipped { reason, .. }) => {
                assert!(reason.contains("no number"), "{reason}");
                break;
            }
            Some(_) => {}
            None => unreachable!("no record was skipped"),
        }
    }
    assert_eq!(failures, 3);
    until(MINUTE, || world.checkpoint(0) == world.last_position(), || format!("{:?}", world.leases())).await;
    let totals = world.table.user_items("totals");
    assert_eq!((number(&totals[0], "count"), number(&totals[0], "records")), (7, 3));
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_refused_effect_is_found_among_many_and_the_others_are_written() {
    let world = world(1);
    world.put(40);
    let once = |record: &KinesisClientRecord, transaction: &mut Transaction| -> Result<(), BoxError> {
        count(record, transaction)?;
        if record.record.partition_key.as_str() == "key-7" {
            let never = ItemKey::new("totals").with("key", record.extended_sequence_number().to_string());
            transaction
                .write(Effect::update(never).set("a", "b").only_if(Requirement::Exists("key".into())))?;
        }
        Ok(())
    };
    let builder = world.worker_without_code("a").stream(STREAM).for_each_transaction(once);
    let handle = start(builder.on_error(ErrorPolicy::attempts(1).skip())).await;
    until(MINUTE, || world.checkpoint(0) == world.last_position(), || format!("{:?}", world.leases())).await;
    // 40 records over 16 keys: key-7 has three of them.
    assert_eq!(counts(&world).len(), 37);
    assert!(counts(&world).values().all(|count| *count == 1));
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_shard_waits_while_a_table_is_missing() {
    let world = World::new(1);
    world.table.create_user_table("records", &["position"]);
    world.put(3);
    let handle = start(worker(&world, "a").on_error(ErrorPolicy::default())).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.checkpoint(0), Some(Checkpoint::TrimHorizon));
    world.table.create_user_table("totals", &["key"]);
    until(MINUTE, || counts(&world).len() == 3, || format!("{:?}", world.leases())).await;
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_noticed_though_each_second_has_a_commit() {
    let world = world(1);
    let handle = start(worker(&world, "a")).await;
    let admin = crate::admin::operator(&world);
    let is_paused = || handle.status().shards.iter().all(|shard| shard.paused.is_some());
    for second in 0..30 {
        world.put(5);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if second == 20 {
            let pause = admin.pause(kinesis_consumer::admin::Scope::All, "eve", "why").await;
            assert_eq!(pause.expect("paused").leases.len(), 1);
        }
    }
    assert!(is_paused(), "{:?}", handle.status());
    let before = counts(&world).len();
    admin.resume(kinesis_consumer::admin::Scope::All).await.expect("resumed");
    until(MINUTE, || counts(&world).len() == 150, || format!("{before} before")).await;
    assert!(before < 150);
    assert_exactly_once(&world);
    handle.shutdown().await.expect("stopped");
}
