//! A run of the leader: what it does in each round beside what every coordinator does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::Worker;
use super::election::resign;
use crate::coordination::assign::leader::{
    Handoffs, LeaderPlan, LeaderRules, LeaseAssignment, expired_owners, plan_leader_assignment,
};
use crate::coordination::assign::load_forecast::LoadForecast;
use crate::coordination::coordinator::{CONCURRENT_WRITES, LeaseCoordinator};
use crate::coordination::view::View;
use crate::coordination::worker_metrics::{WorkerLiveness, WorkerStats, shared_metrics};
use crate::lease::{EntityKind, Item, Lease, WriteOutcome};
use crate::metrics::{Operation, names};
use crate::types::{Moment, WorkerId};

/// Rows of workers long gone that are deleted in one round: there is no hurry.
const DELETED_AT_ONCE: usize = 8;
/// Failed runs in a row after which a leader lets another try.
const FAILURES_MAX: u32 = 3;
/// Runs of KCL's leader, each of twice the failover time, from one rebalancing to the next.
const REBALANCE_RUNS: u32 = 3 * 2;

/// What a leader remembers from run to run.
#[derive(Debug, Default)]
pub(crate) struct LeaderState {
    /// Whether the last round was a leader's.
    pub(in crate::coordination) is_leader: bool,
    failures: u32,
    handoffs: Handoffs,
    /// What workers told, as of the last scan.
    workers: Vec<WorkerStats>,
    heard: WorkerLiveness,
    /// What plans have found out about workers.
    outlook: LoadForecast,
    /// Workers whose leases ran out or were given back, with when they last told something: they get none
    /// until they tell something new. A row in the table outlives its worker by a minute.
    stopped: BTreeMap<WorkerId, u64>,
    /// Those that were active when leases were last rebalanced, and when that was.
    rebalanced: Option<(BTreeSet<WorkerId>, Moment)>,
}

impl LeaseCoordinator {
    /// Scans, creates what is missing, assigns, and deletes what is finished. After some failures in a row
    /// leadership is given up.
    pub(in crate::coordination) async fn leader_round(&mut self) {
        if !self.leading.is_leader {
            // What was seen before may be long ago.
            self.view = View::default();
            self.leading = LeaderState { is_leader: true, ..LeaderState::default() };
        }
        let scanned = self.scan().await;
        let worker = Arc::clone(&self.worker);
        match scanned {
            Ok(entities) => {
                let active = self.note_workers(&entities).await;
                worker.seen_workers.publish(&active);
                self.leading.workers = active;
                self.let_others_run().await;
                self.create_missing_leases().await;
                self.let_others_run().await;
                self.accept_assignments_from_view().await;
                self.let_others_run().await;
                let is_written = self.assign_to_all().await;
                self.leading.failures = if is_written { 0 } else { self.leading.failures + 1 };
                self.let_others_run().await;
                self.clean_up().await;
            }
            Err(error) => {
                self.reading_failed("ListLeases", &error).await;
                self.leading.failures += 1;
            }
        }
        if self.leading.failures >= FAILURES_MAX {
            tracing::warn!("giving leadership up after {FAILURES_MAX} failed runs");
            worker
                .context
                .metrics
                .operation(Operation::LeaseAssignmentManager)
                .add(names::FORCE_LEADER_RELEASE, 1_u32);
            self.leading = LeaderState::default();
            let now = worker.context.clock.now();
            resign(&worker, Some(now + worker.context.coordination.leader_lease_duration())).await;
        }
    }

    /// The workers that can be given leases; rows of workers that are long gone are deleted.
    async fn note_workers(&mut self, entities: &[Item]) -> Vec<WorkerStats> {
        let worker = Arc::clone(&self.worker);
        let (wall, now) = (worker.context.clock.wall(), worker.context.clock.now());
        // While a fleet moves its tables, a worker may have a row in each; the newer one counts.
        let mut told: BTreeMap<WorkerId, WorkerStats> = BTreeMap::new();
        let mut invalid = 0_u32;
        for row in entities {
            match WorkerStats::from_item(row) {
                Ok(Some(stats))
                    if told.get(&stats.worker).is_none_or(|known| known.updated < stats.updated) =>
                {
                    told.insert(stats.worker.clone(), stats);
                }
                Ok(_) => {}
                Err(reason) => {
                    tracing::warn!(reason, "what a worker tells of itself cannot be read");
                    invalid += 1;
                }
            }
        }
        let heard = &mut self.leading.heard;
        let (active, silent): (Vec<_>, Vec<_>) =
            told.into_values().partition(|stats| heard.is_active(stats, wall, now));
        for stats in silent.iter().filter(|stats| stats.is_abandoned(wall)).take(DELETED_AT_ONCE) {
            let (kind, key) = (EntityKind::WorkerMetricStats, stats.worker.as_str().into());
            if let Err(error) = worker.context.store.delete_entity(kind, &key, &[stats.unchanged()]).await {
                worker.context.coordination_failed("DeleteWorkerMetrics", &error);
                break;
            }
        }
        worker
            .context
            .metrics
            .operation(Operation::LeaseAssignmentManager)
            .add(names::WORKERS_WITH_INVALID_ENTRY, invalid);
        active
    }

