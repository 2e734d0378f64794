//! Serves Kinesis, DynamoDB, CloudWatch and STS on loopback until stopped, for any process that is pointed here by
//! `AWS_ENDPOINT_URL`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

#[path = "support/signal.rs"]
mod signal;
#[path = "support/tls.rs"]
mod tls;

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use clap::Parser;
use kinesis_consumer::testing::{Limits, LocalAws};
use tls::TlsFront;

/// Serves Kinesis, DynamoDB, CloudWatch and STS from memory until stopped with Ctrl-C or SIGTERM.
#[derive(Parser)]
struct Arguments {
    /// The port to listen on; 0 for any free one
    #[arg(long, default_value_t = 4567)]
    port: u16,
    /// The address to listen on; anyone who reaches it can use the endpoints
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// A stream to create at the start, as NAME:SHARDS; can be repeated
    #[arg(long, value_name = "NAME:SHARDS", value_parser = stream)]
    stream: Vec<(String, u32)>,
    /// Throttle as Kinesis does: 5 reads and 2 MiB read, 1000 records and 1 MiB written per second and shard
    #[arg(long)]
    enforce_limits: bool,
    /// Serve https instead of http, with a self-signed certificate for localhost and the address bound
    #[arg(long)]
    tls: bool,
}

fn stream(text: &str) -> Result<(String, u32), String> {
    let (name, shards) = text.split_once(':').ok_or("expected NAME:SHARDS")?;
    let shards = shards.parse().map_err(|_| format!("{shards:?} is not a number of shards"))?;
    Ok((name.to_owned(), shards))
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(source) = error.source() {
                eprintln!("  because: {source}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let address = SocketAddr::new(arguments.bind, arguments.port);
    // Behind TLS, the endpoints are at a port of their own.
    let plain = if arguments.tls { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) } else { address };
    let local = LocalAws::builder().bind(plain).start().await?;
    let front = if arguments.tls { Some(TlsFront::start(address, local.address()).await?) } else { None };
    for (name, shards) in &arguments.stream {
        local.kinesis().create_stream(name, *shards)?;
        eprintln!("stream {name} with {shards} shards");
    }
    if arguments.enforce_limits {
        local.kinesis().set_limits(Limits::service());
    }
    match &front {
        Some(front) => {
            println!("export AWS_ENDPOINT_URL={}", front.endpoint_url());
            // The AWS CLI and boto3 trust it by this variable, other programs each in its own way.
            println!("export AWS_CA_BUNDLE={}", front.certificate().display());
            eprintln!("self-signed certificate: {}", front.certificate().display());
        }
        None => println!("export AWS_ENDPOINT_URL={}", local.endpoint_url()),
    }
    println!("export AWS_REGION=us-east-1");
    println!("export AWS_ACCESS_KEY_ID=local");
    println!("export AWS_SECRET_ACCESS_KEY=local");
    eprintln!("serving until Ctrl-C or SIGTERM");
    signal::stop_signal().await?;
    let requests = local.requests();
    drop(front);
    local.shutdown().await;
    eprintln!("served {} requests", requests.values().sum::<u64>());
    for (operation, count) in requests {
        eprintln!("  {count:>8}  {operation}");
    }
    Ok(())
}
