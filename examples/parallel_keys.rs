//! A slow downstream: the records of one shard one by one, and up to 64 at the same time, each of another key.
//!
//! `cargo run --release --example parallel_keys -- --local`

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, SdkConfig};
use clap::Parser;
use kinesis_consumer::testing::LocalAws;
use kinesis_consumer::{
    BoxError, Concurrency, Consumer, KinesisClientRecord, ManagementConfig, StartStrategy,
};

/// Handles records that take a while each.
#[derive(Parser)]
struct Arguments {
    /// The stream, by name or ARN
    #[arg(long, default_value = "sample-clicks")]
    stream_name: String,
    /// The lease table
    #[arg(long, default_value = "parallel-keys")]
    table_name: String,
    /// How many records of a shard are handled at the same time
    #[arg(long, default_value_t = 64)]
    tasks: usize,
    /// How long each takes, in milliseconds
    #[arg(long, default_value_t = 5)]
    takes: u64,
    /// Run without AWS: endpoints inside this process, and both ways after each other
    #[arg(long)]
    local: bool,
    /// How many records are written in local mode
    #[arg(long, default_value_t = 2000, requires = "local")]
    records: usize,
    /// Over how many keys
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..), requires = "local")]
    keys: u32,
}

/// The records that were handled, by key.
#[derive(Clone, Default)]
struct Handled(Arc<Mutex<HashMap<String, Vec<usize>>>>);

impl Handled {
    fn add(&self, record: &KinesisClientRecord) -> Result<(), BoxError> {
        let number = std::str::from_utf8(&record.record.data)?.parse()?;
        let key = record.record.partition_key.to_string();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().push(number);
        Ok(())
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum()
    }

    /// Keys whose records were handled out of order.
    fn violations(&self) -> usize {
        let by_key = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.values().filter(|numbers| !numbers.is_sorted()).count()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    if !arguments.local {
        let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
        let consumer = consumer(&arguments, &config, arguments.tasks, &Handled::default())?;
        return Ok(consumer.start().await?.shutdown_on_signal().await?);
    }
    let local = LocalAws::start().await?;
    local.kinesis().create_stream(&arguments.stream_name, 1)?;
    for number in 0..arguments.records {
        let key = format!("user-{}", number % arguments.keys as usize);
        local.kinesis().put(&arguments.stream_name, key, number.to_string())?;
    }
    let (mut times, mut violations) = (Vec::new(), 0);
    for tasks in [1, arguments.tasks] {
        let handled = Handled::default();
        let handle = consumer(&arguments, &local.sdk_config(), tasks, &handled)?.start().await?;
        let begun = Instant::now();
        while handled.count() < arguments.records {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times.push(begun.elapsed());
        handle.shutdown().await?;
        violations += handled.violations();
        eprintln!("{tasks} at a time: {} records in {:.2?}", arguments.records, begun.elapsed());
    }
    println!(
        "summary records={} tasks={} one_ms={} parallel_ms={} ratio={:.1} order_violations={violations}",
        arguments.records,
        arguments.tasks,
        times[0].as_millis(),
        times[1].as_millis(),
        times[0].as_secs_f64() / times[1].as_secs_f64(),
    );
    local.shutdown().await;
    Ok(())
}

/// A consumer with a lease table of its own for each number of tasks, so that each reads everything.
fn consumer(
    arguments: &Arguments,
    config: &SdkConfig,
    tasks: usize,
    handled: &Handled,
) -> Result<Consumer, kinesis_consumer::Error> {
    let (handled, takes) = (handled.clone(), Duration::from_millis(arguments.takes));
    Consumer::builder()
        .stream(&arguments.stream_name)
        .application(format!("{}-{tasks}", arguments.table_name))
        .aws_config(config)
        .for_each(move |record| {
            let handled = handled.clone();
            async move {
                tokio::time::sleep(takes).await; // a call of something slow
                handled.add(&record)
            }
        })
        .concurrency(Concurrency::per_key(tasks))
        .management(ManagementConfig::default().with_start_strategy(StartStrategy::Oldest))
        .build()
}
