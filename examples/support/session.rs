//! The frame around the consumers of an example: AWS or local endpoints, progress, and an end.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use clap::Args;
use kinesis_consumer::testing::LocalAws;
use kinesis_consumer::{ConsumerHandle, Error as ConsumerError};
use tokio::task::JoinSet;

use crate::orders::feed;
use crate::tally::Tally;

/// Shards of the stream in local mode.
const LOCAL_SHARDS: u32 = 4;

#[derive(Debug, Args)]
pub(crate) struct LocalArguments {
    /// Run without AWS: endpoints inside this process, fed with sample orders
    #[arg(long)]
    local: bool,
    /// How many sample orders are fed and processed in local mode
    #[arg(long, default_value_t = 10_000, requires = "local")]
    records: u64,
}

/// Where an example runs.
pub(crate) struct Session {
    pub(crate) config: SdkConfig,
    local: Option<(LocalAws, u64)>,
}

impl Session {
    /// Connects to AWS, or to `AWS_ENDPOINT_URL`; in local mode starts the endpoints and creates
    /// `stream`.
    pub(crate) async fn open(arguments: &LocalArguments, stream: &str) -> Result<Self, Box<dyn Error>> {
        if !arguments.local {
            return Ok(Self {
                config: aws_config::load_defaults(BehaviorVersion::latest()).await,
                local: None,
            });
        }
        let local = LocalAws::start().await?;
        local.kinesis().create_stream(stream, LOCAL_SHARDS)?;
        eprintln!("local endpoints at {}", local.endpoint_url());
        Ok(Self { config: local.sdk_config(), local: Some((local, arguments.records)) })
    }

    /// In local mode, writes the sample orders to `stream`.
    pub(crate) fn feed(&self, stream: &str) -> Result<(), Box<dyn Error>> {
        if let Some((local, records)) = &self.local {
            feed(local.kinesis(), stream, *records)?;
            eprintln!("{records} orders written to {stream}");
        }
        Ok(())
    }

    /// Counts what the processors do: in local mode also which records come again.
    pub(crate) fn tally(&self) -> Tally {
        if self.local.is_some() { Tally::of_distinct_records() } else { Tally::default() }
    }

    /// Shows progress until the sample orders are processed and checkpointed, SIGTERM or Ctrl-C comes, or
    /// `limit` has passed; then stops `consumers`, and in local mode prints the summary.
    pub(crate) async fn run(
        self,
        consumers: &[ConsumerHandle],
        tally: &Tally,
        limit: Option<Duration>,
    ) -> Result<(), Box<dyn Error>> {
        let done = async {
            let Some((_, records)) = &self.local else { return std::future::pending().await };
            while !tally.is_done(*records) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let time_over = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = done => eprintln!("all processed and checkpointed"),
            () = time_over => eprintln!("the time limit is reached"),
            stopped = all(consumers, shut_down_on_signal) => {
                stopped?;
                eprintln!("stopped, as a signal asked for");
            }
            // Who does not want to wait for the shutdown presses it twice.
            () = pressed_twice() => return Err("stopped the hard way; leases will expire".into()),
            () = show_progress(consumers, tally) => {}
        }
        tokio::select! {
            stopped = all(consumers, shut_down) => stopped?,
            _ = tokio::signal::ctrl_c() => return Err("stopped the hard way; leases will expire".into()),
        }
        eprintln!("{tally}");
        if let Some((local, _)) = self.local {
            println!("{}", tally.summary());
            local.shutdown().await;
        }
        Ok(())
    }
}

/// Prints a line a second.
async fn show_progress(consumers: &[ConsumerHandle], tally: &Tally) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.tick().await;
    loop {
        seconds.tick().await;
        let shards: Vec<_> = consumers.iter().flat_map(|consumer| consumer.status().shards).collect();
        let behind = shards.iter().filter_map(|shard| shard.behind_latest).max().unwrap_or_default();
        eprintln!("{tally}; {} leases, at most {:.1} s behind", shards.len(), behind.as_secs_f64());
    }
}

async fn shut_down_on_signal(consumer: ConsumerHandle) -> Result<(), ConsumerError> {
    consumer.shutdown_on_signal().await
}

async fn shut_down(consumer: ConsumerHandle) -> Result<(), ConsumerError> {
    consumer.shutdown().await
}

/// Stops all consumers at the same time.
async fn all<F>(consumers: &[ConsumerHandle], stop: impl Fn(ConsumerHandle) -> F) -> Result<(), ConsumerError>
where
    F: Future<Output = Result<(), ConsumerError>> + Send + 'static,
{
    let mut stopping: JoinSet<_> = consumers.iter().cloned().map(stop).collect();
    while let Some(stopped) = stopping.join_next().await {
        // A shutdown does not panic.
        stopped.unwrap_or(Ok(()))?;
    }
    Ok(())
}

/// Waits for Ctrl-C, says that another ends the program at once, and waits for that.
async fn pressed_twice() {
    if tokio::signal::ctrl_c().await.is_ok() {
        eprintln!("stopping; press Ctrl-C again to stop the hard way");
        if tokio::signal::ctrl_c().await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}
