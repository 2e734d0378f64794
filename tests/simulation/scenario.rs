//! The parameters of a run, drawn from its seed.

use std::time::Duration;

use crate::coordination::{Coordination, Protocol};
use crate::faults::Odds;
use crate::processors::ProcessorFaults;

pub(crate) const FAILOVER: Duration = Duration::from_secs(10);
/// The minimum a worker accepts, so that the limit matters.
pub(crate) const MEMORY_MAX: u64 = 16 << 20;

/// The maximum number of shards held: open ones, and closed ones that are being finished.
const SHARDS_HELD_MAX: u64 = 24;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Start {
    #[default]
    Oldest,
    Latest,
    /// In the middle of the records written before the first worker starts.
    Timestamp,
}

/// The wall-clock time at which a run begins, since 1970.
pub(crate) const WALL: Duration = Duration::from_secs(1_750_000_000);

/// How long records are written before the first worker starts, unless the fleet reads from the oldest
/// record.
pub(crate) const PRELUDE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) workers: usize,
    pub(crate) shards: u32,
    /// How long faults are injected.
    pub(crate) chaos: Duration,
    pub(crate) odds: Odds,
    pub(crate) processor_faults: ProcessorFaults,
    /// How far clock rates differ from 1. Every property of a worker is stated on its own clock. That a
    /// holder stops before a taker starts holds only for clocks of the same rate, because the protocol
    /// has no margin beyond the time until a renewal is seen.
    pub(crate) rate_spread: f64,
    /// Probabilities per second.
    pub(crate) kills: f64,
    pub(crate) joins: f64,
    pub(crate) shutdowns: f64,
    pub(crate) suspensions: f64,
    pub(crate) reshards: f64,
    /// Whether records expire before slow workers read them.
    pub(crate) retention: Option<Duration>,
    /// User records per put, and how many of the puts are aggregates or poisoned ones.
    pub(crate) records_per_second: f64,
    pub(crate) aggregates: f64,
    pub(crate) poison: f64,
    /// Payloads of up to a megabyte, which exhaust the memory limit.
    pub(crate) large_records: bool,
    /// Where the fleet starts. Unless it is the oldest record, there are some records before it.
    pub(crate) start: Start,
    /// The share of workers that subscribe rather than poll.
    pub(crate) fan_out: f64,
    /// Probability per second that another subscriber subscribes as this application's stream consumer.
    pub(crate) thefts: f64,
    /// Probability per second that fan-out fails for all workers for some time.
    pub(crate) outages: f64,
    pub(crate) coordination: Coordination,
}

impl Scenario {
    /// The fleet must recover within this time after the faults have stopped. Large records pile up
    /// behind slow processors, are delivered again after each restart, and are read at 2 MiB/s at most.
    pub(crate) fn healing_max(&self) -> Duration {
        Duration::from_secs(if self.large_records { 600 } else { 240 })
    }

    /// The maximum number of payload bytes a worker may hold: its budget, and for each subscription an
    /// event that waits for room.
    pub(crate) fn memory_max(&self) -> u64 {
        let waiting = if self.fan_out > 0.0 { SHARDS_HELD_MAX << 20 } else { 0 };
        MEMORY_MAX + waiting
    }

    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Self {
        let workers = match rng.u32(..20) {
            0 => rng.usize(20..=50),
            1..=4 => rng.usize(8..=20),
            _ => rng.usize(1..=6),
        };
        let mut per_second = |values: &[f64]| values[rng.usize(..values.len())];
        let (kills, joins) = (per_second(&[0.0, 0.01, 0.03]), per_second(&[0.0, 0.02, 0.05]));
        let (shutdowns, suspensions) = (per_second(&[0.0, 0.01, 0.03]), per_second(&[0.0, 0.01, 0.03]));
        let reshards = per_second(&[0.0, 0.02, 0.1]);
        let aggregates = per_second(&[0.0, 0.3, 0.8]);
        let records_per_second = per_second(&[1.0, 5.0, 20.0]);
        let rate_spread = per_second(&[0.0, 0.0, 0.01, 0.1]);
        let poison = per_second(&[0.0, 0.1]);
        let large_records = rng.u32(..6) == 0;
        let retention = (rng.u32(..6) == 0).then(|| Duration::from_secs(rng.u64(40..120)));
        // Shards that vanish before they are read leave holes, which are filled at the fleet's start
        // position.
        let start = match rng.u32(..4) {
            0 if retention.is_none() => Start::Latest,
            1 if retention.is_none() => Start::Timestamp,
            _ => Start::Oldest,
        };
        let fan_out = [0.0, 0.0, 0.5, 1.0][rng.usize(..4)];
        let thefts = [0.0, 0.02][rng.usize(..2)];
        let outages = [0.0, 0.01][rng.usize(..2)];
        let shards = rng.u32(1..=8);
        let mut processor_faults = ProcessorFaults::draw(rng, FAILOVER);
        if large_records {
            processor_faults = processor_faults.slow(FAILOVER);
        }
        let chaos = Duration::from_secs(rng.u64(120..=if large_records { 300 } else { 600 }));
        let odds = if rng.u32(..6) == 0 { Odds::default() } else { Odds::draw(rng) };
        let coordination = Coordination::draw(rng);
        // Readiness is judged by wall clocks, which must not be a minute apart.
        let is_migrating = coordination.protocol == Protocol::Migrating;
        Self {
            workers,
            shards,
            chaos: if is_migrating { chaos.min(Duration::from_secs(300)) } else { chaos },
            odds,
            processor_faults,
            rate_spread: if is_migrating { rate_spread.min(0.01) } else { rate_spread },
            kills,
            joins,
            shutdowns,
            suspensions,
            reshards: if large_records { 0.0 } else { reshards },
            retention,
            // With large records, half of the 2 MiB/s with which a shard is read; more would only pile
            // up.
            records_per_second: if large_records { 2.0 * f64::from(shards) } else { records_per_second },
            aggregates,
            poison,
            large_records,
            start,
            fan_out,
            thefts,
            outages,
            coordination,
        }
    }
}
