//! The consumer, with a processor that counts and checkpoints once per batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_config::SdkConfig;
use kinesis_consumer::{
    Checkpointer, Consumer, ConsumerBuilder, KinesisClientRecord, LeaseConfig, ManagementConfig,
    RetrievalConfig, ShardRecordProcessor, ShardRecordProcessorFactory, StartStrategy,
};
use tokio::sync::Notify;

use crate::Outcome;
use crate::corpus::STREAM;

/// Counts user records, and says when there are as many as wanted.
#[derive(Debug, Clone)]
pub(crate) struct Count(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    begun: Instant,
    /// When the first processor was made, in nanoseconds after `begun`.
    initialized: AtomicU64,
    records: AtomicUsize,
    wanted: usize,
    all: Notify,
    /// How long each batch takes.
    pause: Duration,
}

struct Counting(Count, Checkpointer);

impl Count {
    pub(crate) fn new(wanted: usize) -> Self {
        Self::with_pause(wanted, Duration::ZERO)
    }

    pub(crate) fn with_pause(wanted: usize, pause: Duration) -> Self {
        Self(Arc::new(Counted {
            begun: Instant::now(),
            initialized: AtomicU64::new(u64::MAX),
            records: AtomicUsize::new(0),
            wanted,
            all: Notify::new(),
            pause,
        }))
    }

    /// Waits for all records; returns the time since the first processor was made.
    pub(crate) async fn all(&self) -> Duration {
        self.0.all.notified().await;
        self.0.begun.elapsed() - Duration::from_nanos(self.0.initialized.load(Ordering::Relaxed))
    }

    pub(crate) fn records(&self) -> usize {
        self.0.records.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl ShardRecordProcessorFactory for Count {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        let now = u64::try_from(self.0.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.initialized.fetch_min(now, Ordering::Relaxed);
        Box::new(Counting(self.clone(), checkpointer))
    }
}

#[async_trait]
impl ShardRecordProcessor for Counting {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        let count = &self.0.0;
        if !count.pause.is_zero() {
            tokio::time::sleep(count.pause).await;
        }
        if let Some(last) = records.last()
            && let Err(error) = self.1.checkpoint(last.extended_sequence_number()).await
        {
            tracing::warn!(%error, "not checkpointed");
        }
        if count.records.fetch_add(records.len(), Ordering::Relaxed) + records.len() >= count.wanted {
            count.all.notify_one();
        }
    }
    async fn lease_lost(&self) {}
    async fn shard_ended(&self) {}
    async fn shutdown_requested(&self) {}
}

/// A consumer of everything in the stream, as fast as it comes.
pub(crate) fn consumer(
    config: &SdkConfig,
    application: &str,
    lease_config: LeaseConfig,
    count: &Count,
) -> ConsumerBuilder {
    let mut retrieval = RetrievalConfig::default();
    (retrieval.reads_per_second, retrieval.bytes_per_second) = (None, None);
    Consumer::builder()
        .stream(STREAM)
        .application(application)
        .processor_factory(count.clone())
        .aws_config(config)
        .management(ManagementConfig { start_strategy: StartStrategy::Oldest, ..ManagementConfig::default() })
        .retrieval(retrieval)
        .lease_config(lease_config)
}

/// Consumes all records; returns the time from the first processor to the last batch.
pub(crate) async fn consume(
    config: &SdkConfig,
    application: &str,
    lease_config: LeaseConfig,
    wanted: usize,
) -> Outcome<Duration> {
    let count = Count::new(wanted);
    let handle = consumer(config, application, lease_config, &count).build()?.start().await?;
    let took = tokio::time::timeout(Duration::from_secs(300), count.all()).await;
    handle.shutdown().await?;
    Ok(took.map_err(|_| format!("only {} of {wanted} records after five minutes", count.records()))?)
}
