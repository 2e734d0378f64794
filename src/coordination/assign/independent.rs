//! The rules of KCL 2.x (`DynamoDBLeaseTaker`): every worker plans for itself.
//!
//! Differences, all of which leave other workers' plans valid: shards that have ended are neither
//! counted nor taken; a lease without an owner is free at once, not after the failover time; a lease
//! that names this worker without its knowing (it restarted under the same name) is taken back first; and
//! one in a handoff, which a leader began before the fleet was rolled back, is the old owner's until that
//! has given it back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::coordination::view::{Observed, View};
use crate::lease::Lease;
use crate::planted::{Bug, planted};
use crate::types::{LeaseKey, Moment, WorkerId};

/// A lease is very old after this many failover times without renewal.
const VERY_OLD: u32 = 3;

/// What a worker goes by when it plans.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) worker: WorkerId,
    pub(crate) max_leases: usize,
    pub(crate) leases_to_acquire: usize,
    pub(crate) failover_time: Duration,
    pub(crate) priority_lease_assignment: bool,
    /// Leases that name this worker, and that another of the same name seems to hold.
    pub(crate) barred: BTreeSet<LeaseKey>,
}

/// Which leases to take now, and the numbers behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AssignmentPlan {
    pub(crate) takes: Vec<LeaseClaim>,
    /// Workers that are alive, this one included.
    pub(crate) workers: usize,
    /// Leases of shards that have not ended.
    pub(crate) leases: usize,
    /// This worker's fair share.
    pub(crate) target: usize,
    /// The fair share that `max_leases` does not let it take (KCL's `LeaseSpillover`).
    pub(crate) spillover: usize,
    /// Leases it lacks for its share.
    pub(crate) needed: usize,
    pub(crate) expired: usize,
    pub(crate) very_old: usize,
}

/// A lease to take.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]
pub struct LeaseClaim {
    /// As it was last seen.
    pub lease: Lease,
    /// Why it is taken.
    pub reason: ClaimReason,
}

#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]
impl LeaseClaim {
    /// Whether to try once more after this was refused because the row is now `row`: only for a steal
    /// that failed because the owner has renewed. An owner that was thought dead and has renewed is
    /// alive, and may hold the lease; and a shard that has ended meanwhile is nobody's to take.
    #[must_use]
    pub fn is_worth_a_retry(&self, row: &Lease) -> bool {
        let is_steal = matches!(self.reason, ClaimReason::Steal { .. }) || planted(Bug::RetakesFromTheLiving);
        let is_same = row.owner == self.lease.owner && row.checkpoint_owner.is_none();
        is_steal && is_same && !row.checkpoint.is_shard_end()
    }
}

/// Why a lease is taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]
pub enum ClaimReason {
    /// It names this worker already, which does not hold it.
    Ours,
    /// Nobody has renewed it for three failover times, or ever.
    VeryOld,
    /// It has no owner.
    Free,
    /// Its owner has not renewed it for the failover time.
    Expired {
        /// That owner.
        owner: WorkerId,
    },
    /// Its owner has more than its fair share.
    Steal {
        /// That owner.
        owner: WorkerId,
    },
}

