//! The peak of resident memory, of a consumer in a process of its own.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use clap::Args;
use kinesis_consumer::LeaseConfig;

use crate::Outcome;
use crate::consumer::{Count, consumer};
use crate::corpus::Kind;
use crate::process::{Server, command, resident};

#[derive(Args)]
pub(crate) struct Consume {
    #[arg(long)]
    url: String,
    #[arg(long)]
    records: usize,
    /// How long the processor takes for a batch
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// How long to run at most, in seconds
    #[arg(long, default_value_t = 300)]
    seconds: u64,
}

pub(crate) async fn run() -> Outcome {
    println!("memory: peak of a process with the default budget of 96 MiB, endpoints elsewhere");
    measure("8 shards, 1M records of 1 KB waiting", Kind::Large, 8, 1_000_000, 60_000, 15).await?;
    measure("8 shards, 1M records of 100 B waiting", Kind::Small, 8, 1_000_000, 60_000, 15).await?;
    measure("8 shards, 4M user records in KPL aggregates", Kind::Kpl, 8, 4_000_000, 0, 300).await?;
    println!();
    Ok(())
}

async fn measure(name: &str, kind: Kind, shards: u32, records: usize, pause: u64, seconds: u64) -> Outcome {
    let server = Server::start(kind, shards, records).await?;
    let (records, pause, seconds) = (records.to_string(), pause.to_string(), seconds.to_string());
    let arguments =
        ["--url", &server.url, "--records", &records, "--pause-ms", &pause, "--seconds", &seconds];
    let arguments: Vec<&str> = ["consume"].into_iter().chain(arguments).collect();
    let output = command(&arguments)?.output().await?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    println!("  {name}: {}", String::from_utf8_lossy(&output.stdout).trim_end());
    Ok(())
}

/// What [`measure`] starts.
pub(crate) async fn consume(arguments: &Consume) -> Outcome {
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(&arguments.url)
        .test_credentials()
        .load()
        .await;
    let (before, _) = resident()?;
    let count = Count::with_pause(arguments.records, Duration::from_millis(arguments.pause_ms));
    let application = format!("memory-{}", std::process::id());
    let handle = consumer(&config, &application, LeaseConfig::default(), &count).build()?.start().await?;
    let _ = tokio::time::timeout(Duration::from_secs(arguments.seconds), count.all()).await;
    let (_, peak) = resident()?;
    println!(
        "peak {:.0} MB, of which {:.0} MB before it started; {} records processed",
        peak as f64 / 1e6,
        before as f64 / 1e6,
        count.records()
    );
    // A processor that sleeps would hold a graceful shutdown up.
    drop(handle);
    Ok(())
}
