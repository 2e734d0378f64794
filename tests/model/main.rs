//! Small worlds of workers and leases, explored completely: every state that can be reached, safety in
//! each, and recovery from each.

mod world;

use std::collections::{HashSet, VecDeque};

use kinesis_consumer::internals::{Bug, plant};

use crate::world::{Action, World};

/// Explores everything reachable from `start`, or the first so many states. How many states there
/// are, or how something went wrong.
fn explore(start: World, states_max: usize) -> Result<usize, String> {
    let mut seen: HashSet<World> = HashSet::from([start.clone()]);
    let mut todo: VecDeque<World> = VecDeque::from([start]);
    while let Some(world) = todo.pop_front() {
        for action in world.actions() {
            let mut next = world.clone();
            next.apply(&action).map_err(|error| told(&world, &action, &error))?;
            if seen.len() < states_max && !seen.contains(&next) {
                next.clone().recovers().map_err(|error| told(&world, &action, &error))?;
                seen.insert(next.clone());
                todo.push_back(next);
            }
        }
    }
    Ok(seen.len())
}

fn told(world: &World, action: &Action, error: &str) -> String {
    format!("{error}\nby {action:?} in {world:#?}")
}

/// Complete without crashes; `MODEL_CRASHES=1` takes about a minute more, and is complete as well.
#[test]
fn two_workers_and_one_lease_are_always_safe_and_recover() {
    let crashes = std::env::var("MODEL_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let states = explore(World::new(2, &["lease"], crashes), usize::MAX).unwrap();
    println!("{states} states, all there are");
}

/// The first states of larger worlds, `MODEL_STATES` of each.
#[test]
fn workers_and_a_shard_that_splits_are_safe_and_recover() {
    let states_max = std::env::var("MODEL_STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000);
    for (workers, crashes) in [(2, 1), (3, 2)] {
        let states = explore(World::new(workers, &["parent"], crashes), states_max).unwrap();
        println!("{states} states of {workers} workers");
    }
}

#[test]
fn planted_bugs_are_found() {
    for bug in [
        Bug::TakeIgnoresCounter,
        Bug::TakeKeepsCounter,
        Bug::RenewIgnoresCounter,
        Bug::CheckpointIgnoresCounter,
        Bug::ReleaseIgnoresOwner,
        Bug::TakesTooEarly,
    ] {
        plant(Some(bug));
        let found = explore(World::new(2, &["lease"], 1), usize::MAX);
        plant(None);
        let error = found.expect_err(&format!("{bug:?} is not found"));
        println!("{bug:?} | {}", error.lines().next().unwrap_or_default());
    }
}
