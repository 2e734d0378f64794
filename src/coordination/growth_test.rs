//! What the coordination thread does in one go takes time in proportion to the table: leases are renewed on
//! the same thread, between its steps.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::kinesis::Shard;
use crate::lease::Lease;
use crate::lease::OpenLeases;
use crate::shard_sync::plan_cleanup;
use crate::shard_sync::plan_shard_sync;
use crate::shard_sync::{Audit, HoleTracker};
use crate::types::{Checkpoint, ExtendedSequenceNumber, HashKeyRange, ShardId, StartStrategy};

const LEASES: usize = 16_000;
/// How many times as long as an index of the leases a step may take. It takes a few times as long if it looks
/// at each lease once, and hundreds of times if it looks at all leases for each.
const INDEXES: u32 = 50;
const TRIES: usize = 3;

/// What else runs on the machine only makes a try slower, so the fastest counts.
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn time<R>(mut step: impl FnMut() -> R) -> Duration {
    let tries = (0..TRIES).map(|_| {
        let begun = Instant::now();
        black_box(step());
        begun.elapsed()
    });
    tries.min().unwrap_or_default()
}

/// Compares a step with an index that is made and asked for each lease, on the same machine at the same time.
fn assert_linear(what: &str, step: impl FnMut()) {
    let ids: Vec<ShardId> = (0..LEASES).map(id).collect();
    let index = time(|| {
        let index: BTreeMap<&ShardId, usize> =
            ids.iter().enumerate().map(|(number, id)| (id, number)).collect();
        ids.iter().filter(|id| index.contains_key(id)).count()
    });
    let step = time(step);
    assert!(step < index * INDEXES, "{what} takes {step:?}, an index {index:?}");
}

fn id(index: usize) -> ShardId {
    format!("shardId-{index:012}").as_str().into()
}

fn range(index: usize, of: usize) -> HashKeyRange {
    let size = u128::MAX / of as u128;
    let end = if index + 1 == of { u128::MAX } else { size * (index as u128 + 1) - 1 };
    HashKeyRange::new(size * index as u128, end).expect("a range")
}

/// The lower half of a range for even numbers, the upper for odd ones.
fn half(range: HashKeyRange, number: usize) -> HashKeyRange {
    let middle = range.start() + (range.end() - range.start()) / 2;
    let half = if number.is_multiple_of(2) {
        HashKeyRange::new(range.start(), middle)
    } else {
        HashKeyRange::new(middle + 1, range.end())
    };
    half.expect("a range")
}

/// A third of the shards were just split into the others.
fn resharding(size: usize) -> Vec<Shard> {
    let parents = size / 3;
    (0..3 * parents)
        .map(|index| {
            let child = index.checked_sub(parents);
            let range =
                child.map_or_else(|| range(index, parents), |child| half(range(child / 2, parents), child));
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
        let leases = leases(&resharding(LEASES), are_children_known);
        assert_linear("cleanup", || {
            let finished = plan_cleanup(&leases.iter().collect::<Vec<_>>());
            assert_eq!(finished.len(), LEASES / 3);
        });
    }
}

#[test]
fn cleaning_up_where_every_lease_names_a_parent_that_is_gone() {
    let mut leases = leases(&resharding(LEASES), true);
    leases.retain(|lease| !lease.checkpoint.is_shard_end());
    assert_linear("cleanup", || assert!(plan_cleanup(&leases.iter().collect::<Vec<_>>()).is_empty()));
}

#[test]
fn planning_the_leases_that_are_missing() {
    let shards = resharding(LEASES);
    let all = leases(&shards, false);
    let all_but_one = all[1..].to_vec();
    let every_other: Vec<Lease> = all.into_iter().step_by(2).collect();
    for strategy in [StartStrategy::Latest, StartStrategy::Oldest, StartStrategy::Timestamp(5)] {
        for leases in [&all_but_one, &every_other] {
            assert_linear("shard sync", || {
                assert!(plan_shard_sync(&shards, leases, strategy, false).is_ok());
            });
        }
    }
}

#[test]
fn looking_for_holes() {
    let leases = leases(&resharding(LEASES), false);
    assert_linear("audit", || {
        let audit = HoleTracker::new(3).check(&leases.iter().collect::<Vec<_>>());
        assert_eq!(audit, Audit::Covered);
    });
}

/// All consumers of children wait while their parents end one by one: what one end costs does not depend on
/// how many others wait.
#[test]
fn ends_that_consumers_wait_for() {
    let leases = leases(&resharding(LEASES), true);
    assert_linear("the ends of all parents", || {
        let open_leases = OpenLeases::default();
        let (parents, children) = leases.split_at(LEASES / 3);
        let keys = |child: &Lease| child.parents.iter().map(|id| id.as_str().into()).collect();
        let _waiting: Vec<_> = children.iter().map(|child| open_leases.wait_for(keys(child))).collect();
        parents.iter().for_each(|parent| open_leases.learn(&parent.key, false));
    });
}
