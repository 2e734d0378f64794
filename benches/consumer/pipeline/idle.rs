//! What a thousand leases cost whose shards are idle: memory, CPU and requests.
//!
//! Over the simulated stream and a lease table in memory, both in this process, so that neither
//! connections nor endpoints are measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_config::BehaviorVersion;
use clap::Args;
use kinesis_consumer::lease::MemoryLeaseStore;
use kinesis_consumer::testing::SimulatedKinesis;
use kinesis_consumer::{LeaseConfig, MetricsConfig, MetricsLevel};

use crate::Outcome;
use crate::consumer::{Count, consumer};
use crate::corpus::STREAM;
use crate::process::{command, cpu, resident};

const LEASES: u32 = 1000;
const MEASURED: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Subscribe rather than poll
    #[arg(long)]
    fan_out: bool,
}

pub(crate) async fn run() -> Outcome {
    println!("idle: {LEASES} leases on one worker, each way in a process of its own");
    for arguments in [&["hold", "--fan-out"][..], &["hold"]] {
        let output = command(arguments)?.output().await?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        print!("  {}", String::from_utf8_lossy(&output.stdout));
    }
    println!();
    Ok(())
}

/// What [`run`] starts.
pub(crate) async fn hold(arguments: &Arguments) -> Outcome {
    let (name, lease_config) = match arguments.fan_out {
        true => ("fan-out", LeaseConfig::fan_out()),
        false => ("polling, idle time 1.5 s", LeaseConfig::default()),
    };
    let kinesis = SimulatedKinesis::new();
    kinesis.create_stream(STREAM, LEASES)?;
    let reads = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&reads);
    kinesis.set_faults(move |call| {
        counting.fetch_add(u64::from(call.operation == "GetRecords"), Ordering::Relaxed);
        None
    });
    let config = aws_config::SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build();
    let mut metrics = MetricsConfig::default();
    metrics.level = MetricsLevel::None;
    let (before, _) = resident()?;
    let handle = consumer(&config, "idle", lease_config, &Count::new(1))
        .stream_api(Arc::new(kinesis))
        .lease_store(Arc::new(MemoryLeaseStore::default()))
        .metrics(metrics)
        .build()?
        .start()
        .await?;
    // Until all are held and have started.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let held = handle.status().shards.len();
    let (after, _) = resident()?;
    let (cpu_before, reads_before) = (cpu()?, reads.load(Ordering::Relaxed));
    tokio::time::sleep(MEASURED).await;
    let busy = (cpu()? - cpu_before).as_secs_f64() / MEASURED.as_secs_f64();
    let reads = (reads.load(Ordering::Relaxed) - reads_before) as f64 / MEASURED.as_secs_f64();
    println!(
        "{name}: {held} leases held, {:.1} KB each, {:.1} % of a core, {reads:.0} GetRecords/s",
        after.saturating_sub(before) as f64 / 1e3 / f64::from(LEASES),
        busy * 100.0
    );
    handle.shutdown().await?;
    Ok(())
}
