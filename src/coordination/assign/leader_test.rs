//! Fleets as texts: `a:3,1 b:2` are workers with the throughput of each of their leases; `-` is everything
//! unassigned. `b!` is a worker that has not reported lately, `c@80` one whose CPU is at 80 %.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::coordination::worker_metrics::CPU;
use crate::lease::Throughput;
use crate::types::Checkpoint;

fn at(seconds: u64) -> Moment {
    Moment::after_origin(Duration::from_secs(seconds))
}

fn rules() -> LeaderRules {
    LeaderRules::new(&CoordinationConfig::default(), usize::MAX)
}

fn rate(kib: f64) -> Throughput {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]
    Throughput::from_bytes((kib * 1024.0) as u64, Duration::from_secs(1))
}

/// What a leader knows of a fleet.
struct Known {
    leases: Vec<Lease>,
    workers: Vec<WorkerStats>,
}

impl Known {
    fn of(text: &str) -> Self {
        let mut known = Self { leases: Vec::new(), workers: Vec::new() };
        for part in text.split_whitespace() {
            let (name, rates) = part.split_once(':').unwrap_or((part, ""));
            let is_silent = name.ends_with('!');
            let (name, cpu) =
                name.trim_end_matches('!').split_once('@').unwrap_or((name.trim_end_matches('!'), ""));
            let owner = (name != "-").then(|| WorkerId::from(name));
            for text in rates.split(',').filter(|text| !text.is_empty()) {
                let mut lease = Lease::new(format!("{:04}", known.leases.len()), Checkpoint::TrimHorizon);
                lease.owner.clone_from(&owner);
                lease.counter = 1;
                lease.throughput = text.parse().ok().map(rate);
                known.leases.push(lease);
            }
            if let Some(worker) = owner.filter(|_| !is_silent) {
                let mut stats = WorkerStats::new(worker);
                if let Ok(cpu) = cpu.parse() {
                    stats.push(CPU, Some(cpu), 100.0);
                }
                known.workers.push(stats);
            }
        }
        known
    }

    fn plan(&self, rules: &LeaderRules, rebalance: bool, seed: u64) -> LeaderPlan {
        let mut view = View::default();
        view.observe_scan(self.leases.clone(), at(0));
        let mut rng = fastrand::Rng::with_seed(seed);
        plan_leader_assignment(
            &view,
            &self.workers,
            &mut LoadForecast::default(),
            &Handoffs::default(),
            rules,
            rebalance,
            at(1),
            &mut rng,
        )
    }

    fn carry_out(&mut self, plan: &LeaderPlan) {
        for moved in &plan.moves {
            let index: usize = moved.lease.key.as_str().parse().expect("a number");
            self.leases[index].owner = Some(moved.to.clone());
            self.leases[index].counter += 1;
        }
    }

    /// Runs until nothing moves any more; how many moves and runs it took.
    fn settle(&mut self, rules: &LeaderRules, seed: u64) -> (usize, usize) {
        let mut moves = 0;
        for run in 0..100 {
            let plan = self.plan(rules, true, seed.wrapping_add(run));
            if plan.moves.is_empty() {
                return (moves, usize::try_from(run).unwrap());
            }
            moves += plan.moves.len();
            self.carry_out(&plan);
        }
        panic!("moves for ever");
    }

    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts: BTreeMap<String, usize> =
            self.workers.iter().map(|stats| (stats.worker.to_string(), 0)).collect();
        for owner in self.leases.iter().filter_map(|lease| lease.owner.as_ref()) {
            *counts.entry(owner.to_string()).or_default() += 1;
        }
        counts
    }

    fn throughputs(&self) -> BTreeMap<String, f64> {
        let mut sums: BTreeMap<String, f64> =
            self.workers.iter().map(|stats| (stats.worker.to_string(), 0.0)).collect();
        for lease in &self.leases {
            let owner = lease.owner.as_ref().map(ToString::to_string).unwrap_or_default();
            *sums.entry(owner).or_default() += lease.throughput.unwrap_or_default().kib_per_second();
        }
        sums
    }
}

