//! The checks can fail: every bug that can be planted is caught by an invariant.

use kinesis_consumer::internals::{Bug, plant};

use crate::simulate;

/// No bug may stay hidden for more seeds than this.
const SEEDS_MAX: u64 = 60;

#[test]
fn every_planted_bug_is_caught() {
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
    let hidden: Vec<Bug> = hunts.iter().filter(|(_, caught)| caught.is_none()).map(|(bug, _)| *bug).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

/// The first seed in which `bug` is caught, and what by.
fn hunt(bug: Bug) -> Option<(u64, &'static str)> {
    let from = crate::number("SIM_FROM").unwrap_or(0);
    plant(Some(bug));
    let caught = (from..from + SEEDS_MAX)
        .find_map(|seed| simulate(seed).1.into_iter().next().map(|violation| (seed, violation)));
    plant(None);
    match &caught {
        Some((seed, violation)) => println!("{bug:?} | {} | {seed} | {violation}", violation.invariant),
        None => println!("{bug:?} | not caught"),
    }
    caught.map(|(seed, violation)| (seed, violation.invariant))
}
