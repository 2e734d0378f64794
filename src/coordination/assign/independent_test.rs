//! One letter per lease: its owner; `.` free, a capital whose owner is dead (unchanged for longer than
//! the failover time), `_` ended. Plans are made for `me`, and shown as the letter of the owner a
//! lease is taken from, `.` for leases that stay.

use proptest::prelude::*;

use super::*;
use crate::types::Checkpoint;

const F: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Moment {
    Moment::after_origin(Duration::from_secs(seconds))
}

/// The table `owners` shows, and the present moment. Dead owners renewed last 15 s ago: expired, but not
/// very old.
fn view(owners: &str) -> (View, Moment) {
    let row = |index: usize, letter: char, counter: u64| {
        let mut lease = Lease::new(format!("{index:04}"), Checkpoint::TrimHorizon);
        lease.counter = counter;
        match letter {
            '.' => {}
            '_' => lease.checkpoint = Checkpoint::ShardEnd,
            owner => lease.owner = Some(owner.to_lowercase().to_string().as_str().into()),
        }
        lease
    };
    let mut view = View::default();
    // Everything was owned when it was first seen, so nothing counts as never renewed.
    let mut first: Vec<Lease> =
        owners.chars().enumerate().map(|(index, letter)| row(index, letter, 1)).collect();
    for lease in &mut first {
        lease.owner.get_or_insert_with(|| "z".into());
    }
    view.observe_scan(first, at(0));
    let is_dead = |letter: char| letter.is_uppercase();
    let rows = |counter: u64| {
        let rows = owners.chars().enumerate();
        rows.map(move |(index, letter)| row(index, letter, if is_dead(letter) { 1 } else { counter }))
            .collect()
    };
    view.observe_scan(rows(2), at(14));
    (view, at(15))
}

struct Case {
    max_leases: usize,
    leases_to_acquire: usize,
}

const USUAL: Case = Case { max_leases: usize::MAX, leases_to_acquire: usize::MAX };

fn plan_of(owners: &str, me: char, case: &Case, seed: u64) -> AssignmentPlan {
    let (view, now) = view(owners);
    let me = WorkerId::from(me.to_string());
    let held = view.leases().filter(|lease| lease.owner.as_ref() == Some(&me)).map(|lease| lease.key.clone());
    let held = held.collect();
    let rules = Rules {
        worker: me,
        max_leases: case.max_leases,
        leases_to_acquire: case.leases_to_acquire,
        failover_time: F,
        priority_lease_assignment: true,
        barred: BTreeSet::new(),
    };
    plan_assignment(&view, &held, &rules, now, &mut fastrand::Rng::with_seed(seed))
}

