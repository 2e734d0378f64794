//! A consumer as seen by its user: its health, its events to their end, and the kinds of its errors.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use async_trait::async_trait;
use kinesis_consumer::internals::in_simulation;
use kinesis_consumer::lease::{Fault, FaultHook, StoreErrorKind};
use kinesis_consumer::testing::MetricsRecorder;
use kinesis_consumer::{
    Checkpointer, ConsumerBuilder, ConsumerHandle, CoordinationConfig, CoordinationMode, ErrorKind, Event,
    Events, Health, KinesisClientRecord, ShardRecordProcessor, ShardRecordProcessorFactory, StopReason,
};

use crate::world::{CheckpointPolicy, FAILOVER, STREAM, World, start, until};

const MINUTE: Duration = Duration::from_secs(60);
const READS: &[&str] = &["ListLeases", "ListLeaseKeysForWorker"];
const WRITES: &[&str] = &["RenewLease", "UpdateLease", "TakeLease", "ReleaseLease", "CreateLease"];

/// Whether faults are switched on.
type Switch = Arc<AtomicBool>;

/// While the switch is on, these operations fail.
fn switched(on: &Switch, operations: &[&'static str], fault: Fault) -> FaultHook {
    let (on, operations) = (Arc::clone(on), operations.to_vec());
    Arc::new(move |operation, _| {
        let hits = on.load(Ordering::Relaxed) && operations.contains(&operation);
        if hits { fault } else { Fault::default() }
    })
}

fn in_mode(builder: ConsumerBuilder, mode: CoordinationMode) -> ConsumerBuilder {
    let mut coordination = CoordinationConfig::default();
    coordination.mode = mode;
    builder.coordination(coordination)
}

/// Collects events until they end.
fn collect(mut events: Events) -> (Arc<Mutex<Vec<Event>>>, tokio::task::JoinHandle<()>) {
    let collected: Arc<Mutex<Vec<Event>>> = Arc::default();
    let into = Arc::clone(&collected);
    let task = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            into.lock().expect("not poisoned").push(event);
        }
    });
    (collected, task)
}

fn count(events: &Mutex<Vec<Event>>, which: impl Fn(&Event) -> bool) -> usize {
    events.lock().expect("not poisoned").iter().filter(|event| which(event)).count()
}

/// Why a consumer stopped, if that is the event.
fn stopped(event: &Event) -> Option<StopReason> {
    match event {
        Event::Stopped { reason, .. } => Some(*reason),
        _ => None,
    }
}

async fn is_within(limit: Duration, handle: &ConsumerHandle, health: Health) {
    let what = || format!("{health:?}: {:?}", handle.status());
    until(limit, || handle.status().health == health, what).await;
}

#[tokio::test(start_paused = true)]
async fn events_last_from_start_to_end_even_if_a_handle_is_kept() {
    let world = World::new(1);
    let consumer = world.worker("a", CheckpointPolicy::EveryBatch).build().expect("valid settings");
    let mut events = consumer.events();
    let handle = consumer.start().await.expect("started");
    let (_, listening) = collect(handle.events());
    world.put(16);
    world.all_delivered_within(FAILOVER).await;
    handle.shutdown().await.expect("processors return");
    tokio::time::timeout(MINUTE, listening).await.expect("the events end").expect("no panic");
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event);
    }
    assert!(matches!(all[0], Event::LeaseCreated { .. }), "{all:?}");
    assert!(matches!(all[1], Event::LeaseGained { .. }), "{all:?}");
    assert_eq!(all.last().and_then(stopped), Some(StopReason::Shutdown));
    assert_eq!(handle.events().next().await, None, "of a consumer that has stopped there are none");
}

