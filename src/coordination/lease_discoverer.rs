//! How a worker finds the leases it was assigned (KCL's `DynamoDBLeaseDiscoverer`).

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::Purpose;
use super::command::{PlannedWrite, WriteReason};
use super::coordinator::{CONCURRENT_WRITES, LeaseCoordinator};
use super::executor::{WriteAnswer, write};
use super::migration::Protocol;
use crate::lease::{Lease, StoreError};
use crate::metrics::{Operation, names};
use crate::planted::{Bug, planted};
use crate::types::{LeaseKey, WorkerId};

impl LeaseCoordinator {
    /// Looks into the index of owners and takes up what names this worker.
    pub(in crate::coordination) async fn follower_round(&mut self) {
        self.leading.follow();
        let worker = Arc::clone(&self.worker);
        let since = worker.context.clock.now();
        let found = self.assigned_to_us().await;
        let took = worker.context.clock.now().since(since);
        let mut report = worker.context.metrics.operation(Operation::LeaseDiscovery);
        report.outcome(names::RUN, found.is_ok(), took).add(names::LIST_LEASE_KEYS, took);
        match found {
            Ok(leases) => {
                let new = self.accept_assignments(leases).await;
                report.add(names::NEW_LEASES_DISCOVERED, new);
            }
            Err(error) => self.reading_failed("ListLeaseKeysForWorker", &error).await,
        }
        worker.health.led(worker.election.leader().is_some(), worker.context.clock.now());
        self.clean_up_after_itself().await;
        // Consumers that wait for parents see no scan that shows when to look.
        worker.open_leases.suspect(|parent| worker.held_leases.contains(parent));
    }

    /// As they are now, those that the index lists as this worker's and that it does not hold. While
    /// the index cannot be read, a scan shows them.
    async fn assigned_to_us(&mut self) -> Result<Vec<Lease>, StoreError> {
        let worker = Arc::clone(&self.worker);
        worker.health.sent(Purpose::Reading, worker.context.clock.now());
        let Some(keys) = self.keys_by_index().await else {
            let leases = worker.context.store.scan().await?.leases;
            worker.health.answered(Purpose::Reading);
            self.look_for_duplicates(&leases);
            return Ok(leases.into_iter().filter(|lease| !self.is_held(&lease.key)).collect());
        };
        worker.health.answered(Purpose::Reading);
        // Rows of shards that have ended may stay for long, and are not asked for each time.
        self.ended.retain(|key| keys.contains(key));
        let unknown: Vec<LeaseKey> =
            keys.into_iter().filter(|key| !self.is_held(key) && !self.ended.contains(key)).collect();
        let rows: Vec<Result<Option<Lease>, StoreError>> = stream::iter(unknown)
            .map(|key| {
                let worker = Arc::clone(&worker);
                async move { worker.context.store.lease(&key).await }
            })
            .buffered(CONCURRENT_WRITES)
            .collect()
            .await;
        // One that cannot be read keeps no other from being taken up.
        let mut leases = Vec::new();
        for row in rows {
            match row {
                Ok(lease) => leases.extend(lease),
                Err(error) => worker.context.coordination_failed("GetLease", &error),
            }
        }
        self.look_for_duplicates(&leases);
        let ended = leases.iter().filter(|lease| lease.checkpoint.is_shard_end());
        self.ended.extend(ended.map(|lease| lease.key.clone()));
        Ok(leases)
    }

