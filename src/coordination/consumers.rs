//! The shard consumers of a worker: they are started for leases that it holds, and end by themselves.

use std::sync::Arc;

use tokio::task;

use super::coordinator::LeaseCoordinator;
use super::reports;
use crate::lease::{HeldLease, Lease};
use crate::shard::{HeldLeaseEntry, ShardConsumer, ShardOutcome, StatusCell};
use crate::types::{Moment, WorkerId};

impl LeaseCoordinator {
    pub(super) fn consumer_ended(&mut self, ended: Result<(task::Id, ShardOutcome), task::JoinError>) {
        let id = ended.as_ref().map_or_else(task::JoinError::id, |(id, _)| *id);
        let Some(key) = self.consumer_keys.remove(&id) else { return };
        let held = self.worker.held_leases.remove(&key).map(|entry| Arc::clone(&entry.held));
        match ended {
            Ok((_, ending)) => tracing::debug!(lease = %key, ?ending, "shard consumer ended"),
            Err(error) => {
                // Calls of a processor cannot end a consumer like this, but dropping it can, and so does
                // the end of the user's runtime. Nobody renews the lease any more.
                tracing::error!(lease = %key, %error, "a shard consumer failed; its lease runs out");
                self.worker.context.coordination_failed("RunShardConsumer", &error);
                held.iter().for_each(|held| held.abandon());
            }
        }
        let is_stolen = held.as_ref().is_some_and(|held| held.is_lost_to_namesake());
        let row = held.map(|held| held.lease());
        let now = self.worker.context.clock.now();
        let commands = self.state.handle_consumer_ended(&key, row, is_stolen, now);
        self.note_learned();
        self.act_on_all(commands);
    }

    pub(super) fn start_consumer(&mut self, lease: Lease, previous_owner: Option<WorkerId>, taken: Moment) {
        let Some(stream) = self.tracked.get(lease.stream_name.as_deref()) else {
            self.state.held.remove(&lease.key);
            return;
        };
        let (worker, key) = (Arc::clone(&self.worker), lease.key.clone());
        reports::emit_gained(&worker.context, &lease, previous_owner);
        let status = Arc::new(StatusCell::new(stream.id.clone(), &lease));
        let held = Arc::new(HeldLease::new(
            Arc::clone(&worker.context.store),
            Arc::clone(&worker.context.write_pacer),
            worker.context.clock.clone(),
            worker.context.id.clone(),
            worker.context.coordination.failover_time,
            lease,
            taken,
            worker.context.seeds.seed(),
        ));
        worker.held_leases.insert(HeldLeaseEntry {
            held: Arc::clone(&held),
            status: Arc::clone(&status),
            _of_stream: stream.consumers.token(),
        });
        let consumer = ShardConsumer::new(Arc::clone(&self.shards), stream, held, status);
        let task = self.consumers.spawn_on(consumer.run(), &self.user_runtime);
        self.consumer_keys.insert(task.id(), key);
    }
}
