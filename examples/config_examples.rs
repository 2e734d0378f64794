//! Settings for different needs, printed and checked. Nothing is read or written.
//!
//! `cargo run --example config_examples`

#![expect(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use kinesis_consumer::lease::MemoryLeaseStore;
use kinesis_consumer::testing::SimulatedKinesis;
use kinesis_consumer::{
    Consumer, ConsumerBuilder, CoordinationConfig, FanOutConsumer, KinesisClientRecord, LeaseConfig,
    ManagementConfig, MetricsConfig, MetricsLevel, RetrievalConfig, Settings, ShardRecordProcessor,
    StartStrategy,
};

/// Prints settings for different needs, and checks them.
#[derive(Parser)]
struct Arguments {}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments {} = Arguments::parse();
    show("high throughput", "pages as large as they get, read well ahead", high_throughput())?;
    show("low latency", "records as soon as they are written, with enhanced fan-out", low_latency())?;
    show("batch", "small batches, few leases, stored checkpoints seldom", batch())?;
    show("development", "quick takeover after a restart, little memory, no metrics", development())?;
    show("low cost", "fewer reads of the stream, fewer renewals, fewer metrics", low_cost())?;
    show("replay", "everything since a time, in an application of its own", replay())?;
    show("environment", "what deployments vary comes from KINESIS_… variables", from_environment()?)?;
    Ok(())
}

fn show(name: &str, what_for: &str, builder: ConsumerBuilder) -> Result<(), Box<dyn Error>> {
    println!("{name}: {what_for}\n{builder:#?}");
    builder.build()?;
    println!("{name}: valid\n");
    Ok(())
}

/// What every configuration needs. Real ones use `aws_config` instead of the simulated parts.
fn base(application: &str) -> ConsumerBuilder {
    Consumer::builder()
        .stream("orders")
        .application(application)
        .processor_factory(|_checkpointer| Ignoring)
        .stream_api(SimulatedKinesis::new())
        .lease_store(MemoryLeaseStore::default())
}

fn high_throughput() -> ConsumerBuilder {
    base("orders-search-index").lease_config(LeaseConfig::PollingConfig { limit: 10_000 }).retrieval(
        RetrievalConfig::default()
            .with_max_byte_size(32 << 20)
            .with_max_records_count(100_000)
            .with_memory_bytes_max(1 << 30),
    )
}

fn low_latency() -> ConsumerBuilder {
    base("orders-fraud").lease_config(LeaseConfig::FanOutConfig {
        consumer: FanOutConsumer::Named("fraud".to_owned()),
        fall_back_to_polling_after: Some(Duration::from_secs(30)),
    })
}

fn batch() -> ConsumerBuilder {
    base("orders-nightly-totals")
        .management(ManagementConfig {
            leases_to_acquire: 1,
            max_leases: 4,
            start_strategy: StartStrategy::Oldest,
        })
        .lease_config(LeaseConfig::PollingConfig { limit: 500 })
}

fn development() -> ConsumerBuilder {
    base("orders-on-my-laptop")
        .coordination(CoordinationConfig::default().with_failover_time(Duration::from_secs(2)))
        .retrieval(RetrievalConfig::default().with_memory_bytes_max(32 << 20))
        .metrics(MetricsConfig::default().with_level(MetricsLevel::None))
}

fn low_cost() -> ConsumerBuilder {
    base("orders-archive")
        .coordination(CoordinationConfig::default().with_failover_time(Duration::from_secs(60)))
        .retrieval(RetrievalConfig::default().with_idle_time_between_reads(Duration::from_secs(10)))
        .metrics(
            MetricsConfig::default()
                .with_level(MetricsLevel::Summary)
                .with_buffer_time(Duration::from_secs(60)),
        )
}

fn replay() -> ConsumerBuilder {
    let since = StartStrategy::Timestamp(1_750_000_000_000);
    base("orders-replay-2025-06-15").management(ManagementConfig::default().with_start_strategy(since))
}

fn from_environment() -> Result<ConsumerBuilder, Box<dyn Error>> {
    Ok(base("orders-notifications").settings(Settings::from_env()?))
}

/// Stands for the processors of the application.
struct Ignoring;

#[async_trait]
impl ShardRecordProcessor for Ignoring {
    async fn process_records(&self, _records: Vec<KinesisClientRecord>, _millis_behind_latest: i64) {}
    async fn shard_ended(&self) {}
}
