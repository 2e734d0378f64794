//! What a mixed fleet must go through.

mod figures;
mod leader;
mod migration;
mod shards;
mod taking;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Instant;

use futures_util::{FutureExt, StreamExt, stream};

use crate::journal::Delivered;
use crate::lab::Lab;

/// What came of a scenario, and what else is worth knowing.
pub(crate) struct Report {
    pub(crate) delivered: Delivered,
    pub(crate) remarks: String,
}

impl Report {
    fn new(delivered: Delivered, remarks: impl Into<String>) -> Self {
        Self { delivered, remarks: remarks.into() }
    }
}

/// Scenarios that run at the same time.
const AT_ONCE: usize = 4;

type Running<'a> = Pin<Box<dyn Future<Output = Report> + 'a>>;

struct Scenario {
    name: &'static str,
    what: &'static str,
    run: for<'a> fn(&'a Lab) -> Running<'a>,
}

macro_rules! scenarios {
    ($($name:literal $what:literal $run:path;)*) => {
        &[$(Scenario { name: $name, what: $what, run: |lab| Box::pin($run(lab)) },)*]
    };
}

/// The long ones first.
const SCENARIOS: &[Scenario] = scenarios! {
    "h" "live migration from 2.x to 3.x" migration::live;
    "figures" "requests per lease and hour; time to rebalance" figures::figures;
    "a" "Java 3.x leads, Rust joins, takes the lead over and hands it back" leader::java_leads;
    "b" "Rust leads, Java 3.x joins, takes the lead over and hands it back" leader::rust_leads;
    "c" "Java 2.x and Rust Independent take from each other" taking::java_2x_and_independent;
    "d" "graceful handoff in both directions" leader::handoff;
    "e" "kill -9 of the Java leader, then of the Rust one" leader::kill;
    "f" "splits and merges in a mixed fleet" shards::resharding;
    "g" "Rust goes on in the middle of an aggregate, then Java" shards::sub_sequences;
    "i" "tables made by one are used by the other" taking::tables;
    "j" "fan-out on both sides" shards::fan_out;
};

/// Runs the scenarios with these names, or all, and prints a table.
pub(crate) async fn run(names: &[String]) -> ExitCode {
    for name in names {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            let known: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            println!("no scenario is called {name}; there are {}", known.join(", "));
            return ExitCode::FAILURE;
        }
    }
    let lab = Lab::open().await;
    // Mostly they wait for a worker to notice something.
    let wanted = SCENARIOS.iter().filter(|s| names.is_empty() || names.iter().any(|name| name == s.name));
    let mut outcomes: Vec<(&str, Result<String, String>)> = stream::iter(wanted)
        .map(|scenario| async { (scenario.name, run_one(scenario, &lab).await) })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    outcomes.sort_by_key(|(name, _)| *name);
    let failed = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
    println!("\nscenario  records duplicates  seconds");
    for (_, Ok(line) | Err(line)) in &outcomes {
        println!("{line}");
    }
    println!("\n{} passed, {failed} failed", outcomes.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A line of the table, or that it failed.
async fn run_one(scenario: &Scenario, lab: &Lab) -> Result<String, String> {
    let Scenario { name, what, run } = scenario;
    println!("{name}: {what} …");
    let since = Instant::now();
    let outcome = AssertUnwindSafe(run(lab)).catch_unwind().await;
    let seconds = since.elapsed().as_secs_f64();
    let line = match outcome {
        Ok(Report { delivered: Delivered { records, duplicates }, remarks }) => {
            Ok(format!("{name:8} {records:>8} {duplicates:>10} {seconds:>8.1}  {what}: {remarks}"))
        }
        Err(_) => Err(format!("{name:8} FAILED after {seconds:.1} s: {what}; logs are in target/interop")),
    };
    let (Ok(text) | Err(text)) = &line;
    println!("{text}");
    line
}
