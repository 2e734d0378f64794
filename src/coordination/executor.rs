//! Carries out planned writes: every conditional write of coordination to a lease is sent from here.

use super::Worker;
use super::command::{PlannedWrite, WriteReason};
use super::health::Purpose;
use super::state::Written;
use crate::error::with_causes;
use crate::lease::{Lease, StoreError, StoreErrorKind, WriteOutcome};
use crate::types::Moment;

/// Sends a write, and reports what became of it to metrics, health, the log and, if it was applied, the other
/// workers of this process. If the table throttles, a write that is paced waits for its turn among the renewals and is
/// sent again, for a quarter of the failover time.
///
/// # Cancel safety
///
/// A write that was dropped may have happened.
pub(super) async fn write(worker: &Worker, planned: &PlannedWrite) -> Written {
    let until = worker.context.clock.now() + worker.context.coordination.failover_time / 4;
    loop {
        if planned.why.is_paced() && worker.context.write_pacer.is_throttled() {
            // Among the renewals, if that is not for long.
            let left = until.since(worker.context.clock.now());
            let _ = worker.context.clock.timeout(left, worker.context.write_pacer.turn(until)).await;
        }
        let sent = worker.context.clock.now();
        if planned.why.needs_leadership() && !worker.election.may_assign(sent) {
            return Written::NotLeader;
        }
        match send(worker, planned, sent).await {
            Ok(WriteOutcome::Applied(lease)) => {
                log_applied(planned, &lease);
                if planned.is_news(&lease) {
                    worker.context.notifier.publish(Lease::clone(&lease));
                }
                return Written::Applied { lease, sent };
            }
            Ok(WriteOutcome::Refused(row)) => {
                tracing::debug!(%planned, "another worker was faster");
                if let Some((operation, metric)) = planned.why.refusal_metric() {
                    worker.context.metrics.operation(operation).add(metric, 1_u32);
                }
                return Written::Refused(row);
            }
            Err(error)
                if planned.why.is_paced() && error.kind() == StoreErrorKind::Throttled && sent < until =>
            {
                worker.context.write_pacer.refused(&error);
            }
            Err(error) => {
                tracing::warn!(%planned, %error, "cannot write to a lease; trying again");
                worker.context.coordination_failed(planned.why.step(), &error);
                return Written::Failed;
            }
        }
    }
}

async fn send(worker: &Worker, planned: &PlannedWrite, sent: Moment) -> Result<WriteOutcome, StoreError> {
    let shows_that_leases_can_be_renewed = planned.why.is_like_a_renewal();
    if shows_that_leases_can_be_renewed {
        worker.health.sent(Purpose::Renewing, sent);
    }
    let outcome = worker.context.store.apply(&planned.write).await;
    if let Some((operation, metric)) = planned.why.metric() {
        let took = worker.context.clock.now().since(sent);
        worker.context.metrics.operation(operation).outcome(metric, outcome.is_ok(), took);
    }
    if planned.why.is_paced() && outcome.is_ok() {
        worker.context.write_pacer.accepted();
    }
    if shows_that_leases_can_be_renewed {
        match &outcome {
            Ok(_) => worker.health.answered(Purpose::Renewing),
            Err(error) => worker.health.failed(Purpose::Renewing, with_causes(error)),
        }
    }
    outcome
}

fn log_applied(planned: &PlannedWrite, lease: &Lease) {
    match &planned.why {
        WriteReason::Claim(attempts) => {
            tracing::info!(lease = %lease.key, reason = %attempts.claim().reason, "lease taken");
        }
        WriteReason::Assign { to, reason, is_graceful } => {
            tracing::info!(lease = %lease.key, %to, %reason, graceful = is_graceful, "lease assigned");
        }
        WriteReason::NotRead => tracing::warn!(
            lease = %lease.key,
            "the leader assigned a lease of a stream that this worker does not read; it is given back"
        ),
        WriteReason::StartOver => tracing::warn!(
            lease = %lease.key, checkpoint = %lease.checkpoint, "lease of an earlier stream reset"
        ),
        WriteReason::Accept | WriteReason::Stopping | WriteReason::HashRange | WriteReason::Origin => {}
    }
}
