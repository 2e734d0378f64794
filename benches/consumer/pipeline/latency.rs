//! From a put to the call of the processor, on a stream that is idle otherwise.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kinesis_consumer::testing::LocalAws;
use kinesis_consumer::{
    Checkpointer, Consumer, KinesisClientRecord, LeaseConfig, ManagementConfig, RetrievalConfig,
    ShardRecordProcessor, ShardRecordProcessorFactory, StartStrategy,
};

use crate::Outcome;
use crate::corpus::STREAM;

const SHARDS: u32 = 4;
const RECORDS: usize = 300;

/// When each record was written, by its number, and how long it took.
#[derive(Debug, Clone, Default)]
struct Times {
    written: Arc<Mutex<Vec<Instant>>>,
    took: Arc<Mutex<Vec<Duration>>>,
}

#[async_trait]
impl ShardRecordProcessorFactory for Times {
    async fn initialize(&self, _: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl ShardRecordProcessor for Times {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        let now = Instant::now();
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            let number = std::str::from_utf8(&record.record.data).ok().and_then(|text| text.parse().ok());
            let written = number.and_then(|number: usize| written.get(number));
            took.extend(written.map(|written| now - *written));
        }
    }
    async fn lease_lost(&self) {}
    async fn shard_ended(&self) {}
    async fn shutdown_requested(&self) {}
}

pub(crate) async fn run() -> Outcome {
    println!("latency: put to processor in ms, {RECORDS} records at random times on {SHARDS} idle shards");
    for (name, idle, lease_config) in [
        ("polling, idle time 200 ms", 200, LeaseConfig::default()),
        ("polling, idle time 1500 ms (default)", 1500, LeaseConfig::default()),
        ("fan-out", 1500, LeaseConfig::fan_out()),
    ] {
        let mut took = measure(Duration::from_millis(idle), lease_config).await?;
        took.sort_unstable();
        let ms = |quantile: usize| took[(took.len() - 1) * quantile / 1000].as_secs_f64() * 1000.0;
        println!("  {name}: p50 {:.1}, p90 {:.1}, p99 {:.1}, max {:.1}", ms(500), ms(900), ms(990), ms(1000));
    }
    println!();
    Ok(())
}

async fn measure(idle: Duration, lease_config: LeaseConfig) -> Outcome<Vec<Duration>> {
    let local = LocalAws::start().await?;
    local.kinesis().create_stream(STREAM, SHARDS)?;
    let (times, mut random) = (Times::default(), fastrand::Rng::with_seed(3));
    let mut retrieval = RetrievalConfig::default();
    retrieval.idle_time_between_reads = idle;
    let handle = Consumer::builder()
        .stream(STREAM)
        .application("latency")
        .processor_factory(times.clone())
        .aws_config(&local.sdk_config())
        .management(ManagementConfig { start_strategy: StartStrategy::Oldest, ..ManagementConfig::default() })
        .retrieval(retrieval)
        .lease_config(lease_config)
        .build()?
        .start()
        .await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    for number in 0..RECORDS {
        times.written.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        local.kinesis().put(STREAM, format!("key-{number}"), number.to_string())?;
        tokio::time::sleep(Duration::from_millis(random.u64(10..190))).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    handle.shutdown().await?;
    let took = times.took.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if took.len() == RECORDS { Ok(took) } else { Err(format!("{} of {RECORDS} records", took.len()).into()) }
}