/// How many leases each worker is given, such as `a+2 b+1`.
fn gains(plan: &LeaderPlan) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for moved in &plan.moves {
        *counts.entry(moved.to.to_string()).or_default() += 1;
    }
    counts.iter().map(|(worker, count)| format!("{worker}+{count}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_is_unassigned_goes_to_who_is_least_busy() {
    for (fleet, expected) in [
        ("", ""),
        ("a b", ""),
        ("a b -:0,0,0,0", "a+2 b+2"),
        // A fleet without any throughput counts leases.
        ("a:0,0 b -:0,0,0,0", "a+1 b+3"),
        // Nothing is known of any throughput.
        ("a b c -:?,?,?,?,?,?", "a+2 b+2 c+2"),
        ("a:10 b:1 -:5", "b+1"),
        // What has no throughput yet counts as the usual one.
        ("a:10 b:1 -:?", "b+1"),
        // By CPU: a has more throughput and is less busy all the same.
        ("a@10:9,9 b@80:1 -:5", "a+1"),
        ("a@0 b@0 c@0 -:1,1,1", "a+1 b+1 c+1"),
        // One does not report it.
        ("a@10:9,9 b@80:1 c:9 -:5", "b+1"),
        // Silent workers get nothing, and without others nobody does.
        ("a! b:1 -:1", "b+1"),
        ("a!:1 -:1", ""),
    ] {
        assert_eq!(gains(&Known::of(fleet).plan(&rules(), false, 7)), expected, "{fleet}");
    }
}

#[test]
fn what_expired_is_assigned_again_but_not_to_its_owner_if_that_is_best() {
    let known = Known::of("a:1,1 b:1");
    let mut view = View::default();
    view.observe_scan(known.leases.clone(), at(0));
    let mut rng = fastrand::Rng::with_seed(1);
    let plan = plan_leader_assignment(
        &view,
        &known.workers,
        &mut LoadForecast::default(),
        &Handoffs::default(),
        &rules(),
        false,
        at(11),
        &mut rng,
    );
    assert_eq!((plan.expired, plan.spillover), (3, 0));
    assert!(plan.moves.iter().all(|moved| moved.reason == AssignReason::Expired && !moved.is_graceful));
    assert!(plan.moves.iter().all(|moved| moved.lease.owner.as_ref() != Some(&moved.to)));
}

#[test]
fn limits_hold() {
    let few = LeaderRules { max_leases: 2, ..rules() };
    let plan = Known::of("a:1 b -:1,1,1,1,1").plan(&few, false, 1);
    assert_eq!((gains(&plan).as_str(), plan.spillover), ("a+1 b+2", 2));
    let slow = LeaderRules { max_throughput: 10.0, ..rules() };
    let plan = Known::of("a:11 b:3 -:5,5,5").plan(&slow, false, 1);
    // b takes until it is above the limit.
    assert_eq!((gains(&plan).as_str(), plan.spillover), ("b+2", 1));
}

#[test]
fn busy_workers_hand_over_and_others_do_not() {
    for (fleet, expected) in [
        // Within ten per cent.
        ("a:10 b:11", ""),
        ("a:5,5,5,5 b:5,5,5,5", ""),
        // Half of the surplus and a little more.
        ("a:1,1,1,1,1,1,1,1,1,1 b", "b+2"),
        // The only lease, and it would make the other as busy.
        ("a:10 b", ""),
        // The smallest, if all are more than what is to be moved; also beyond the average, if it helps.
        ("a:6,6 b:1", "b+1"),
        ("a@90:5,5,5,5 b@10:5", "b+1"),
        ("a@50:5,5 b@48:5", ""),
        // Only some report their CPU: all are judged by their throughput.
        ("a@90:5,5 b:5,5", ""),
        ("a:5,5 b@90:5,5", ""),
        ("a@5:1,1,1,1,1,1,1,1,1,1 b", "b+2"),
        ("a:1,1,1,1,1,1,1,1,1,1 b@90", "b+2"),
        // One is silent and keeps what it has.
        ("a!:5,5,5,5 b", ""),
    ] {
        let plan = Known::of(fleet).plan(&rules(), true, 3);
        assert_eq!(gains(&plan), expected, "{fleet}");
        assert!(plan.moves.iter().all(|moved| moved.is_graceful), "{fleet}");
    }
}

#[test]
fn a_handoff_is_left_to_run_until_it_is_overdue() {
    let mut known = Known::of("a:1,1 b");
    known.leases[0].owner = Some("b".into());
    known.leases[0].checkpoint_owner = Some("a".into());
    let mut view = View::default();
    view.observe_scan(known.leases.clone(), at(0));
    let plan = |pending: bool| {
        let mut handoffs = Handoffs::default();
        // Begun by another leader.
        handoffs.note(&view, if pending { at(2) } else { at(1) });
        let mut rng = fastrand::Rng::with_seed(1);
        plan_leader_assignment(
            &view,
            &known.workers,
            &mut LoadForecast::default(),
            &handoffs,
            &rules(),
            true,
            at(1),
            &mut rng,
        )
        .moves
    };
    assert_eq!(plan(true), []);
    let overdue = plan(false);
    assert_eq!(overdue.len(), 1);
    assert_eq!(
        (overdue[0].reason, overdue[0].is_graceful, &overdue[0].to),
        (AssignReason::Overdue, false, &"b".into())
    );
    assert_eq!(overdue[0].to_string(), "assign 0000 to b (its old owner has not given it back in time)");
}

#[test]
fn leases_are_counted_if_that_is_asked_for() {
    let by_count = LeaderRules { strategy: AssignmentStrategy::LeaseCountBased, ..rules() };
    let mut known = Known::of("a:100,1,1,1,1,1,1 b@99 c:1 -:1,1");
    let (moves, _) = known.settle(&by_count, 1);
    assert_eq!(known.counts().into_values().collect::<Vec<_>>(), [4, 3, 3]);
    assert_eq!(moves, 5, "two that were unassigned, three to level");
}

#[test]
fn a_worker_that_joins_gets_its_part_within_a_few_runs() {
    let mut known = Known::of("a:1,1,1,1,1,1,1,1 b");
    let (moves, runs) = known.settle(&rules(), 1);
    assert_eq!(known.counts().into_values().collect::<Vec<_>>(), [4, 4]);
    assert!(moves == 4 && runs <= 5, "{moves} moves in {runs} runs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// From any distribution a fleet comes to rest, nearly in balance, without needless moves.
    #[test]
    fn any_fleet_comes_to_rest_in_balance(
        rates in proptest::collection::vec(0.0_f64..20.0, 1..60),
        owners in proptest::collection::vec(0_usize..6, 60),
        zeros in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let names = ["a", "b", "c", "d", "e"];
        let mut known = Known::of("a b c d e");
        for (index, kib) in rates.iter().enumerate() {
            let mut lease = Lease::new(format!("{index:04}"), Checkpoint::TrimHorizon);
            lease.counter = 1;
            lease.throughput = Some(rate(if zeros { 0.0 } else { *kib }));
            lease.owner = names.get(owners[index]).map(|name| (*name).into());
            known.leases.push(lease);
        }
        let (moves, runs) = known.settle(&rules(), seed);
        prop_assert!(runs <= 40, "{runs} runs");
        prop_assert!(moves <= 2 * rates.len(), "{moves} moves of {} leases", rates.len());
        prop_assert!(known.leases.iter().all(|lease| lease.owner.is_some()));
        let loads: Vec<f64> = if zeros {
            known.counts().into_values().map(|count| f64::from(u32::try_from(count).unwrap())).collect()
        } else {
            known.throughputs().into_values().collect()
        };
        let average = loads.iter().sum::<f64>() / 5.0;
        let largest = if zeros { 1.0 } else { rates.iter().copied().fold(0.0, f64::max) };
        let most = loads.iter().copied().fold(0.0, f64::max);
        prop_assert!(most <= average * 1.1 + largest + 1e-6, "{loads:?}");
    }

    /// Whatever CPUs report, every plan is consistent.
    #[test]
    fn plans_make_sense(
        cpus in proptest::collection::vec(proptest::option::of(0.0_f64..100.0), 0..6),
        leases in proptest::collection::vec((0_usize..8, proptest::option::of(0.0_f64..9.0)), 0..40),
        max_leases in 1_usize..20,
        seed in any::<u64>(),
    ) {
        let mut known = Known { leases: Vec::new(), workers: Vec::new() };
        for (index, cpu) in cpus.iter().enumerate() {
            let mut stats = WorkerStats::new(format!("w{index}").into());
            if cpu.is_some() {
                stats.push(CPU, *cpu, 100.0);
            }
            known.workers.push(stats);
        }
        for (index, (owner, kib)) in leases.iter().enumerate() {
            let mut lease = Lease::new(format!("{index:04}"), Checkpoint::TrimHorizon);
            lease.owner = (*owner < 7).then(|| format!("w{owner}").into());
            lease.throughput = kib.map(rate);
            known.leases.push(lease);
        }
        let plan = known.plan(&LeaderRules { max_leases, ..rules() }, true, seed);
        let mut keys: Vec<_> = plan.moves.iter().map(|moved| &moved.lease.key).collect();
        keys.dedup();
        prop_assert_eq!(keys.len(), plan.moves.len(), "a lease moves once");
        for moved in &plan.moves {
            prop_assert!(known.workers.iter().any(|stats| stats.worker == moved.to));
            prop_assert!(moved.lease.owner.as_ref() != Some(&moved.to));
        }
        let before = known.counts();
        known.carry_out(&plan);
        for (worker, count) in known.counts() {
            prop_assert!(count <= max_leases.max(before.get(&worker).copied().unwrap_or_default()));
        }
    }
}
