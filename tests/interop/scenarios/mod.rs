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

use futures_util::FutureExt;

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

const SCENARIOS: &[Scenario] = scenarios! {
    "a" "Java 3.x leads, Rust joins, takes the lead over and hands it back" leader::java_leads;
    "b" "Rust leads, Java 3.x joins, takes the lead over and hands it back" leader::rust_leads;
    "c" "Java 2.x and Rust Independent take from each other" taking::java_2x_and_independent;
    "d" "graceful handoff in both directions" leader::handoff;
    "e" "kill -9 of the Java leader, then of the Rust one" leader::kill;
    "f" "splits and merges in a mixed fleet" shards::resharding;
    "g" "Rust goes on in the middle of an aggregate, then Java" shards::sub_sequences;
    "h" "live migration from 2.x to 3.x" migration::live;
    "i" "tables made by one are used by the other" taking::tables;
    "j" "fan-out on both sides" shards::fan_out;
    "figures" "requests per lease and hour; time to rebalance" figures::figures;
};

/// Runs the scenarios with these names, one after the other, or all, and prints a table.
pub(crate) async fn run(names: &[String]) -> ExitCode {
    for name in names {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            let known: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            println!("no scenario is called {name}; there are {}", known.join(", "));
            return ExitCode::FAILURE;
        }
    }
    let lab = Lab::open().await;
    let mut table = Vec::new();
    let mut failed = 0;
    for scenario in SCENARIOS.iter().filter(|s| names.is_empty() || names.iter().any(|name| name == s.name)) {
        println!("{}: {} …", scenario.name, scenario.what);
        let since = Instant::now();
        let outcome = AssertUnwindSafe((scenario.run)(&lab)).catch_unwind().await;
        let seconds = since.elapsed().as_secs_f64();
        let line = match outcome {
            Ok(Report { delivered, remarks }) => format!(
                "{:8} {:>8} {:>10} {seconds:>8.1}  {}: {remarks}",
                scenario.name, delivered.records, delivered.duplicates, scenario.what
            ),
            Err(_) => {
                failed += 1;
                format!(
                    "{:8} FAILED after {seconds:.1} s: {}; logs are in target/interop",
                    scenario.name, scenario.what
                )
            }
        };
        println!("{line}");
        table.push(line);
    }
    println!("\nscenario  records duplicates  seconds");
    for line in &table {
        println!("{line}");
    }
    println!("\n{} passed, {failed} failed", table.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
