//! How long a plan for a large fleet takes: 10,000 leases and 500 workers, as a leader plans for all by
//! either strategy, and as each worker plans for itself by the rules of KCL 2.x.
//!
//! `cargo bench --bench assignment` prints, for each situation, how many leases the plan moves, the
//! median and the longest time in milliseconds, and how far the median is below the target.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it measures, and prints what it measured"
)]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use kinesis_consumer::internals::{Known, KnownFleet};
use kinesis_consumer::lease::{Lease, Throughput};
use kinesis_consumer::{AssignmentStrategy, Checkpoint, CoordinationConfig, Moment, WorkerId};

const LEASES: usize = 10_000;
const WORKERS: usize = 500;
const ROUNDS: u64 = 51;
const TARGET: Duration = Duration::from_millis(50);

/// When everything was seen, and when it is planned for: within the failover time.
const SEEN: Moment = Moment::ORIGIN;
const NOW: Moment = Moment::after_origin(Duration::from_secs(1));

fn main() {
    println!("{LEASES} leases, {WORKERS} workers, {ROUNDS} plans each, target {} ms", TARGET.as_millis());
    println!("{:<44}{:>8}{:>12}{:>12}{:>12}", "", "moves", "median ms", "longest ms", "target /");
    for (name, fleet) in [
        ("cold: nothing is assigned", Fleet::new(|_, _| None)),
        ("warm: skewed, a tenth of the workers is new", Fleet::new(skewed)),
        ("warm: a tenth of the workers is gone", Fleet::new(even).without_a_tenth()),
        ("steady: in balance", Fleet::new(even)),
    ] {
        println!("{name}");
        for (strategy, rules) in [
            ("leader, by utilisation", AssignmentStrategy::WorkerUtilizationAware),
            ("leader, by number of leases", AssignmentStrategy::LeaseCountBased),
        ] {
            let mut coordination = CoordinationConfig::default();
            coordination.leader.assignment_strategy = rules;
            measure(strategy, |seed| fleet.known.plan_as_leader(&coordination, NOW, seed));
        }
        let (worker, held) = fleet.one_worker();
        let coordination = CoordinationConfig::default();
        measure("one worker for itself", |seed| {
            fleet.known.plan_for_itself(&worker, &held, &coordination, NOW, seed)
        });
    }
}

/// The owner of a lease, by its number.
type Owner = fn(usize, &mut fastrand::Rng) -> Option<usize>;

/// All workers have as many.
fn even(lease: usize, _: &mut fastrand::Rng) -> Option<usize> {
    Some(lease % WORKERS)
}

/// The first workers have most, and the last tenth has none.
fn skewed(_: usize, random: &mut fastrand::Rng) -> Option<usize> {
    let workers = WORKERS * 9 / 10;
    Some(random.usize(..workers).min(random.usize(..workers)))
}

struct Fleet {
    leases: Vec<Lease>,
    cpus: Vec<f64>,
    known: KnownFleet,
}

impl Fleet {
    /// Leases of unlike throughput, which together keep the CPUs at 30 % on average.
    fn new(owner: Owner) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let mut loads = vec![0.0; WORKERS];
        let mut total = 0.0;
        let leases: Vec<Lease> = (0..LEASES)
            .map(|number| {
                let key = format!("shardId-{number:012}");
                let mut lease = Lease::new(key.as_str(), Checkpoint::TrimHorizon);
                let owner = owner(number, &mut random);
                // In a fleet that is in balance, leases are alike.
                let kib = if owner == Some(number % WORKERS) { 250 } else { random.u64(1..500) };
                lease.throughput = owner.map(|_| Throughput::from_bytes(kib * 1024, Duration::from_secs(1)));
                total += kib as f64;
                if let Some(owner) = owner {
                    loads[owner] += kib as f64;
                    (lease.owner, lease.counter) = (Some(name(owner)), 1);
                }
                lease
            })
            .collect();
        let cpus = loads.iter().map(|load| (30.0 * load * WORKERS as f64 / total).min(100.0)).collect();
        Self::of(leases, cpus)
    }

    fn of(leases: Vec<Lease>, cpus: Vec<f64>) -> Self {
        let known: Known =
            leases.iter().map(|lease| (lease.clone(), lease.owner.as_ref().map(|_| SEEN), true)).collect();
        let workers = cpus.iter().enumerate().map(|(number, cpu)| (name(number), *cpu));
        Self { known: KnownFleet::new(known, workers), leases, cpus }
    }

    /// Their leases have no owners any more.
    fn without_a_tenth(mut self) -> Self {
        let gone: BTreeSet<WorkerId> = (WORKERS * 9 / 10..WORKERS).map(name).collect();
        for lease in &mut self.leases {
            lease.owner.take_if(|owner| gone.contains(owner));
        }
        self.cpus.truncate(WORKERS * 9 / 10);
        Self::of(self.leases, self.cpus)
    }

    /// One from the middle, and what it has.
    fn one_worker(&self) -> (WorkerId, BTreeSet<kinesis_consumer::LeaseKey>) {
        let worker = name(WORKERS / 2);
        let held = self.leases.iter().filter(|lease| lease.owner.as_ref() == Some(&worker));
        let held = held.map(|lease| lease.key.clone()).collect();
        (worker, held)
    }
}

fn name(worker: usize) -> WorkerId {
    format!("ip-10-0-{}-{}.eu-west-1.compute.internal:{worker:08x}", worker / 256, worker % 256).into()
}

fn measure(name: &str, plan: impl Fn(u64) -> usize) {
    let mut moves = 0;
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|seed| {
            let begun = Instant::now();
            moves = black_box(plan(seed));
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let factor = TARGET.as_secs_f64() / median.as_secs_f64();
    println!("  {name:<42}{moves:>8}{:>12.2}{:>12.2}{factor:>10.1} x", ms(median), ms(longest));
}
