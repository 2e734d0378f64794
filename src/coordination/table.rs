//! A lease table that is missing under a running worker.

use std::sync::Arc;

use super::coordinator::LeaseCoordinator;
use super::health::Purpose;
use super::migration;
use crate::config::CoordinationMode;
use crate::error::with_causes;
use crate::events::Event;
use crate::lease::{StoreError, StoreErrorKind};

impl LeaseCoordinator {
    /// The table could not be read in a round. If there is none, it is created again.
    pub(super) async fn reading_failed(&mut self, operation: &'static str, error: &StoreError) {
        let worker = Arc::clone(&self.worker);
        tracing::warn!(%error, "cannot read the lease table; trying again");
        worker.context.coordination_failed(operation, error);
        worker.health.failed(Purpose::Reading, with_causes(error));
        if error.kind() != StoreErrorKind::TableMissing {
            return;
        }
        if worker.health.table_missing() {
            tracing::error!(%error, "the lease table does not exist; creating it again");
            worker.context.events.emit(Event::LeaseTableMissing);
        }
        if self.state.is_table_due(worker.context.clock.now()) {
            self.create_table_again().await;
        }
    }

    /// Creates the table, within the failover time. The next round finds it empty, and creates the leases
    /// again that were in it.
    async fn create_table_again(&mut self) {
        let worker = Arc::clone(&self.worker);
        let ensured = worker.context.clock.timeout(
            worker.context.coordination.failover_time,
            worker.context.store.ensure_table(&worker.table),
        );
        let failure = match worker.context.stopping.run_until_cancelled(ensured).await {
            Some(Ok(Ok(()))) => None,
            Some(Ok(Err(error))) => Some(error),
            // Another try goes on from there.
            Some(Err(_)) | None => return,
        };
        if let Some(error) = failure {
            tracing::error!(%error, "cannot create the lease table again; trying again");
            worker.context.coordination_failed("CreateLeaseTable", &error);
            worker.health.failed(Purpose::Reading, with_causes(&error));
            return;
        }
        tracing::info!("the lease table is there again");
        self.has_owner_index = false;
        self.state.wake(worker.context.clock.now());
        if worker.context.coordination.mode == CoordinationMode::Leader
            && let Err(error) = migration::initialize(&worker).await
        {
            worker.context.coordination_failed("UpdateMigrationState", &error);
        }
    }
}
