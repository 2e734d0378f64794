//! Deletes the rows of shards that have ended and that are no longer needed.

use std::sync::Arc;

use super::coordinator::LeaseCoordinator;
use super::migration::{Protocol, leads};
use crate::events::Event;
use crate::lease::StoreError;
use crate::shard_sync::plan_cleanup;
use crate::types::{LeaseKey, Moment};

impl LeaseCoordinator {
    /// Deletes the rows of shards that are finished and no longer needed. One worker of the fleet
    /// does it: its leader or, in a fleet without, the one that leads by the rules of KCL 2.x.
    pub(super) async fn clean_up(&mut self) {
        let now = self.worker.context.clock.now();
        if !self.is_cleanup_due(now) {
            return;
        }
        let worker = &self.worker;
        let failover_time = worker.context.coordination.failover_time;
        let is_led = worker.protocol.get() == Protocol::Led;
        if !is_led && !leads(&worker.context.id, self.view.live_owners(failover_time, now)) {
            return;
        }
        let by_stream = self.view.by_stream();
        let finished: Vec<LeaseKey> = self
            .streams
            .keys()
            .filter_map(|stream| by_stream.get(&stream.as_deref()))
            .flat_map(|leases| plan_cleanup(leases))
            .collect();
        self.delete(finished).await;
    }

    /// Deletes the rows of shards that this worker has ended, once their children are being read. KCL's
    /// leader leaves that to the owner of each.
    pub(super) async fn clean_up_after_itself(&mut self) {
        if !self.is_cleanup_due(self.worker.context.clock.now()) {
            return;
        }
        let mut finished = Vec::new();
        for key in &self.ended {
            match self.is_finished(key).await {
                Ok(true) => finished.push(key.clone()),
                Ok(false) => {}
                Err(error) => {
                    self.worker.context.coordination_failed("GetLease", &error);
                    break;
                }
            }
        }
        self.delete(finished).await;
    }

    /// Whether rows are to be deleted now; not again before the next time.
    fn is_cleanup_due(&mut self, now: Moment) -> bool {
        let coordination = &self.worker.context.coordination;
        let is_due = coordination.cleanup_leases_upon_shard_completion && now >= self.next_cleanup;
        if is_due {
            self.next_cleanup = now + coordination.lease_cleanup_interval;
        }
        is_due
    }

    /// As the lease, its parents and its children are now.
    async fn is_finished(&self, key: &LeaseKey) -> Result<bool, StoreError> {
        let store = &self.worker.context.store;
        let Some(lease) = store.lease(key).await? else { return Ok(false) };
        let Some(synced) = self.streams.get(&lease.stream_name) else { return Ok(false) };
        let relatives: Vec<LeaseKey> = lease
            .parents
            .iter()
            .chain(&lease.children)
            .map(|shard| synced.stream.id.lease_key(shard))
            .collect();
        let mut family = vec![lease];
        for key in relatives {
            family.extend(store.lease(&key).await?);
        }
        Ok(plan_cleanup(&family.iter().collect::<Vec<_>>()).contains(key))
    }

    async fn delete(&mut self, finished: Vec<LeaseKey>) {
        let worker = Arc::clone(&self.worker);
        for key in finished {
            if let Err(error) = worker.context.store.delete_ended(&key).await {
                tracing::warn!(lease = %key, %error, "cannot delete a finished lease; trying again");
                worker.context.coordination_failed("DeleteLease", &error);
                return;
            }
            tracing::info!(lease = %key, "finished lease deleted");
            self.view.forget(&key);
            self.ended.remove(&key);
            worker.context.events.emit(Event::LeaseDeleted { lease: key });
        }
    }
}
