//! The parts that every loop of one worker shares.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{CoordinationConfig, LeaseConfig, ManagementConfig};
use crate::coordination::CoordinationHealth;
use crate::coordination::election::Election;
use crate::coordination::migration::ProtocolCell;
use crate::coordination::worker_metrics::SeenWorkers;
use crate::error::with_causes;
use crate::events::{Event, EventSink};
use crate::kinesis::StreamApi;
use crate::lease::{LeaseStore, TableSpec, WritePacer};
use crate::lease::{LocalLeaseNotifier, OpenLeases};
use crate::metrics::Metrics;
use crate::processor::ShardRecordProcessorFactory;
use crate::retrieval::{RetrievalConfig, WorkerBudget};
use crate::runtime::{Clock, Seeds};
use crate::shard::HeldLeases;
use crate::stream_tracker::Streams;
use crate::types::WorkerId;

/// One worker: its settings, its ports, and what its loops tell each other.
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) application: Arc<str>,
    pub(crate) streams: Streams,
    pub(crate) factory: Arc<dyn ShardRecordProcessorFactory>,

    pub(crate) management: ManagementConfig,
    pub(crate) coordination: CoordinationConfig,
    pub(crate) retrieval: RetrievalConfig,
    pub(crate) lease_config: LeaseConfig,

    pub(crate) store: Arc<dyn LeaseStore>,
    /// Paces the writes to leases while the table throttles them.
    pub(crate) write_pacer: Arc<WritePacer>,
    /// How the lease table is created, should it be missing.
    pub(crate) table: TableSpec,
    pub(crate) api: Arc<dyn StreamApi>,
    pub(crate) clock: Clock,
    pub(crate) seeds: Seeds,

    pub(crate) budget: Arc<WorkerBudget>,
    pub(crate) held_leases: HeldLeases,
    pub(crate) notifier: LocalLeaseNotifier,
    pub(crate) open_leases: OpenLeases,
    pub(crate) health: CoordinationHealth,
    /// Which protocol the fleet is at.
    pub(crate) protocol: ProtocolCell,
    pub(crate) election: Election,
    /// Whether this worker tells how busy its CPU is.
    pub(crate) measures_cpu: bool,
    /// What other workers report, as this one saw it as the leader.
    pub(crate) seen_workers: SeenWorkers,
    /// Wakes the coordinator before its next round is due.
    pub(crate) wake: Notify,
    pub(crate) metrics: Metrics,
    pub(crate) events: EventSink,
    /// Cancelled when the worker is asked to shut down.
    pub(crate) stopping: CancellationToken,
}

impl Worker {
    /// Tells whoever listens that a step of coordination failed and will be tried again.
    pub(crate) fn coordination_failed(&self, operation: &'static str, error: &dyn StdError) {
        let reason = with_causes(error).into();
        self.events.emit(Event::CoordinationFailed { operation, reason });
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.id)
            .field("application", &self.application)
            .field("streams", &self.streams.statuses())
            .finish_non_exhaustive()
    }
}
