//! The leases that follow from the end of a shard (KCL's `ShutdownTask`).

use crate::kinesis::ChildShard;
use crate::lease::Lease;
use crate::types::{Checkpoint, ShardId};

/// Why the children of an ended shard get no leases yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]
pub enum ChildError {
    /// It is the child of other shards.
    #[error("child shard {child} does not name {parent} as its parent")]
    NotAChild {
        /// That child.
        child: ShardId,
        /// The shard that ended.
        parent: ShardId,
    },
    /// Its children would not wait for one of their parents.
    #[error("of the parents of child shard {child}, some have leases and {missing} has not")]
    ParentWithoutLease {
        /// That child.
        child: ShardId,
        /// That parent.
        missing: ShardId,
    },
}

/// Plans the leases of the shards that follow `parent`, which has ended: at `TRIM_HORIZON`, because
/// everything in them comes after it. Each parent of a merged shard plans the same lease.
pub(crate) fn plan_child_leases(
    parent: &Lease,
    children: &[ChildShard],
    has_lease: impl Fn(&ShardId) -> bool,
) -> Result<Vec<Lease>, ChildError> {
    children
        .iter()
        .map(|child| {
            if !child.parents.contains(&parent.shard_id) {
                return Err(ChildError::NotAChild {
                    child: child.id.clone(),
                    parent: parent.shard_id.clone(),
                });
            }
            // The child would not wait for a parent that has no lease.
            if let Some(missing) = child.parents.iter().find(|parent| !has_lease(parent)) {
                return Err(ChildError::ParentWithoutLease {
                    child: child.id.clone(),
                    missing: missing.clone(),
                });
            }
            let mut lease = Lease::new(child.id.as_str(), Checkpoint::TrimHorizon);
            lease.parents = child.parents.clone();
            lease.hash_key_range = Some(child.hash_key_range);
            Ok(lease)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::HashKeyRange;

    #[test]
    fn children_start_at_their_oldest_record() {
        let child = ChildShard::new("2", ["0".into(), "1".into()], HashKeyRange::FULL);
        let parent = Lease::new("0", Checkpoint::Latest);
        let planned =
            plan_child_leases(&parent, std::slice::from_ref(&child), |_| true).expect("both have leases");
        assert_eq!(planned[0].checkpoint, Checkpoint::TrimHorizon);
        assert_eq!(planned[0].parents, child.parents);
        let missing = plan_child_leases(&parent, std::slice::from_ref(&child), |shard| *shard == "0");
        assert_eq!(missing, Err(ChildError::ParentWithoutLease { child: "2".into(), missing: "1".into() }));
        let stranger = plan_child_leases(&Lease::new("9", Checkpoint::Latest), &[child], |_| true);
        assert!(matches!(stranger, Err(ChildError::NotAChild { .. })));
    }
}