/// How many leases are taken from whom, such as `2 from a`, `3 free`, `1 dead`.
fn takes(owners: &str, me: char, case: &Case) -> String {
    let plan = plan_of(owners, me, case, 7);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for take in &plan.takes {
        let from = match &take.reason {
            ClaimReason::Steal { owner } => format!("from {owner}"),
            ClaimReason::Free => "free".to_owned(),
            ClaimReason::Expired { .. } => "dead".to_owned(),
            ClaimReason::VeryOld => "very old".to_owned(),
            ClaimReason::Ours => "ours".to_owned(),
        };
        *counts.entry(from).or_default() += 1;
    }
    counts.iter().map(|(from, count)| format!("{count} {from}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_worker_takes_its_share_and_no_more() {
    for (owners, expected) in [
        // Nothing to do.
        ("", ""),
        ("aabbd", ""),
        // Two are needed, and the most loaded worker is at its share.
        ("aaabbbcccd", "1 from a"),
        ("aabb", "1 from a"),
        // Free and dead leases first; nothing is stolen while there are any.
        ("....", "4 free"),
        ("aaaa....", "4 free"),
        ("aaaa.", "1 free"),
        ("CCCC", "4 dead"),
        ("aaaaCC", "2 dead"),
        // Ended leases neither count nor are taken.
        ("____aa", "1 from a"),
        ("__..", "2 free"),
        // More workers than leases: one each.
        ("ab", ""),
        ("aab", "1 from a"),
        ("abc", ""),
    ] {
        assert_eq!(takes(owners, 'd', &USUAL), expected, "{owners}");
    }
}

#[test]
fn limits_hold() {
    let limited = |max_leases, leases_to_acquire| Case { max_leases, leases_to_acquire };
    assert_eq!(takes("aaaaaaaaaa", 'd', &limited(usize::MAX, 1)), "1 from a");
    assert_eq!(takes("aaaaaaaaaa", 'd', &limited(usize::MAX, 3)), "3 from a");
    assert_eq!(takes("..........", 'd', &limited(usize::MAX, 1)), "10 free", "free leases are not stolen");
    assert_eq!(takes("..........", 'd', &limited(4, 1)), "4 free");
    assert_eq!(takes("dd........", 'd', &limited(4, 1)), "2 free");
    assert_eq!(takes("dddd......", 'd', &limited(4, 1)), "");
    assert_eq!(plan_of("dddd......", 'd', &limited(4, 1), 7).spillover, 6);
}

/// "Steal one if more than one is needed and the most loaded worker is at the target."
#[test]
fn one_is_stolen_from_a_worker_at_the_target_if_two_are_needed() {
    assert_eq!(takes("aaabbbc", 'c', &USUAL), "1 from a");
    assert_eq!(takes("aaabbbcc", 'c', &USUAL), "");
}

#[test]
fn very_old_leases_are_taken_beyond_the_share() {
    let mut view = View::default();
    let lease = |index: usize, owner: Option<&str>, counter| {
        let mut lease = Lease::new(format!("{index:04}"), Checkpoint::TrimHorizon);
        (lease.owner, lease.counter) = (owner.map(Into::into), counter);
        lease
    };
    let rows = |counter| {
        let alive = (0..4).map(move |index| lease(index, Some("a"), counter));
        alive.chain((4..10).map(|index| lease(index, None, 0))).collect::<Vec<_>>()
    };
    view.observe_scan(rows(1), at(0));
    view.observe_scan(rows(2), at(100));
    let mut rules = Rules {
        worker: "d".into(),
        max_leases: usize::MAX,
        leases_to_acquire: 1,
        failover_time: F,
        priority_lease_assignment: true,
        barred: BTreeSet::new(),
    };
    let count = |rules: &Rules| {
        plan_assignment(&view, &BTreeSet::new(), rules, at(101), &mut fastrand::Rng::with_seed(1)).takes.len()
    };
    assert_eq!(count(&rules), 6);
    rules.max_leases = 5;
    assert_eq!(count(&rules), 5);
    rules.max_leases = usize::MAX;
    rules.priority_lease_assignment = false;
    assert_eq!(count(&rules), 5, "its share of ten leases between two workers");
}

#[test]
fn what_names_us_is_taken_back_first() {
    let (view, now) = view("ddaa");
    let rules = Rules {
        worker: "d".into(),
        max_leases: usize::MAX,
        leases_to_acquire: 1,
        failover_time: F,
        priority_lease_assignment: true,
        barred: BTreeSet::new(),
    };
    let plan = plan_assignment(&view, &BTreeSet::new(), &rules, now, &mut fastrand::Rng::with_seed(1));
    assert_eq!(
        plan.takes.iter().map(|take| &take.reason).collect::<Vec<_>>(),
        [&ClaimReason::Ours, &ClaimReason::Ours]
    );
    assert_eq!(plan.takes[0].to_string(), "take 0000 (it names this worker)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// From any distribution, workers that plan and take in turn come to rest within one lease of each
    /// other, and nobody takes while at rest.
    #[test]
    fn any_distribution_comes_to_rest_in_balance(owners in "[abcd.]{1,40}", seed in any::<u64>()) {
        let mut owners: Vec<char> = owners.chars().collect();
        let workers = ['a', 'b', 'c', 'd'];
        for round in 0..60 {
            for me in workers {
                let shown: String = owners.iter().collect();
                let plan = plan_of(&shown, me, &Case { max_leases: usize::MAX, leases_to_acquire: 1 }, seed ^ round);
                for take in plan.takes {
                    let index: usize = take.lease.key.as_str().parse().expect("a number");
                    owners[index] = me;
                }
            }
        }
        let mut counts = workers.map(|worker| owners.iter().filter(|owner| **owner == worker).count());
        counts.sort_unstable();
        let share = if workers.len() >= owners.len() { 1 } else { owners.len().div_ceil(workers.len()) };
        prop_assert!(counts[3] <= share + 1, "{counts:?}");
        let shown: String = owners.iter().collect();
        for me in workers {
            let plan = plan_of(&shown, me, &USUAL, seed);
            prop_assert!(plan.takes.is_empty() || counts[3] - counts[0] > 1, "{counts:?} {:?}", plan.takes);
        }
    }
}

#[test]
fn a_steal_is_tried_again_unless_the_owner_changed_or_the_shard_ended() {
    let mut seen = Lease::new("shardId-0", Checkpoint::TrimHorizon);
    seen.owner = Some("a".into());
    let steal = LeaseClaim { lease: seen.clone(), reason: ClaimReason::Steal { owner: "a".into() } };
    let expired = LeaseClaim { lease: seen.clone(), reason: ClaimReason::Expired { owner: "a".into() } };
    let renewed = Lease { counter: 1, ..seen };
    let stolen = Lease { owner: Some("b".into()), ..renewed.clone() };
    let ended = Lease { checkpoint: Checkpoint::ShardEnd, ..renewed.clone() };
    assert!(steal.is_worth_a_retry(&renewed));
    assert!(!steal.is_worth_a_retry(&stolen) && !steal.is_worth_a_retry(&ended));
    assert!(!expired.is_worth_a_retry(&renewed));
}
