//! Fleets that do what their leader plans, period after period: they come to rest, in balance, without
//! moving more than it takes.
//!
//! A load moves with its lease. Machines differ in what a load costs them, and report how busy they are as
//! `worker_metrics` does: two samples from one rebalancing to the next, the first partly of the time
//! before the moves, of which the leader sees a moving average.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::coordination::worker_metrics::CPU;
use crate::lease::Throughput;
use crate::types::Checkpoint;

/// From one rebalancing to the next, if CPUs are measured.
const PERIOD: Duration = Duration::from_secs(60);
/// How often a lease's throughput is averaged from one plan to the next, at least.
const RENEWALS: usize = 3;
/// By when a fleet has come to rest, and for how long it is watched then.
const PERIODS: usize = 40;
const AT_REST: usize = 20;

#[derive(Debug, Clone)]
struct Machine {
    stats: WorkerStats,
    /// Percent of its CPU that a KiB per second takes.
    cost: f64,
    /// Percent that is taken whatever it does.
    idle: f64,
}

struct World {
    leases: Vec<Lease>,
    /// KiB per second of each lease.
    rates: Vec<f64>,
    machines: Vec<Machine>,
    rules: LeaderRules,
    /// Machines report how busy they are.
    is_measured: bool,
    /// But every second does not.
    is_half_measured: bool,
    /// By what part samples are off.
    noise: f64,
    now: Moment,
    view: View,
    outlook: LoadForecast,
    rng: fastrand::Rng,
}

/// What was moved to even out, not counting what had no living owner.
#[derive(Debug, Default, Clone, Copy)]
struct Moved {
    periods: usize,
    leases: usize,
    load: f64,
}

fn name(index: usize) -> WorkerId {
    format!("w{index:03}").into()
}

fn kib(rate: f64) -> Throughput {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]
    Throughput::from_bytes((rate * 1024.0) as u64, Duration::from_secs(1))
}

