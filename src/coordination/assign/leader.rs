//! Who gets which lease in a fleet that a leader runs (KCL's `LeaseAssignmentManager`).
//!
//! Differences, which leave the rules of rows alone: shards that have ended are neither counted nor
//! assigned (rows that are finished are deleted from what a scan shows); a lease in handoff counts for
//! its next owner, so that the next plan does not move more of the same; and a handoff that is overdue
//! is completed by the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::load_forecast::LoadForecast;
use super::utilization::UtilizationModel;
use crate::config::{AssignmentStrategy, CoordinationConfig};
use crate::coordination::view::{Observed, View};
use crate::coordination::worker_metrics::WorkerStats;
use crate::lease::{Lease, LeaseWrite};
use crate::planted::{Bug, planted};
use crate::types::{LeaseKey, Moment, WorkerId};

/// What a leader goes by when it plans.
#[derive(Debug, Clone)]
pub(crate) struct LeaderRules {
    pub(crate) strategy: AssignmentStrategy,
    pub(crate) failover_time: Duration,
    /// The most leases one worker is given.
    pub(crate) max_leases: usize,
    /// The most KiB per second one worker is given.
    pub(crate) max_throughput: f64,
    /// By what part of the average a worker may be off it before leases are moved.
    pub(crate) threshold: f64,
    /// What part of a surplus is moved at once.
    pub(crate) dampening: f64,
    pub(crate) allow_overshoot: bool,
    pub(crate) graceful_handoff: bool,
}

impl LeaderRules {
    pub(crate) fn new(coordination: &CoordinationConfig, max_leases: usize) -> Self {
        let leader = &coordination.leader;
        Self {
            strategy: leader.assignment_strategy,
            failover_time: coordination.failover_time,
            max_leases,
            #[expect(clippy::cast_precision_loss, reason = "a limit")]
            max_throughput: leader.max_throughput_kib_per_second.map_or(f64::INFINITY, |limit| limit as f64),
            threshold: f64::from(leader.rebalance_threshold_percentage) / 100.0,
            dampening: f64::from(leader.dampening_percentage) / 100.0,
            allow_overshoot: leader.allow_throughput_overshoot,
            graceful_handoff: leader.graceful_handoff,
        }
    }
}

/// What the leader is to change, and the numbers behind it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct LeaderPlan {
    pub(crate) moves: Vec<LeaseAssignment>,
    /// Workers that have reported lately how busy they are.
    pub(crate) workers: usize,
    /// Leases of shards that have not ended.
    pub(crate) leases: usize,
    /// Leases nobody owns or renews.
    pub(crate) expired: usize,
    /// Those of them that no worker could be given.
    pub(crate) spillover: usize,
}

/// A lease to assign.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]
pub struct LeaseAssignment {
    /// As it was last seen.
    pub lease: Lease,
    /// Who gets it.
    pub to: WorkerId,
    /// Why it moves.
    pub reason: AssignReason,
    /// The worker that processes it is asked first.
    pub is_graceful: bool,
}

/// Why a lease is assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]
pub enum AssignReason {
    /// It has no owner.
    Unassigned,
    /// Nobody renews it.
    Expired,
    /// Its old owner has not given it back in time.
    Overdue,
    /// Its owner is busier than others.
    Rebalance,
}

/// Until when the old owners of leases in handoff may take their time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]
pub struct Handoffs(BTreeMap<LeaseKey, Moment>);

#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]
impl Handoffs {
    /// A handoff that is new in `view` was begun by another leader, and has all the time it would have
    /// had, which is `until`; those that are over are forgotten.
    pub(crate) fn note(&mut self, view: &View, until: Moment) {
        let known = std::mem::take(&mut self.0);
        let in_handoff = view.leases().filter(|lease| lease.checkpoint_owner.is_some());
        let deadline = |lease: &Lease| (lease.key.clone(), known.get(&lease.key).copied().unwrap_or(until));
        self.0 = in_handoff.map(deadline).collect();
    }

    /// This leader has begun one.
    pub fn begin(&mut self, lease: LeaseKey, until: Moment) {
        self.0.insert(lease, until);
    }

    /// Whether one is left to run.
    pub(super) fn is_pending(&self, lease: &LeaseKey, now: Moment) -> bool {
        self.until(lease).is_some_and(|until| now < until)
    }

    /// Until when it is.
    #[must_use]
    pub fn until(&self, lease: &LeaseKey) -> Option<Moment> {
        self.0.get(lease).copied()
    }
}

