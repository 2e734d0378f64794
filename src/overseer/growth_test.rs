//! What the coordination thread does in one go takes time in proportion to the table: leases are renewed on
//! the same thread, between its steps.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::audit::{Audit, HoleTracker};
use super::cleanup::plan_cleanup;
use super::shard_sync::plan_shard_sync;
use crate::lease::Lease;
use crate::stream::Shard;
use crate::types::{Checkpoint, ExtendedSequenceNumber, HashKeyRange, ShardId, StartStrategy};

const SMALL: usize = 1_000;
const FACTOR: usize = 8;
/// Half-way between growing linearly, and with the square.
const GROWTH_MAX: f64 = 22.0;
const TRIES: usize = 5;

/// How many times as long `step` takes with [`FACTOR`] times the leases. What else runs on the machine only
/// makes a try slower, so the fastest counts.
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn growth<T, R>(prepare: impl Fn(usize) -> T, step: impl Fn(&T) -> R) -> f64 {
    let time = |size| {
        let prepared = prepare(size);
        let tries = (0..TRIES).map(|_| {
            let begun = Instant::now();
            black_box(step(black_box(&prepared)));
            begun.elapsed()
        });
        tries.min().unwrap_or_default().max(Duration::from_nanos(1))
    };
    let small = time(SMALL);
    time(SMALL * FACTOR).as_secs_f64() / small.as_secs_f64()
}

fn assert_linear(what: &str, growth: f64) {
    assert!(growth < GROWTH_MAX, "{what}: {growth:.1} times as long with {FACTOR} times the leases");
}

fn id(index: usize) -> ShardId {
    format!("shardId-{index:012}").as_str().into()
}

fn range(index: usize, of: usize) -> HashKeyRange {
    let size = u128::MAX / of as u128;
    let end = if index + 1 == of { u128::MAX } else { size * (index as u128 + 1) - 1 };
    HashKeyRange::new(size * index as u128, end).expect("a range")
}

/// A third of the shards were just split into the others.
fn resharding(size: usize) -> Vec<Shard> {
    let (parents, children) = (size / 3, size / 3 * 2);
    (0..parents + children)
        .map(|index| {
            let child = index.checked_sub(parents);
            let range = child.map_or_else(|| range(index, parents), |child| range(child, children));
            let mut shard = Shard::new(id(index), range, (index as u128).into());
            shard.ending_sequence_number = child.is_none().then(|| (size as u128).into());
            shard.parents = child.map(|child| id(child / 2)).into_iter().collect();
            shard
        })
        .collect()
}

/// Their leases: the parents have ended, and perhaps say which shards follow them.
fn leases(shards: &[Shard], are_children_known: bool) -> Vec<Lease> {
    let parents = shards.len() / 3;
    let running: Checkpoint = ExtendedSequenceNumber::new(7_u128.into(), 0).into();
    let lease = |(index, shard): (usize, &Shard)| {
        let checkpoint = if index < parents { Checkpoint::ShardEnd } else { running.clone() };
        let mut lease = Lease::new(shard.id.as_str(), checkpoint);
        lease.hash_key_range = Some(shard.hash_key_range);
        lease.parents = shard.parents.clone();
        if index < parents && are_children_known {
            lease.children = [id(parents + 2 * index), id(parents + 2 * index + 1)].into();
        }
        lease
    };
    shards.iter().enumerate().map(lease).collect()
}

#[test]
fn cleaning_up() {
    for are_children_known in [true, false] {
        let prepare = |size| leases(&resharding(size), are_children_known);
        let step = |leases: &Vec<Lease>| {
            let finished = plan_cleanup(&leases.iter().collect::<Vec<_>>());
            assert_eq!(finished.len(), leases.len() / 3);
        };
        assert_linear("cleanup", growth(prepare, step));
    }
}

#[test]
fn cleaning_up_where_every_lease_names_a_parent_that_is_gone() {
    let prepare = |size| {
        let mut leases = leases(&resharding(size), true);
        leases.retain(|lease| !lease.checkpoint.is_shard_end());
        leases
    };
    let step = |leases: &Vec<Lease>| assert!(plan_cleanup(&leases.iter().collect::<Vec<_>>()).is_empty());
    assert_linear("cleanup", growth(prepare, step));
}

#[test]
fn planning_the_leases_that_are_missing() {
    let strategies = [StartStrategy::Latest, StartStrategy::Oldest, StartStrategy::Timestamp(5)];
    for (strategy, missing) in strategies.into_iter().flat_map(|strategy| [(strategy, 1), (strategy, 2)]) {
        let prepare = |size| {
            let shards = resharding(size);
            // One, or every other one.
            let mut leases = leases(&shards, false);
            if missing == 1 {
                leases.pop();
            } else {
                leases = leases.into_iter().step_by(missing).collect();
            }
            (shards, leases)
        };
        let step = |(shards, leases): &(Vec<Shard>, Vec<Lease>)| {
            let plan = plan_shard_sync(shards, leases, strategy, false).expect("consistent");
            assert!(!plan.new_leases.is_empty());
        };
        assert_linear("shard sync", growth(prepare, step));
    }
}

#[test]
fn looking_for_holes() {
    let prepare = |size| leases(&resharding(size), false);
    let step = |leases: &Vec<Lease>| {
        let audit = HoleTracker::new(3).check(&leases.iter().collect::<Vec<_>>());
        assert_eq!(audit, Audit::Covered);
    };
    assert_linear("audit", growth(prepare, step));
}
