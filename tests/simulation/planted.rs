//! The checks can fail: every bug that can be planted is caught, and by the invariant that is there for it.

use kinesis_consumer::internals::{Bug, plant};

use crate::invariants;
use crate::simulate;

/// No bug may stay hidden for more seeds than this.
const SEEDS_MAX: u64 = 60;

/// The invariants that may be the first to be violated, `None` for bugs that only the model finds. More than
/// one is named where a bug breaks either, depending on the fleet.
fn expected(bug: Bug) -> Option<&'static [&'static str]> {
    Some(match bug {
        Bug::TakeIgnoresCounter
        | Bug::TakeKeepsCounter
        | Bug::RenewIgnoresCounter
        | Bug::CheckpointIgnoresCounter
        | Bug::ReleaseIgnoresOwner => &["one holder"],
        Bug::RefusalTakenForOurs => &["ownership"],
        Bug::NeverExpires | Bug::DeliversWithoutLease => &["expiry"],
        // Fleets with a leader that asks first say so before anything overlaps, and one whose leases keep changing
        // hands may never become ready for a leader.
        Bug::TakesTooEarly => &["expiry", "asked first", "handover"],
        Bug::StealsFromEqual | Bug::NeverSteals => &["balance"],
        Bug::ForgetsFree => &["handover"],
        Bug::ChildrenStartEarly => &["parents first"],
        Bug::EndsWithoutChildren => &["coverage"],
        Bug::ResumesAfter | Bug::RepeatsAggregate | Bug::ExpiredIteratorSkips | Bug::RenewsAtTheTip => {
            &["order"]
        }
        // If the shard ends before its next record, its end is stored without what was skipped.
        Bug::FallbackForgetsPosition => &["order", "checkpoints"],
        Bug::PanicSkipsBatch => &["callbacks"],
        Bug::AllowsBackwards | Bug::AllowsUndelivered | Bug::AllowsEarlyEnd | Bug::EmptyPageEndsShard => {
            &["checkpoints"]
        }
        // An end that names no children leaves their hash keys without leases.
        Bug::TrustsAnyShardEnd => &["checkpoints", "coverage"],
        // Nobody reads a hole that nobody looks for.
        Bug::NeverAudits | Bug::WaitsForeverForEvents => &["delivery"],
        Bug::IgnoresBudget => &["bounded memory"],
        Bug::LeadsTooEarly | Bug::LockIgnoresVersion | Bug::LeadsForever => &["one leader"],
        Bug::TakesUpBeforeHandoff | Bug::HandsOverUnasked => &["handoff"],
        Bug::AssignsToTheSilent => &["silence"],
        Bug::RetakesFromTheLiving | Bug::EndIgnoresCounter | Bug::GivesAwayTheRenewed => return None,
        // Found by the tests of transactions.
        Bug::CommitIgnoresCounter
        | Bug::CommitForgetsBase
        | Bug::NewTokenPerAttempt
        | Bug::RenewalTakenForCommit
        | Bug::FoldsSetsAsAdds => return None,
    })
}

#[test]
fn every_planted_bug_is_caught_by_its_invariant() {
    // Those whose names contain `SIM_BUG`.
    let name = std::env::var("SIM_BUG").unwrap_or_default();
    let wanted: Vec<Bug> = Bug::ALL.into_iter().filter(|bug| format!("{bug:?}").contains(&name)).collect();
    let hunts: Vec<_> = std::thread::scope(|scope| {
        // Two hunters, as a bug is planted on one thread.
        let bugs: [Vec<Bug>; 2] = [0, 1].map(|half| wanted.iter().skip(half).step_by(2).copied().collect());
        let hunters =
            bugs.map(|bugs| scope.spawn(|| bugs.into_iter().map(|bug| (bug, hunt(bug))).collect::<Vec<_>>()));
        hunters.into_iter().flat_map(|hunter| hunter.join().expect("a hunter")).collect()
    });
    let by_another: Vec<_> = hunts
        .iter()
        .filter(|(bug, caught)| {
            let expected = expected(*bug).expect("a bug that the simulation hunts");
            caught.is_none_or(|invariant| !expected.contains(&invariant))
        })
        .collect();
    assert!(by_another.is_empty(), "not caught, or by an invariant that is there for others: {by_another:?}");
}

#[test]
fn bugs_are_hunted_by_invariants_that_exist() {
    for bug in Bug::ALL {
        for name in expected(bug).into_iter().flatten() {
            assert!(invariants::ALL.iter().any(|(invariant, _)| invariant == name), "{bug:?}: {name}");
        }
    }
}

/// The first violation in the first seed in which `bug` is caught.
fn hunt(bug: Bug) -> Option<&'static str> {
    let from = crate::number("SIM_FROM").unwrap_or(0);
    plant(Some(bug));
    let caught = (from..from + SEEDS_MAX)
        .find_map(|seed| simulate(seed).1.into_iter().next().map(|violation| (seed, violation)));
    plant(None);
    match &caught {
        Some((seed, violation)) => println!("{bug:?} | {} | {seed} | {violation}", violation.invariant),
        None => println!("{bug:?} | not caught"),
    }
    caught.map(|(_, violation)| violation.invariant)
}
