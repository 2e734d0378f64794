//! Deletes rows of shards that are finished.

use std::sync::Arc;

use super::coordinator::LeaseCoordinator;
use crate::lease::StoreError;
use crate::shard_sync::plan_cleanup;
use crate::types::LeaseKey;

impl LeaseCoordinator {
    /// Ends the round of a follower: deletes the rows of shards that this worker has ended, once their children are
    /// being read. KCL's leader leaves that to the owner of each.
    pub(super) async fn clean_up_after_itself(&mut self) {
        let worker = Arc::clone(&self.worker);
        let now = worker.context.clock.now();
        worker.health.led(worker.election.leader().is_some(), now);
        if self.state.is_cleanup_due(now) {
            let mut finished = Vec::new();
            for key in &self.state.ended {
                match self.is_finished(key).await {
                    Ok(true) => finished.push(key.clone()),
                    Ok(false) => {}
                    Err(error) => {
                        worker.context.coordination_failed("GetLease", &error);
                        break;
                    }
                }
            }
            for key in finished {
                if !self.delete(key).await {
                    break;
                }
            }
        }
        // Consumers that wait for parents cannot see from a scan when to look.
        worker.open_leases.suspect(|parent| worker.held_leases.contains(parent));
    }

    /// As the lease, its parents and its children are now.
    async fn is_finished(&self, key: &LeaseKey) -> Result<bool, StoreError> {
        let store = &self.worker.context.store;
        let Some(lease) = store.lease(key).await? else { return Ok(false) };
        let Some(known) = self.state.streams.get(&lease.stream_name) else { return Ok(false) };
        let relatives: Vec<LeaseKey> =
            lease.parents.iter().chain(&lease.children).map(|shard| known.id.lease_key(shard)).collect();
        let mut family = vec![lease];
        for key in relatives {
            family.extend(store.lease(&key).await?);
        }
        Ok(plan_cleanup(&family.iter().collect::<Vec<_>>()).contains(key))
    }

    /// Whether the row could be deleted.
    pub(super) async fn delete(&mut self, key: LeaseKey) -> bool {
        let worker = Arc::clone(&self.worker);
        if let Err(error) = worker.context.store.delete_ended(&key).await {
            tracing::warn!(lease = %key, %error, "cannot delete a finished lease; trying again");
            worker.context.coordination_failed("DeleteLease", &error);
            return false;
        }
        let commands = self.state.handle_deleted(key);
        self.act_on_all(commands);
        true
    }
}
