//! Small worlds of workers and leases, explored completely: every state that can be reached, safety in
//! each, and recovery from each.

mod answers;
mod explore;
mod led;
mod rules;
mod world;

use std::time::Instant;

use kinesis_consumer::internals::{Bug, plant};

use crate::explore::{Model, compare_merged, explore};
use crate::led::{LedRules, LedSetup, LockRules, LockSetup};
use crate::rules::{Rules, Setup, Shape};
use crate::world::UNLIMITED;

/// One lease, with any number of lost answers and stale scans.
const ONE_LEASE: Setup = Setup {
    shape: Shape::OneLease,
    workers: 2,
    positions: 2,
    crashes: 2,
    losses: UNLIMITED,
    stale: UNLIMITED,
};
/// Two leases, so that there is stealing.
const TWO_LEASES: Setup =
    Setup { shape: Shape::TwoLeases, workers: 2, positions: 0, crashes: 0, losses: 0, stale: 0 };
/// A parent and the two children it ends in.
const SPLIT: Setup = Setup { shape: Shape::Split, ..TWO_LEASES };

/// A lease that one of two workers assigns, which both may lead.
const LED: LedSetup = LedSetup { workers: 2, leaders: 2, crashes: 0, losses: 0, stale: 0 };
const LOCK: LockSetup = LockSetup { workers: 3, crashes: 2, losses: UNLIMITED };

/// Explored to the last state, one after the other; prints how many there were.
macro_rules! explore_all {
    ($rules:ident: $($setup:expr),* $(,)?) => {
        for setup in [$($setup),*] {
            let since = Instant::now();
            match explore(&mut $rules::new(setup), states_max()) {
                Ok(states) => println!("{setup:?}: {states}, in {:.1?}", since.elapsed()),
                Err(error) => panic!("{setup:?}: {error}"),
            }
        }
    };
}

fn states_max() -> usize {
    std::env::var("MODEL_STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX)
}

#[test]
fn few_leases_are_always_safe_and_recover() {
    explore_all!(
        Rules:
        ONE_LEASE,
        Setup { workers: 3, ..ONE_LEASE },
        Setup { crashes: 2, ..TWO_LEASES },
        Setup { losses: 1, ..TWO_LEASES },
        Setup { stale: 1, ..TWO_LEASES },
    );
}

#[test]
fn a_split_is_always_safe_and_recovers() {
    explore_all!(
        Rules:
        Setup { workers: 1, crashes: 2, losses: UNLIMITED, stale: UNLIMITED, ..SPLIT },
        Setup { crashes: 1, ..SPLIT },
    );
}

#[test]
fn a_lease_that_a_leader_hands_over_is_always_safe_and_recovers() {
    explore_all!(
        LedRules:
        LedSetup { crashes: 1, ..LED },
        LedSetup { losses: 1, ..LED },
        LedSetup { stale: 1, ..LED },
        LedSetup { workers: 3, leaders: 1, crashes: 2, losses: 1, ..LED },
    );
}

#[test]
fn one_leads_at_most_and_somebody_soon() {
    explore_all!(LockRules: LOCK);
}

#[test]
fn nothing_is_hidden_by_forgetting() {
    for setup in [ONE_LEASE, TWO_LEASES] {
        compare_merged(&mut Rules::new(setup)).unwrap();
    }
    compare_merged(&mut LedRules::new(LED)).unwrap();
}

/// Minutes, and some GiB of memory: `just model`.
#[test]
#[ignore = "larger worlds: `just model`"]
fn larger_worlds_are_always_safe_and_recover() {
    explore_all!(
        Rules:
        Setup { crashes: 1, losses: 1, stale: 1, ..TWO_LEASES },
        Setup { crashes: 2, ..SPLIT },
        Setup { losses: 1, ..SPLIT },
        Setup { stale: 1, ..SPLIT },
        Setup { workers: 3, ..TWO_LEASES },
    );
    explore_all!(
        LedRules:
        LedSetup { crashes: 1, losses: 1, stale: 1, ..LED },
        LedSetup { workers: 3, leaders: 2, ..LED },
    );
}

/// Each bug is found, by the property its name stands beside.
#[test]
fn planted_bugs_are_found() {
    let faulty_split = Setup { losses: 1, ..SPLIT };
    for (bug, setup, property) in [
        (Bug::TakeIgnoresCounter, ONE_LEASE, "counter"),
        (Bug::TakeKeepsCounter, ONE_LEASE, "counter"),
        (Bug::RenewIgnoresCounter, ONE_LEASE, "counter"),
        (Bug::CheckpointIgnoresCounter, ONE_LEASE, "counter"),
        (Bug::ReleaseIgnoresOwner, ONE_LEASE, "counter"),
        (Bug::RefusalTakenForOurs, Setup { losses: 1, ..TWO_LEASES }, "recovery"),
        (Bug::NeverExpires, ONE_LEASE, "expiry"),
        (Bug::TakesTooEarly, ONE_LEASE, "expiry"),
        (Bug::RetakesFromTheLiving, ONE_LEASE, "expiry"),
        (Bug::NeverSteals, faulty_split, "recovery"),
        (Bug::StealsFromEqual, ONE_LEASE, "recovery"),
        (Bug::ChildrenStartEarly, faulty_split, "parents first"),
        (Bug::EndsWithoutChildren, faulty_split, "coverage"),
        (Bug::EndIgnoresCounter, faulty_split, "ownership"),
    ] {
        is_found(bug, property, || Rules::new(setup));
    }
}

#[test]
fn bugs_planted_in_leaders_are_found() {
    let lossy = LedSetup { losses: 1, ..LED };
    for (bug, setup, property) in [
        (Bug::TakesUpBeforeHandoff, LED, "one holder"),
        (Bug::GivesAwayTheRenewed, LED, "expiry"),
        (Bug::NeverExpires, LED, "expiry"),
        (Bug::RenewIgnoresCounter, LED, "counter"),
        (Bug::RefusalTakenForOurs, lossy, "recovery"),
    ] {
        is_found(bug, property, || LedRules::new(setup));
    }
    for bug in [Bug::LeadsTooEarly, Bug::LockIgnoresVersion, Bug::LeadsForever] {
        is_found(bug, "one leader", || LockRules::new(LOCK));
    }
}

#[expect(clippy::print_stdout, reason = "the way to each bug is worth reading")]
fn is_found<M: Model>(bug: Bug, property: &str, rules: impl Fn() -> M) {
    plant(Some(bug));
    let found = explore(&mut rules(), 200_000);
    plant(None);
    let error = found.expect_err(&format!("{bug:?} is not found"));
    println!("{bug:?} is found by {error}");
    assert_eq!(error.split(':').next(), Some(property), "{bug:?}");
}
