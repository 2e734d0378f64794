//! The rounds of a worker that takes leases for itself, as those of KCL 2.x do.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::Worker;
use super::assign::claim_attempts::{AfterClaim, ClaimAttempts};
use super::assign::independent::{AssignmentPlan, LeaseClaim, Rules, plan_assignment};
use super::command::PlannedWrite;
use super::coordinator::{CONCURRENT_WRITES, LeaseCoordinator};
use super::executor::{WriteAnswer, write_until};
use super::health::Purpose;
use crate::lease::{Lease, WriteOutcome};
use crate::metrics::{Operation, names};
use crate::types::{LeaseKey, Moment};

impl LeaseCoordinator {
    pub(super) async fn independent_round(&mut self) {
        match self.scan().await {
            Ok(_) => {
                self.let_others_run().await;
                self.create_missing_leases().await;
                self.let_others_run().await;
                self.assign().await;
                self.let_others_run().await;
                self.clean_up().await;
            }
            Err(error) => self.reading_failed("ListLeases", &error).await,
        }
    }

    fn plan(&mut self) -> AssignmentPlan {
        let now = self.worker.context.clock.now();
        let rules = Rules {
            worker: self.worker.context.id.clone(),
            max_leases: self.worker.context.management.max_leases,
            leases_to_acquire: self.worker.context.management.leases_to_acquire,
            failover_time: self.worker.context.coordination.failover_time,
            priority_lease_assignment: self.worker.context.coordination.priority_lease_assignment,
            barred: self.duplicate_worker.barred(self.worker.context.coordination.failover_time, now),
        };
        plan_assignment(&self.view, &self.worker.held_leases.keys(), &rules, now, &mut self.rng)
    }

    /// Takes what the plan says and starts a consumer for each lease that was won.
    pub(super) async fn assign(&mut self) {
        if self.worker.context.stopping.is_cancelled() {
            return;
        }
        let mut plan = self.plan();
        self.workers = plan.workers;
        let worker = Arc::clone(&self.worker);
        if !plan.takes.is_empty() {
            // Leases that cannot be renewed would be lost again.
            let room = worker.context.write_pacer.takes(worker.held_leases.keys().len());
            if room < plan.takes.len() {
                // Those that have waited longest first.
                let seen: BTreeMap<&LeaseKey, Option<Moment>> =
                    self.view.iter().map(|observed| (&observed.lease.key, observed.changed())).collect();
                plan.takes.sort_by_key(|take| seen.get(&take.lease.key).copied().flatten());
                plan.takes.truncate(room);
            }
        }
        let since = worker.context.clock.now();
        let (wanted, mut won) = (plan.takes.len() as u64, 0);
        let mut report = worker.context.metrics.operation(Operation::TakeLeases);
        report
            .add(names::TOTAL_LEASES, plan.leases as u64)
            .add(names::NUM_WORKERS, plan.workers as u64)
            .add(names::EXPIRED_LEASES, plan.expired as u64)
            .add(names::VERY_OLD_LEASES, plan.very_old as u64)
            .add(names::LEASE_SPILLOVER, plan.spillover as u64)
            .add(names::NEEDED_LEASES, plan.needed as u64)
            .add(names::LEASES_TO_TAKE, wanted);
        if plan.takes.is_empty() && worker.held_leases.is_empty() {
            // Others hold them all.
            worker.health.answered(Purpose::Renewing);
        }
        for wanted in &plan.takes {
            self.duplicate_worker.note_indeterminate(&wanted.lease, since);
        }
        let takes: Vec<_> =
            plan.takes.into_iter().map(|wanted| (self.latest_since(&wanted.lease), wanted)).collect();
        let mut taken = stream::iter(takes)
            .map(|(latest_since, wanted)| take(&worker, wanted, latest_since))
            .buffer_unordered(CONCURRENT_WRITES);
        while let Some(outcome) = taken.next().await {
            match outcome {
                Taken::Won { lease, previous, sent } => {
                    won += 1;
                    self.learn(Lease::clone(&lease), sent);
                    self.start_consumer(*lease, *previous, sent);
                }
                Taken::Lost(Some(lease)) if self.reads(&lease) => {
                    self.learn(*lease, self.worker.context.clock.now());
                }
                // It is another stream's.
                Taken::Lost(Some(lease)) => self.view.forget(&lease.key),
                Taken::Lost(None) => {}
            }
        }
        report.add(names::TAKEN_LEASES, won).add(names::UNTAKEN_LEASES, wanted - won).outcome(
            names::RUN,
            true,
            worker.context.clock.now().since(since),
        );
    }
}

/// What became of an attempt to take a lease.
enum Taken {
    Won {
        lease: Box<Lease>,
        previous: Box<Lease>,
        sent: Moment,
    },
    /// Somebody else was faster, or nobody answered; with the row as it is now.
    Lost(Option<Box<Lease>>),
}

async fn take(worker: &Worker, wanted: LeaseClaim, latest_since: u64) -> Taken {
    let mut attempts = ClaimAttempts::new(wanted);
    let until = worker.context.clock.now() + worker.context.coordination.failover_time / 4;
    loop {
        let planned = PlannedWrite::claim(&attempts, &worker.context.id, latest_since);
        let (outcome, sent) = match write_until(worker, &planned, until).await {
            WriteAnswer::Applied { lease, sent } => (WriteOutcome::Applied(lease), sent),
            WriteAnswer::Refused(row) => (WriteOutcome::Refused(row), until),
            WriteAnswer::NotLeader | WriteAnswer::Failed => return Taken::Lost(None),
        };
        match attempts.on_outcome(outcome) {
            AfterClaim::Won(lease) => {
                return Taken::Won { lease, previous: Box::new(attempts.row().clone()), sent };
            }
            AfterClaim::Again => {}
            AfterClaim::Lost(lease) => return Taken::Lost(lease),
        }
    }
}