impl World {
    /// `owners` beyond the machines are workers that are gone; theirs is unassigned.
    fn new(rates: Vec<f64>, owners: &[Option<usize>], costs: &[f64], seed: u64) -> Self {
        let machine = |(index, cost): (usize, &f64)| Machine {
            stats: WorkerStats::new(name(index)),
            cost: *cost,
            idle: 2.0,
        };
        let lease = |(index, (rate, owner)): (usize, (&f64, &Option<usize>))| {
            let mut lease = Lease::new(format!("{index:04}"), Checkpoint::TrimHorizon);
            lease.owner = owner.map(name);
            lease.throughput = owner.map(|_| kib(*rate));
            lease
        };
        let leases: Vec<Lease> = rates.iter().zip(owners.iter().cycle()).enumerate().map(lease).collect();
        let mut view = View::default();
        view.observe_scan(leases.clone(), Moment::ORIGIN);
        Self {
            leases,
            rates,
            machines: costs.iter().enumerate().map(machine).collect(),
            rules: LeaderRules::new(&CoordinationConfig::default(), usize::MAX),
            is_measured: true,
            is_half_measured: false,
            noise: 0.0,
            now: Moment::ORIGIN,
            view,
            outlook: LoadForecast::default(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    fn owner(&self, lease: &Lease) -> Option<usize> {
        // As `name` writes it.
        let index = lease.owner.as_ref()?.as_str().strip_prefix('w')?.parse().ok()?;
        (index < self.machines.len()).then_some(index)
    }

    /// KiB per second that each machine processes.
    fn loads(&self) -> Vec<f64> {
        let mut loads = vec![0.0; self.machines.len()];
        for (lease, rate) in self.leases.iter().zip(&self.rates) {
            if let Some(owner) = self.owner(lease) {
                loads[owner] += rate;
            }
        }
        loads
    }

    fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.machines.len()];
        for owner in self.leases.iter().filter_map(|lease| self.owner(lease)) {
            counts[owner] += 1;
        }
        counts
    }

    /// How busy each machine is with its load: in percent, or in KiB per second if that is not measured.
    fn busy(&self) -> Vec<f64> {
        let busy = |(machine, load): (&Machine, f64)| {
            if self.is_measured { (machine.idle + machine.cost * load).min(100.0) } else { load }
        };
        self.machines.iter().zip(self.loads()).map(busy).collect()
    }

    fn report(&mut self, busy: &[f64]) {
        if self.is_measured {
            let every = if self.is_half_measured { 2 } else { 1 };
            for (machine, busy) in self.machines.iter_mut().zip(busy).step_by(every) {
                let off = 1.0 + self.noise * (2.0 * self.rng.f64() - 1.0);
                machine.stats.push(CPU, Some((busy * off).min(100.0)), 100.0);
                machine.stats.updated += 30;
            }
        }
    }

    /// One rebalancing and the time until the next; what it moved from one living worker to another.
    fn period(&mut self) -> Moved {
        let moved = self.half(true);
        assert_eq!(self.half(false).leases, 0, "moved between rebalancings");
        moved
    }

    /// A plan and the time until workers have reported the next sample.
    fn half(&mut self, rebalance: bool) -> Moved {
        for index in 0..self.leases.len() {
            if self.owner(&self.leases[index]).is_none() {
                continue;
            }
            let lease = &mut self.leases[index];
            lease.counter += 1;
            for _ in 0..RENEWALS {
                let sample = kib(self.rates[index]);
                lease.throughput = Some(lease.throughput.map_or(sample, |known| known.averaged_with(sample)));
            }
        }
        self.now = self.now + PERIOD / 2;
        self.view.observe_scan(self.leases.clone(), self.now);
        let before = self.busy();
        if self.machines.iter().all(|machine| machine.stats.samples.is_empty()) {
            self.report(&before);
        }
        let stats: Vec<WorkerStats> = self.machines.iter().map(|machine| machine.stats.clone()).collect();
        let plan = plan_leader_assignment(
            &self.view,
            &stats,
            &mut self.outlook,
            &Handoffs::default(),
            &self.rules,
            rebalance,
            self.now,
            &mut self.rng,
        );
        let counts = self.counts();
        let mut moved = Moved::default();
        for change in &plan.moves {
            let index: usize = change.lease.key.as_str().parse().unwrap();
            if change.reason == AssignReason::Rebalance {
                moved.leases += 1;
                moved.load += self.rates[index];
            }
            assert!(stats.iter().any(|stats| stats.worker == change.to), "to nobody: {change}");
            assert_ne!(self.leases[index].owner.as_ref(), Some(&change.to), "{change}");
            self.leases[index].owner = Some(change.to.clone());
            self.leases[index].counter += 1;
        }
        for (count, before) in self.counts().into_iter().zip(counts) {
            assert!(count <= self.rules.max_leases.max(before), "{count} leases, {before} before");
        }
        let after = self.busy();
        let part = self.rng.f64();
        let mixed: Vec<f64> = before.iter().zip(&after).map(|(b, a)| b * part + a * (1.0 - part)).collect();
        self.report(&mixed);
        moved
    }

    fn run(&mut self, periods: usize) -> Moved {
        let mut sum = Moved::default();
        for period in 0..periods {
            let moved = self.period();
            sum.leases += moved.leases;
            sum.load += moved.load;
            if moved.leases > 0 {
                sum.periods = period + 1;
            }
        }
        sum
    }

    /// KiB per second that those with too much have too much.
    fn surplus(&self) -> f64 {
        let power = |machine: &Machine| if self.is_measured { 1.0 / machine.cost } else { 1.0 };
        let all: f64 = self.machines.iter().map(power).sum();
        let total: f64 = self.rates.iter().sum();
        let fair = self.machines.iter().map(|machine| total * power(machine) / all);
        self.loads().into_iter().zip(fair).map(|(load, fair)| (load - fair).max(0.0)).sum()
    }

    /// Whether nobody is busier than the average allows by more than the largest lease it has; not for
    /// machines that have been asked for all they can give by a single one.
    fn is_balanced(&self) -> bool {
        self.is_within(self.rules.threshold)
    }

    fn is_within(&self, threshold: f64) -> bool {
        let busy = self.busy();
        let average = busy.iter().sum::<f64>() / count(busy.len());
        let mut largest = vec![0.0_f64; busy.len()];
        for (lease, rate) in self.leases.iter().zip(&self.rates) {
            if let Some(owner) = self.owner(lease) {
                largest[owner] = largest[owner].max(*rate);
            }
        }
        (0..busy.len()).all(|index| {
            let cost = if self.is_measured { self.machines[index].cost } else { 1.0 };
            // Rates in the table are rounded.
            busy[index] <= average * (1.0 + threshold) + cost * largest[index] + 0.01
        })
    }
}

proptest! {
    // What plans come to is a matter of degree, so the fleets are the same on each run.
    #![proptest_config(ProptestConfig {
        cases: 300,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever workers have, are worth and cost, wherever leases are and whichever workers are gone.
    #[test]
    fn any_fleet_comes_to_rest_and_moves_no_more_than_it_must(
        rates in rates(),
        owners in vec(proptest::option::weighted(0.9, 0_usize..14), 1..120),
        sizes in vec(prop::sample::select(vec![1.0, 2.0, 4.0]), 1..12),
        is_measured in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(rates.clone(), &owners, &costs(&rates, &sizes), seed);
        world.is_measured = is_measured;
        // Once those without an owner have one.
        world.half(false);
        let surplus = world.surplus();
        let moved = world.run(PERIODS);
        prop_assert!(world.leases.iter().all(|lease| world.owner(lease).is_some()));
        prop_assert_eq!(world.run(AT_REST).leases, 0, "moves at rest: {:?}", world.busy());
        let largest = rates.iter().copied().fold(1.0, f64::max);
        // What a lease costs a machine that is unlike others shows only when it has it.
        let is_known = !is_measured || sizes.iter().all(|size| *size == sizes[0]);
        let tries = if is_known { 1.0 } else { 3.0 };
        let most = 1.25 * surplus + tries * largest * count(sizes.len());
        prop_assert!(moved.load <= most, "{moved:?}, of a surplus of {surplus}");
        // A large lease may fit no other machine, and which one has it is then as it is.
        prop_assert!(!is_known || world.is_balanced(), "{:?}", world.busy());
        let learned = format!("{:?}", world.outlook);
        prop_assert!(!learned.contains("NaN") && !learned.contains("inf"), "{learned}");
    }

    /// Workers that report their CPU beside workers that do not are balanced like those that do not.
    #[test]
    fn a_fleet_that_is_measured_by_halves_is_balanced_by_throughput(
        rates in rates(),
        owners in vec(proptest::option::weighted(0.9, 0_usize..14), 1..120),
        machines in 2_usize..12,
        seed in any::<u64>(),
    ) {
        let mut world = World::new(rates.clone(), &owners, &costs(&rates, &vec![1.0; machines]), seed);
        world.is_half_measured = true;
        world.run(PERIODS);
        prop_assert_eq!(world.run(AT_REST).leases, 0, "moves at rest: {:?}", world.loads());
        world.is_measured = false;
        prop_assert!(world.is_balanced(), "{:?}", world.loads());
    }

    /// Large machines get more than small ones.
    #[test]
    fn unlike_machines_become_alike_busy(
        leases_per_machine in 10_usize..20,
        owners in vec(proptest::option::weighted(0.9, 0_usize..14), 1..120),
        sizes in vec(prop::sample::select(vec![1.0, 2.0, 4.0]), 1..12),
        seed in any::<u64>(),
    ) {
        let rates = vec![5.0; leases_per_machine * sizes.len()];
        let mut world = World::new(rates.clone(), &owners, &costs(&rates, &sizes), seed);
        world.run(PERIODS);
        prop_assert_eq!(world.run(AT_REST).leases, 0, "moves at rest: {:?}", world.busy());
        // What a lease costs which machine is known roughly.
        prop_assert!(world.is_within(2.0 * world.rules.threshold), "{:?}", world.busy());
    }

    #[test]
    fn leases_are_levelled_with_as_few_moves_as_there_can_be(
        leases in 1_usize..150,
        owners in vec(proptest::option::weighted(0.8, 0_usize..12), 1..150),
        machines in 1_usize..12,
        seed in any::<u64>(),
    ) {
        let mut world = World::new(vec![1.0; leases], &owners, &vec![1.0; machines], seed);
        world.rules.strategy = AssignmentStrategy::LeaseCountBased;
        let before = world.counts();
        let moved = world.run(3);
        let after = world.counts();
        prop_assert!(after.iter().max().unwrap() - after.iter().min().unwrap() <= 1, "{after:?}");
        let lost: usize = before.iter().zip(&after).map(|(before, after)| before.saturating_sub(*after)).sum();
        prop_assert!(moved.periods <= 1 && moved.leases == lost, "{moved:?}, {lost} lost");
        prop_assert_eq!(world.run(AT_REST).leases, 0);
    }

    /// Of workers that look the same none is left out.
    #[test]
    fn equally_busy_workers_get_equally_many(
        leases in 1_usize..100,
        machines in 1_usize..12,
        busy in proptest::option::of(prop::sample::select(vec![0.0, 0.5, 30.0, 100.0])),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(vec![0.0; leases], &[None], &vec![1.0; machines], seed);
        world.is_measured = busy.is_some();
        world.machines.iter_mut().for_each(|machine| machine.idle = busy.unwrap_or_default());
        world.run(1);
        let counts = world.counts();
        prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        prop_assert_eq!(world.run(AT_REST).leases, 0);
    }

    /// A balanced fleet gives to a worker that joins, and among the others nothing moves.
    #[test]
    fn who_joins_is_who_gets(
        machines in 2_usize..12,
        each in 8_usize..20,
        is_measured in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let leases = (machines - 1) * each;
        let rates = vec![5.0; leases];
        let owners: Vec<_> = (0..leases).map(|index| Some(index % (machines - 1))).collect();
        let mut world = World::new(rates.clone(), &owners, &costs(&rates, &vec![1.0; machines]), seed);
        world.is_measured = is_measured;
        let joined = name(machines - 1);
        let moved = world.run(PERIODS);
        let counts = world.counts();
        prop_assert_eq!(moved.leases, counts[machines - 1], "only to the one that joined: {:?}", counts);
        prop_assert!(world.leases.iter().any(|lease| lease.owner.as_ref() == Some(&joined)));
        prop_assert!(world.is_balanced(), "{:?}", world.busy());
        prop_assert!(moved.leases <= leases.div_ceil(machines) + 1, "{} of {leases}", moved.leases);
    }

    /// What the limit of leases leaves over waits, and does not move others.
    #[test]
    fn no_worker_gets_more_leases_than_it_may(
        rates in rates(),
        owners in vec(proptest::option::weighted(0.9, 0_usize..14), 1..120),
        machines in 1_usize..12,
        max_leases in 1_usize..12,
        is_measured in any::<bool>(),
        by_count in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(rates.clone(), &owners, &costs(&rates, &vec![1.0; machines]), seed);
        world.is_measured = is_measured;
        world.rules.max_leases = max_leases;
        if by_count {
            world.rules.strategy = AssignmentStrategy::LeaseCountBased;
        }
        let before = world.counts();
        // Each period checks the limit.
        world.run(PERIODS);
        let most: usize = before.iter().map(|count| (*count).max(max_leases)).sum();
        let waiting = world.leases.iter().filter(|lease| world.owner(lease).is_none()).count();
        prop_assert!(waiting >= rates.len().saturating_sub(most));
        prop_assert!(waiting == 0 || world.counts().iter().all(|count| *count >= max_leases));
        prop_assert_eq!(world.run(AT_REST).leases, 0);
    }

    /// Samples that are off by some percent move next to nothing.
    #[test]
    fn noise_does_not_move_leases(
        machines in 2_usize..12,
        each in 8_usize..20,
        seed in any::<u64>(),
    ) {
        let rates = vec![5.0; machines * each];
        let owners: Vec<_> = (0..machines * each).map(|index| Some(index % machines)).collect();
        let mut world = World::new(rates.clone(), &owners, &costs(&rates, &vec![1.0; machines]), seed);
        world.noise = 0.05;
        let moved = world.run(PERIODS + AT_REST);
        prop_assert_eq!(moved.leases, 0, "{:?}", world.busy());
    }
}

fn rates() -> impl Strategy<Value = Vec<f64>> {
    let rate = prop_oneof![6 => 1.0..20.0_f64, 1 => Just(0.0), 1 => 50.0..300.0_f64];
    prop_oneof![4 => vec(rate, 1..120), 1 => (1_usize..120).prop_map(|count| vec![0.0; count])]
}

/// Costs that keep the fleet at a third of what it can do, on machines of these sizes.
fn costs(rates: &[f64], sizes: &[f64]) -> Vec<f64> {
    let total = rates.iter().sum::<f64>().max(1.0);
    let power: f64 = sizes.iter().sum();
    sizes.iter().map(|size| 33.0 * power / (total * size)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn count(of: usize) -> f64 {
    of as f64
}
