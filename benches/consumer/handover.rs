//! How long a stream stands still: from an empty table to the first record, and from a graceful shutdown
//! to the first record on another worker. Over the local endpoints, through real SDK clients.
//!
//! `cargo bench -p consumer-benches --bench handover` prints the median and the extremes of some runs in milliseconds.

#![expect(clippy::print_stdout, reason = "a benchmark")]

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kinesis_consumer::testing::LocalAws;
use kinesis_consumer::{
    Checkpointer, Consumer, ConsumerHandle, KinesisClientRecord, ManagementConfig, ShardRecordProcessor,
    ShardRecordProcessorFactory, StartStrategy,
};

const RUNS: usize = 11;
const SHARDS: u32 = 4;

/// When the first record came, if one has.
#[derive(Clone, Default)]
struct FirstRecord(Arc<Mutex<Option<Instant>>>);

struct Processor(FirstRecord, Checkpointer);

impl FirstRecord {
    fn time(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait(&self) -> Instant {
        loop {
            if let Some(time) = self.time() {
                return time;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[async_trait]
impl ShardRecordProcessorFactory for FirstRecord {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        Box::new(Processor(self.clone(), checkpointer))
    }
}

#[async_trait]
impl ShardRecordProcessor for Processor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        if let Some(last) = records.last() {
            // A failure would show as records that come again.
            let _ = self.1.checkpoint(last.extended_sequence_number()).await;
        }
    }
    async fn lease_lost(&self) {}
    async fn shard_ended(&self) {}
    async fn shutdown_requested(&self) {}
}

async fn start(local: &LocalAws, first: &FirstRecord) -> Result<ConsumerHandle, Box<dyn Error>> {
    let consumer = Consumer::builder()
        .stream("orders")
        .application("handover")
        .processor_factory(first.clone())
        .aws_config(&local.sdk_config())
        .management(ManagementConfig { start_strategy: StartStrategy::Oldest, ..ManagementConfig::default() })
        .build()?;
    Ok(consumer.start().await?)
}

fn put(local: &LocalAws) -> Result<(), Box<dyn Error>> {
    for number in 0..100 {
        local.kinesis().put("orders", format!("key-{number}"), "a payload")?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut cold_starts, mut handovers) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let local = LocalAws::start().await?;
        local.kinesis().create_stream("orders", SHARDS)?;
        put(&local)?;

        let (first_of_a, begun) = (FirstRecord::default(), Instant::now());
        let a = start(&local, &first_of_a).await?;
        cold_starts.push(first_of_a.wait().await - begun);

        // The second worker is there and idle, with nothing free to take.
        let first_of_b = FirstRecord::default();
        let b = start(&local, &first_of_b).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        a.shutdown().await?;
        put(&local)?;
        handovers.push(first_of_b.wait().await.saturating_duration_since(begun));
        b.shutdown().await?;
        local.shutdown().await;
    }
    for (name, mut times) in [
        ("empty table to first record", cold_starts),
        ("graceful shutdown to first record on another worker", handovers),
    ] {
        times.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        println!(
            "{name}: median {:.0} ms, {:.0} to {:.0} ms",
            ms(times[RUNS / 2]),
            ms(times[0]),
            ms(times[RUNS - 1])
        );
    }
    Ok(())
}
