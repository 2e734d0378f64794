use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::lease::{HeldLease, Lease};
use crate::shard::{ShardStatus, StatusCell};
use crate::types::LeaseKey;

/// The leases this worker holds now.
#[derive(Debug, Default)]
pub(crate) struct HeldLeases(Mutex<BTreeMap<LeaseKey, Arc<HeldLeaseEntry>>>);

/// A lease this worker holds, and how its shard is doing.
#[derive(Debug)]
pub(crate) struct HeldLeaseEntry {
    pub(crate) held: Arc<HeldLease>,
    pub(crate) status: Arc<StatusCell>,
    /// Keeps who removes the stream waiting.
    pub(crate) _of_stream: TaskTrackerToken,
}

impl HeldLeases {
    pub(crate) fn insert(&self, holding: HeldLeaseEntry) {
        self.0.lock().insert(holding.held.key().clone(), Arc::new(holding));
    }

    pub(crate) fn remove(&self, key: &LeaseKey) -> Option<Arc<HeldLeaseEntry>> {
        self.0.lock().remove(key)
    }

    /// Stops what is done under a lease that `taken` shows not to be this worker's any more.
    pub(crate) fn lose(&self, taken: &Lease) {
        let holding = self.0.lock().get(&taken.key).cloned();
        if let Some(holding) = holding
            && taken.counter > holding.held.counter()
        {
            holding.held.abandon();
        }
    }

    pub(crate) fn contains(&self, key: &LeaseKey) -> bool {
        self.0.lock().contains_key(key)
    }

    /// The row of a lease as this worker last wrote it, if it holds it still.
    pub(crate) fn row(&self, key: &LeaseKey) -> Option<Lease> {
        let holding = self.0.lock().get(key).cloned()?;
        holding.held.is_valid().then(|| holding.held.lease())
    }

    pub(crate) fn all(&self) -> Vec<Arc<HeldLeaseEntry>> {
        self.0.lock().values().cloned().collect()
    }

    pub(crate) fn statuses(&self) -> Vec<ShardStatus> {
        let status = |holding: &Arc<HeldLeaseEntry>| ShardStatus {
            checkpoint: holding.held.checkpoint_stored(),
            ..holding.status.read()
        };
        self.all().iter().map(status).collect()
    }
}
