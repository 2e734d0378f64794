//! JSON messages routed by their type, with retries, batches, and checkpoints on a timer.
//!
//! `cargo run --release --example advanced_consumer -- --local`

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

#[path = "support/messages.rs"]
mod messages;
#[path = "support/orders.rs"]
mod orders;
#[path = "support/session.rs"]
mod session;
#[path = "support/tally.rs"]
mod tally;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use clap::Parser;
use kinesis_consumer::{
    Checkpointer, Consumer, ExtendedSequenceNumber, KinesisClientRecord, LeaseConfig, ManagementConfig,
    ShardRecordProcessor, StartStrategy,
};
use messages::MessageHandler;
use session::{LocalArguments, Session};
use tally::Tally;
use tokio::sync::Mutex;

/// Reads JSON messages, handles them by type, and reports what it did.
#[derive(Parser)]
struct Arguments {
    /// The stream, by name or ARN
    #[arg(long, default_value = "sample-orders")]
    stream_name: String,
    /// The lease table; applications with different tables read the stream independently
    #[arg(long, default_value = "advanced-consumer")]
    table_name: String,
    /// How many messages are handled together
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// How often a shard is checkpointed
    #[arg(long, default_value_t = 5)]
    checkpoint_interval_seconds: u64,
    /// Where to start in shards without a checkpoint, in milliseconds since the Unix epoch; the default
    /// is the oldest record
    #[arg(long, value_name = "MS")]
    start_from_timestamp: Option<u64>,
    #[command(flatten)]
    local: LocalArguments,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let session = Session::open(&arguments.local, &arguments.stream_name).await?;
    session.feed(&arguments.stream_name)?;
    let tally = session.tally();
    let handler = Arc::new(MessageHandler::default());

    let start_strategy =
        arguments.start_from_timestamp.map_or(StartStrategy::Oldest, StartStrategy::Timestamp);
    let consumer = Consumer::builder()
        .stream(&arguments.stream_name)
        .application(&arguments.table_name)
        .processor_factory({
            let (tally, handler) = (tally.clone(), Arc::clone(&handler));
            move |checkpointer| BatchingProcessor {
                tally: tally.clone(),
                handler: Arc::clone(&handler),
                batch_size: arguments.batch_size as usize,
                checkpoint_interval: Duration::from_secs(arguments.checkpoint_interval_seconds),
                checkpointer,
                pending: Mutex::new(Pending { processed: None, checkpointed: Instant::now() }),
            }
        })
        .aws_config(&session.config)
        .management(ManagementConfig::default().with_start_strategy(start_strategy))
        .lease_config(LeaseConfig::PollingConfig { limit: 1000 })
        .build()?;
    let handle = consumer.start().await?;

    let reporting = tokio::spawn(report(Arc::clone(&handler)));
    let outcome = session.run(&[handle], &tally, None).await;
    reporting.abort();
    eprintln!("{handler}");
    outcome
}

/// Prints what the handler did every ten seconds.
async fn report(handler: Arc<MessageHandler>) {
    let mut interval = tokio::time::interval(Duration::from_secs(10));
    interval.tick().await;
    loop {
        interval.tick().await;
        eprintln!("{handler}");
    }
}

/// Handles messages in batches, and checkpoints when the interval has passed, when it has caught up, and
/// before the lease goes.
struct BatchingProcessor {
    tally: Tally,
    handler: Arc<MessageHandler>,
    batch_size: usize,
    checkpoint_interval: Duration,
    checkpointer: Checkpointer,
    pending: Mutex<Pending>,
}

struct Pending {
    /// The last message that was handled but not checkpointed.
    processed: Option<ExtendedSequenceNumber>,
    checkpointed: Instant,
}

impl BatchingProcessor {
    async fn checkpoint(&self) {
        let mut pending = self.pending.lock().await;
        let Some(position) = &pending.processed else { return };
        match self.checkpointer.checkpoint(position).await {
            Ok(()) => {
                self.tally.checkpointed(&self.checkpointer);
                *pending = Pending { processed: None, checkpointed: Instant::now() };
            }
            // The next checkpoint covers this one.
            Err(error) => eprintln!("{error:#}"),
        }
    }
}

#[async_trait]
impl ShardRecordProcessor for BatchingProcessor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, millis_behind_latest: i64) {
        for batch in records.chunks(self.batch_size) {
            for record in batch {
                self.handler.handle(record).await;
                self.tally.processed(self.checkpointer.shard_id(), record);
            }
            let is_due = {
                let mut pending = self.pending.lock().await;
                pending.processed = batch.last().map(Into::into);
                pending.checkpointed.elapsed() >= self.checkpoint_interval
            };
            if is_due {
                self.checkpoint().await;
            }
        }
        if millis_behind_latest == 0 {
            self.checkpoint().await;
        }
    }

    async fn lease_lost(&self) {
        eprintln!("{}: lease given up", self.checkpointer.shard_id());
    }

    async fn shard_ended(&self) {
        if let Err(error) = self.checkpointer.end().await {
            eprintln!("{error:#}");
        }
    }

    async fn shutdown_requested(&self) {
        self.checkpoint().await;
    }
}
