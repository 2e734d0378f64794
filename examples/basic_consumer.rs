//! The least a consumer needs: a processor that looks at each record and checkpoints every batch.
//!
//! `cargo run --release --example basic_consumer -- --local`

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

#[path = "support/orders.rs"]
mod orders;
#[path = "support/session.rs"]
mod session;
#[path = "support/tally.rs"]
mod tally;

use std::error::Error;

use async_trait::async_trait;
use clap::Parser;
use kinesis_consumer::{
    Checkpointer, Consumer, KinesisClientRecord, ManagementConfig, ShardRecordProcessor, StartStrategy,
};
use session::{LocalArguments, Session};
use tally::Tally;

/// Reads a stream and counts its records.
#[derive(Parser)]
struct Arguments {
    /// The stream, by name or ARN
    #[arg(long, default_value = "sample-orders")]
    stream_name: String,
    /// The lease table; applications with different tables read the stream independently
    #[arg(long, default_value = "basic-consumer")]
    table_name: String,
    #[command(flatten)]
    local: LocalArguments,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let session = Session::open(&arguments.local, &arguments.stream_name).await?;
    session.feed(&arguments.stream_name)?;
    let tally = session.tally();

    let consumer = Consumer::builder()
        .stream(&arguments.stream_name)
        .application(&arguments.table_name)
        .processor_factory({
            let tally = tally.clone();
            move |checkpointer| CountingProcessor { tally: tally.clone(), checkpointer }
        })
        .aws_config(&session.config)
        .management(ManagementConfig::default().with_start_strategy(StartStrategy::Oldest))
        .build()?;
    let handle = consumer.start().await?;
    session.run(&[handle], &tally, None).await
}

struct CountingProcessor {
    tally: Tally,
    checkpointer: Checkpointer,
}

#[async_trait]
impl ShardRecordProcessor for CountingProcessor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _millis_behind_latest: i64) {
        for record in &records {
            // Here the work would be done: `record.record.data` are the bytes of one user record.
            self.tally.processed(self.checkpointer.shard_id(), record);
        }
        match self.checkpointer.checkpoint_delivered().await {
            Ok(()) => self.tally.checkpointed(&self.checkpointer),
            // The records come again, here or on the worker that has the lease now.
            Err(error) => eprintln!("{error:#}"),
        }
    }

    async fn shard_ended(&self) {
        if let Err(error) = self.checkpointer.end().await {
            eprintln!("{error:#}");
        }
    }
}
