//! Several workers in one process compete for the leases of one stream, as they would on several
//! machines. Start it twice against one `local_aws` and kill one to see the other take over.
//!
//! `cargo run --release --example multi_worker -- --local --records 200000`

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

#[path = "support/orders.rs"]
mod orders;
#[path = "support/session.rs"]
mod session;
#[path = "support/tally.rs"]
mod tally;

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use kinesis_consumer::{
    Checkpointer, Consumer, ConsumerHandle, CoordinationConfig, Event, Events, KinesisClientRecord,
    ManagementConfig, ShardRecordProcessor, StartStrategy,
};
use session::{LocalArguments, Session};
use tally::Tally;

/// Several workers share the shards of a stream.
#[derive(Parser)]
struct Arguments {
    /// The stream, by name or ARN
    #[arg(long, default_value = "sample-orders")]
    stream_name: String,
    /// The lease table, which makes workers a fleet
    #[arg(long, default_value = "multi-worker")]
    table_name: String,
    /// How many workers this process runs
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Stop after this time
    #[arg(long)]
    run_duration_seconds: Option<u64>,
    /// How long a dead worker's leases stay untouched; the same for the whole fleet
    #[arg(long, default_value_t = 10)]
    failover_seconds: u64,
    /// Write the payload of each record to this file, a line each, before it is checkpointed
    #[arg(long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    local: LocalArguments,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let session = Session::open(&arguments.local, &arguments.stream_name).await?;
    let tally = session.tally();
    let output = match &arguments.output {
        Some(path) => Some(Arc::new(Mutex::new(File::create(path)?))),
        None => None,
    };

    let mut handles = Vec::new();
    let mut counts = Vec::new();
    for number in 1..=arguments.workers {
        let failover_time = Duration::from_secs(arguments.failover_seconds);
        let records = Arc::new(AtomicU64::new(0));
        let consumer = Consumer::builder()
            .stream(&arguments.stream_name)
            .application(&arguments.table_name)
            .worker_id(format!("process-{}-worker-{number}", std::process::id()))
            .processor_factory({
                let (tally, records, output) = (tally.clone(), Arc::clone(&records), output.clone());
                move |checkpointer| Processor {
                    tally: tally.clone(),
                    records: Arc::clone(&records),
                    output: output.clone(),
                    checkpointer,
                }
            })
            .aws_config(&session.config)
            .management(
                ManagementConfig::default()
                    .with_leases_to_acquire(2)
                    .with_start_strategy(StartStrategy::Oldest),
            )
            .coordination(CoordinationConfig::default().with_failover_time(failover_time))
            .build()?;
        tokio::spawn(show_leases(consumer.events(), number));
        let handle = consumer.start().await?;
        handles.push(handle);
        counts.push(records);
    }
    share_out(&handles).await;
    session.feed(&arguments.stream_name)?;
    let limit = arguments.run_duration_seconds.map(Duration::from_secs);
    let outcome = session.run(&handles, &tally, limit).await;
    for (number, records) in counts.iter().enumerate() {
        eprintln!("worker {}: {} records", number + 1, records.load(Ordering::Relaxed));
    }
    eprintln!("{}", tally.summary());
    outcome
}

/// Waits until every worker of this process has got a lease or had time to.
async fn share_out(handles: &[ConsumerHandle]) {
    let all_have_one = async {
        while handles.iter().any(|handle| handle.status().shards.is_empty()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), all_have_one).await.is_err() {
        eprintln!("there are not enough shards for all workers");
    }
}

/// Prints which leases come and go. Ends with the consumer.
async fn show_leases(mut events: Events, number: usize) {
    while let Some(event) = events.next().await {
        match event {
            Event::LeaseGained { lease, previous_owner: Some(owner), .. } => {
                eprintln!("worker {number}: + {lease} from {owner}");
            }
            Event::LeaseGained { lease, .. } => eprintln!("worker {number}: + {lease}"),
            Event::LeaseLost { lease, .. } => eprintln!("worker {number}: - {lease} (lost)"),
            Event::LeaseReleased { lease, .. } => eprintln!("worker {number}: - {lease} (released)"),
            Event::ShardEnded { shard, children, .. } => {
                eprintln!("worker {number}: {shard} ended, {children:?} follow")
            }
            _ => {}
        }
    }
}

struct Processor {
    tally: Tally,
    records: Arc<AtomicU64>,
    output: Option<Arc<Mutex<File>>>,
    checkpointer: Checkpointer,
}

impl Processor {
    /// Writes the records out before they are checkpointed, so that none is lost if this process dies.
    fn write(&self, records: &[KinesisClientRecord]) -> std::io::Result<()> {
        let Some(output) = &self.output else { return Ok(()) };
        let mut lines = Vec::new();
        for record in records {
            lines.extend_from_slice(record.record.data.as_ref());
            lines.push(b'\n');
        }
        output.lock().unwrap_or_else(PoisonError::into_inner).write_all(&lines)
    }
}

#[async_trait]
impl ShardRecordProcessor for Processor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _millis_behind_latest: i64) {
        // After a panic the shard starts again from its last checkpoint, so that no record is skipped.
        self.write(&records).expect("the output can be written");
        for record in &records {
            self.tally.processed(self.checkpointer.shard_id(), record);
        }
        self.records.fetch_add(records.len() as u64, Ordering::Relaxed);
        match self.checkpointer.checkpoint_delivered().await {
            Ok(()) => self.tally.checkpointed(&self.checkpointer),
            Err(error) => eprintln!("{error:#}"),
        }
    }

    async fn shard_ended(&self) {
        if let Err(error) = self.checkpointer.end().await {
            eprintln!("{error:#}");
        }
    }
}