/// Plans one run: leases without a living owner go to the workers that are least busy, then, if asked
/// for, leases move from busy workers to others. `workers` have reported lately how busy they are. `outlook` is
/// taken from plan to plan, and `now` is when the view was last true.
#[expect(clippy::too_many_arguments, reason = "each is another part of what the leader knows")]
pub(crate) fn plan_leader_assignment(
    view: &View,
    workers: &[WorkerStats],
    outlook: &mut LoadForecast,
    handoffs: &Handoffs,
    rules: &LeaderRules,
    rebalance: bool,
    now: Moment,
    rng: &mut fastrand::Rng,
) -> LeaderPlan {
    let running: Vec<&Observed> =
        view.iter().filter(|observed| !observed.lease.checkpoint.is_shard_end()).collect();
    let expires_after =
        if planted(Bug::TakesTooEarly) { rules.failover_time / 4 } else { rules.failover_time };
    let is_unassigned =
        |observed: &&Observed| observed.lease.owner.is_none() || is_expired(observed, expires_after, now);
    let (mut unassigned, held): (Vec<&Observed>, Vec<&Observed>) =
        running.iter().copied().partition(is_unassigned);
    let mut plan = LeaderPlan {
        workers: workers.len(),
        leases: running.len(),
        expired: unassigned.len(),
        ..LeaderPlan::default()
    };
    outlook.observe(workers);
    let mut fleet = UtilizationModel::new(workers, outlook, &running, rules);
    let mut owned: BTreeMap<&WorkerId, Vec<&Lease>> = BTreeMap::new();
    for observed in held.iter().copied() {
        let lease = &observed.lease;
        let Some(owner) = &lease.owner else { continue };
        fleet.count(owner, lease);
        let is_settled = lease.checkpoint_owner.is_none();
        if is_settled && observed.is_acknowledged() {
            owned.entry(owner).or_default().push(lease);
        } else if is_settled {
            // Its owner would never learn that it is to be handed over.
        } else if !handoffs.is_pending(&lease.key, now) && fleet.has(owner) {
            let (lease, to) = (lease.clone(), owner.clone());
            plan.moves.push(LeaseAssignment { lease, to, reason: AssignReason::Overdue, is_graceful: false });
        }
    }
    fleet.rank(outlook);
    // Those that have waited longest first.
    unassigned.sort_by_key(|observed| observed.changed());
    for Observed { lease, .. } in unassigned {
        let Some(to) = fleet.place(lease) else {
            plan.spillover += 1;
            continue;
        };
        // A worker finds by itself what names it.
        if lease.owner.as_ref() == Some(&to) && lease.checkpoint_owner.is_none() {
            continue;
        }
        let reason = if lease.owner.is_none() { AssignReason::Unassigned } else { AssignReason::Expired };
        plan.moves.push(LeaseAssignment { lease: lease.clone(), to, reason, is_graceful: false });
    }
    if rebalance {
        let moved = match rules.strategy {
            AssignmentStrategy::WorkerUtilizationAware => fleet.rebalance(&owned, rng),
            AssignmentStrategy::LeaseCountBased => fleet.level(&owned, rng),
        };
        plan.moves.extend(moved.into_iter().map(|(lease, to)| LeaseAssignment {
            lease: lease.clone(),
            to,
            reason: AssignReason::Rebalance,
            is_graceful: rules.graceful_handoff,
        }));
    }
    fleet.keep(outlook);
    plan
}

/// Whether the owner of a lease seems to be dead. One to whom it has only been given may need a failover
/// time to find it, and Java's a third more until the first renewal.
fn is_expired(observed: &Observed, failover_time: Duration, now: Moment) -> bool {
    let patience = if observed.is_acknowledged() { failover_time } else { failover_time * 3 / 2 };
    observed.is_stale(patience, now)
}

/// Workers that have leases and renew none of them.
pub(crate) fn expired_owners(view: &View, failover_time: Duration, now: Moment) -> BTreeSet<WorkerId> {
    let mut expired = BTreeSet::new();
    let mut living = BTreeSet::new();
    for observed in view.iter().filter(|observed| !observed.lease.checkpoint.is_shard_end()) {
        if let Some(owner) = observed.lease.actual_owner() {
            let is_stale = is_expired(observed, failover_time, now);
            if is_stale { &mut expired } else { &mut living }.insert(owner);
        }
    }
    expired.difference(&living).map(|owner| (*owner).clone()).collect()
}

#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]
impl LeaseAssignment {
    /// What the leader writes.
    #[must_use]
    pub fn to_write(&self) -> LeaseWrite {
        match &self.lease.owner {
            Some(from) if self.is_graceful => LeaseWrite::start_handoff(&self.lease.key, from, &self.to),
            // Its owner may have come back to life since it was seen.
            Some(_) if self.reason == AssignReason::Expired && !planted(Bug::GivesAwayTheRenewed) => {
                LeaseWrite::assign_expired(&self.lease, &self.to)
            }
            _ => LeaseWrite::assign(&self.lease, &self.to),
        }
    }
}

impl fmt::Display for LeaseAssignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.is_graceful { "hand over" } else { "assign" };
        write!(f, "{verb} {} to {} ({})", self.lease.key, self.to, self.reason)
    }
}

impl fmt::Display for AssignReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unassigned => "it has no owner",
            Self::Expired => "its owner has not renewed it",
            Self::Overdue => "its old owner has not given it back in time",
            Self::Rebalance => "its owner is busier than others",
        })
    }
}

#[cfg(test)]
#[path = "leader_test.rs"]
mod tests;

#[cfg(test)]
#[path = "leader_convergence_test.rs"]
mod convergence_tests;
