//! A stream, a lease table and any number of workers on one paused clock, and a log of what their
//! processors observed.

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

/// What a processor observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Observed {
    Initialized,
    Record { key: String, text: String, position: ExtendedSequenceNumber },
    LeaseLost,
    ShardEnded,
    ShutdownRequested,
}

/// Who observed it: the processor of a worker and shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) worker: String,
    pub(crate) shard: ShardId,
    pub(crate) observed: Observed,
}

/// When a processor checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckpointPolicy {
    EveryBatch,
    Never,
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

    /// Puts the next `count` records, over 16 partition keys. The text of each is its number within its
    /// key.
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

    /// A builder for a worker, to add settings.
    pub(crate) fn worker(&self, name: &str, policy: CheckpointPolicy) -> ConsumerBuilder {
        self.worker_with(name, Recorder { worker: name.to_owned(), policy, log: Arc::clone(&self.log) })
    }

    /// A worker that reads only these streams.
    pub(crate) fn worker_of(
        &self,
        name: &str,
        streams: impl IntoIterator<Item = impl Into<StreamConfig>>,
    ) -> ConsumerBuilder {
        let policy = CheckpointPolicy::EveryBatch;
        let recorder = Recorder { worker: name.to_owned(), policy, log: Arc::clone(&self.log) };
        self.worker_of_no_stream(name, recorder).streams(streams)
    }

    /// A worker that reads only this stream.
    pub(crate) fn worker_of_one(&self, name: &str, stream: &str) -> ConsumerBuilder {
        let policy = CheckpointPolicy::EveryBatch;
        let recorder = Recorder { worker: name.to_owned(), policy, log: Arc::clone(&self.log) };
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
        self.worker_without_code(name).processor_factory(factory)
    }

    /// A worker that has no code for records and reads no stream yet.
    pub(crate) fn worker_without_code(&self, name: &str) -> ConsumerBuilder {
        let seed = name.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte));
        let builder = Consumer::builder()
            .application("fleet-test")
            .worker_id(name)
            .stream_api(Arc::new(self.kinesis.clone()))
            .lease_store(Arc::new(self.table.clone()))
            .management(ManagementConfig {
                start_strategy: StartStrategy::Oldest,
                ..ManagementConfig::default()
            });
        in_simulation(builder, self.wall + self.began.elapsed(), 1.0, seed)
    }

    pub(crate) async fn start(&self, name: &str) -> ConsumerHandle {
        start(self.worker(name, CheckpointPolicy::EveryBatch)).await
    }

    /// The lease table as one worker sees it, with the faults of `hook`.
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

    /// The checkpoints with which a consumer of everything ends, shard by shard.
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

    /// Every record that was put and not yet delivered.
    pub(crate) fn missing(&self) -> BTreeSet<(String, u64)> {
        let written = self.written.lock().expect("not poisoned");
        let mut missing: BTreeSet<(String, u64)> =
            written.iter().flat_map(|(key, &count)| (0..count).map(|number| (key.clone(), number))).collect();
        for entry in self.log.lock().expect("not poisoned").iter() {
            if let Observed::Record { key, text, .. } = &entry.observed {
                missing.remove(&(key.clone(), text.parse().expect("a number")));
            }
        }
        missing
    }

    /// Waits until every record was delivered, for at most `limit` of virtual time.
    pub(crate) async fn all_delivered_within(&self, limit: Duration) {
        let what = || {
            let missing = self.missing();
            let some: Vec<_> = missing.iter().take(8).collect();
            format!("{} not delivered, such as {some:?}; {:#?}", missing.len(), self.leases())
        };
        until(limit, || self.missing().is_empty(), what).await;
    }

    /// Checks the order of every key: each record follows the one before it, or is an earlier one, from
    /// which on the following are delivered again. Returns the number of duplicates.
    pub(crate) fn check_order(&self) -> usize {
        let mut next: BTreeMap<String, u64> = BTreeMap::new();
        let mut seen: BTreeSet<(String, u64)> = BTreeSet::new();
        let mut duplicates = 0;
        for entry in self.log() {
            let Observed::Record { key, text, .. } = &entry.observed else { continue };
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

/// Creates processors that log what they observe.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) worker: String,
    pub(crate) policy: CheckpointPolicy,
    pub(crate) log: Arc<Mutex<Vec<Entry>>>,
}

pub(crate) struct Recording {
    recorder: Recorder,
    checkpointer: Checkpointer,
}

impl Recording {
    fn log(&self, observed: Observed) {
        let shard = self.checkpointer.shard_id().clone();
        self.recorder.log.lock().expect("not poisoned").push(Entry {
            worker: self.recorder.worker.clone(),
            shard,
            observed,
        });
    }
}

#[async_trait]
impl ShardRecordProcessorFactory for Recorder {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        let recording = Recording { recorder: self.clone(), checkpointer };
        recording.log(Observed::Initialized);
        Box::new(recording)
    }
}

#[async_trait]
impl ShardRecordProcessor for Recording {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        assert!(!records.is_empty());
        for record in &records {
            self.log(Observed::Record {
                key: record.record.partition_key.to_string(),
                text: String::from_utf8(record.record.data.to_vec()).expect("text"),
                position: record.extended_sequence_number(),
            });
        }
        if self.recorder.policy == CheckpointPolicy::EveryBatch {
            // Refused if the lease was lost; `lease_lost` follows.
            let _ = self.checkpointer.checkpoint(records[records.len() - 1].extended_sequence_number()).await;
        }
    }

    async fn lease_lost(&self) {
        self.log(Observed::LeaseLost);
    }

    async fn shard_ended(&self) {
        self.log(Observed::ShardEnded);
        let _ = self.checkpointer.end().await;
    }

    async fn shutdown_requested(&self) {
        self.log(Observed::ShutdownRequested);
    }
}
