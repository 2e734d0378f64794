//! What the consumer adds to a bare SDK loop, over the local endpoints and through real SDK clients.
//!
//! `cargo bench -p consumer-benches --bench pipeline` runs everything; `-- throughput`, `-- latency`, `-- memory` or
//! `-- idle` one part, and `-- throughput --shards 8 --corpus kpl` less of it. Throughput is measured
//! in this process, with the endpoints in it and no socket between them and Kinesis clients; memory
//! and idle cost in a process of their own, with the endpoints in another.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod bare;
mod consumer;
mod corpus;
mod idle;
mod latency;
mod memory;
mod process;
mod throughput;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::corpus::Kind;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Given by `cargo bench`
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Part {
    /// Records per second and CPU against a bare loop
    Throughput(throughput::Arguments),
    /// From a put to the call of the processor
    Latency,
    /// Peak resident memory
    Memory,
    /// What a thousand leases cost whose shards are idle
    Idle,
    /// The endpoints, for the parts that measure another process
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        shards: u32,
        #[arg(long)]
        records: usize,
        #[arg(long)]
        kind: Kind,
    },
    /// A consumer of everything, for its memory
    #[command(hide = true)]
    Consume(memory::Consume),
    /// A consumer of nothing, for what that costs
    #[command(hide = true)]
    Hold(idle::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().part {
        Some(Part::Throughput(arguments)) => throughput::run(&arguments).await,
        Some(Part::Latency) => latency::run().await,
        Some(Part::Memory) => memory::run().await,
        Some(Part::Idle) => idle::run().await,
        Some(Part::Serve { shards, records, kind }) => process::serve(shards, records, kind).await,
        Some(Part::Consume(arguments)) => memory::consume(&arguments).await,
        Some(Part::Hold(arguments)) => idle::hold(&arguments).await,
        None => everything().await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn everything() -> Outcome {
    throughput::run(&throughput::Arguments::default()).await?;
    latency::run().await?;
    memory::run().await?;
    idle::run().await
}
