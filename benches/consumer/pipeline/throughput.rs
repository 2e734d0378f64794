use std::time::{Duration, Instant};

use clap::Args;
use kinesis_consumer::LeaseConfig;
use kinesis_consumer::testing::LocalAws;

use crate::Outcome;
use crate::bare::Way;
use crate::corpus::{Kind, STREAM, fill};
use crate::{bare, consumer, process};

#[derive(Args)]
pub(crate) struct Arguments {
    /// One shape of records rather than all
    #[arg(long)]
    corpus: Option<Kind>,
    /// One number of shards rather than 1, 8 and 64
    #[arg(long)]
    shards: Option<u32>,
    /// User records in the stream (KPL: four times as many)
    #[arg(long, default_value_t = 1_000_000)]
    records: usize,
    /// How often each is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Fail if a reader is slower than this share of the bare loop
    #[arg(long, default_value_t = 0.0)]
    at_least: f64,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { corpus: None, shards: None, records: 1_000_000, rounds: 5, at_least: 0.0 }
    }
}

/// One run through the stream.
#[derive(Clone, Copy)]
struct Run {
    time: Duration,
    cpu: Duration,
}

impl Run {
    fn rate_to(&self, baseline: &Self) -> f64 {
        baseline.time.as_secs_f64() / self.time.as_secs_f64()
    }
}

pub(crate) async fn run(arguments: &Arguments) -> Outcome {
    println!("throughput: medians of {} rounds, bare loop and consumer in turn", arguments.rounds);
    println!(
        "{:<18} {:>6}  {:<12} {:>12} {:>8} {:>14}  against bare: rate, CPU",
        "records", "shards", "reader", "records/s", "MB/s", "CPU s/million"
    );
    for kind in Kind::ALL.into_iter().filter(|kind| arguments.corpus.is_none_or(|wanted| wanted == *kind)) {
        for shards in arguments.shards.map_or(vec![1, 8, 64], |shards| vec![shards]) {
            measure(kind, shards, arguments).await?;
        }
    }
    println!();
    Ok(())
}

async fn measure(kind: Kind, shards: u32, arguments: &Arguments) -> Outcome {
    let records = match kind {
        Kind::Small => arguments.records,
        Kind::Large => arguments.records / 4,
        Kind::Kpl => arguments.records * 4,
    };
    let per_aggregate = kind.user_records();
    let records = (records / shards as usize).next_multiple_of(per_aggregate) * shards as usize;
    let local = LocalAws::start().await?;
    fill(local.kinesis(), kind, shards, records)?;
    let kinesis_records = records / per_aggregate;
    let fan_out = Way::FanOut(local.kinesis().register_consumer(STREAM, "bare")?);
    for (name, way) in [("polling", Way::Polling), ("fan-out", fan_out)] {
        let config = || match way {
            Way::Polling => LeaseConfig::default(),
            Way::FanOut(_) => LeaseConfig::fan_out(),
        };
        let (mut bare, mut consumed) = (Vec::new(), Vec::new());
        // The first round encodes the records and warms up.
        for round in 0..=arguments.rounds {
            if matches!(way, Way::FanOut(_)) {
                // The service refuses another subscription within five seconds.
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            let run = timed(async {
                let begun = Instant::now();
                bare::read(&local, &way, kinesis_records).await?;
                Ok(begun.elapsed())
            });
            bare.push(run.await?);
            let application = format!("{name}-{round}");
            let sdk = local.in_process_config();
            let run = consumer::consume(&sdk, &application, config(), records);
            consumed.push(timed(run).await?);
        }
        let (baseline, run) = (median(&bare[1..]), median(&consumed[1..]));
        print(kind, shards, &format!("bare {name}"), records, baseline, None);
        print(kind, shards, name, records, run, Some(baseline));
        let ratio = run.rate_to(&baseline);
        if ratio < arguments.at_least {
            let (kind, least) = (kind.name(), arguments.at_least);
            return Err(format!(
                "{name} of {kind} from {shards} shards is at {ratio:.2} of the bare loop, below {least}"
            )
            .into());
        }
    }
    local.shutdown().await;
    Ok(())
}

async fn timed(run: impl Future<Output = Outcome<Duration>>) -> Outcome<Run> {
    let before = process::cpu()?;
    let time = run.await?;
    Ok(Run { time, cpu: process::cpu()?.saturating_sub(before) })
}

/// Each figure by itself.
fn median(runs: &[Run]) -> Run {
    let middle = |figure: fn(&Run) -> Duration| {
        let mut figures: Vec<_> = runs.iter().map(figure).collect();
        figures.sort_unstable();
        figures[figures.len() / 2]
    };
    Run { time: middle(|run| run.time), cpu: middle(|run| run.cpu) }
}

fn print(kind: Kind, shards: u32, reader: &str, records: usize, run: Run, baseline: Option<Run>) {
    let rate = records as f64 / run.time.as_secs_f64();
    let ratios = baseline.map_or(String::new(), |baseline| {
        format!("  {:.2}, {:.2}", run.rate_to(&baseline), run.cpu.as_secs_f64() / baseline.cpu.as_secs_f64())
    });
    println!(
        "{:<18} {shards:>6}  {reader:<12} {rate:>12.0} {:>8.0} {:>14.3}{ratios}",
        kind.name(),
        rate * kind.payload_bytes() as f64 / 1e6,
        run.cpu.as_secs_f64() * 1e6 / records as f64,
    );
}
