//! How busy workers are, and would be (KCL's `VarianceBasedLeaseAssignmentDecider`).
//!
//! Faults of KCL's that are avoided: without any throughput all scores were NaN, here a lease counts a
//! little even when it is idle; of equally busy workers only some were served, here the one with the
//! fewest leases is; and a target that did not fit one source was lost to the others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::leader::LeaderRules;
use super::load_forecast::LoadForecast;
use crate::config::AssignmentStrategy;
use crate::coordination::view::Observed;
use crate::coordination::worker_metrics::{WorkerStats, shared_metrics};
use crate::lease::Lease;
use crate::types::WorkerId;

/// The metric of fleets whose workers have no other in common: their part of the throughput of all leases, 100 being the
/// average (KCL's `T`).
const THROUGHPUT: &str = "T";
const AVERAGE_THROUGHPUT: f64 = 100.0;
/// What a lease counts beside its throughput, in KiB per second: an idle shard is polled all the same.
/// Without it the leases of an idle fleet would move with the last traces of what they once had.
const IDLE: f64 = 1.0;
/// From here on a metric in percent does not show any more how much is asked of a machine.
const SATURATED: f64 = 99.0;
/// Leases cost a worker at least this part of what they cost on average: one that has only just been given
/// some looks as if they cost it nothing.
const CHEAPEST: f64 = 0.1;
/// And at most this many times as much: with few leases, what it does beside them looks like their cost.
const DEAREST: f64 = 4.0;
/// How many of the least busy workers are tried for a lease that is to move.
const TRIES: usize = 16;
/// What sums of many numbers may be off by.
const ROUNDING: f64 = 1e-9;

/// The workers that can be given leases, and how busy they would be with what is planned.
pub(super) struct UtilizationModel<'a> {
    rules: &'a LeaderRules,
    workers: Vec<Candidate<'a>>,
    by_name: BTreeMap<&'a WorkerId, usize>,
    averages: BTreeMap<&'a str, f64>,
    /// The throughput of a lease without a reported one.
    usual: f64,
    /// Every lease counts as one.
    counts_leases: bool,
    /// The part of each worker if all had the same.
    fair: f64,
    /// The least busy on top.
    ranking: BinaryHeap<Rank<'a>>,
}

struct Candidate<'a> {
    name: &'a WorkerId,
    metrics: Vec<Load<'a>>,
    /// The throughput of its leases.
    assigned: f64,
    leases: usize,
}

struct Load<'a> {
    metric: &'a str,
    value: f64,
    limit: f64,
    /// What a KiB per second more adds to it.
    cost: f64,
    /// By how much this plan changes it.
    change: f64,
}

impl<'a> Load<'a> {
    fn new(metric: &'a str, value: f64, limit: f64) -> Self {
        Self { metric, value, limit, cost: 0.0, change: 0.0 }
    }

    fn add(&mut self, throughput: f64) {
        let change = self.cost * throughput;
        self.value = (self.value + change).max(0.0);
        self.change += change;
    }
}

/// Higher is less busy.
#[derive(PartialEq)]
struct Rank<'a> {
    score: f64,
    leases: Reverse<usize>,
    name: Reverse<&'a WorkerId>,
    index: usize,
}

impl Eq for Rank<'_> {}

impl Ord for Rank<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_score = self.score.total_cmp(&other.score);
        by_score.then(self.leases.cmp(&other.leases)).then(self.name.cmp(&other.name))
    }
}

