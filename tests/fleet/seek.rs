//! Moving an application to another position while its fleet runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use kinesis_consumer::admin::{Admin, Scope, SeekPlan, SeekTo};
use kinesis_consumer::internals::admin_in_simulation;
use kinesis_consumer::lease::{Attribute, Fault, LeaseStore, MemoryLeaseStore, StoreErrorKind};
use kinesis_consumer::testing::SimulatedKinesis;
use kinesis_consumer::{Checkpoint, ErrorKind, ExtendedSequenceNumber, ShardId};

use crate::admin::operator;
use crate::world::{CheckpointPolicy, FAILOVER, Observed, STREAM, World, start, until};

const MINUTE: Duration = Duration::from_secs(60);

/// Every record that arrived at or after `time`, as key and number.
fn records_since(world: &World, time: SystemTime) -> BTreeSet<(String, u64)> {
    let shards = world.kinesis.shards(STREAM).expect("a stream");
    let records =
        shards.iter().flat_map(|shard| world.kinesis.stored_records(STREAM, &shard.id).expect("a shard"));
    records
        .filter(|record| record.approximate_arrival_timestamp.is_some_and(|at| at >= time))
        .map(|record| {
            let number = String::from_utf8(record.data.to_vec()).expect("text").parse().expect("a number");
            (record.partition_key.to_string(), number)
        })
        .collect()
}

/// What was delivered since the log had `skip` entries, in order.
fn delivered(world: &World, skip: usize) -> Vec<(String, u64)> {
    let log = world.log();
    let records = log.iter().skip(skip).filter_map(|entry| match &entry.observed {
        Observed::Record { key, text, .. } => Some((key.clone(), text.parse().expect("a number"))),
        _ => None,
    });
    records.collect()
}

/// Every key's records came, for the last time, in order.
fn assert_in_order(delivered: &[(String, u64)]) {
    let last: BTreeMap<&(String, u64), usize> =
        delivered.iter().enumerate().map(|(index, record)| (record, index)).collect();
    for ((key, number), index) in &last {
        let next = last.get(&(key.clone(), number + 1));
        assert!(next.is_none_or(|next| index < next), "{key}: {number} came after {}", number + 1);
    }
}

async fn all_delivered_again(world: &World, since: SystemTime, skip: usize) {
    let missing = || {
        let seen: BTreeSet<_> = delivered(world, skip).into_iter().collect();
        records_since(world, since).into_iter().filter(|record| !seen.contains(record)).collect::<Vec<_>>()
    };
    until(
        FAILOVER * 12,
        || missing().is_empty(),
        || format!("not again: {:?}\n{:#?}", missing(), world.leases()),
    )
    .await;
}

async fn plan(admin: &Admin, to: SeekTo) -> SeekPlan {
    admin.plan_seek(to, Scope::All).await.expect("a plan")
}

