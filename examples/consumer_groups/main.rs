//! Two consumer groups of one topic, as a service: what one group acknowledges or resets, the other does not notice.
//!
//! `cargo run --example consumer_groups -- --local`, then open <http://127.0.0.1:8000/ui>
//!
//! Without `--local` it works on AWS, or on the endpoints that `AWS_ENDPOINT_URL` names: with `local_aws` in a process of its
//! own, messages and acknowledgements outlive this one.

#![expect(clippy::print_stderr, reason = "a command-line program")]

#[path = "app.rs"]
mod app;
#[path = "../support/signal.rs"]
mod signal;

use std::net::{Ipv4Addr, SocketAddr};

use aws_config::BehaviorVersion;
use clap::Parser;
use kinesis_consumer::BoxError;
use kinesis_consumer::testing::LocalAws;

use app::App;

/// Serves two consumer groups of one topic over HTTP.
#[derive(Parser)]
struct Arguments {
    /// The stream, which is created with one shard if it does not exist
    #[arg(long, default_value = "demo-topic")]
    topic: String,
    /// The port to listen on, on the loopback interface; 0 for any free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Run without AWS: endpoints inside this process
    #[arg(long)]
    local: bool,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let local = if arguments.local { Some(LocalAws::start().await?) } else { None };
    let config = match &local {
        Some(local) => local.sdk_config(),
        None => aws_config::load_defaults(BehaviorVersion::latest()).await,
    };
    let app = App::start(&config, &arguments.topic).await?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let listener = tokio::net::TcpListener::bind(address).await?;
    eprintln!("listening on http://{}/ui", listener.local_addr()?);
    let served = tokio::select! {
        served = app.serve(listener) => served.map_err(BoxError::from),
        stopped = signal::stop_signal() => stopped.map_err(BoxError::from),
    };
    app.shutdown().await?;
    if let Some(local) = local {
        local.shutdown().await;
    }
    served
}