impl PartialOrd for Rank<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> UtilizationModel<'a> {
    pub(super) fn new(
        stats: &'a [WorkerStats],
        outlook: &LoadForecast,
        running: &[&Observed],
        rules: &'a LeaderRules,
    ) -> Self {
        let known: Vec<f64> = running
            .iter()
            .filter_map(|observed| observed.lease.throughput)
            .map(crate::lease::Throughput::kib_per_second)
            .collect();
        let total: f64 = known.iter().sum();
        let usual = if known.is_empty() { 0.0 } else { total / count(known.len()) };
        let counts_leases = rules.strategy == AssignmentStrategy::LeaseCountBased;
        let whole = if counts_leases {
            count(running.len())
        } else {
            total + usual * count(running.len() - known.len()) + IDLE * count(running.len())
        };
        // What only some report compares them with nobody; KCL does so all the same, and such a fleet is never
        // balanced.
        let shared = shared_metrics(stats);
        let workers: Vec<Candidate<'a>> = stats
            .iter()
            .map(|stats| {
                let known = stats.samples.keys().filter(|metric| shared.contains(metric.as_str()));
                let metrics = known.filter_map(|metric| {
                    let limit = stats.limits.get(metric).copied().unwrap_or(100.0);
                    let value = stats.value(metric)? + outlook.to_come(&stats.worker, metric);
                    Some(Load::new(metric, value.max(0.0), limit))
                });
                let metrics = if counts_leases { Vec::new() } else { metrics.collect() };
                Candidate { name: &stats.worker, metrics, assigned: 0.0, leases: 0 }
            })
            .collect();
        Self {
            rules,
            by_name: workers.iter().enumerate().map(|(index, worker)| (worker.name, index)).collect(),
            averages: BTreeMap::new(),
            usual,
            counts_leases,
            fair: whole / count(workers.len().max(1)),
            ranking: BinaryHeap::with_capacity(workers.len()),
            workers,
        }
    }

    /// Whether leases can be given to `worker`.
    pub(super) fn has(&self, worker: &WorkerId) -> bool {
        self.by_name.contains_key(worker)
    }

    /// `owner` has this lease.
    pub(super) fn count(&mut self, owner: &WorkerId, lease: &Lease) {
        if let Some(index) = self.by_name.get(owner) {
            let throughput = self.throughput(lease);
            self.workers[*index].assigned += throughput;
            self.workers[*index].leases += 1;
        }
    }

    /// Ranks the workers, once what they have is counted.
    pub(super) fn rank(&mut self, outlook: &LoadForecast) {
        let fair = self.fair;
        for worker in &mut self.workers {
            if worker.metrics.is_empty() {
                let value = if fair > 0.0 { AVERAGE_THROUGHPUT * worker.assigned / fair } else { 0.0 };
                worker.metrics.push(Load::new(THROUGHPUT, value, f64::INFINITY));
            }
        }
        let mut sums: BTreeMap<&'a str, (f64, usize)> = BTreeMap::new();
        for load in self.workers.iter().flat_map(|worker| &worker.metrics) {
            let (sum, workers) = sums.entry(load.metric).or_default();
            (*sum, *workers) = (*sum + load.value, *workers + 1);
        }
        self.averages = sums.into_iter().map(|(metric, (sum, n))| (metric, sum / count(n))).collect();
        self.weigh(outlook);
        self.ranking = (0..self.workers.len()).map(|index| self.rank_of(index)).collect();
    }

    /// Finds out what throughput costs each worker.
    fn weigh(&mut self, outlook: &LoadForecast) {
        if self.fair <= 0.0 {
            return;
        }
        for worker in &mut self.workers {
            for load in &mut worker.metrics {
                if load.metric == THROUGHPUT {
                    load.cost = AVERAGE_THROUGHPUT / self.fair;
                    continue;
                }
                let usual = self.averages.get(load.metric).copied().unwrap_or_default() / self.fair;
                let known = outlook.cost(worker.name, load.metric);
                load.cost = known.unwrap_or(usual);
                let processed = worker.assigned - IDLE * count(worker.leases);
                if processed > 0.0 && outlook.has_news(worker.name) {
                    let reported = (load.value / processed).clamp(CHEAPEST * usual, DEAREST * usual);
                    let reported = if load.value >= SATURATED { reported.max(load.cost) } else { reported };
                    // The more it has, the more its report shows.
                    load.cost += (processed / self.fair).min(1.0) * (reported - load.cost);
                }
            }
        }
    }

    /// Keeps for the next plan what this one has found out and will change.
    pub(super) fn keep(&self, outlook: &mut LoadForecast) {
        for worker in &self.workers {
            for load in worker.metrics.iter().filter(|load| load.metric != THROUGHPUT) {
                outlook.learn(worker.name, load.metric, load.cost);
                outlook.expect(worker.name, load.metric, load.change);
            }
        }
    }

    /// Gives a lease to the worker that is least busy; `None` if all have as much as they may.
    pub(super) fn place(&mut self, lease: &Lease) -> Option<WorkerId> {
        let index = self.next()?;
        let throughput = self.throughput(lease);
        self.give(index, throughput);
        self.ranking.push(self.rank_of(index));
        Some(self.workers[index].name.clone())
    }

    /// Moves leases from workers that are busier than the average allows, until they would not be or
    /// the least busy would become too busy.
    pub(super) fn rebalance<'l>(
        &mut self,
        owned: &BTreeMap<&WorkerId, Vec<&'l Lease>>,
        rng: &mut fastrand::Rng,
    ) -> Vec<(&'l Lease, WorkerId)> {
        let mut moves = Vec::new();
        let Some((metric, sources)) = self.sources() else { return moves };
        let average = self.averages[metric];
        let givers: BTreeSet<usize> = sources.iter().map(|(index, _)| *index).collect();
        for (source, take) in sources {
            let Some(leases) = owned.get(self.workers[source].name) else { continue };
            for lease in self.pick(leases, take, rng) {
                let throughput = self.throughput(lease);
                // Up to the average, as KCL; beyond it where it makes the two more alike all the same, which
                // no later plan can undo.
                let tolerable = self.value(source, metric) * (1.0 - self.rules.threshold);
                let most = tolerable.max(average * (1.0 + ROUNDING));
                let Some(target) = self.next_that_fits(metric, throughput, most, &givers) else { continue };
                self.change(source, -throughput);
                self.workers[source].leases -= 1;
                self.give(target, throughput);
                self.ranking.push(self.rank_of(target));
                moves.push((lease, self.workers[target].name.clone()));
            }
        }
        moves
    }

    /// The least busy worker for which `throughput` more is not too much.
    fn next_that_fits(
        &mut self,
        metric: &str,
        throughput: f64,
        most: f64,
        excluded: &BTreeSet<usize>,
    ) -> Option<usize> {
        let mut passed_over = Vec::new();
        let mut found = None;
        while found.is_none() && passed_over.len() < TRIES {
            let Some(index) = self.next_but(excluded) else { break };
            let after = self.load(index, metric).map_or(0.0, |load| load.value + load.cost * throughput);
            if after <= most.min(self.limit(index, metric)) {
                found = Some(index);
            } else {
                passed_over.push(self.rank_of(index));
            }
        }
        self.ranking.extend(passed_over);
        found
    }

    /// Moves single leases from the worker with the most to the one with the fewest, until they differ by
    /// one at most.
    pub(super) fn level<'l>(
        &mut self,
        owned: &BTreeMap<&WorkerId, Vec<&'l Lease>>,
        rng: &mut fastrand::Rng,
    ) -> Vec<(&'l Lease, WorkerId)> {
        let mut moves = Vec::new();
        let mut by_count: BTreeSet<(usize, usize)> =
            self.workers.iter().enumerate().map(|(index, worker)| (worker.leases, index)).collect();
        let mut left: Vec<Vec<&'l Lease>> =
            self.workers.iter().map(|worker| owned.get(worker.name).cloned().unwrap_or_default()).collect();
        left.iter_mut().for_each(|leases| rng.shuffle(leases));
        while let (Some(fewest), Some(most)) = (by_count.first().copied(), by_count.last().copied()) {
            if most.0 <= fewest.0 + 1 || fewest.0 >= self.rules.max_leases {
                break;
            }
            by_count.remove(&most);
            // Without a lease that can be moved it is no source; it has too many to be a target.
            let Some(lease) = left[most.1].pop() else { continue };
            by_count.remove(&fewest);
            by_count.extend([(most.0 - 1, most.1), (fewest.0 + 1, fewest.1)]);
            moves.push((lease, self.workers[fewest.1].name.clone()));
        }
        moves
    }

    /// The metric by which most is to be moved, and how much from whom, most first.
    fn sources(&self) -> Option<(&'a str, Vec<(usize, f64)>)> {
        let by_metric = self.averages.iter().filter_map(|(metric, average)| {
            let loads: Vec<(usize, &Load<'a>)> = self
                .workers
                .iter()
                .enumerate()
                .filter_map(|(index, worker)| {
                    Some((index, worker.metrics.iter().find(|load| load.metric == *metric)?))
                })
                .collect();
            let allowed = average * self.rules.threshold;
            let is_busy = |load: &Load<'_>| load.value > average + allowed || load.value > load.limit;
            let is_off = |load: &Load<'_>| is_busy(load) || load.value < average - allowed;
            if !loads.iter().any(|(_, load)| is_off(load)) {
                return None;
            }
            let mut busy: Vec<_> = loads.iter().filter(|(_, load)| is_busy(load)).collect();
            if busy.is_empty() {
                busy.extend(loads.iter().max_by(|a, b| a.1.value.total_cmp(&b.1.value)));
            }
            let takes = busy.into_iter().filter(|(_, load)| load.value > *average).map(|(index, load)| {
                let surplus = (load.value - average) / load.value;
                (*index, self.workers[*index].assigned * surplus * self.rules.dampening)
            });
            let mut takes: Vec<(usize, f64)> = takes.collect();
            takes.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            let total: f64 = takes.iter().map(|(_, take)| take).sum();
            (!takes.is_empty()).then_some((*metric, total, takes))
        });
        let largest = by_metric.max_by(|a, b| a.1.total_cmp(&b.1));
        largest.map(|(metric, _, takes)| (metric, takes))
    }

    /// Leases of a worker that together stay below what is to be taken; if there is none, the smallest.
    fn pick<'l>(&self, leases: &[&'l Lease], take: f64, rng: &mut fastrand::Rng) -> Vec<&'l Lease> {
        let mut shuffled = leases.to_vec();
        rng.shuffle(&mut shuffled);
        let mut remaining = take;
        let mut picked = Vec::new();
        for lease in &shuffled {
            let throughput = self.throughput(lease);
            if remaining - throughput > 0.0 {
                remaining -= throughput;
                picked.push(*lease);
            }
        }
        if picked.is_empty() && self.rules.allow_overshoot {
            let smallest =
                shuffled.into_iter().min_by(|a, b| self.throughput(a).total_cmp(&self.throughput(b)));
            picked.extend(smallest);
        }
        picked
    }

    fn load(&self, index: usize, metric: &str) -> Option<&Load<'a>> {
        self.workers[index].metrics.iter().find(|load| load.metric == metric)
    }

    /// A worker that does not report a metric counts as idle by it.
    fn value(&self, index: usize, metric: &str) -> f64 {
        self.load(index, metric).map_or(0.0, |load| load.value)
    }

    fn limit(&self, index: usize, metric: &str) -> f64 {
        self.load(index, metric).map_or(f64::INFINITY, |load| load.limit)
    }

    /// The worker that is least busy and may have more.
    fn next(&mut self) -> Option<usize> {
        self.next_but(&BTreeSet::new())
    }

    fn next_but(&mut self, excluded: &BTreeSet<usize>) -> Option<usize> {
        loop {
            let index = self.ranking.pop()?.index;
            let worker = &self.workers[index];
            let has_room = worker.assigned <= self.rules.max_throughput || self.counts_leases;
            if has_room && worker.leases < self.rules.max_leases && !excluded.contains(&index) {
                return Some(index);
            }
        }
    }

    fn give(&mut self, index: usize, throughput: f64) {
        self.change(index, throughput);
        self.workers[index].leases += 1;
    }

    fn change(&mut self, index: usize, throughput: f64) {
        let worker = &mut self.workers[index];
        worker.metrics.iter_mut().for_each(|load| load.add(throughput));
        worker.assigned += throughput;
    }

    fn throughput(&self, lease: &Lease) -> f64 {
        if self.counts_leases {
            return 1.0;
        }
        IDLE + lease.throughput.map_or(self.usual, crate::lease::Throughput::kib_per_second)
    }

    fn rank_of(&self, index: usize) -> Rank<'a> {
        let worker = &self.workers[index];
        let score = |load: &Load<'_>| {
            let average = self.averages.get(load.metric).copied().unwrap_or_default();
            if load.value > 0.0 { (average - load.value) / load.value } else { 1.0 }
        };
        let score = worker.metrics.iter().map(score).fold(f64::INFINITY, f64::min);
        Rank { score, leases: Reverse(worker.leases), name: Reverse(worker.name), index }
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of leases and workers")]
fn count(number: usize) -> f64 {
    number as f64
}