    /// The keys of this worker's leases; `None` if the index cannot be read now.
    async fn keys_by_index(&mut self) -> Option<BTreeSet<LeaseKey>> {
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
            Ok(keys) => Some(keys.into_iter().collect()),
            Err(error) => {
                tracing::warn!(%error, "cannot read the index of owners; scanning for assigned leases");
                worker.context.coordination_failed("ListLeaseKeysForWorker", &error);
                self.has_owner_index = false;
                None
            }
        }
    }

    /// Takes up what the last scan shows to be this worker's.
    pub(in crate::coordination) async fn accept_assignments_from_view(&mut self) {
        let worker = Arc::clone(&self.worker);
        let given = self.view.leases().filter(|lease| is_given_to(&worker.context.id, lease));
        let leases = given.filter(|lease| !self.is_held(&lease.key)).cloned().collect();
        self.accept_assignments(leases).await;
    }

    /// Starts a consumer for each of `leases` that names this worker and that nobody else still works
    /// on. Each is renewed first: only a write shows that it is ours.
    pub(in crate::coordination) async fn accept_assignments(&mut self, leases: Vec<Lease>) -> u64 {
        let worker = Arc::clone(&self.worker);
        let barred = self
            .duplicate_worker
            .barred(worker.context.coordination.failover_time, worker.context.clock.now());
        let given = leases
            .into_iter()
            .filter(|lease| is_given_to(&worker.context.id, lease) && !barred.contains(&lease.key));
        let (ours, others): (Vec<Lease>, Vec<Lease>) = given.partition(|lease| self.reads(lease));
        let now = worker.context.clock.now();
        if ours.is_empty() && worker.held_leases.is_empty() {
            worker.health.answered(Purpose::Renewing);
        }
        ours.iter().for_each(|lease| self.duplicate_worker.note_indeterminate(lease, now));
        let ours: Vec<PlannedWrite> =
            ours.into_iter().map(|lease| PlannedWrite::accept(&lease, self.latest_since(&lease))).collect();
        let mut renewed = stream::iter(ours)
            .map(|planned| {
                let worker = Arc::clone(&worker);
                async move { (write(&worker, &planned).await, planned.row) }
            })
            .buffered(CONCURRENT_WRITES);
        let mut started = 0;
        while let Some((answer, previous)) = renewed.next().await {
            let WriteAnswer::Applied { lease, sent } = answer else { continue };
            let lease = *lease;
            self.learn(lease.clone(), sent);
            if !self.is_held(&lease.key) && !worker.context.stopping.is_cancelled() {
                started += 1;
                self.start_consumer(lease, previous, sent);
            }
        }
        self.give_back(others).await;
        started
    }

    /// Gives back, at shutdown, leases that the leader assigned to this worker and that it has not taken up:
    /// else they would have to run out.
    pub(in crate::coordination) async fn give_back_unfound(&mut self) {
        if self.worker.protocol.get() != Protocol::Led {
            return;
        }
        let worker = Arc::clone(&self.worker);
        let Ok(leases) = self.assigned_to_us().await else { return };
        let barred = self
            .duplicate_worker
            .barred(worker.context.coordination.failover_time, worker.context.clock.now());
        let is_unfound = |lease: &&Lease| {
            is_given_to(&worker.context.id, lease) && self.reads(lease) && !barred.contains(&lease.key)
        };
        for lease in leases.iter().filter(is_unfound) {
            let planned = PlannedWrite::give_back(lease, &worker.context.id, WriteReason::Stopping);
            if write(&worker, &planned).await == WriteAnswer::Failed {
                return;
            }
        }
    }

    /// Gives back leases of streams that this worker does not read, but the leader does that assigned them.
    /// It is given nothing for a while then, and others go on.
    async fn give_back(&self, leases: Vec<Lease>) {
        let worker = &self.worker;
        let is_multi = worker.streams.is_multi();
        for lease in leases.iter().filter(|lease| lease.stream_name.is_some() == is_multi) {
            let planned = PlannedWrite::give_back(lease, &worker.context.id, WriteReason::NotRead);
            if write(worker, &planned).await == WriteAnswer::Failed {
                break;
            }
        }
    }

    pub(in crate::coordination) fn is_held(&self, key: &LeaseKey) -> bool {
        self.worker.held_leases.contains(key)
    }
}

/// Whether a lease is `worker`'s, and nobody else's to work on any more.
pub(crate) fn is_given_to(worker: &WorkerId, lease: &Lease) -> bool {
    let is_free = lease.checkpoint_owner.is_none() || planted(Bug::TakesUpBeforeHandoff);
    lease.owner.as_ref() == Some(worker) && is_free && !lease.checkpoint.is_shard_end()
}