#[tokio::test(start_paused = true)]
async fn events_end_when_the_handle_is_dropped_or_the_start_fails() {
    let world = World::new(1);
    let handle = world.start("a").await;
    let (events, listening) = collect(handle.events());
    tokio::time::sleep(FAILOVER).await;
    drop(handle);
    tokio::time::timeout(MINUTE, listening).await.expect("the events end").expect("no panic");
    let last = events.lock().expect("not poisoned").last().cloned();
    assert_eq!(last.as_ref().and_then(stopped), Some(StopReason::HandleDropped));

    let other = world.worker_of("b", ["another"]).build().expect("valid settings");
    let mut events = other.events();
    other.start().await.expect_err("there is no such stream");
    assert_eq!(tokio::time::timeout(MINUTE, events.next()).await.expect("it ends"), None);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_whose_loop_panicked_has_failed() {
    for operation in ["ListLeases", "RenewLease"] {
        let world = World::new(2);
        let on = Switch::default();
        let hook: FaultHook = {
            let on = Arc::clone(&on);
            Arc::new(move |asked, _| {
                assert!(asked != operation || !on.load(Ordering::Relaxed), "a defect of the store");
                Fault::default()
            })
        };
        let table = world.unreliable_table(hook);
        let a = start(world.worker("a", CheckpointPolicy::EveryBatch).lease_store(table)).await;
        let (events, listening) = collect(a.events());
        is_within(FAILOVER, &a, Health::Healthy).await;
        on.store(true, Ordering::Relaxed);
        is_within(FAILOVER, &a, Health::Failed).await;
        tokio::time::timeout(MINUTE, listening).await.expect("the events end").expect("no panic");
        let last = events.lock().expect("not poisoned").last().cloned();
        assert_eq!(last.as_ref().and_then(stopped), Some(StopReason::Failed), "{operation}");
        assert_eq!(a.wait().await.expect_err("it failed").kind(), ErrorKind::Internal);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_table_that_cannot_be_used_for_the_failover_time_is_degraded_until_it_can() {
    let all = [READS, WRITES, &["GetLease", "GetEntity", "EnsureTable"]].concat();
    let faults = [
        Fault::refused(StoreErrorKind::Throttled),
        Fault::refused(StoreErrorKind::TableMissing),
        Fault::refused(StoreErrorKind::Denied),
        Fault::refused(StoreErrorKind::Malformed),
        Fault::never_sent(),
        Fault::answer_lost(),
        Fault::default().delayed(MINUTE * 2, Duration::ZERO),
    ];
    for mode in [CoordinationMode::Independent, CoordinationMode::Leader] {
        for operations in [&all[..], READS, WRITES] {
            for fault in faults {
                if mode == CoordinationMode::Leader && operations == WRITES && fault == Fault::answer_lost() {
                    // The writes land, and the lock shows that this worker is alive.
                    continue;
                }
                let world = World::new(2);
                let on = Switch::default();
                let table = world.unreliable_table(switched(&on, operations, fault));
                let worker = world.worker("a", CheckpointPolicy::Never).lease_store(table);
                let a = start(in_mode(worker, mode)).await;
                until(FAILOVER * 3, || a.status().shards.len() == 2, || format!("{:?}", a.status())).await;
                tokio::time::sleep(MINUTE).await;
                assert_eq!(a.status().health, Health::Healthy, "{:?}", a.status());
                on.store(true, Ordering::Relaxed);
                let case = format!("{mode:?} {operations:?} {fault:?}");
                let what = || format!("{case}: {:?}", a.status());
                until(FAILOVER * 3, || a.status().health == Health::Degraded, what).await;
                assert!(!a.status().problems.is_empty(), "{case}");
                tokio::time::sleep(MINUTE).await;
                assert_eq!(a.status().health, Health::Degraded, "{case}: {:?}", a.status());
                on.store(false, Ordering::Relaxed);
                until(MINUTE * 4, || a.status().health == Health::Healthy, what).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_deleted_is_created_again_and_reported_once() {
    for mode in [CoordinationMode::Independent, CoordinationMode::Leader] {
        let world = World::new(2);
        let (on, created) = (Switch::default(), Arc::new(AtomicUsize::new(0)));
        let hook: FaultHook = {
            let (on, created) = (Arc::clone(&on), Arc::clone(&created));
            Arc::new(move |operation, _| {
                if !on.load(Ordering::Relaxed) {
                    return Fault::default();
                }
                if operation != "EnsureTable" {
                    return Fault::refused(StoreErrorKind::TableMissing);
                }
                // The first two attempts fail.
                match created.fetch_add(1, Ordering::Relaxed) {
                    0 => return Fault::refused(StoreErrorKind::Denied),
                    1 => return Fault::never_sent(),
                    _ => on.store(false, Ordering::Relaxed),
                }
                Fault::default()
            })
        };
        let worker = world.worker("a", CheckpointPolicy::EveryBatch);
        let a = start(in_mode(worker.lease_store(world.unreliable_table(hook)), mode)).await;
        let (events, _listening) = collect(a.events());
        world.put(32);
        world.all_delivered_within(FAILOVER).await;
        on.store(true, Ordering::Relaxed);
        is_within(FAILOVER, &a, Health::Degraded).await;
        assert!(a.status().problems[0].contains("does not exist"), "{:?}", a.status().problems);
        until(MINUTE, || created.load(Ordering::Relaxed) == 3, || format!("{:?}", a.status())).await;
        is_within(MINUTE, &a, Health::Healthy).await;
        world.put(32);
        world.all_delivered_within(MINUTE).await;
        assert_eq!(count(&events, |event| *event == Event::LeaseTableMissing), 1);
    }
}

/// A worker that cannot take a lease, while others have died.
#[tokio::test(start_paused = true)]
async fn shards_that_nobody_reads_are_a_problem_of_those_who_may_take_them() {
    let world = World::new(4);
    let on = Switch::default();
    let hook = switched(&on, &["TakeLease"], Fault::refused(StoreErrorKind::Malformed));
    let table = world.unreliable_table(hook);
    let a = world.start("a").await;
    until(FAILOVER, || a.status().shards.len() == 4, || format!("{:?}", a.status())).await;
    let b = start(world.worker("b", CheckpointPolicy::EveryBatch).lease_store(table)).await;
    until(MINUTE, || b.status().shards.len() == 2, || format!("{:?}", b.status())).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!((a.status().health, b.status().health), (Health::Healthy, Health::Healthy));
    on.store(true, Ordering::Relaxed);
    drop(a);
    let is_said = || b.status().problems.iter().any(|problem| problem.contains("2 lease(s)"));
    until(FAILOVER * 6, is_said, || format!("{:?}", b.status())).await;
    assert_eq!(b.status().health, Health::Degraded);
    on.store(false, Ordering::Relaxed);
    is_within(MINUTE, &b, Health::Healthy).await;
    assert_eq!(b.status().shards.len(), 4);
}

/// What a processor does when its shard has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    Nothing,
    Panic,
    /// Does nothing for this many calls, then what is right.
    EndAfter(u64),
}

#[derive(Clone)]
struct Forgetful(AtEnd, Arc<Mutex<u64>>);

struct ForgetfulProcessor(Forgetful, Checkpointer);

#[async_trait]
impl ShardRecordProcessorFactory for Forgetful {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        Box::new(ForgetfulProcessor(self.clone(), checkpointer))
    }
}

#[async_trait]
impl ShardRecordProcessor for ForgetfulProcessor {
    async fn process_records(&self, _: Vec<KinesisClientRecord>, _: i64) {}
    async fn lease_lost(&self) {}
    #[expect(clippy::panic, reason = "processors may")]
    async fn shard_ended(&self) {
        let Forgetful(at_end, calls) = &self.0;
        let calls = {
            let mut calls = calls.lock().expect("not poisoned");
            *calls += 1;
            *calls
        };
        match at_end {
            AtEnd::EndAfter(wrong) if calls > *wrong => self.1.end().await.expect("the shard has ended"),
            AtEnd::Panic => panic!("a defect of the processor"),
            AtEnd::EndAfter(_) | AtEnd::Nothing => {}
        }
    }
    async fn shutdown_requested(&self) {}
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_never_stored_is_reported_and_degraded() {
    for at_end in [AtEnd::Nothing, AtEnd::Panic, AtEnd::EndAfter(5)] {
        let world = World::new(1);
        let calls = Arc::default();
        let a = start(world.worker_with("a", Forgetful(at_end, Arc::clone(&calls)))).await;
        let (events, _listening) = collect(a.events());
        let first = world.kinesis.open_shards(STREAM).expect("a stream")[0].id.clone();
        world.kinesis.split(STREAM, &first).expect("split");
        is_within(FAILOVER, &a, Health::Degraded).await;
        let status = a.status();
        assert!(status.problems[0].contains("checkpointer.end()"), "{:?}", status.problems);
        let ending = status.shards.iter().find(|shard| shard.shard == first).expect("it is held");
        assert!(ending.end_attempts >= 3, "{ending:?}");
        let is_report = |event: &Event| matches!(event, Event::ShardEndNotStored { shard, attempts, .. } if *shard == first && *attempts > 0);
        if let AtEnd::EndAfter(wrong) = at_end {
            is_within(MINUTE, &a, Health::Healthy).await;
            assert_eq!(count(&events, is_report) as u64, wrong);
        } else {
            tokio::time::sleep(MINUTE * 20).await;
            assert_eq!(a.status().health, Health::Degraded);
            let reports = count(&events, is_report);
            assert!((20..60).contains(&reports), "{reports} in 20 minutes");
            assert_eq!(reports as u64, *calls.lock().expect("not poisoned"));
        }
    }
}

/// A worker of this name, with its own seed.
async fn twin(world: &World, name: &str, seed: u64, mode: CoordinationMode) -> ConsumerHandle {
    let worker = in_mode(world.worker(name, CheckpointPolicy::EveryBatch), mode);
    start(in_simulation(worker, world.now(), 1.0, seed)).await
}

fn is_duplicate(event: &Event) -> bool {
    matches!(event, Event::DuplicateWorkerId { worker, .. } if worker.as_str() == "twin")
}

#[tokio::test(start_paused = true)]
async fn two_workers_with_one_name_settle_and_are_reported() {
    for mode in [CoordinationMode::Independent, CoordinationMode::Leader] {
        for pause in [Duration::ZERO, Duration::from_secs(1), FAILOVER, MINUTE * 2] {
            let world = World::new(4);
            let case = format!("{mode:?}, the second {pause:?} later");
            let a = twin(&world, "twin", 1, mode).await;
            let (of_a, _listening) = collect(a.events());
            tokio::time::sleep(pause).await;
            let b = twin(&world, "twin", 2, mode).await;
            let (of_b, _listening) = collect(b.events());
            let gains = || {
                let is_gain = |event: &Event| matches!(event, Event::LeaseGained { .. });
                count(&of_a, is_gain) + count(&of_b, is_gain)
            };
            world.put(64);
            tokio::time::sleep(MINUTE * 5).await;
            let before = gains();
            assert!(before <= 16, "{case}: {before} takes in the first five minutes");
            world.put(64);
            tokio::time::sleep(MINUTE * 5).await;
            assert_eq!(gains() - before, 0, "{case}: takes in the second five minutes");
            let reports = [count(&of_a, is_duplicate), count(&of_b, is_duplicate)];
            assert!((5..=20).contains(&(reports[0] + reports[1])), "{case}: {reports:?}");
            assert!(reports.iter().all(|&reports| reports <= 11), "{case}: {reports:?}");
            let degraded: Vec<_> =
                [&a, &b].into_iter().filter(|twin| twin.status().health == Health::Degraded).collect();
            assert!(!degraded.is_empty(), "{case}");
            let problems = degraded[0].status().problems;
            assert!(
                problems.iter().any(|problem| problem.contains("worker_id twin")),
                "{case}: {problems:?}"
            );
            assert!(world.missing().is_empty(), "{case}");

            // The other worker continues when one of them dies.
            drop(if a.status().shards.is_empty() { b } else { a });
            world.put(64);
            world.all_delivered_within(FAILOVER * 6).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_under_the_same_name_is_not_reported_as_a_duplicate() {
    for mode in [CoordinationMode::Independent, CoordinationMode::Leader] {
        let world = World::new(4);
        let other = twin(&world, "other", 7, mode).await;
        let (of_other, _listening) = collect(other.events());
        let mut logs = Vec::new();
        for seed in 0..6 {
            let a = twin(&world, "twin", seed, mode).await;
            let (events, _listening) = collect(a.events());
            world.put(64);
            tokio::time::sleep(FAILOVER / 2 * u32::try_from(seed).expect("small")).await;
            assert!(a.status().problems.is_empty(), "{:?}", a.status());
            logs.push(events);
            drop(a);
        }
        assert_eq!(logs.iter().map(|events| count(events, is_duplicate)).sum::<usize>(), 0, "{mode:?}");
        assert_eq!(count(&of_other, |event| matches!(event, Event::DuplicateWorkerId { .. })), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn lost_responses_are_not_reported_as_a_duplicate() {
    for seed in 0..8 {
        let world = World::new(4);
        let rng = Mutex::new(fastrand::Rng::with_seed(seed));
        let hook: FaultHook = Arc::new(move |_, _| {
            let mut rng = rng.lock().expect("not poisoned");
            if rng.f64() < 0.4 { Fault::answer_lost() } else { Fault::stale(rng.usize(..4)) }
        });
        let worker = |name: &str| world.worker(name, CheckpointPolicy::EveryBatch);
        let a = start(worker("a").lease_store(world.unreliable_table(Arc::clone(&hook)))).await;
        let b = start(worker("b").lease_store(world.unreliable_table(hook))).await;
        let logs = [collect(a.events()).0, collect(b.events()).0];
        for _ in 0..20 {
            world.put(64);
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
        let reports =
            logs.iter().map(|events| count(events, |event| matches!(event, Event::DuplicateWorkerId { .. })));
        assert_eq!(reports.sum::<usize>(), 0, "seed {seed}");
    }
}

/// Collects the kinds of errors of its checkpoints.
#[derive(Clone, Default)]
struct Kinds(Arc<Mutex<BTreeSet<ErrorKind>>>);

struct KindsProcessor(Kinds, Checkpointer);

#[async_trait]
impl ShardRecordProcessorFactory for Kinds {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        Box::new(KindsProcessor(self.clone(), checkpointer))
    }
}

#[async_trait]
impl ShardRecordProcessor for KindsProcessor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        let position = records[0].extended_sequence_number();
        let outcomes =
            [self.1.checkpoint(position.clone()).await, self.1.prepare(position, None).await.map(drop)];
        let kinds = outcomes.into_iter().map(|outcome| outcome.expect_err("it is refused").kind());
        self.0.0.lock().expect("not poisoned").extend(kinds);
    }
    async fn lease_lost(&self) {}
    async fn shard_ended(&self) {}
    async fn shutdown_requested(&self) {}
}

#[tokio::test(start_paused = true)]
async fn a_failure_has_the_same_kind_at_the_start_and_at_a_checkpoint() {
    for (kind, expected) in [
        (StoreErrorKind::Throttled, ErrorKind::Unavailable),
        (StoreErrorKind::Unavailable, ErrorKind::Unavailable),
        (StoreErrorKind::TableMissing, ErrorKind::Invalid),
        (StoreErrorKind::Denied, ErrorKind::Invalid),
        (StoreErrorKind::Malformed, ErrorKind::Data),
    ] {
        let world = World::new(1);
        let always = Arc::new(AtomicBool::new(true));
        let table = |operation| world.unreliable_table(switched(&always, &[operation], Fault::refused(kind)));
        let cannot_start = world.worker("b", CheckpointPolicy::Never).lease_store(table("EnsureTable"));
        let error = cannot_start.build().expect("valid settings").start().await.expect_err("no table");
        assert_eq!(error.kind(), expected, "{error}");

        let processors = Kinds::default();
        let a = start(world.worker_with("a", processors.clone()).lease_store(table("UpdateLease"))).await;
        let (events, _listening) = collect(a.events());
        world.put(1);
        let met = || processors.0.lock().expect("not poisoned").clone();
        until(MINUTE, || !met().is_empty(), || format!("{kind:?}")).await;
        let met = met();
        // A table that throttles everything for the failover time costs the lease, too.
        let is_lost = kind == StoreErrorKind::Throttled && met == BTreeSet::from([ErrorKind::LeaseLost]);
        assert!(is_lost || met == BTreeSet::from([expected]), "{kind:?}: {met:?}");
        let in_events = || {
            let events = events.lock().expect("not poisoned");
            let kinds = events.iter().filter_map(|event| match event {
                Event::CheckpointFailed { kind, .. } => Some(*kind),
                _ => None,
            });
            kinds.collect::<BTreeSet<_>>()
        };
        until(MINUTE, || in_events() == met, || format!("{kind:?}: {:?}", in_events())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_being_created_is_waited_for() {
    let builders: [fn(&World, &str) -> ConsumerBuilder; 2] =
        [|world, stream| world.worker_of("a", [stream]), |world, stream| world.worker_of_one("a", stream)];
    for builder in builders {
        let world = World::new(1);
        world.kinesis.set_control_delay(Duration::from_secs(25));
        world.kinesis.create_stream("new", 2).expect("a new stream");
        let a = start(builder(&world, "new")).await;
        until(FAILOVER, || a.status().shards.len() == 2, || format!("{:?}", a.status())).await;
        assert_eq!(a.status().health, Health::Healthy, "{:?}", a.status());

        world.kinesis.set_control_delay(MINUTE * 60);
        world.kinesis.create_stream("slow", 2).expect("a new stream");
        let (began, slow) = (tokio::time::Instant::now(), builder(&world, "slow"));
        let error = slow.build().expect("valid settings").start().await.expect_err("it is never created");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let took = began.elapsed();
        assert!((Duration::from_secs(30)..MINUTE).contains(&took), "{took:?}");

        let (began, none) = (tokio::time::Instant::now(), builder(&world, "none"));
        let error = none.build().expect("valid settings").start().await.expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_go_to_every_sink_of_the_builder() {
    let world = World::new(1);
    let sinks = [MetricsRecorder::default(), MetricsRecorder::default()];
    let worker = world.worker("a", CheckpointPolicy::EveryBatch);
    let worker = worker.metrics_sink(sinks[0].clone()).metrics_sink(Arc::new(sinks[1].clone()));
    let a = start(worker).await;
    world.put(16);
    world.all_delivered_within(FAILOVER).await;
    a.shutdown().await.expect("processors return");
    for sink in sinks {
        let shard = [("Operation", "ProcessTask"), ("ShardId", "shardId-000000000000")];
        assert_eq!(sink.read("RecordsProcessed", &shard).map(|read| read.sum), Some(16.0));
    }
}

#[test]
fn a_start_on_a_runtime_without_timers_is_an_error() {
    let runtime = |builder: &mut tokio::runtime::Builder| builder.build().expect("a runtime");
    let timed = runtime(tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true));
    let world = timed.block_on(async { World::new(1) });
    let consumer = world.worker("a", CheckpointPolicy::Never).build().expect("valid settings");
    let error = runtime(&mut tokio::runtime::Builder::new_current_thread())
        .block_on(consumer.start())
        .expect_err("there are no timers");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("enable_time()"), "{error}");
}

#[test]
fn a_start_without_a_runtime_is_an_error() {
    let world = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(async { World::new(1) });
    let consumer = world.worker("a", CheckpointPolicy::Never).build().expect("valid settings");
    let mut starting = Box::pin(consumer.start());
    let std::task::Poll::Ready(outcome) = starting.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("it waits for nothing")
    };
    let error = outcome.expect_err("there is no runtime");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("tokio runtime"), "{error}");
}
