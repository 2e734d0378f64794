//! Writes sample order events to a stream: text or JSON, plain or in KPL aggregates.
//!
//! `cargo run --release --example simple_producer -- --stream-name orders --count 1000`

#![expect(clippy::print_stderr, reason = "a command-line program")]

#[path = "support/orders.rs"]
#[expect(dead_code, reason = "feeding the simulated stream is for consumers")]
mod orders;
#[path = "support/signal.rs"]
mod signal;

use std::error::Error;
use std::time::{Duration, Instant};

use aws_config::BehaviorVersion;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use clap::Parser;
use kinesis_consumer::aggregation::{Added, Aggregator};
use orders::OrderEvent;

/// PutRecords takes 500 entries; 100 keep the batches of a slow producer timely.
const BATCH: usize = 100;
const TRIES: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Writes sample order events to a stream.
#[derive(Parser)]
struct Arguments {
    /// The stream
    #[arg(long)]
    stream_name: String,
    /// How many events to write
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Write JSON instead of text
    #[arg(long)]
    json_format: bool,
    /// The pause between two batches of 100 events
    #[arg(long, default_value_t = 0)]
    interval_ms: u64,
    /// Pack the events of a batch that have the same customer into one KPL aggregate
    #[arg(long)]
    aggregate: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let client = Client::new(&aws_config::load_defaults(BehaviorVersion::latest()).await);
    let started = Instant::now();
    let mut shown = started;
    let mut retried = 0;
    let mut stop = std::pin::pin!(signal::stop_signal());
    for first in (0..arguments.count).step_by(BATCH) {
        let events: Vec<OrderEvent> =
            (first..arguments.count.min(first + BATCH as u64)).map(OrderEvent::sample).collect();
        let entries =
            if arguments.aggregate { aggregates(&arguments, &events)? } else { plain(&arguments, &events)? };
        tokio::select! {
            outcome = put(&client, &arguments.stream_name, entries) => retried += outcome?,
            stopped = &mut stop => {
                stopped?;
                eprintln!("stopped after {first} events");
                return Ok(());
            }
        }
        if shown.elapsed() >= Duration::from_secs(1) {
            eprintln!("{} of {} events written", first + events.len() as u64, arguments.count);
            shown = Instant::now();
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(arguments.interval_ms)) => {}
            stopped = &mut stop => {
                stopped?;
                eprintln!("stopped after {} events", first + events.len() as u64);
                return Ok(());
            }
        }
    }
    eprintln!(
        "{} events written in {:.1} s, {retried} entries tried again",
        arguments.count,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn payload(arguments: &Arguments, event: &OrderEvent) -> Result<Vec<u8>, Box<dyn Error>> {
    if arguments.json_format {
        return Ok(serde_json::to_vec(event)?);
    }
    Ok(format!("order {} of {}: {} cents", event.order_id, event.customer, event.amount_cents).into_bytes())
}

fn plain(
    arguments: &Arguments,
    events: &[OrderEvent],
) -> Result<Vec<PutRecordsRequestEntry>, Box<dyn Error>> {
    events.iter().map(|event| entry(&event.customer, payload(arguments, event)?)).collect()
}

/// One aggregate per customer: user records belong to the shard that their own key hashes to.
fn aggregates(
    arguments: &Arguments,
    events: &[OrderEvent],
) -> Result<Vec<PutRecordsRequestEntry>, Box<dyn Error>> {
    let mut entries = Vec::new();
    for same_customer in events.chunk_by(|a, b| a.customer == b.customer) {
        let mut aggregator = Aggregator::new();
        let mut finished = Vec::new();
        for event in same_customer {
            let payload = payload(arguments, event)?;
            while aggregator.add(&event.customer, None, &payload) == Added::Full {
                finished.extend(aggregator.finish());
            }
        }
        finished.extend(aggregator.finish());
        for aggregate in finished {
            entries.push(entry(&aggregate.partition_key, aggregate.data.into())?);
        }
    }
    Ok(entries)
}

fn entry(partition_key: &str, data: Vec<u8>) -> Result<PutRecordsRequestEntry, Box<dyn Error>> {
    Ok(PutRecordsRequestEntry::builder().partition_key(partition_key).data(Blob::new(data)).build()?)
}

/// Writes all entries; those that are refused are written again, and only those. Returns how many.
async fn put(
    client: &Client,
    stream: &str,
    mut entries: Vec<PutRecordsRequestEntry>,
) -> Result<usize, Box<dyn Error>> {
    let mut retried = 0;
    let mut pause = FIRST_PAUSE;
    for _ in 0..TRIES {
        let answer =
            client.put_records().stream_name(stream).set_records(Some(entries.clone())).send().await?;
        let mut refused = answer.records().iter().map(|result| result.error_code().is_some());
        entries.retain(|_| refused.next().unwrap_or(false));
        if entries.is_empty() {
            return Ok(retried);
        }
        retried += entries.len();
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    Err(format!("{} entries were refused {TRIES} times; the stream needs more shards", entries.len()).into())
}
