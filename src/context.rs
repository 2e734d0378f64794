//! What every loop of a worker needs, whatever it does. It knows nothing of coordination, shards or
//! retrieval.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::{CoordinationConfig, LeaseConfig, LifecycleConfig, ManagementConfig};
use crate::error::{kind_of, with_causes};
use crate::events::{Event, EventSink};
use crate::kinesis::StreamApi;
use crate::lease::{LeaseStore, LocalLeaseNotifier, WritePacer};
use crate::metrics::Metrics;
use crate::runtime::{Clock, Seeds};
use crate::types::WorkerId;

/// One worker: its name, its settings, its ports, and where it reports to.
pub(crate) struct Context {
    pub(crate) id: WorkerId,
    pub(crate) application: Arc<str>,

    pub(crate) management: ManagementConfig,
    pub(crate) coordination: CoordinationConfig,
    pub(crate) lifecycle: LifecycleConfig,
    pub(crate) lease_config: LeaseConfig,

    pub(crate) store: Arc<dyn LeaseStore>,
    /// Paces the writes to leases while the table throttles them.
    pub(crate) write_pacer: Arc<WritePacer>,
    /// Reports changed rows to the other workers of this process.
    pub(crate) notifier: LocalLeaseNotifier,
    pub(crate) api: Arc<dyn StreamApi>,
    pub(crate) clock: Clock,
    pub(crate) seeds: Seeds,

    pub(crate) metrics: Metrics,
    pub(crate) events: EventSink,
    /// Cancelled when the worker is asked to shut down.
    pub(crate) stopping: CancellationToken,
}

impl Context {
    /// Emits that a step of coordination failed and will be tried again.
    pub(crate) fn coordination_failed(&self, operation: &'static str, error: &(dyn StdError + 'static)) {
        let reason = with_causes(error).into();
        self.events.emit(Event::CoordinationFailed { operation, kind: kind_of(error), reason });
    }
}

#[cfg(test)]
impl Context {
    /// A worker on its own, with this lease table and no streams.
    pub(crate) fn in_memory(store: crate::lease::MemoryLeaseStore) -> Self {
        let (id, clock, events) = (WorkerId::from("us"), Clock::system(), EventSink::new());
        let coordination = CoordinationConfig::default();
        let pacer = WritePacer::new(clock.clone(), coordination.failover_time, events.clone(), &id);
        Self {
            id,
            application: "application".into(),
            management: ManagementConfig::default(),
            coordination,
            lifecycle: LifecycleConfig::default(),
            lease_config: LeaseConfig::default(),
            store: Arc::new(store),
            write_pacer: Arc::new(pacer),
            notifier: LocalLeaseNotifier::isolated(),
            api: Arc::new(crate::testing::SimulatedKinesis::default()),
            clock,
            seeds: Seeds::from_seed(1),
            metrics: Metrics::disabled(),
            events,
            stopping: CancellationToken::new(),
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.id)
            .field("application", &self.application)
            .finish_non_exhaustive()
    }
}
