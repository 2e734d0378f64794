//! How a worker finds the leases it was assigned (KCL's `DynamoDBLeaseDiscoverer`).

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::command::{Command, Step};
use super::coordinator::{CONCURRENT_WRITES, LeaseCoordinator};
use super::health::Purpose;
use super::reports::OpenReport;
use crate::lease::{Lease, StoreError};
use crate::metrics::{Operation, names};
use crate::types::LeaseKey;

impl LeaseCoordinator {
    /// Looks into the index of owners for what names this worker.
    pub(super) async fn discover(&mut self) -> (Option<OpenReport>, Vec<Command>) {
        let worker = Arc::clone(&self.worker);
        let since = worker.context.clock.now();
        let found = self.read_owned().await;
        let now = worker.context.clock.now();
        let took = now.since(since);
        let mut report = worker.context.metrics.operation(Operation::LeaseDiscovery);
        report.outcome(names::RUN, found.is_ok(), took).add(names::LIST_LEASE_KEYS, took);
        let mut commands = Vec::new();
        let mut open = None;
        match found {
            Ok((rows, is_scan)) => {
                commands = self.state.handle_owned(rows, is_scan, now);
                open = Some(OpenReport::of_discovery(&worker.context, report));
            }
            Err(error) => self.reading_failed("ListLeaseKeysForWorker", &error).await,
        }
        commands.push(Command::Then(Step::CleanUp));
        (open, commands)
    }

    /// As they are now, those that the index says to be this worker's and that it does not hold. While
    /// the index cannot be read, all that a scan shows, and true.
    pub(super) async fn read_owned(&mut self) -> Result<(Vec<Lease>, bool), StoreError> {
        let worker = Arc::clone(&self.worker);
        worker.health.sent(Purpose::Reading, worker.context.clock.now());
        let Some(keys) = self.keys_by_index().await else {
            let leases = worker.context.store.scan().await?.leases;
            worker.health.answered(Purpose::Reading);
            return Ok((leases, true));
        };
        worker.health.answered(Purpose::Reading);
        let unknown = self.state.unknown_of(keys);
        let rows: Vec<Result<Option<Lease>, StoreError>> = stream::iter(unknown)
            .map(|key| {
                let worker = Arc::clone(&worker);
                async move { worker.context.store.lease(&key).await }
            })
            .buffered(CONCURRENT_WRITES)
            .collect()
            .await;
        // One that cannot be read keeps no other from being accepted.
        let mut leases = Vec::new();
        for row in rows {
            match row {
                Ok(lease) => leases.extend(lease),
                Err(error) => worker.context.coordination_failed("GetLease", &error),
            }
        }
        Ok((leases, false))
    }

    /// The keys of this worker's leases; `None` if the index cannot be read now.
    async fn keys_by_index(&mut self) -> Option<Vec<LeaseKey>> {
        let worker = Arc::clone(&self.worker);
        if !self.has_owner_index {
            let ensured = worker.context.store.ensure_owner_index().await;
            self.has_owner_index = *ensured.as_ref().unwrap_or(&false);
            if let Err(error) = &ensured {
                tracing::warn!(%error, "cannot make sure of the index of owners; scanning for assigned leases");
                worker.context.coordination_failed("CreateLeaseOwnerIndex", error);
            }
        }
        if !self.has_owner_index {
            return None;
        }
        match worker.context.store.keys_owned_by(&worker.context.id).await {
            Ok(keys) => Some(keys),
            Err(error) => {
                tracing::warn!(%error, "cannot read the index of owners; scanning for assigned leases");
                worker.context.coordination_failed("ListLeaseKeysForWorker", &error);
                self.has_owner_index = false;
                None
            }
        }
    }
}
