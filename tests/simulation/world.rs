//! A stream, a lease table, a fleet, and the operations and faults applied to them.

mod deploy;
mod healing;
mod stream;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kinesis_consumer::internals::in_simulation;
use kinesis_consumer::lease::{FaultyLeaseStore, MemoryLeaseStore};
use kinesis_consumer::testing::SimulatedKinesis;
use kinesis_consumer::{
    Consumer, ConsumerBuilder, CoordinationMode, FanOutConsumer, LeaseConfig, LifecycleConfig,
    ManagementConfig, RetrievalConfig, StartStrategy,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::coordination::{Protocol, Stage};
use crate::faults::{Changes, FaultSchedule};
use crate::history::{EventKind, History, Incarnation, Log};
use crate::ports::{MeteredStream, WatchedTable, Writer};
use crate::processors::ProcessorFactory;
use crate::rows;
use crate::scenario::{FAILOVER, MEMORY_MAX, PRELUDE, Scenario, Start, WALL};

const STREAM: &str = "orders";
const SETTLED: Duration = Duration::from_secs(40);

pub(crate) struct World {
    rng: fastrand::Rng,
    scenario: Scenario,
    wall: SystemTime,
    kinesis: SimulatedKinesis,
    table: MemoryLeaseStore,
    changes: Changes,
    log: Log,
    writer: Writer,
    fleet: Vec<Member>,
    stage: Stage,
    incarnations: BTreeMap<String, u32>,
    free_names: Vec<String>,
    next_processor: Arc<AtomicU32>,
    faults_stopped: Arc<AtomicBool>,
    blob: Bytes,
    next_record: u64,
}

/// A running worker.
struct Member {
    incarnation: Incarnation,
    mode: CoordinationMode,
    faults: FaultSchedule,
    leave: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let scenario = Scenario::draw(&mut rng);
        let wall = SystemTime::UNIX_EPOCH + WALL;
        let kinesis = SimulatedKinesis::starting_at(wall);
        kinesis.create_stream(STREAM, scenario.shards).expect("a new stream");
        let table = MemoryLeaseStore::default();
        let log = Log::new(FAILOVER, scenario.coordination.leader_rules(), scenario.memory_max());
        let observing = log.clone();
        let (changes, writer) = (Changes::default(), Writer::default());
        let (noting, writing) = (changes.clone(), writer.clone());
        table.observe_changes(move |key, before, after| {
            noting.note();
            observing.record(rows::change(key, before, after, writing.now()));
        });
        let mut world = Self {
            rng,
            scenario,
            wall,
            kinesis,
            table,
            changes,
            log,
            writer,
            fleet: Vec::new(),
            stage: Stage::Mixed,
            incarnations: BTreeMap::new(),
            free_names: Vec::new(),
            next_processor: Arc::default(),
            faults_stopped: Arc::default(),
            blob: Bytes::from(vec![b'x'; 1 << 20]),
            next_record: 0,
        };
        world.note_shards();
        world
    }

    /// Runs the whole scenario of the seed.
    pub(crate) async fn run(mut self) -> History {
        if self.scenario.start != Start::Oldest {
            while self.log.now() < PRELUDE {
                self.put();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        self.log.change(|history| history.start = self.scenario.start);
        if self.scenario.start == Start::Timestamp {
            self.log.change(|history| history.timestamp = Some(PRELUDE / 2));
        }
        for _ in 0..self.scenario.workers {
            self.join(None);
        }
        self.inject_faults(self.scenario.chaos).await;
        if self.scenario.coordination.protocol == Protocol::Migrating {
            self.migrate().await;
            self.inject_faults(self.scenario.chaos).await;
        }
        self.stop_faults();
        let healed = self.heal().await;
        if healed.is_ok() {
            self.log.record(EventKind::Settled);
            tokio::time::sleep(SETTLED).await;
            self.hand_over().await;
            if self.is_led() {
                self.take_over().await;
            }
        }
        self.log.change(|history| history.healed = Some(healed));
        let history = self.log.take();
        // The teardown is not part of the history.
        drop(self);
        history
    }

    /// Injects faults for `length`.
    async fn inject_faults(&mut self, length: Duration) {
        let (began, mut deploys_at) = (self.log.now(), length / 2);
        while self.log.now() - began < length {
            let pause = Duration::from_millis(self.rng.u64(1..1000));
            tokio::time::sleep(pause).await;
            self.step(pause.as_secs_f64());
            if self.log.now() - began >= deploys_at {
                deploys_at = length;
                self.next_stage();
            }
        }
    }

    /// Operations and faults of one step of `seconds`.
    fn step(&mut self, seconds: f64) {
        let puts = self.scenario.records_per_second * seconds * 2.0 * self.rng.f64();
        for _ in 0..(puts + self.rng.f64()) as usize {
            self.put();
        }
        self.fleet.retain(|member| !member.task.is_finished());
        if self.happens(self.scenario.reshards * seconds) {
            self.reshard();
        }
        if self.scenario.fan_out > 0.0 && self.happens(self.scenario.thefts * seconds) {
            self.steal_subscription();
        }
        if self.scenario.fan_out > 0.0 && self.happens(self.scenario.outages * seconds) {
            let length = FAILOVER.mul_f64(1.0 + 9.0 * self.rng.f64());
            self.fleet.iter().for_each(|member| member.faults.lose_fan_out(length));
            self.log.record(EventKind::FanOutLost { length });
        }
        self.deploy(seconds);
        self.disturb_workers(seconds);
        let is_small = self.fleet.len() < self.scenario.workers.min(3);
        if self.happens(self.scenario.joins * seconds) || (is_small && self.happens(0.1 * seconds)) {
            let name = match self.free_names.is_empty() || self.rng.bool() {
                true => None,
                false => Some(self.free_names.swap_remove(self.rng.usize(..self.free_names.len()))),
            };
            if self.fleet.len() < 50 {
                self.join(name);
            }
        }
        if let Some(retention) = self.scenario.retention
            && self.log.now() > self.scenario.chaos / 4
            && self.log.change(|history| history.retention.is_none())
        {
            self.kinesis.set_retention(STREAM, retention).expect("the stream takes it");
            let now = self.log.now();
            self.log.change(|history| history.retention = Some((retention, now)));
            self.log.record(EventKind::RetentionSet { retention });
        }
    }

    /// Kills, stops or suspends workers.
    fn disturb_workers(&mut self, seconds: f64) {
        while let Some(index) = self.fleet.iter().position(|member| member.faults.is_cut_off()) {
            self.kill(index);
        }
        let cuts = if self.scenario.kills > 0.0 { self.scenario.coordination.cuts } else { 0.0 };
        if self.happens(self.scenario.kills * seconds)
            && let Some(index) = self.victim()
        {
            self.kill(index);
        }
        if self.happens(cuts * seconds)
            && let Some(index) = self.victim()
        {
            self.fleet[index].faults.cut_off_after(self.rng.u32(1..40));
        }
        if self.happens(self.scenario.shutdowns * seconds)
            && let Some(index) = self.victim()
        {
            self.ask_to_leave(index);
        }
        if self.happens(self.scenario.suspensions * seconds)
            && let Some(index) = self.victim()
        {
            let length = FAILOVER.mul_f64(0.2 + 3.0 * self.rng.f64());
            self.fleet[index].faults.suspend(length);
            self.log
                .record(EventKind::Suspended { incarnation: self.fleet[index].incarnation.clone(), length });
        }
    }

    /// The worker that the next fault affects.
    fn victim(&mut self) -> Option<usize> {
        if self.fleet.is_empty() {
            return None;
        }
        let leader = self.leader().filter(|_| self.happens(self.scenario.coordination.targets_leader));
        leader.or_else(|| Some(self.rng.usize(..self.fleet.len())))
    }

    /// The leader of the fleet, if it is running.
    fn leader(&self) -> Option<usize> {
        let lock = rows::lock(self.table.items().get(rows::LOCK)?)?;
        self.fleet.iter().position(|member| member.incarnation.worker == lock.owner)
    }

    fn happens(&mut self, probability: f64) -> bool {
        self.rng.f64() < probability
    }

    fn join(&mut self, name: Option<String>) {
        let name = name.unwrap_or_else(|| format!("w{:02}", self.incarnations.len()));
        let number = self.incarnations.entry(name.clone()).and_modify(|number| *number += 1).or_insert(1);
        let incarnation = Incarnation { worker: name, number: *number };
        let calm = self.faults_stopped.load(Ordering::Relaxed);
        let odds = if calm { Default::default() } else { self.scenario.odds.clone() };
        let faults = FaultSchedule::new(self.rng.u64(..), odds, FAILOVER, self.changes.clone());
        let mode = self.scenario.coordination.mode(self.stage, &mut self.rng);
        let rate = 1.0 + self.scenario.rate_spread * (2.0 * self.rng.f64() - 1.0);
        self.log.record(EventKind::Started { incarnation: incarnation.clone(), rate, mode });
        let builder = self.worker(&incarnation, &faults, rate, mode);
        let (leave, asked) = oneshot::channel();
        let task = tokio::spawn(run_worker(builder, incarnation.clone(), self.log.clone(), asked));
        self.fleet.push(Member { incarnation, mode, faults, leave: Some(leave), task });
    }

    fn worker(
        &mut self,
        incarnation: &Incarnation,
        faults: &FaultSchedule,
        rate: f64,
        mode: CoordinationMode,
    ) -> ConsumerBuilder {
        let in_hand = Arc::new(AtomicU64::new(0));
        let stream = self.kinesis.with_own_faults();
        let stream_faults = faults.clone();
        stream.set_faults(move |call| stream_faults.stream_fault(call.operation));
        let factory = ProcessorFactory {
            incarnation: incarnation.clone(),
            log: self.log.clone(),
            faults: faults.clone(),
            processor_faults: self.scenario.processor_faults,
            rng: Arc::new(Mutex::new(self.rng.fork())),
            next_processor: Arc::clone(&self.next_processor),
            faults_stopped: Arc::clone(&self.faults_stopped),
            in_hand: Arc::clone(&in_hand),
        };
        let mut retrieval = RetrievalConfig::default();
        retrieval.memory_bytes_max = MEMORY_MAX;
        let mut lease_config = LeaseConfig::default();
        if self.happens(self.scenario.fan_out) {
            let fall_back_to_polling_after = self.rng.bool().then_some(FAILOVER * 2);
            lease_config =
                LeaseConfig::FanOutConfig { consumer: FanOutConsumer::default(), fall_back_to_polling_after };
        }
        let table = FaultyLeaseStore::new(self.table.clone(), faults.table_faults());
        let builder = Consumer::builder()
            .stream(STREAM)
            .application("simulation")
            .worker_id(incarnation.worker.as_str())
            .processor_factory(factory)
            .stream_api(Arc::new(MeteredStream {
                stream,
                incarnation: incarnation.clone(),
                log: self.log.clone(),
                in_hand,
                faults: faults.clone(),
            }))
            .lease_store(Arc::new(WatchedTable {
                table,
                incarnation: incarnation.clone(),
                log: self.log.clone(),
                writer: self.writer.clone(),
            }))
            .coordination(self.scenario.coordination.config(mode))
            .lifecycle(LifecycleConfig::default().with_shutdown_timeout(Duration::from_secs(20)))
            .retrieval(retrieval)
            .lease_config(lease_config)
            .management(ManagementConfig {
                start_strategy: self.start_strategy(),
                leases_to_acquire: self.rng.usize(1..=3),
                ..ManagementConfig::default()
            });
        in_simulation(builder, self.wall + self.log.now(), rate, self.rng.u64(..))
    }

    fn start_strategy(&self) -> StartStrategy {
        match self.scenario.start {
            Start::Oldest => StartStrategy::Oldest,
            Start::Latest => StartStrategy::Latest,
            Start::Timestamp => {
                let since = (self.wall + PRELUDE / 2).duration_since(SystemTime::UNIX_EPOCH);
                StartStrategy::Timestamp(since.expect("a time").as_millis() as u64)
            }
        }
    }

    fn kill(&mut self, index: usize) {
        let member = self.fleet.swap_remove(index);
        self.log.record(EventKind::Killed { incarnation: member.incarnation.clone() });
        self.free_names.push(member.incarnation.worker.clone());
    }

    fn ask_to_leave(&mut self, index: usize) {
        let member = &mut self.fleet[index];
        if let Some(leave) = member.leave.take() {
            self.log.record(EventKind::StopRequested { incarnation: member.incarnation.clone() });
            // Fails if the worker has stopped already.
            let _ = leave.send(());
        }
    }
}

/// Runs one incarnation of a worker: starts it, and stops it on request.
async fn run_worker(
    builder: ConsumerBuilder,
    incarnation: Incarnation,
    log: Log,
    asked: oneshot::Receiver<()>,
) {
    let handle = match builder.build().expect("valid settings").start().await {
        Ok(handle) => handle,
        Err(error) => return log.record(EventKind::StartFailed { incarnation, reason: error.to_string() }),
    };
    if asked.await.is_err() {
        // Killed: this task is about to be aborted as well.
        return;
    }
    // Processors that do not return in time are abandoned.
    let _ = handle.shutdown().await;
    log.record(EventKind::Stopped { incarnation });
}
