use std::fmt;
use std::sync::Arc;

use tokio::sync::Notify;

use super::CoordinationHealth;
use super::election::Election;
use super::migration::ProtocolCell;
use super::worker_metrics::SeenWorkers;
use crate::context::Context;
use crate::lease::{OpenLeases, TableSpec};
use crate::shard::HeldLeases;
use crate::stream_tracker::Streams;

/// What the loops of coordination share, and the handle reads.
pub(crate) struct Worker {
    pub(crate) context: Arc<Context>,
    pub(crate) streams: Streams,
    pub(crate) held_leases: HeldLeases,
    pub(crate) open_leases: Arc<OpenLeases>,
    pub(crate) health: CoordinationHealth,
    /// Which protocol the fleet is at.
    pub(crate) protocol: ProtocolCell,
    pub(crate) election: Election,
    /// What other workers report, as this one saw it as the leader.
    pub(crate) seen_workers: SeenWorkers,
    /// Whether this worker reports how busy its CPU is.
    pub(crate) measures_cpu: bool,
    /// How the lease table is created, should it be missing.
    pub(crate) table: TableSpec,
    /// Wakes the coordinator before its next round is due.
    pub(crate) wake: Notify,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.context.id)
            .field("application", &self.context.application)
            .field("streams", &self.streams.statuses())
            .finish_non_exhaustive()
    }
}
