#![cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]

use std::collections::{BTreeMap, BTreeSet};

use crate::kinesis::ChildShard;
use crate::lease::Lease;
use crate::planted::{Bug, planted};
use crate::shard_sync::{ChildError, plan_child_leases};
use crate::types::ShardId;

/// How a shard ends: its children get their leases first, and only then is its end stored. Holds what
/// the table and the service have answered, and says what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndingSteps {
    children: Vec<ChildShard>,
    /// Whether a shard has a lease, of those it was asked about and those that were given one.
    has_lease: BTreeMap<ShardId, bool>,
    /// The shards that the service still knows, if it was asked.
    listed: Option<BTreeSet<ShardId>>,
}

/// What to do next at the end of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum EndingStep {
    /// Look up whether this shard has a lease.
    LookUpLease(ShardId),
    /// Ask the service which shards there are.
    ListShards,
    /// Create these leases, and note each as soon as it is there.
    CreateLeases(Vec<Lease>),
    /// Let the processor store `SHARD_END`.
    StoreEnd,
    /// Start again after a pause: a lease cannot be created yet.
    Wait(ChildError),
}

impl EndingSteps {
    /// The end of a shard that these follow.
    #[must_use]
    pub fn new(children: Vec<ChildShard>) -> Self {
        Self { children, has_lease: BTreeMap::new(), listed: None }
    }

    /// Whether this shard has a lease was looked up, or it was given one.
    pub fn note_lease(&mut self, shard: ShardId, has_lease: bool) {
        self.has_lease.insert(shard, has_lease);
    }

    /// The service was asked which shards there are.
    pub fn note_listed(&mut self, shards: BTreeSet<ShardId>) {
        self.listed = Some(shards);
    }

    /// What to do next, if the row of the shard that ends is `parent`.
    pub fn next_step(&self, parent: &Lease) -> EndingStep {
        if planted(Bug::EndsWithoutChildren) {
            return EndingStep::StoreEnd;
        }
        let has_lease = |shard: &ShardId| self.has_lease.get(shard).copied();
        // A parent the service has forgotten will never have a lease, nor anything to read.
        let is_forgotten =
            |shard: &ShardId| self.listed.as_ref().is_some_and(|listed| !listed.contains(shard));
        let needs_no_waiting = |shard: &ShardId| {
            *shard == parent.shard_id || has_lease(shard) == Some(true) || is_forgotten(shard)
        };
        let mut missing = Vec::new();
        for child in self.children.iter().filter(|child| has_lease(&child.id) != Some(true)) {
            // A merged child has a parent besides this one. That parent has a lease, or its lease was
            // deleted because the child has one.
            let others = child.parents.iter().filter(|other| **other != parent.shard_id);
            if let Some(unknown) = others.clone().find(|other| has_lease(other).is_none()) {
                return EndingStep::LookUpLease(unknown.clone());
            }
            if !others.clone().all(needs_no_waiting) {
                if has_lease(&child.id).is_none() {
                    return EndingStep::LookUpLease(child.id.clone());
                }
                if self.listed.is_none() {
                    return EndingStep::ListShards;
                }
            }
            missing.push(child.clone());
        }
        match plan_child_leases(parent, &missing, needs_no_waiting) {
            Ok(leases) if leases.is_empty() => EndingStep::StoreEnd,
            Ok(leases) => EndingStep::CreateLeases(leases),
            Err(error) => EndingStep::Wait(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Checkpoint, HashKeyRange};

    fn child(id: &str, parents: &[&str]) -> ChildShard {
        ChildShard::new(id, parents.iter().map(|parent| (*parent).into()), HashKeyRange::FULL)
    }

    /// What is done at the end of shard `0`, one step after the other, if `leases` are in the table, and the
    /// service lists `shards`.
    fn steps(children: &[ChildShard], leases: &[&str], shards: &[&str]) -> String {
        let parent = Lease::new("0", Checkpoint::TrimHorizon);
        let mut ending = EndingSteps::new(children.to_vec());
        let mut story = Vec::new();
        while story.len() < 20 {
            match ending.next_step(&parent) {
                EndingStep::LookUpLease(shard) => {
                    story.push(format!("look up {shard}"));
                    let is_there = leases.contains(&shard.as_str());
                    ending.note_lease(shard, is_there);
                }
                EndingStep::ListShards => {
                    story.push("list".to_owned());
                    ending.note_listed(shards.iter().map(|shard| (*shard).into()).collect());
                }
                EndingStep::CreateLeases(leases) => {
                    let created = &leases[0];
                    story.push(format!("create {} of {}", created.shard_id, leases.len()));
                    ending.note_lease(created.shard_id.clone(), true);
                }
                EndingStep::StoreEnd => {
                    story.push("end".to_owned());
                    break;
                }
                EndingStep::Wait(error) => {
                    story.push(format!("wait: {error}"));
                    break;
                }
            }
        }
        story.join(", ")
    }

    #[test]
    fn children_get_their_leases_before_the_end_is_stored() {
        let split = [child("1", &["0"]), child("2", &["0"])];
        assert_eq!(steps(&[], &[], &[]), "end");
        assert_eq!(steps(&split, &[], &["0", "1", "2"]), "create 1 of 2, create 2 of 1, end");
    }

    #[test]
    fn a_merged_child_waits_for_its_other_parent_unless_that_is_gone() {
        let merged = [child("2", &["0", "1"])];
        for (leases, shards, expected) in [
            (&["1"][..], &["0", "1", "2"][..], "look up 1, create 2 of 1, end"),
            // Its lease was deleted because the child has one.
            (&["2"], &["0", "1", "2"], "look up 1, look up 2, end"),
            // The service has forgotten it.
            (&[], &["0", "2"], "look up 1, look up 2, list, create 2 of 1, end"),
            (
                &[],
                &["0", "1", "2"],
                "look up 1, look up 2, list, wait: of the parents of child shard 2, some have leases and 1 has not",
            ),
        ] {
            assert_eq!(steps(&merged, leases, shards), expected);
        }
        let both = [child("2", &["0", "1"]), child("3", &["0"])];
        let created = steps(&both, &["1"], &[]);
        assert_eq!(created, "look up 1, create 2 of 2, create 3 of 1, end");
    }

    #[test]
    fn what_does_not_follow_the_shard_gets_no_lease() {
        let stranger = [child("2", &[])];
        assert_eq!(steps(&stranger, &[], &[]), "wait: child shard 2 does not name 0 as its parent");
    }
}
