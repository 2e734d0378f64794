//! A stream, a lease table and any number of workers on one paused clock, and a log of what their
//! processors heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use kinesis_consumer::internals::in_simulation;
use kinesis_consumer::lease::{FaultHook, FaultyLeaseStore, Lease, LeaseStore, MemoryLeaseStore};
use kinesis_consumer::testing::SimulatedKinesis;
use kinesis_consumer::{
    Checkpoint, Checkpointer, Consumer, ConsumerBuilder, ConsumerHandle, ExtendedSequenceNumber,
    KinesisClientRecord, ManagementConfig, ShardId, ShardRecordProcessor, ShardRecordProcessorFactory,
    StartStrategy, StreamConfig,
};

pub(crate) const STREAM: &str = "orders";
pub(crate) const FAILOVER: Duration = Duration::from_secs(10);

/// What a processor heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Initialized,
    Record { key: String, text: String, position: ExtendedSequenceNumber },
    LeaseLost,
    ShardEnded,
    ShutdownRequested,
}

/// Which worker's processor of which shard heard what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) worker: String,
    pub(crate) shard: ShardId,
    pub(crate) heard: Heard,
}

/// What a processor does besides logging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    CheckpointEveryBatch,
    NeverCheckpoint,
}

pub(crate) struct World {
    pub(crate) kinesis: SimulatedKinesis,
    pub(crate) table: MemoryLeaseStore,
    wall: SystemTime,
    began: tokio::time::Instant,
    log: Arc<Mutex<Vec<Entry>>>,
    written: Mutex<BTreeMap<String, u64>>,
}

impl World {
    /// A stream of `shards` shards and no lease table.
    pub(crate) fn new(shards: u32) -> Self {
        // With RUST_LOG, the workers' own log is printed.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000);
        let kinesis = SimulatedKinesis::starting_at(wall);
        kinesis.create_stream(STREAM, shards).expect("a new stream");
        Self {
            kinesis,
            table: MemoryLeaseStore::default(),
            wall,
            began: tokio::time::Instant::now(),
            log: Arc::default(),
            written: Mutex::default(),
        }
    }

    /// Puts the next `count` records, over 16 partition keys; each has its number within its key as
    /// text.
    pub(crate) fn put(&self, count: usize) {
        self.put_to(STREAM, "key", count);
    }

    /// The same to another stream, over keys that begin with `prefix`.
    pub(crate) fn put_to(&self, stream: &str, prefix: &str, count: usize) {
        let mut written = self.written.lock().expect("not poisoned");
        for index in 0..count {
            let key = format!("{prefix}-{}", index % 16);
            let number = written.entry(key.clone()).or_default();
            self.kinesis.put(stream, key.as_str(), number.to_string()).expect("the stream takes it");
            *number += 1;
        }
    }

    /// A worker with settings of its own.
    pub(crate) fn worker(&self, name: &str, habit: Habit) -> ConsumerBuilder {
        self.worker_with(name, Recorder { worker: name.to_owned(), habit, log: Arc::clone(&self.log) })
    }

    /// A worker that reads these streams, and none else.
    pub(crate) fn worker_of(
        &self,
        name: &str,
        streams: impl IntoIterator<Item = impl Into<StreamConfig>>,
    ) -> ConsumerBuilder {
        let habit = Habit::CheckpointEveryBatch;
        let recorder = Recorder { worker: name.to_owned(), habit, log: Arc::clone(&self.log) };
        self.worker_of_no_stream(name, recorder).streams(streams)
    }

    /// A worker that reads this stream alone.
    pub(crate) fn worker_of_one(&self, name: &str, stream: &str) -> ConsumerBuilder {
        let habit = Habit::CheckpointEveryBatch;
        let recorder = Recorder { worker: name.to_owned(), habit, log: Arc::clone(&self.log) };
        self.worker_of_no_stream(name, recorder).stream(stream)
    }

    /// The wall-clock time.
    pub(crate) fn now(&self) -> SystemTime {
        self.wall + self.began.elapsed()
    }

    pub(crate) fn worker_with(
        &self,
        name: &str,
        factory: impl ShardRecordProcessorFactory + 'static,
    ) -> ConsumerBuilder {
        self.worker_of_no_stream(name, factory).stream(STREAM)
    }

