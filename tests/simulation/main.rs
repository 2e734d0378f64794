//! Whole fleets under faults: see `world` for the scenario of a seed, `invariants` for what must hold.
//!
//! - `SIM_SEEDS=1000 cargo test --test simulation seeds` runs that many seeds, from
//!   `SIM_FROM` on (0 by default).
//! - `SIM_SEED=7 cargo test --test simulation one_seed -- --ignored --nocapture` replays one and
//!   prints everything that happened.

#![expect(dead_code, reason = "some details are kept for the event log and for later invariants")]
#![expect(clippy::print_stdout, reason = "what is found is shown with --nocapture")]
#![expect(clippy::cast_possible_truncation, reason = "small random numbers")]

mod coordination;
mod faults;
mod history;
mod invariants;
mod planted;
mod ports;
mod processors;
mod regressions;
mod rows;
mod scenario;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::history::{History, Violation};
use crate::world::World;

/// The number of seeds in `cargo test`; CI runs more.
const SEEDS: u64 = 24;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// The history of one seed, and its violations.
fn simulate(seed: u64) -> (History, Vec<Violation>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let history = runtime.block_on(async { World::new(seed).run().await });
    let violations = invariants::violations(&history);
    (history, violations)
}

fn replay_command(seed: u64) -> String {
    format!("SIM_SEED={seed} cargo test --test simulation one_seed -- --ignored --nocapture")
}

#[test]
fn seeds() {
    let (from, count) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let began = Instant::now();
    let next = AtomicU64::new(from);
    let simulated = Mutex::new((Duration::ZERO, (Duration::ZERO, 0), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        break;
                    }
                    let (history, violations) = simulate(seed);
                    let mut simulated = simulated.lock().expect("not poisoned");
                    simulated.0 += history.events.last().map_or(Duration::ZERO, |event| event.at);
                    if let Some(Ok(healed)) = &history.healed {
                        simulated.1 = simulated.1.max((*healed, seed));
                    }
                    if let Some(violation) = violations.first() {
                        println!("seed {seed}: {violation} (and {} more)", violations.len() - 1);
                        println!("  {}", replay_command(seed));
                        simulated.2.push(seed);
                    }
                }
            });
        }
    });
    let (time, slowest, failed) = simulated.into_inner().unwrap();
    println!(
        "{count} seeds from {from}: {:.1} virtual hours in {:.1} s; slowest healing {:.0} s (seed {})",
        time.as_secs_f64() / 3600.0,
        began.elapsed().as_secs_f64(),
        slowest.0.as_secs_f64(),
        slowest.1
    );
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}", failed.len());
}

#[test]
#[ignore = "replays the seed in SIM_SEED"]
fn one_seed() {
    let seed = number("SIM_SEED").expect("SIM_SEED is the seed to replay");
    // With RUST_LOG, also prints the log of the workers.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    let (history, violations) = simulate(seed);
    history.print();
    for violation in &violations {
        println!("VIOLATED {violation}");
    }
    println!("healed: {:?}; trace {:016x}", history.healed, history.hash());
    assert!(violations.is_empty());
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in [1, 2, 3] {
        assert_eq!(simulate(seed).0.hash(), simulate(seed).0.hash(), "seed {seed}");
    }
}
