//! A stream, a lease table, a fleet, and what is done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kinesis_consumer::aggregation::Aggregator;
use kinesis_consumer::internals::in_simulation;
use kinesis_consumer::lease::{FaultyLeaseStore, Item, Lease, MemoryLeaseStore};
use kinesis_consumer::stream::IteratorPosition;
use kinesis_consumer::testing::{NewRecord, SimulatedKinesis};
use kinesis_consumer::{
    Consumer, ConsumerBuilder, CoordinationConfig, ExtendedSequenceNumber, FanOutConsumer, LeaseConfig,
    LeaseKey, ManagementConfig, RetrievalConfig, ShardId, StartStrategy,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::faults::{Changes, Weather};
use crate::history::{History, Life, Log, ShardRecord, What, Written};
use crate::ports::{MeteredStream, WatchedTable};
use crate::processors::Maker;
use crate::scenario::{FAILOVER, MEMORY_MAX, PRELUDE, Scenario, Start};

const STREAM: &str = "orders";
const KEYS: usize = 24;
/// Owners that did not change for so long, longer than a round of the largest fleet, must not change
/// any more.
const QUIET: Duration = Duration::from_secs(30);
const SETTLED: Duration = Duration::from_secs(40);

pub(crate) struct World {
    rng: fastrand::Rng,
    scenario: Scenario,
    wall: SystemTime,
    kinesis: SimulatedKinesis,
    table: MemoryLeaseStore,
    changes: Changes,
    log: Log,
    fleet: Vec<Member>,
    lives: BTreeMap<String, u32>,
    free_names: Vec<String>,
    next_processor: Arc<AtomicU32>,
    is_calm: Arc<AtomicBool>,
    blob: Bytes,
    next_record: u64,
}

/// A worker that runs.
struct Member {
    life: Life,
    weather: Weather,
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
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000);
        let kinesis = SimulatedKinesis::starting_at(wall);
        kinesis.create_stream(STREAM, scenario.shards).expect("a new stream");
        let table = MemoryLeaseStore::default();
        let log = Log::new(FAILOVER, scenario.memory_max());
        let observing = log.clone();
        let changes = Changes::default();
        let noting = changes.clone();
        table.observe_changes(move |key, before, after| {
            noting.note();
            let (key, before, after) = (key.clone(), lease(before), lease(after));
            observing.tell(What::Row { key, before, after });
        });
        let mut world = Self {
            rng,
            scenario,
            wall,
            kinesis,
            table,
            changes,
            log,
            fleet: Vec::new(),
            lives: BTreeMap::new(),
            free_names: Vec::new(),
            next_processor: Arc::default(),
            is_calm: Arc::default(),
            blob: Bytes::from(vec![b'x'; 1 << 20]),
            next_record: 0,
        };
        world.note_shards();
        world
    }

    /// Lives the whole story of the seed.
    pub(crate) async fn run(mut self) -> History {
        if self.scenario.start != Start::Oldest {
            while self.log.now() < PRELUDE {
                self.put();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        self.log.change(|history| history.from_the_oldest = self.scenario.start == Start::Oldest);
        if self.scenario.start == Start::Timestamp {
            self.log.change(|history| history.timestamp = Some(PRELUDE / 2));
        }
        for _ in 0..self.scenario.workers {
            self.join(None);
        }
        let chaos = self.scenario.chaos;
        while self.log.now() < chaos {
            let pause = Duration::from_millis(self.rng.u64(1..1000));
            tokio::time::sleep(pause).await;
            self.step(pause.as_secs_f64());
        }
        self.calm_down();
        let healed = self.heal().await;
        if healed.is_ok() {
            self.log.tell(What::Settled);
            tokio::time::sleep(SETTLED).await;
            self.hand_over().await;
        }
        self.log.change(|history| history.healed = Some(healed));
        let history = self.log.take();
        // What happens while everything is torn down is no part of the story.
        drop(self);
        history
    }

    /// What happens in so many seconds.
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
            self.steal_a_subscription();
        }
        if self.scenario.fan_out > 0.0 && self.happens(self.scenario.outages * seconds) {
            let length = FAILOVER.mul_f64(1.0 + 9.0 * self.rng.f64());
            self.fleet.iter().for_each(|member| member.weather.lose_fan_out(length));
            self.log.tell(What::FanOutLost { length });
        }
        if self.happens(self.scenario.kills * seconds) && !self.fleet.is_empty() {
            let index = self.rng.usize(..self.fleet.len());
            self.kill(index);
        }
        if self.happens(self.scenario.shutdowns * seconds) && !self.fleet.is_empty() {
            let index = self.rng.usize(..self.fleet.len());
            self.ask_to_leave(index);
        }
        if self.happens(self.scenario.suspensions * seconds) && !self.fleet.is_empty() {
            let index = self.rng.usize(..self.fleet.len());
            let length = FAILOVER.mul_f64(0.2 + 3.0 * self.rng.f64());
            self.fleet[index].weather.suspend(length);
            self.log.tell(What::Paused { life: self.fleet[index].life.clone(), length });
        }
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
            self.log.tell(What::RetentionSet { retention });
        }
    }

    fn happens(&mut self, probability: f64) -> bool {
        self.rng.f64() < probability
    }

    /// Writes one Kinesis record: plain, aggregated, or a damaged aggregate.
    fn put(&mut self) {
        let key = format!("key-{}", self.rng.usize(..KEYS));
        self.next_record += 1;
        let text = self.next_record.to_string();
        let (mut user_records, mut poisoned) = (1, false);
        let data = if self.happens(self.scenario.aggregates) {
            let mut aggregator = Aggregator::new();
            user_records = self.rng.usize(1..=6);
            for _ in 0..user_records {
                let _ = aggregator.add(&key, None, text.as_bytes());
            }
            let mut data = aggregator.finish().expect("records").data.to_vec();
            if self.happens(self.scenario.poison) {
                (poisoned, user_records) = (true, 1);
                let last = data.len() - 1;
                data[last] ^= 1;
            }
            Bytes::from(data)
        } else if self.scenario.large_records {
            self.blob.slice(..self.rng.usize(1..=self.blob.len() - 256))
        } else {
            Bytes::from(text)
        };
        let placed = self.kinesis.put_record(STREAM, NewRecord::new(key.as_str(), data)).expect("accepted");
        let at = self.log.now();
        self.log.change(|history| {
            let shard = history.shards.get_mut(&placed.shard).expect("a known shard");
            shard.written.extend((0..user_records).map(|index| Written {
                position: ExtendedSequenceNumber::new(placed.sequence_number.clone(), index as u64),
                at,
            }));
        });
        self.log.tell(What::Put { shard: placed.shard, user_records, poisoned });
    }

    fn reshard(&mut self) {
        let open = self.kinesis.open_shards(STREAM).expect("a stream");
        let index = self.rng.usize(..open.len());
        // Neither fails with adjacent open shards; a split of a single hash key would.
        let split = open.len() < 2 || (open.len() < 16 && self.rng.bool());
        let changed = match (split, open.get(index + 1)) {
            (false, Some(next)) => self.kinesis.merge(STREAM, &open[index].id, &next.id).map(drop),
            _ => self.kinesis.split(STREAM, &open[index].id).map(drop),
        };
        if changed.is_ok() {
            self.note_shards();
        }
    }

    /// Somebody subscribes as the fleet's consumer, and takes no events. Fails within five seconds of
    /// another subscription.
    fn steal_a_subscription(&mut self) {
        let open = self.kinesis.open_shards(STREAM).expect("a stream");
        let shard = &open[self.rng.usize(..open.len())].id;
        let consumers = self.kinesis.consumers(STREAM).expect("a stream");
        for consumer in consumers {
            let stolen = self.kinesis.subscribe(&consumer, shard, &IteratorPosition::Latest).is_ok();
            self.log.tell(What::SubscriptionStolen { shard: shard.clone(), stolen });
        }
    }

    fn note_shards(&mut self) {
        let shards = self.kinesis.shards(STREAM).expect("a stream");
        let open = shards.iter().filter(|shard| shard.is_open()).map(|shard| shard.id.clone()).collect();
        self.log.change(|history| {
            for shard in shards {
                let record = history.shards.entry(shard.id.clone()).or_insert_with(|| ShardRecord {
                    parents: shard.parents.iter().cloned().collect(),
                    range: shard.hash_key_range,
                    written: Vec::new(),
                    is_open: true,
                });
                record.is_open = shard.is_open();
            }
        });
        self.log.tell(What::ShardsChanged { open });
    }

    fn join(&mut self, name: Option<String>) {
        let name = name.unwrap_or_else(|| format!("w{:02}", self.lives.len()));
        let number = self.lives.entry(name.clone()).and_modify(|number| *number += 1).or_insert(1);
        let life = Life { worker: name, number: *number };
        let calm = self.is_calm.load(Ordering::Relaxed);
        let odds = if calm { Default::default() } else { self.scenario.odds.clone() };
        let weather = Weather::new(self.rng.u64(..), odds, FAILOVER, self.changes.clone());
        let rate = 1.0 + self.scenario.rate_spread * (2.0 * self.rng.f64() - 1.0);
        self.log.tell(What::Born { life: life.clone(), rate });
        let builder = self.worker(&life, &weather, rate);
        let (leave, asked) = oneshot::channel();
        let task = tokio::spawn(live(builder, life.clone(), self.log.clone(), asked));
        self.fleet.push(Member { life, weather, leave: Some(leave), task });
    }

    fn worker(&mut self, life: &Life, weather: &Weather, rate: f64) -> ConsumerBuilder {
        let in_hand = Arc::new(AtomicU64::new(0));
        let stream = self.kinesis.with_own_faults();
        let faults = weather.clone();
        stream.set_faults(move |call| faults.stream_fault(call.operation));
        let maker = Maker {
            life: life.clone(),
            log: self.log.clone(),
            weather: weather.clone(),
            manners: self.scenario.manners,
            rng: Arc::new(Mutex::new(self.rng.fork())),
            next_processor: Arc::clone(&self.next_processor),
            is_calm: Arc::clone(&self.is_calm),
            in_hand: Arc::clone(&in_hand),
        };
        let mut coordination = CoordinationConfig::default();
        coordination.failover_time = FAILOVER;
        coordination.shutdown_timeout = Duration::from_secs(20);
        coordination.lease_cleanup_interval = Duration::from_secs(20);
        let mut retrieval = RetrievalConfig::default();
        retrieval.memory_bytes_max = MEMORY_MAX;
        let mut lease_config = LeaseConfig::default();
        if self.happens(self.scenario.fan_out) {
            let fall_back_to_polling_after = self.rng.bool().then_some(FAILOVER * 2);
            lease_config =
                LeaseConfig::FanOutConfig { consumer: FanOutConsumer::default(), fall_back_to_polling_after };
        }
        let table = FaultyLeaseStore::new(self.table.clone(), weather.table_faults());
        let builder = Consumer::builder()
            .stream(STREAM)
            .application("simulation")
            .worker_id(life.worker.as_str())
            .processor_factory(maker)
            .stream_api(Arc::new(MeteredStream {
                stream,
                life: life.clone(),
                log: self.log.clone(),
                in_hand,
                weather: weather.clone(),
            }))
            .lease_store(Arc::new(WatchedTable { table, life: life.clone(), log: self.log.clone() }))
            .coordination(coordination)
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
        self.log.tell(What::Killed { life: member.life.clone() });
        self.free_names.push(member.life.worker.clone());
    }

    fn ask_to_leave(&mut self, index: usize) {
        let member = &mut self.fleet[index];
        if let Some(leave) = member.leave.take() {
            self.log.tell(What::Leaving { life: member.life.clone() });
            // Fails if it has ended by itself.
            let _ = leave.send(());
        }
    }

    /// The end of all faults, and one last record for every open shard.
    fn calm_down(&mut self) {
        self.log.tell(What::FaultsStopped);
        self.is_calm.store(true, Ordering::Relaxed);
        for member in &self.fleet {
            member.weather.clear();
        }
        self.fleet.retain(|member| !member.task.is_finished() && member.leave.is_some());
        if self.fleet.is_empty() {
            self.join(None);
        }
        self.put_to_every_shard();
    }

    fn put_to_every_shard(&mut self) {
        for shard in self.kinesis.open_shards(STREAM).expect("a stream") {
            let mut record = NewRecord::new("last", "-");
            record.explicit_hash_key = Some(shard.hash_key_range.start());
            let placed = self.kinesis.put_record(STREAM, record).expect("accepted");
            let written = Written {
                position: ExtendedSequenceNumber::new(placed.sequence_number, 0),
                at: self.log.now(),
            };
            self.log.change(|history| {
                history.shards.get_mut(&placed.shard).expect("a known shard").written.push(written);
            });
        }
    }

    /// Waits until all is well. With a short retention, or workers that read only what comes after their
    /// start, the last records are written again and again.
    async fn heal(&mut self) -> Result<Duration, String> {
        let began = self.log.now();
        let mut wrote = began;
        let (mut last_owners, mut since) = (Vec::new(), began);
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let dead: Vec<usize> =
                (0..self.fleet.len()).rev().filter(|&index| self.fleet[index].task.is_finished()).collect();
            for index in dead {
                // It could not start, or left.
                self.fleet.swap_remove(index);
                self.join(None);
            }
            let now = self.log.now();
            let well = self.is_well();
            let running = self.rows().into_values().filter(|row| !row.checkpoint.is_shard_end());
            let owners: Vec<_> = running.map(|row| (row.key, row.owner)).collect();
            if well.is_err() || owners != last_owners {
                (last_owners, since) = (owners, now);
            }
            if now - since > QUIET {
                return Ok(since - began);
            }
            if since - began > self.scenario.healing_max() {
                return Err(well.err().unwrap_or_else(|| "leases wander".to_owned()));
            }
            if well.is_err()
                && (self.scenario.retention.is_some() || self.scenario.start == Start::Latest)
                && self.log.now() - wrote > Duration::from_secs(20)
            {
                wrote = self.log.now();
                self.put_to_every_shard();
            }
        }
    }

    /// Lets one worker leave, and waits until others have its leases.
    async fn hand_over(&mut self) {
        if self.fleet.len() < 2 {
            return;
        }
        self.ask_to_leave(0);
        while !self.fleet[0].task.is_finished() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.fleet.remove(0);
        let began = self.log.now();
        // A round of a fleet of this size, and the fastest clock's lead over the slowest.
        let groups = self.fleet.len().div_ceil(4) as u32 + 1;
        let limit = (FAILOVER / 4 * groups).min(FAILOVER * 2).mul_f64(1.1 * 1.1) + Duration::from_secs(1);
        let mut after = None;
        while after.is_none() && self.log.now() - began <= limit {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let is_free = |row: &Lease| !row.checkpoint.is_shard_end() && row.owner.is_none();
            let is_taken = !self.rows().values().any(is_free);
            after = is_taken.then(|| self.log.now() - began);
        }
        self.log.tell(What::HandedOver { after, limit });
    }

    fn rows(&self) -> BTreeMap<LeaseKey, Lease> {
        let items = self.table.items();
        let row = |(key, item): (LeaseKey, Item)| Some((key, Lease::from_item(&item).ok()??));
        items.into_iter().filter_map(row).collect()
    }

    /// Whether every lease is owned by a worker that runs, within its share, and everything is
    /// checkpointed.
    fn is_well(&self) -> Result<(), String> {
        let rows = self.rows();
        let mut loads: BTreeMap<&str, usize> =
            self.fleet.iter().map(|member| (member.life.worker.as_str(), 0)).collect();
        let running: Vec<&Lease> = rows.values().filter(|row| !row.checkpoint.is_shard_end()).collect();
        for row in &running {
            let owner = row.owner.as_ref().ok_or_else(|| format!("{} has no owner", row.key))?;
            let load = loads.get_mut(owner.as_str());
            *load.ok_or_else(|| format!("{} is owned by {owner}, which is gone", row.key))? += 1;
        }
        let share = running.len().div_ceil(loads.len().max(1));
        let most = loads.values().max().copied().unwrap_or_default();
        let least = loads.values().min().copied().unwrap_or_default();
        if most > share || least + 1 < share {
            return Err(format!("the share is {share}, but loads are {loads:?}"));
        }
        let shards = self.kinesis.shards(STREAM).expect("a stream");
        let listed: BTreeSet<&ShardId> = shards.iter().map(|shard| &shard.id).collect();
        for row in &running {
            if !listed.contains(&row.shard_id) {
                return Err(format!("{} is of a shard that has expired", row.key));
            }
        }
        self.log.change(|history| {
            for shard in &shards {
                let row = rows.get(shard.id.as_str());
                let last = history.shards.get(&shard.id).and_then(|shard| shard.written.last());
                let is_done = match (row, last) {
                    (Some(row), Some(last)) if shard.is_open() => {
                        row.checkpoint.position() >= Some(&last.position)
                    }
                    (Some(row), _) => row.checkpoint.is_shard_end(),
                    (None, _) => !shard.is_open(),
                };
                if !is_done {
                    return Err(format!("{} is at {:?}", shard.id, row.map(|row| &row.checkpoint)));
                }
            }
            Ok(())
        })
    }

    pub(crate) fn scenario(&self) -> &Scenario {
        &self.scenario
    }
}

/// One life of a worker: starts, runs, and leaves if asked to.
async fn live(builder: ConsumerBuilder, life: Life, log: Log, asked: oneshot::Receiver<()>) {
    let handle = match builder.build().expect("valid settings").start().await {
        Ok(handle) => handle,
        Err(error) => return log.tell(What::StartFailed { life, reason: error.to_string() }),
    };
    if asked.await.is_err() {
        // Killed: this task is about to be aborted as well.
        return;
    }
    // Processors that do not return in time are left behind.
    let _ = handle.shutdown().await;
    log.tell(What::Left { life });
}

fn lease(item: Option<&Item>) -> Option<Box<Lease>> {
    item.and_then(|item| Lease::from_item(item).expect("readable")).map(Box::new)
}
