use parking_lot::Mutex;

use super::agreement::CpuAgreement;
use super::{WorkerLiveness, WorkerStats};
use crate::coordination::Worker;
use crate::coordination::election::current_leader;
use crate::coordination::migration::Protocol;
use crate::lease::{EntityKind, StoreError, StoreErrorKind};

/// The rows of all active workers in the last scan of a leader, until they are looked at.
#[derive(Debug, Default)]
pub(crate) struct SeenWorkers(Mutex<Option<Vec<WorkerStats>>>);

impl SeenWorkers {
    pub(crate) fn publish(&self, workers: &[WorkerStats]) {
        *self.0.lock() = Some(workers.to_vec());
    }

    fn take(&self) -> Option<Vec<WorkerStats>> {
        self.0.lock().take()
    }
}

/// Looks whether others report their CPU, once per report and only if this worker could. It costs a leader
/// nothing, because it scans anyway, and others a read of the leader's row (and of the lock, while they do
/// not know the leader).
pub(super) async fn look(worker: &Worker, agreement: &mut CpuAgreement, liveness: &mut WorkerLiveness) {
    if worker.protocol.get() != Protocol::Led {
        return;
    }
    if worker.election.leads(worker.context.clock.now()) {
        if let Some(seen) = worker.seen_workers.take() {
            agreement.look(seen.iter().filter(|stats| stats.worker != worker.context.id), true);
        }
        return;
    }
    match leader_row(worker).await {
        Ok(Some(stats)) => {
            let is_active =
                liveness.is_active(&stats, worker.context.clock.wall(), worker.context.clock.now());
            agreement.look(is_active.then_some(&stats), false);
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, "cannot see whether the leader reports its CPU; trying again");
            worker.context.coordination_failed("GetWorkerMetrics", &error);
        }
    }
}

/// What the leader reports, if there is a leader and it is another worker.
async fn leader_row(worker: &Worker) -> Result<Option<WorkerStats>, StoreError> {
    let Some(leader) = current_leader(worker).await?.filter(|leader| *leader != worker.context.id) else {
        return Ok(None);
    };
    let (kind, key) = (EntityKind::WorkerMetricStats, leader.as_str().into());
    let Some(row) = worker.context.store.entity(kind, &key).await? else { return Ok(None) };
    WorkerStats::from_item(&row).map_err(|reason| {
        StoreError::new(StoreErrorKind::Malformed, "GetWorkerMetrics", format!("(row {key})"))
            .with_detail(reason)
    })
}
