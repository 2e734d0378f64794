//! What the coordinator reports to metrics, health, the log and the user.

use super::Worker;
use super::command::{Note, PlanReport};
use super::health::Purpose;
use super::state::Written;
use crate::context::Context;
use crate::events::Event;
use crate::lease::Lease;
use crate::metrics::{Operation, Report, names};
use crate::types::{Moment, WorkerId};

/// The metrics of a plan, or of a look at the index, whose writes are under way.
pub(super) struct OpenReport {
    report: Report,
    kind: Kind,
    since: Moment,
    applied: u64,
    failed: u64,
}

enum Kind {
    Claims { wanted: u64 },
    Assignments { wanted: u64 },
    Discovery,
}

impl OpenReport {
    pub(super) fn new(context: &Context, plan: PlanReport) -> Self {
        let since = context.clock.now();
        let (report, kind) = match plan {
            PlanReport::Claims(plan) => {
                let wanted = plan.takes.len() as u64;
                let mut report = context.metrics.operation(Operation::TakeLeases);
                report
                    .add(names::TOTAL_LEASES, plan.leases as u64)
                    .add(names::NUM_WORKERS, plan.workers as u64)
                    .add(names::EXPIRED_LEASES, plan.expired as u64)
                    .add(names::VERY_OLD_LEASES, plan.very_old as u64)
                    .add(names::LEASE_SPILLOVER, plan.spillover as u64)
                    .add(names::NEEDED_LEASES, plan.needed as u64)
                    .add(names::LEASES_TO_TAKE, wanted);
                (report, Kind::Claims { wanted })
            }
            PlanReport::Assignments(plan) => {
                let wanted = plan.moves.len() as u64;
                let mut report = context.metrics.operation(Operation::LeaseAssignmentManager);
                report
                    .add(names::TOTAL_LEASES, plan.leases as u64)
                    .add(names::NUM_WORKERS, plan.workers as u64)
                    .add(names::EXPIRED_LEASES, plan.expired as u64)
                    .add(names::LEASE_SPILLOVER, plan.spillover as u64)
                    .add(names::LEASE_REASSIGNMENTS, wanted);
                (report, Kind::Assignments { wanted })
            }
        };
        Self { report, kind, since, applied: 0, failed: 0 }
    }

    /// Of a look at the index that found what is accepted now.
    pub(super) fn of_discovery(context: &Context, report: Report) -> Self {
        Self { report, kind: Kind::Discovery, since: context.clock.now(), applied: 0, failed: 0 }
    }

    /// One of its writes was answered.
    pub(super) fn note(&mut self, written: &Written) {
        match written {
            Written::Applied { .. } => self.applied += 1,
            Written::Failed => self.failed += 1,
            Written::Refused(_) | Written::NotLeader => {}
        }
    }

    /// All of them were answered.
    pub(super) fn finish(self, now: Moment) {
        let Self { mut report, kind, since, applied, failed } = self;
        let took = now.since(since);
        match kind {
            Kind::Claims { wanted } => report
                .add(names::TAKEN_LEASES, applied)
                .add(names::UNTAKEN_LEASES, wanted.saturating_sub(applied))
                .outcome(names::RUN, true, took),
            Kind::Assignments { wanted } => report.add(names::FAILED_ASSIGNMENTS, failed).outcome(
                names::RUN,
                wanted == 0 || failed < wanted,
                took,
            ),
            Kind::Discovery => report.add(names::NEW_LEASES_DISCOVERED, applied),
        };
    }
}

pub(super) fn note(worker: &Worker, note: Note) {
    let now = worker.context.clock.now();
    match note {
        Note::Unread { count, example } => worker.health.scanned(count, example, now),
        Note::NothingToRenew => worker.health.answered(Purpose::Renewing),
        Note::NameTaken(is_taken) => worker.health.set_name_taken(is_taken),
        Note::Led => worker.health.led(true, now),
    }
}

/// Emits an event, and logs it.
pub(super) fn emit(context: &Context, event: Event) {
    match &event {
        Event::DuplicateWorkerId { worker } => tracing::error!(
            worker_id = %worker,
            "another worker of this application has the same worker_id; give each worker an id of its own"
        ),
        Event::LeaseUnreadable { row } => {
            tracing::error!(%row, "a row of the lease table cannot be read and is left alone");
        }
        Event::StreamRecreated { stream, reason } => {
            tracing::warn!(%stream, %reason, "a stream was created again");
        }
        Event::LeasesOfOtherMode { lease, count } => tracing::warn!(
            %lease, count,
            "the table has leases of a consumer of the other kind, of a single stream or of several; they are left \
             alone, and what they say is not used"
        ),
        Event::LeaseDeleted { lease } => tracing::info!(%lease, "finished lease deleted"),
        _ => {}
    }
    context.events.emit(event);
}

pub(super) fn emit_gained(context: &Context, lease: &Lease, previous_owner: Option<WorkerId>) {
    context.events.emit(Event::LeaseGained {
        lease: lease.key.clone(),
        previous_owner,
        checkpoint: lease.checkpoint.clone(),
    });
}