    /// Plans by what is known and writes what is planned. False if nothing could be written.
    pub(in crate::coordination) async fn assign_to_all(&mut self) -> bool {
        let worker = Arc::clone(&self.worker);
        let since = worker.context.clock.now();
        self.leading.handoffs.note(&self.view, since + self.handoff_time());
        let plan = self.plan_for_all(since);
        let mut report = worker.context.metrics.operation(Operation::LeaseAssignmentManager);
        report
            .add(names::TOTAL_LEASES, plan.leases as u64)
            .add(names::NUM_WORKERS, plan.workers as u64)
            .add(names::EXPIRED_LEASES, plan.expired as u64)
            .add(names::LEASE_SPILLOVER, plan.spillover as u64)
            .add(names::LEASE_REASSIGNMENTS, plan.moves.len() as u64);
        let (planned, mut failed) = (plan.moves.len(), 0);
        let moves: Vec<_> =
            plan.moves.into_iter().map(|moved| (self.latest_since(&moved.lease), moved)).collect();
        let mut written = stream::iter(moves)
            .map(|(latest_since, moved)| write(&worker, moved, latest_since))
            .buffered(CONCURRENT_WRITES);
        while let Some(outcome) = written.next().await {
            match outcome {
                Written::Landed { moved, lease, sent } => self.moved(&moved, *lease, sent),
                Written::Refused(Some(lease)) => self.learn(*lease, worker.context.clock.now()),
                Written::Refused(None) | Written::NotLeader => {}
                Written::Failed => failed += 1,
            }
        }
        report.add(names::FAILED_ASSIGNMENTS, failed as u64);
        let is_written = planned == 0 || failed < planned;
        report.outcome(names::RUN, is_written, worker.context.clock.now().since(since));
        is_written
    }

    fn handoff_time(&self) -> Duration {
        self.worker.context.coordination.leader.graceful_handoff_timeout
            + self.worker.context.coordination.failover_time
    }

    fn plan_for_all(&mut self, now: Moment) -> LeaderPlan {
        let coordination = &self.worker.context.coordination;
        let rules = LeaderRules::new(coordination, self.worker.context.management.max_leases);
        // Who has renewed since the last look is not known.
        let seen = self.scanned;
        let expired = expired_owners(&self.view, coordination.failover_time, seen);
        // A worker that gives leases back is about to stop, and would be the least busy.
        let mut leaving = self.view.take_released_by();
        leaving.remove(&self.worker.context.id);
        let leading = &mut self.leading;
        let is_gone =
            |stats: &&WorkerStats| expired.contains(&stats.worker) || leaving.contains(&stats.worker);
        for stats in leading.workers.iter().filter(is_gone) {
            leading.stopped.insert(stats.worker.clone(), stats.updated);
        }
        let stopped = &leading.stopped;
        leading.workers.retain(|stats| stopped.get(&stats.worker) != Some(&stats.updated));
        let names: BTreeSet<WorkerId> =
            self.leading.workers.iter().map(|stats| stats.worker.clone()).collect();
        // What workers tell of their CPUs shows a move only after a while; the throughput of leases, and
        // their number, at once.
        let is_measured = !shared_metrics(&self.leading.workers).is_empty();
        let every = if is_measured { coordination.failover_time * REBALANCE_RUNS } else { Duration::ZERO };
        let rebalance = self
            .leading
            .rebalanced
            .as_ref()
            .is_none_or(|(workers, at)| *workers != names || now.since(*at) >= every);
        if rebalance {
            self.leading.rebalanced = Some((names, now));
        }
        let handoffs = &self.leading.handoffs;
        plan_leader_assignment(
            &self.view,
            &self.leading.workers,
            &mut self.leading.outlook,
            handoffs,
            &rules,
            rebalance,
            seen,
            &mut self.rng,
        )
    }

    /// A lease was assigned or a handoff begun.
    fn moved(&mut self, moved: &LeaseAssignment, lease: Lease, sent: Moment) {
        let worker = Arc::clone(&self.worker);
        tracing::info!(lease = %lease.key, to = %moved.to, reason = %moved.reason, graceful = moved.is_graceful, "lease assigned");
        // However long the request took: the row is as it was when it landed, and the old owner can only
        // know of a handoff since.
        let now = worker.context.clock.now();
        if moved.is_graceful {
            self.leading.handoffs.begin(lease.key.clone(), now + self.handoff_time());
        }
        self.learn(lease.clone(), now);
        worker.context.notifier.publish(lease.clone());
        let is_ours = lease.owner.as_ref() == Some(&worker.context.id) && !lease.checkpoint.is_shard_end();
        if !moved.is_graceful && is_ours && !self.is_held(&lease.key) {
            // The write that assigned it is as good as one that takes it.
            self.view.acknowledge(&lease.key);
            self.start_consumer(lease, moved.lease.clone(), sent);
        }
    }
}

/// What became of an attempt to assign a lease.
enum Written {
    Landed {
        moved: Box<LeaseAssignment>,
        lease: Box<Lease>,
        sent: Moment,
    },
    /// The owners have changed; with the row as it is now.
    Refused(Option<Box<Lease>>),
    /// Another worker is leader by now, and plans.
    NotLeader,
    Failed,
}

async fn write(worker: &Worker, moved: LeaseAssignment, latest_since: u64) -> Written {
    let sent = worker.context.clock.now();
    if !worker.election.may_assign(sent) {
        return Written::NotLeader;
    }
    let write = moved.to_write().with_latest_since(&moved.lease, latest_since);
    match worker.context.store.apply(&write).await {
        Ok(WriteOutcome::Applied(lease)) => Written::Landed { moved: Box::new(moved), lease, sent },
        Ok(WriteOutcome::Refused(lease)) => Written::Refused(lease),
        Err(error) => {
            tracing::warn!(lease = %moved.lease.key, %error, "cannot assign a lease; trying again");
            worker.context.coordination_failed("AssignLease", &error);
            Written::Failed
        }
    }
}
