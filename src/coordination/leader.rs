//! A run of the leader: what it does in each round beside what every coordinator does.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::assign::leader::{LeaderPlan, LeaderRules, LeaseAssignment};
use super::command::PlannedWrite;
use super::coordinator::{CONCURRENT_WRITES, LeaseCoordinator};
use super::election::resign;
use super::executor::{WriteAnswer, write};
use super::leader_state::LeaderState;
use super::view::View;
use crate::context::Context;
use crate::lease::{EntityKind, Item, Lease};
use crate::metrics::{Operation, names};
use crate::types::Moment;

/// Rows of workers long gone that are deleted in one round: there is no hurry.
const DELETED_AT_ONCE: usize = 8;

impl LeaseCoordinator {
    /// Scans, creates what is missing, assigns, and deletes what is finished. After some failures in a row
    /// leadership is given up.
    pub(super) async fn leader_round(&mut self) {
        if !self.leading.is_leader() {
            // What was seen before may be long ago.
            self.view = View::default();
            self.leading = LeaderState::begin();
        }
        let scanned = self.scan().await;
        let worker = Arc::clone(&self.worker);
        match scanned {
            Ok(entities) => {
                self.note_workers(&entities).await;
                worker.seen_workers.publish(self.leading.workers());
                self.let_others_run().await;
                self.create_missing_leases().await;
                self.let_others_run().await;
                self.accept_assignments_from_view().await;
                self.let_others_run().await;
                let is_written = self.assign_to_all().await;
                self.leading.note_run(is_written);
                self.let_others_run().await;
                self.clean_up().await;
            }
            Err(error) => {
                self.reading_failed("ListLeases", &error).await;
                self.leading.note_run(false);
            }
        }
        if self.leading.must_resign() {
            tracing::warn!("giving leadership up after several failed runs");
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

    /// Notes which workers can be given leases, and deletes rows of workers that are long gone.
    async fn note_workers(&mut self, entities: &[Item]) {
        let worker = Arc::clone(&self.worker);
        let Context { clock, store, metrics, .. } = &*worker.context;
        let rows = self.leading.note_workers(entities, clock.wall(), clock.now());
        for reason in &rows.invalid {
            tracing::warn!(reason, "the metrics row of a worker cannot be read");
        }
        for stats in rows.abandoned.iter().take(DELETED_AT_ONCE) {
            let (kind, key) = (EntityKind::WorkerMetricStats, stats.worker.as_str().into());
            if let Err(error) = store.delete_entity(kind, &key, &[stats.unchanged()]).await {
                worker.context.coordination_failed("DeleteWorkerMetrics", &error);
                break;
            }
        }
        metrics
            .operation(Operation::LeaseAssignmentManager)
            .add(names::WORKERS_WITH_INVALID_ENTRY, rows.invalid.len() as u64);
    }

    /// Plans by what is known and writes what is planned. False if nothing could be written.
    pub(super) async fn assign_to_all(&mut self) -> bool {
        let worker = Arc::clone(&self.worker);
        let since = worker.context.clock.now();
        self.leading.note_handoffs(&self.view, since + self.handoff_time());
        let plan = self.plan_for_all(since);
        let mut report = worker.context.metrics.operation(Operation::LeaseAssignmentManager);
        report
            .add(names::TOTAL_LEASES, plan.leases as u64)
            .add(names::NUM_WORKERS, plan.workers as u64)
            .add(names::EXPIRED_LEASES, plan.expired as u64)
            .add(names::LEASE_SPILLOVER, plan.spillover as u64)
            .add(names::LEASE_REASSIGNMENTS, plan.moves.len() as u64);
        let (planned, mut failed) = (plan.moves.len(), 0);
        let moves: Vec<_> = plan
            .moves
            .into_iter()
            .map(|moved| (PlannedWrite::assign(&moved, self.latest_since(&moved.lease)), moved))
            .collect();
        let mut written = stream::iter(moves)
            .map(|(planned, moved)| {
                let worker = Arc::clone(&worker);
                async move { (write(&worker, &planned).await, moved) }
            })
            .buffered(CONCURRENT_WRITES);
        while let Some((answer, moved)) = written.next().await {
            match answer {
                WriteAnswer::Applied { lease, sent } => self.moved(&moved, *lease, sent),
                WriteAnswer::Refused(Some(lease)) => self.learn(*lease, worker.context.clock.now()),
                WriteAnswer::Refused(None) | WriteAnswer::NotLeader => {}
                WriteAnswer::Failed => failed += 1,
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
        let Context { id, management, coordination, .. } = &*self.worker.context;
        let rules = LeaderRules::new(coordination, management.max_leases);
        self.leading.plan(&mut self.view, id, &rules, self.scanned, now, &mut self.rng)
    }

    /// A lease was assigned or a handoff begun.
    fn moved(&mut self, moved: &LeaseAssignment, lease: Lease, sent: Moment) {
        let worker = Arc::clone(&self.worker);
        // However long the request took: the row is as it was when it landed, and the old owner can only
        // know of a handoff since.
        let now = worker.context.clock.now();
        if moved.is_graceful {
            self.leading.handoff_began(lease.key.clone(), now + self.handoff_time());
        }
        self.learn(lease.clone(), now);
        let is_ours = lease.owner.as_ref() == Some(&worker.context.id) && !lease.checkpoint.is_shard_end();
        if !moved.is_graceful && is_ours && !self.is_held(&lease.key) {
            // The write that assigned it is as good as one that takes it.
            self.view.acknowledge(&lease.key);
            self.start_consumer(lease, moved.lease.clone(), sent);
        }
    }
}