#[tokio::test(start_paused = true)]
async fn a_running_fleet_reads_again_from_a_time_across_closed_shards() {
    let world = World::new(2);
    let other_table = MemoryLeaseStore::default();
    let handles = [world.start("one").await, world.start("two").await];
    let other =
        start(world.worker("other", CheckpointPolicy::EveryBatch).lease_store(other_table.clone())).await;
    let mut since = world.now();
    // Records at all times, and shards that are split and merged, so that those of the target are closed and forgotten.
    for round in 0..6 {
        for _ in 0..30 {
            world.put(16);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let open = world.kinesis.open_shards(STREAM).expect("a stream");
        match round {
            1 => since = world.now() - MINUTE / 2,
            2 => drop(world.kinesis.split(STREAM, &open[0].id).expect("split")),
            4 => drop(world.kinesis.merge(STREAM, &open[0].id, &open[1].id).expect("merged")),
            _ => {}
        }
    }
    world.all_delivered_within(FAILOVER * 6).await;
    tokio::time::sleep(MINUTE * 10).await;
    let rows_before = world.leases().len();
    let others_before = other_table.items().into_iter().map(|(key, row)| (key, row["checkpoint"].clone()));
    let others_before: BTreeMap<_, _> = others_before.collect();

    let admin = operator(&world);
    let plan = plan(&admin, SeekTo::Time(since)).await;
    assert!(
        plan.steps.iter().filter(|step| step.from.is_none()).count() >= 2,
        "closed shards get rows again: {plan}"
    );
    assert!(plan.steps.len() > rows_before - plan.left.len(), "{plan}");
    let skip = world.log().len();
    let mut steps = Vec::new();
    admin
        .carry_out(&plan, |progress| steps.push((progress.done, progress.total)))
        .await
        .expect("carried out");
    assert_eq!(steps.len(), plan.steps.len());
    world.put(100);
    all_delivered_again(&world, since, skip).await;
    let again = delivered(&world, skip);
    assert_in_order(&again);
    let wanted = records_since(&world, since);
    let holders_went_on = again.iter().filter(|record| !wanted.contains(*record)).count();
    assert_eq!(holders_went_on, 0, "nothing from before the target comes again");

    // Nobody else has noticed, and nothing of the seek is left behind.
    let others: BTreeMap<_, _> = other_table.items().into_iter().collect();
    assert!(others.iter().all(|(_, row)| !row.contains_key("seekId")));
    for (key, checkpoint) in others_before {
        assert!(
            others.get(&key).is_none_or(|row| row["checkpoint"] >= checkpoint
                || row["checkpoint"] == Attribute::S("SHARD_END".to_owned())),
            "{key}"
        );
    }
    let seen_by_other = || world.log().iter().skip(skip).filter(|entry| entry.worker == "other").count();
    until(FAILOVER, || seen_by_other() >= 100, || seen_by_other().to_string()).await;
    assert_eq!(seen_by_other(), 100, "nothing comes again elsewhere");
    assert_eq!(admin.status().await.expect("readable").problems, Vec::<String>::new());
    for handle in handles {
        handle.shutdown().await.expect("stops");
    }
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn a_seek_to_now_passes_over_what_was_not_read_whatever_the_operators_clock_shows() {
    let hour = MINUTE * 60;
    for wall in [|at: SystemTime, _| at, |at, by| at + by, |at, by| at - by] {
        let world = World::new(2);
        let handle = world.start("one").await;
        world.put(64);
        world.all_delivered_within(FAILOVER * 3).await;
        handle.shutdown().await.expect("stops");
        world.put(640);
        tokio::time::sleep(MINUTE).await;
        let admin = Admin::new(world.table.clone(), world.kinesis.clone(), "fleet-test");
        let admin = admin_in_simulation(admin, wall(world.now(), hour), 1.0, 99);
        let plan = plan(&admin, SeekTo::Now).await;
        assert!(plan.steps.iter().all(|step| step.to > Checkpoint::Latest), "a position, not LATEST: {plan}");
        admin.carry_out(&plan, |_| {}).await.expect("carried out");
        let (skip, since) = (world.log().len(), world.now());
        let handle = world.start("one").await;
        world.put(32);
        all_delivered_again(&world, since, skip).await;
        assert_eq!(delivered(&world, skip).len(), 32);
        drop(handle);
    }
}

#[tokio::test(start_paused = true)]
async fn a_seek_that_is_interrupted_at_any_write_can_be_resumed() {
    let mut interruptions = 0;
    for failing in 1.. {
        let world = World::new(4);
        let handle = world.start("one").await;
        world.put(320);
        world.all_stored_within(FAILOVER * 3).await;
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let store = world.unreliable_table(Arc::new(move |operation, _| {
            let is_write = ["SeekLease", "CreateLease", "FinishSeek"].contains(&operation);
            match is_write.then(|| counted.fetch_add(1, Ordering::Relaxed) + 1) {
                Some(number) if number == failing => Fault::refused(StoreErrorKind::Denied),
                _ => Fault::default(),
            }
        }));
        let admin = Admin::new(store, world.kinesis.clone(), "fleet-test");
        let admin = admin_in_simulation(admin, world.now(), 1.0, 5);
        let plan = plan(&admin, SeekTo::Oldest).await;
        let skip = world.log().len();
        let outcome = admin.carry_out(&plan, |_| {}).await;
        if let Err(error) = outcome {
            interruptions += 1;
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().starts_with("the seek is half done"), "{error}");
            let problems = operator(&world).status().await.expect("readable").problems;
            let is_visible = problems.iter().any(|problem| problem.contains("is not finished"));
            assert_eq!(is_visible, failing > 1, "{problems:?}");
            let again = self::plan(&admin, SeekTo::Oldest).await;
            assert_eq!(again.warnings.len(), usize::from(failing > 1), "{again}");
            admin.carry_out(&plan, |_| {}).await.expect("resumed");
        }
        all_delivered_again(&world, SystemTime::UNIX_EPOCH, skip).await;
        assert_in_order(&delivered(&world, skip));
        let left = world.leases().into_iter().filter(|lease| lease.seek_under_way.is_some()).count();
        assert_eq!(left, 0);
        drop(handle);
        if count.load(Ordering::Relaxed) < failing {
            break;
        }
    }
    assert_eq!(interruptions, 5, "four leases, and the end");
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_and_a_throttled_table_change_nothing() {
    let world = World::new(8);
    let handle = world.start("one").await;
    world.put(640);
    world.all_stored_within(FAILOVER * 3).await;
    let count = AtomicUsize::new(0);
    let store =
        world.unreliable_table(Arc::new(move |_, _| match count.fetch_add(1, Ordering::Relaxed) % 4 {
            1 => Fault::answer_lost(),
            2 => Fault::refused(StoreErrorKind::Throttled),
            _ => Fault::default(),
        }));
    let admin =
        admin_in_simulation(Admin::new(store, world.kinesis.clone(), "fleet-test"), world.now(), 1.0, 5);
    // The scan is not repeated, so the plan may need several attempts.
    let plan = loop {
        match admin.plan_seek(SeekTo::Oldest, Scope::All).await {
            Ok(plan) => break plan,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
    };
    let skip = world.log().len();
    admin.carry_out(&plan, |_| {}).await.expect("carried out");
    all_delivered_again(&world, SystemTime::UNIX_EPOCH, skip).await;
    drop(handle);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_splits_while_a_seek_is_carried_out_is_read_again_in_order() {
    let world = World::new(1);
    let handle = world.start("one").await;
    world.put(64);
    world.all_delivered_within(FAILOVER).await;
    let admin = operator(&world);
    let plan = plan(&admin, SeekTo::Oldest).await;
    // The split is taken in before the seek moves the parent.
    let shard = ShardId::from("shardId-000000000000");
    drop(world.kinesis.split(STREAM, &shard).expect("split"));
    world.put(64);
    world.all_delivered_within(FAILOVER * 3).await;
    let skip = world.log().len();
    admin.carry_out(&plan, |_| {}).await.expect("carried out");
    all_delivered_again(&world, SystemTime::UNIX_EPOCH, skip).await;
    tokio::time::sleep(MINUTE).await;
    assert_in_order(&delivered(&world, skip));
    drop(handle);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sought_is_refused_with_what_to_do() {
    let world = World::new(2);
    let handle = world.start("one").await;
    world.put(64);
    world.all_stored_within(FAILOVER).await;
    tokio::time::sleep(MINUTE).await;
    let admin = operator(&world);
    let refusal = async |admin: &Admin, to: SeekTo, scope: Scope| {
        let error = admin.plan_seek(to, scope).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:#}");
        format!("{error:#}")
    };
    let assert_says = |text: String, expected: &[&str]| {
        assert!(expected.iter().all(|expected| text.contains(expected)), "{text}");
    };
    let day = Duration::from_secs(24 * 3600);
    let future = SeekTo::Time(world.now() + MINUTE);
    assert_says(refusal(&admin, future, Scope::All).await, &["lies in the future", "seek to now"]);

    tokio::time::sleep(day * 2).await;
    let expired = SeekTo::Time(world.now() - day - MINUTE);
    assert_says(
        refusal(&admin, expired, Scope::All).await,
        &["before what stream orders keeps: 24 hours", "oldest record"],
    );

    world.put(64);
    let shards = world.kinesis.open_shards(STREAM).expect("a stream");
    let number = |index: usize| {
        let records = world.kinesis.stored_records(STREAM, &shards[index].id).expect("a shard");
        ExtendedSequenceNumber::new(records.last().expect("a record").sequence_number.clone(), 0)
    };
    let foreign = SeekTo::Position(shards[0].id.clone(), number(1));
    assert_says(
        refusal(&admin, foreign, Scope::All).await,
        &["is no position in shard", "belong to one shard"],
    );
    let unknown = SeekTo::Position("shardId-000000000099".into(), number(1));
    assert_says(refusal(&admin, unknown, Scope::All).await, &["has no shard shardId-000000000099"]);
    let unknown = Scope::Shards(["shardId-000000000099".into()].into());
    assert_says(refusal(&admin, SeekTo::Oldest, unknown).await, &["has no shard shardId-000000000099"]);
    let unknown = Scope::Stream("payments".parse().expect("a name"));
    assert_says(refusal(&admin, SeekTo::Oldest, unknown).await, &["no leases of stream payments"]);

    // A position of its own shard is taken.
    let own = SeekTo::Position(shards[0].id.clone(), number(0));
    assert_eq!(admin.plan_seek(own, Scope::All).await.expect("a plan").steps.len(), 1);
    handle.shutdown().await.expect("stops");

    // The table of another stream, and of none.
    world.kinesis.create_stream("payments", 2).expect("created");
    let admin = Admin::new(world.table.clone(), world.kinesis.clone(), "fleet-test");
    let admin =
        admin_in_simulation(admin, world.now(), 1.0, 3).with_stream("payments".parse().expect("a name"));
    assert_says(
        refusal(&admin, SeekTo::Oldest, Scope::All).await,
        &["not of stream payments", "belongs to stream orders"],
    );
    let empty = Admin::new(MemoryLeaseStore::default(), world.kinesis.clone(), "fleet-test");
    assert_says(refusal(&empty, SeekTo::Oldest, Scope::All).await, &["has no leases to move"]);
    let java = MemoryLeaseStore::default();
    java.create(&kinesis_consumer::lease::Lease::new("shardId-000000000000", Checkpoint::TrimHorizon))
        .await
        .expect("created");
    let java = Admin::new(java, SimulatedKinesis::new(), "fleet-test");
    assert_says(refusal(&java, SeekTo::Oldest, Scope::All).await, &["do not say which stream"]);

    // No permission.
    for (kind, expected) in
        [(StoreErrorKind::Denied, "IAM policy"), (StoreErrorKind::TableMissing, "there is no lease table")]
    {
        let store = world.unreliable_table(Arc::new(move |_, _| Fault::refused(kind)));
        let admin = Admin::new(store, world.kinesis.clone(), "fleet-test");
        assert_says(refusal(&admin, SeekTo::Oldest, Scope::All).await, &[expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_shards_are_moved_within_a_minute() {
    let world = World::new(1000);
    let handle = world.start("one").await;
    world.put(16);
    until(FAILOVER * 6, || world.owners().get("one") == Some(&1000), || format!("{:?}", world.owners()))
        .await;
    let delay = Duration::from_millis(20);
    let store = world.unreliable_table(Arc::new(move |_, _| Fault::default().delayed(delay, delay)));
    let admin =
        admin_in_simulation(Admin::new(store, world.kinesis.clone(), "fleet-test"), world.now(), 1.0, 5);
    let plan = plan(&admin, SeekTo::Oldest).await;
    let began = tokio::time::Instant::now();
    admin.carry_out(&plan, |_| {}).await.expect("carried out");
    let took = began.elapsed();
    assert!(took < MINUTE, "{took:?}");
    drop(handle);
}