/// Plans the takes of one round: first what is ours, then what is very old, then what is free, and
/// only if nothing is free, what others have too much of.
pub(crate) fn plan_assignment(
    view: &View,
    held: &BTreeSet<LeaseKey>,
    rules: &Rules,
    now: Moment,
    rng: &mut fastrand::Rng,
) -> AssignmentPlan {
    let is_mine = |observed: &&Observed| {
        held.contains(&observed.lease.key) || observed.lease.actual_owner() == Some(&rules.worker)
    };
    let running: Vec<&Observed> =
        view.iter().filter(|observed| !observed.lease.checkpoint.is_shard_end()).collect();
    let (mine, others): (Vec<&Observed>, Vec<&Observed>) =
        running.iter().partition(|&observed| is_mine(observed));
    let very_old_after = rules.failover_time * VERY_OLD;
    let expires_after =
        if planted(Bug::TakesTooEarly) { rules.failover_time / 4 } else { rules.failover_time };
    let is_expired = |observed: &Observed| observed.is_stale(expires_after, now);
    let free: Vec<&Observed> = others
        .iter()
        .copied()
        .filter(|observed| {
            observed.lease.owner.is_none() && !planted(Bug::ForgetsFree) || is_expired(observed)
        })
        .collect();
    let very_old: Vec<&Observed> =
        free.iter().copied().filter(|observed| observed.is_stale(very_old_after, now)).collect();
    let mut loads: BTreeMap<&WorkerId, Vec<&Observed>> = BTreeMap::new();
    for observed in others.iter().copied().filter(|observed| !is_expired(observed)) {
        if let Some(owner) = observed.lease.actual_owner() {
            loads.entry(owner).or_default().push(observed);
        }
    }

    let workers = loads.len() + 1;
    let share = if workers >= running.len() { 1 } else { running.len().div_ceil(workers) };
    let target = share.min(rules.max_leases);
    let mut plan = AssignmentPlan {
        takes: Vec::new(),
        workers,
        leases: running.len(),
        target,
        spillover: share - target,
        needed: target.saturating_sub(mine.len()),
        expired: free.len(),
        very_old: very_old.len(),
    };

    let room = rules.max_leases.saturating_sub(held.len());
    let is_ours = |key: &LeaseKey| !held.contains(key) && !rules.barred.contains(key);
    let ours = mine.iter().filter(|observed| is_ours(&observed.lease.key));
    plan.takes.extend(
        ours.take(room)
            .map(|observed| LeaseClaim { lease: observed.lease.clone(), reason: ClaimReason::Ours }),
    );

    let room = rules.max_leases.saturating_sub(mine.len());
    if rules.priority_lease_assignment && !very_old.is_empty() {
        plan.takes.extend(
            pick(very_old, room, rng).map(|lease| LeaseClaim { lease, reason: ClaimReason::VeryOld }),
        );
        return plan;
    }
    let needed = plan.needed;
    if needed == 0 {
        return plan;
    }
    if !free.is_empty() {
        plan.takes.extend(pick(free, needed, rng).map(|lease| {
            let reason = match lease.actual_owner() {
                Some(owner) => ClaimReason::Expired { owner: owner.clone() },
                None => ClaimReason::Free,
            };
            LeaseClaim { lease, reason }
        }));
        return plan;
    }
    // Of equally loaded workers, the first by name.
    let Some((owner, leases)) = loads.into_iter().rev().max_by_key(|(_, leases)| leases.len()) else {
        return plan;
    };
    if planted(Bug::NeverSteals) {
        return plan;
    }
    let fair = if planted(Bug::StealsFromEqual) { target - 1 } else { target };
    let surplus = leases.len().saturating_sub(fair).min(needed);
    let wanted = if surplus == 0 && needed > 1 && leases.len() >= target { 1 } else { surplus };
    let owner = owner.clone();
    // A handoff is left to run.
    let leases = leases.into_iter().filter(|observed| observed.lease.checkpoint_owner.is_none()).collect();
    plan.takes.extend(
        pick(leases, wanted.min(rules.leases_to_acquire), rng)
            .map(|lease| LeaseClaim { lease, reason: ClaimReason::Steal { owner: owner.clone() } }),
    );
    plan
}

/// `count` of `candidates` at random.
fn pick(
    mut candidates: Vec<&Observed>,
    count: usize,
    rng: &mut fastrand::Rng,
) -> impl Iterator<Item = Lease> {
    rng.shuffle(&mut candidates);
    candidates.into_iter().take(count).map(|observed| observed.lease.clone())
}

impl fmt::Display for LeaseClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "take {} ({})", self.lease.key, self.reason)
    }
}

impl fmt::Display for ClaimReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours => f.write_str("it names this worker"),
            Self::VeryOld => f.write_str("very old"),
            Self::Free => f.write_str("free"),
            Self::Expired { owner } => write!(f, "expired on {owner}"),
            Self::Steal { owner } => write!(f, "{owner} has more than its share"),
        }
    }
}

#[cfg(test)]
#[path = "independent_test.rs"]
mod tests;
