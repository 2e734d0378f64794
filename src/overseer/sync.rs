//! The rounds' care for the rows themselves: leases that are missing are created, finished ones
//! deleted.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::audit::Audit;
use super::cleanup::plan_cleanup;
use super::migration::{Protocol, leads};
use super::rounds::{CONCURRENT_WRITES, Overseer};
use super::shard_sync::{ShardSyncPlan, plan_shard_sync};
use crate::events::Event;
use crate::lease::{Created, Lease, LeaseWrite, WriteOutcome};
use crate::metrics::{Operation, names};
use crate::planted::{Bug, planted};
use crate::stream::list::list_shards;
use crate::stream::{Shard, ShardFilter};
use crate::types::StartStrategy;
use crate::worker::Worker;

/// When to try again after shards could not be listed or leases not be created.
const RETRY: Duration = Duration::from_secs(1);

/// Which shards an empty table gets leases for.
pub(crate) fn initial_filter(strategy: StartStrategy) -> ShardFilter {
    match strategy {
        StartStrategy::Latest => ShardFilter::AtLatest,
        StartStrategy::Oldest => ShardFilter::AtTrimHorizon,
        StartStrategy::Timestamp(millis) => {
            ShardFilter::AtTimestamp(std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
        }
    }
}

impl Overseer {
    /// Creates leases if the table is empty, or if some hash keys have not been covered for a while.
    ///
    /// Any worker may do so at any time: a row is put only where there is none, and all workers plan
    /// the same rows.
    pub(super) async fn create_missing_leases(&mut self) {
        let worker = Arc::clone(&self.worker);
        let at_start = self.listed_at_start.take();
        let now = worker.clock.now();
        let filter = if self.view.is_empty() {
            Some(initial_filter(worker.management.start_strategy))
        } else if now >= self.next_audit && !planted(Bug::NeverAudits) {
            self.next_audit = now + worker.coordination.audit_interval;
            let leases: Vec<&Lease> = self.view.leases().collect();
            let audit = self.holes.check(&leases);
            worker
                .metrics
                .operation(Operation::PeriodicShardSyncManager)
                .add(
                    names::STREAMS_WITH_PARTIAL_LEASES,
                    u64::from(matches!(audit, Audit::Suspected | Audit::SyncNow)),
                )
                .add(names::STREAMS_TO_SYNC, u64::from(audit == Audit::SyncNow));
            match audit {
                Audit::SyncNow => None,
                Audit::RangesMissing => return self.fill_in_ranges().await,
                Audit::Covered | Audit::Suspected => return,
            }
        } else {
            return;
        };
        let shards = match at_start {
            Some(shards) if filter.is_some() => Ok(shards),
            _ => list_shards(&*worker.api, &worker.clock, &worker.stream, filter, worker.seeds.seed()).await,
        };
        let plan = match shards {
            Ok(shards) => self.plan_sync(&shards),
            Err(error) => {
                tracing::warn!(%error, "cannot list the shards; trying again");
                worker.coordination_failed("ListShards", &error);
                None
            }
        };
        // If this worker was held up since the scan, rows may have been created, finished and deleted
        // meanwhile, and would be created again.
        let is_fresh = worker.clock.now().since(self.scanned) < worker.coordination.failover_time;
        let complete = match plan.filter(|_| is_fresh) {
            Some(plan) => self.create(plan).await,
            None => false,
        };
        let took = worker.clock.now().since(now);
        worker
            .metrics
            .operation(Operation::ShardSyncTask)
            .add(names::SYNC_SHARDS_SUCCESS, u64::from(complete))
            .outcome(names::RUN, complete, took);
        if !complete {
            self.next_audit = worker.clock.now() + RETRY;
            self.next_round = self.next_round.min(self.next_audit);
        }
    }

    /// Writes the hash key ranges that older rows lack, once for each of them.
    async fn fill_in_ranges(&mut self) {
        let worker = Arc::clone(&self.worker);
        let lacking: Vec<Lease> = self
            .view
            .leases()
            .filter(|lease| lease.hash_key_range.is_none() && !lease.checkpoint.is_shard_end())
            .filter(|lease| !self.ranges_looked_up.contains(&lease.key))
            .cloned()
            .collect();
        if lacking.is_empty() {
            return;
        }
        let shards =
            match list_shards(&*worker.api, &worker.clock, &worker.stream, None, worker.seeds.seed()).await {
                Ok(shards) => shards,
                Err(error) => return worker.coordination_failed("ListShards", &error),
            };
        for lease in lacking {
            self.ranges_looked_up.insert(lease.key.clone());
            let Some(shard) = shards.iter().find(|shard| shard.id == lease.shard_id) else { continue };
            let write = LeaseWrite::update_hash_range(&lease.key, shard.hash_key_range);
            match worker.store.apply(&write).await {
                Ok(WriteOutcome::Applied(lease)) => self.view.learn(*lease, worker.clock.now()),
                Ok(WriteOutcome::Refused(_)) => {}
                Err(error) => worker.coordination_failed("UpdateHashRange", &error),
            }
        }
    }

    fn plan_sync(&self, shards: &[Shard]) -> Option<ShardSyncPlan> {
        let leases: Vec<Lease> = self.view.leases().cloned().collect();
        let strategy = self.worker.management.start_strategy;
        let ignore = self.worker.coordination.ignore_unexpected_child_shards;
        match plan_shard_sync(shards, &leases, strategy, ignore) {
            Ok(plan) => Some(plan),
            Err(error) => {
                tracing::warn!(%error, "the list of shards is not consistent; trying again");
                self.worker.coordination_failed("SyncShards", &error);
                None
            }
        }
    }

    /// Whether all of them are there now.
    async fn create(&mut self, plan: ShardSyncPlan) -> bool {
        let worker = Arc::clone(&self.worker);
        // In an empty table no lease depends on another. Else a crash half-way must not leave
        // descendants without their ancestors.
        let concurrent = if self.view.is_empty() { CONCURRENT_WRITES } else { 1 };
        let mut outcomes = stream::iter(plan.new_leases)
            .map(|new| {
                tracing::debug!(%new, "creating a lease");
                create(&worker, new.lease)
            })
            .buffered(concurrent);
        let mut complete = true;
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Some(lease) => self.view.learn(lease, self.worker.clock.now()),
                None => complete = false,
            }
            if !complete && concurrent == 1 {
                break;
            }
        }
        drop(outcomes);
        self.publish_unfinished();
        complete
    }

    /// Deletes the rows of shards that are finished and no longer needed. One worker of the fleet
    /// does it: its leader or, in a fleet without, the one that leads by the rules of KCL 2.x.
    pub(super) async fn clean_up(&mut self) {
        let worker = Arc::clone(&self.worker);
        let now = worker.clock.now();
        if !worker.coordination.cleanup_leases_upon_shard_completion || now < self.next_cleanup {
            return;
        }
        self.next_cleanup = now + worker.coordination.lease_cleanup_interval;
        let failover_time = worker.coordination.failover_time;
        let is_led = worker.protocol.get() == Protocol::Led;
        if !is_led && !leads(&worker.id, self.view.live_owners(failover_time, now)) {
            return;
        }
        let leases: Vec<&Lease> = self.view.leases().collect();
        for key in plan_cleanup(&leases) {
            if let Err(error) = worker.store.delete_ended(&key).await {
                tracing::warn!(lease = %key, %error, "cannot delete a finished lease; trying again");
                worker.coordination_failed("DeleteLease", &error);
                return;
            }
            tracing::info!(lease = %key, "finished lease deleted");
            self.view.forget(&key);
            worker.events.emit(Event::LeaseDeleted { lease: key });
        }
    }
}

/// Puts a lease; the row if it is there now, whoever put it.
async fn create(worker: &Worker, lease: Lease) -> Option<Lease> {
    let since = worker.clock.now();
    let created = worker.store.create(&lease).await;
    let took = worker.clock.now().since(since);
    let mut report = worker.metrics.operation(Operation::ShardSyncTask);
    report
        .outcome(names::CREATE_LEASE, created.is_ok(), took)
        .add(names::create_lease_success(&lease.checkpoint), u32::from(created.is_ok()));
    match created {
        Ok(Created::Now) => {
            let (key, checkpoint) = (lease.key.clone(), lease.checkpoint.clone());
            tracing::info!(lease = %key, %checkpoint, "lease created");
            worker.events.emit(Event::LeaseCreated { lease: key, checkpoint });
            Some(lease)
        }
        // As new as it gets; should it be owned already, taking it fails and shows by whom.
        Ok(Created::Already) => Some(lease),
        Err(error) => {
            tracing::warn!(lease = %lease.key, %error, "cannot create a lease; trying again");
            worker.coordination_failed("CreateLease", &error);
            None
        }
    }
}
