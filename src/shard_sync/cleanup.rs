use std::collections::HashMap;

use crate::lease::Lease;
use crate::types::{Checkpoint, HashKeyRange, LeaseKey, ShardId};

/// The rows of finished shards that nobody needs any more (KCL's `LeaseCleanupManager`).
///
/// A row goes when its shard has ended, each of its children has a lease that has been started, and
/// none of its parents has a row. So rows go from the oldest on, and never go
///
/// - before the children have leases: the shard sync would take the shard for a new one;
/// - while the children are unknown, even if the service no longer lists any (KCL deletes then).
///
/// Takes time in proportion to the number of leases.
pub(crate) fn plan_cleanup(leases: &[&Lease]) -> Vec<LeaseKey> {
    let is_ended = |lease: &Lease| lease.checkpoint.is_shard_end();
    if !leases.iter().any(|lease| is_ended(lease)) {
        return Vec::new();
    }
    let family = Family::of(leases);
    let is_finished = |lease: &Lease| {
        is_ended(lease)
            && !lease.parents.iter().any(|parent| family.by_shard.contains_key(parent))
            && family.children(lease).is_some_and(|mut children| children.all(is_started))
    };
    leases.iter().filter(|lease| is_finished(lease)).map(|lease| lease.key.clone()).collect()
}

fn is_started(lease: &Lease) -> bool {
    !matches!(lease.checkpoint, Checkpoint::TrimHorizon | Checkpoint::AtTimestamp)
}

/// The leases of one stream by how they descend from each other. Only looked up, never gone through, so
/// that the order of the maps does not matter.
struct Family<'a> {
    by_shard: HashMap<&'a ShardId, &'a Lease>,
    /// The leases that name a shard as a parent, for ended shards whose rows do not say which follow them.
    naming: HashMap<&'a ShardId, Vec<&'a Lease>>,
}

impl<'a> Family<'a> {
    fn of(leases: &[&'a Lease]) -> Self {
        let by_shard: HashMap<&ShardId, &Lease> =
            leases.iter().map(|lease| (&lease.shard_id, *lease)).collect();
        let has_unknown_children =
            |lease: &Lease| lease.checkpoint.is_shard_end() && lease.children.is_empty();
        let mut naming: HashMap<&ShardId, Vec<&Lease>> = HashMap::new();
        for child in leases {
            for parent in &child.parents {
                if by_shard.get(parent).is_some_and(|parent| has_unknown_children(parent)) {
                    naming.entry(parent).or_default().push(child);
                }
            }
        }
        Self { by_shard, naming }
    }

    /// The leases of the children as recorded in the row or, if they are not, the leases that name it as
    /// a parent, provided that they cover its hash keys. `None` if some are missing or unknown.
    fn children(&self, lease: &'a Lease) -> Option<impl Iterator<Item = &'a Lease>> {
        let recorded = lease.children.iter().map(|child| self.by_shard.get(child).copied());
        let children: Vec<&Lease> = if lease.children.is_empty() {
            let named = self.naming.get(&lease.shard_id)?;
            let ranges: Vec<HashKeyRange> =
                named.iter().map(|child| child.hash_key_range).collect::<Option<_>>()?;
            if !lease.hash_key_range?.is_covered_by(ranges) {
                return None;
            }
            named.clone()
        } else {
            recorded.collect::<Option<_>>()?
        };
        Some(children.into_iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn lease(id: &str, checkpoint: Checkpoint, parents: &[&str], (start, end): (u128, u128)) -> Lease {
        let mut lease = Lease::new(id, checkpoint);
        lease.parents = parents.iter().map(|&parent| parent.into()).collect();
        lease.hash_key_range = HashKeyRange::new(start, end);
        lease
    }

    fn at(number: u128) -> Checkpoint {
        crate::types::ExtendedSequenceNumber::new(number.into(), 0).into()
    }

    fn plan(leases: &[Lease]) -> Vec<String> {
        plan_cleanup(&leases.iter().collect::<Vec<_>>()).iter().map(ToString::to_string).collect()
    }

    /// `0` split into `1` and `2`, at the given checkpoints.
    fn split(parent: Checkpoint, left: Checkpoint, right: Checkpoint) -> [Lease; 3] {
        [
            lease("0", parent, &[], (0, 99)),
            lease("1", left, &["0"], (0, 49)),
            lease("2", right, &["0"], (50, 99)),
        ]
    }

    #[test]
    fn a_parent_goes_when_all_its_children_have_started() {
        assert_eq!(plan(&split(Checkpoint::ShardEnd, at(1), at(2))), ["0"]);
        assert!(plan(&split(Checkpoint::ShardEnd, at(1), Checkpoint::TrimHorizon)).is_empty());
        assert!(plan(&split(at(0), at(1), at(2))).is_empty());
    }

    #[test]
    fn a_child_that_nobody_has_read_keeps_the_row_wherever_it_is_to_start() {
        for unread in [Checkpoint::TrimHorizon, Checkpoint::AtTimestamp] {
            assert!(plan(&split(Checkpoint::ShardEnd, at(1), unread.clone())).is_empty(), "{unread}");
            assert!(plan(&split(Checkpoint::ShardEnd, unread.clone(), at(2))).is_empty(), "{unread}");
        }
    }

    #[test]
    fn recorded_children_count_even_before_they_have_leases() {
        let [mut parent, child, _] = split(Checkpoint::ShardEnd, at(1), at(2));
        parent.children = BTreeSet::from(["1".into(), "2".into()]);
        assert!(plan(&[parent, child]).is_empty());
    }

    #[test]
    fn unknown_children_keep_the_row() {
        assert!(plan(&[lease("0", Checkpoint::ShardEnd, &[], (0, 99))]).is_empty());
        let [parent, child, _] = split(Checkpoint::ShardEnd, at(1), at(2));
        assert!(plan(&[parent, child]).is_empty(), "half of the hash keys are not accounted for");
    }

    #[test]
    fn rows_go_from_the_oldest_on() {
        let mut leases = split(Checkpoint::ShardEnd, Checkpoint::ShardEnd, at(2)).to_vec();
        leases.push(lease("3", at(3), &["1"], (0, 49)));
        assert_eq!(plan(&leases), ["0"]);
        leases.remove(0);
        assert_eq!(plan(&leases), ["1"]);
    }

    #[test]
    fn the_last_hash_key_does_not_overflow() {
        let leases = [
            lease("0", Checkpoint::ShardEnd, &[], (0, u128::MAX)),
            lease("1", at(1), &["0"], (0, 49)),
            lease("2", at(2), &["0"], (50, u128::MAX)),
        ];
        assert_eq!(plan(&leases), ["0"]);
    }
}