    fn worker_of_no_stream(
        &self,
        name: &str,
        factory: impl ShardRecordProcessorFactory + 'static,
    ) -> ConsumerBuilder {
        let seed = name.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte));
        let builder = Consumer::builder()
            .application("fleet-test")
            .worker_id(name)
            .processor_factory(factory)
            .stream_api(Arc::new(self.kinesis.clone()))
            .lease_store(Arc::new(self.table.clone()))
            .management(ManagementConfig {
                start_strategy: StartStrategy::Oldest,
                ..ManagementConfig::default()
            });
        in_simulation(builder, self.wall + self.began.elapsed(), 1.0, seed)
    }

    pub(crate) async fn start(&self, name: &str) -> ConsumerHandle {
        start(self.worker(name, Habit::CheckpointEveryBatch)).await
    }

    /// The lease table as `hook` lets one worker reach it.
    pub(crate) fn unreliable_table(&self, hook: FaultHook) -> Arc<dyn LeaseStore> {
        Arc::new(FaultyLeaseStore::new(self.table.clone(), hook))
    }

    pub(crate) fn log(&self) -> Vec<Entry> {
        self.log.lock().expect("not poisoned").clone()
    }

    pub(crate) fn leases(&self) -> Vec<Lease> {
        self.table.items().values().filter_map(|item| Lease::from_item(item).expect("readable")).collect()
    }

    /// The checkpoint of the `index`-th lease, if it is there.
    pub(crate) fn checkpoint(&self, index: usize) -> Option<Checkpoint> {
        self.leases().get(index).map(|lease| lease.checkpoint.clone())
    }

    /// Waits until every lease has a checkpoint at a record or beyond.
    pub(crate) async fn all_stored_within(&self, limit: Duration) {
        let all_stored = || {
            let leases = self.leases();
            !leases.is_empty() && leases.iter().all(|lease| lease.checkpoint > Checkpoint::Latest)
        };
        until(limit, all_stored, || format!("{:?}", self.leases())).await;
    }

    /// The checkpoints a consumer of everything ends with, shard by shard.
    pub(crate) fn last_positions(&self) -> Vec<Checkpoint> {
        let shards = self.kinesis.shards(STREAM).expect("a stream");
        let last = |shard: &ShardId| {
            let records = self.kinesis.stored_records(STREAM, shard).expect("a shard");
            records.last().map(|record| ExtendedSequenceNumber::new(record.sequence_number.clone(), 0).into())
        };
        shards.iter().filter_map(|shard| last(&shard.id)).collect()
    }

    pub(crate) fn last_position(&self) -> Option<Checkpoint> {
        self.last_positions().pop()
    }

    pub(crate) fn owners(&self) -> BTreeMap<String, usize> {
        let mut owners = BTreeMap::new();
        for lease in self.leases().iter().filter(|lease| !lease.checkpoint.is_shard_end()) {
            let owner = lease.owner.as_ref().map_or("-", |owner| owner.as_str());
            *owners.entry(owner.to_owned()).or_default() += 1;
        }
        owners
    }

    /// Every record that was put and not yet heard.
    pub(crate) fn missing(&self) -> BTreeSet<(String, u64)> {
        let written = self.written.lock().expect("not poisoned");
        let mut missing: BTreeSet<(String, u64)> =
            written.iter().flat_map(|(key, &count)| (0..count).map(|number| (key.clone(), number))).collect();
        for entry in self.log.lock().expect("not poisoned").iter() {
            if let Heard::Record { key, text, .. } = &entry.heard {
                missing.remove(&(key.clone(), text.parse().expect("a number")));
            }
        }
        missing
    }

    /// Waits until every record was heard, for at most `limit` of virtual time.
    pub(crate) async fn all_heard_within(&self, limit: Duration) {
        let what = || {
            let missing = self.missing();
            let some: Vec<_> = missing.iter().take(8).collect();
            format!("{} not heard, such as {some:?}; {:#?}", missing.len(), self.leases())
        };
        until(limit, || self.missing().is_empty(), what).await;
    }

    /// The order of every key: each record is the one after the one before, or an earlier one, from
    /// which on the following come again. Returns how many came more than once.
    pub(crate) fn check_order(&self) -> usize {
        let mut next: BTreeMap<String, u64> = BTreeMap::new();
        let mut seen: BTreeSet<(String, u64)> = BTreeSet::new();
        let mut duplicates = 0;
        for entry in self.log() {
            let Heard::Record { key, text, .. } = &entry.heard else { continue };
            let number: u64 = text.parse().expect("a number");
            let expected = next.entry(key.clone()).or_default();
            assert!(number <= *expected, "{key}: {number} came before {expected}; {entry:?}");
            *expected = number + 1;
            duplicates += usize::from(!seen.insert((key.clone(), number)));
        }
        duplicates
    }
}

/// Starts a worker.
pub(crate) async fn start(builder: ConsumerBuilder) -> ConsumerHandle {
    builder.build().expect("valid settings").start().await.expect("started")
}

/// Lets virtual time pass until `condition` holds.
pub(crate) async fn until(limit: Duration, condition: impl Fn() -> bool, what: impl Fn() -> String) {
    let reached = tokio::time::timeout(limit, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(reached.await.is_ok(), "not within {limit:?}: {}", what());
}

/// Makes processors that log what they hear.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) worker: String,
    pub(crate) habit: Habit,
    pub(crate) log: Arc<Mutex<Vec<Entry>>>,
}

pub(crate) struct Recording {
    recorder: Recorder,
    checkpointer: Checkpointer,
}

impl Recording {
    fn hear(&self, heard: Heard) {
        let shard = self.checkpointer.shard_id().clone();
        self.recorder.log.lock().expect("not poisoned").push(Entry {
            worker: self.recorder.worker.clone(),
            shard,
            heard,
        });
    }
}

#[async_trait]
impl ShardRecordProcessorFactory for Recorder {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        let recording = Recording { recorder: self.clone(), checkpointer };
        recording.hear(Heard::Initialized);
        Box::new(recording)
    }
}

#[async_trait]
impl ShardRecordProcessor for Recording {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        assert!(!records.is_empty());
        for record in &records {
            self.hear(Heard::Record {
                key: record.record.partition_key.to_string(),
                text: String::from_utf8(record.record.data.to_vec()).expect("text"),
                position: record.extended_sequence_number(),
            });
        }
        if self.recorder.habit == Habit::CheckpointEveryBatch {
            // Refused if the lease was lost, which `lease_lost` will tell.
            let _ = self.checkpointer.checkpoint(records[records.len() - 1].extended_sequence_number()).await;
        }
    }

    async fn lease_lost(&self) {
        self.hear(Heard::LeaseLost);
    }

    async fn shard_ended(&self) {
        self.hear(Heard::ShardEnded);
        let _ = self.checkpointer.end().await;
    }

    async fn shutdown_requested(&self) {
        self.hear(Heard::ShutdownRequested);
    }
}
