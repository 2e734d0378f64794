use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::types::LeaseKey;

/// The leases that are known not to have ended, as the overseer last saw the table: for consumers that
/// wait for some of them.
///
/// Wakes those who wait in the order in which they came, so that a simulation repeats exactly
/// (tokio's `watch` wakes them at random).
#[derive(Debug, Default)]
pub(crate) struct Unfinished {
    keys: Mutex<Arc<BTreeSet<LeaseKey>>>,
    changed: Notify,
}

impl Unfinished {
    pub(crate) fn publish(&self, keys: BTreeSet<LeaseKey>) {
        {
            let mut published = self.lock();
            if **published == keys {
                return;
            }
            *published = Arc::new(keys);
        }
        self.changed.notify_waiters();
    }

    /// Nobody has looked at the whole table: each of those who wait has to look for itself.
    pub(crate) fn suspect(&self) {
        *self.lock() = Arc::default();
        self.changed.notify_waiters();
    }

    /// The leases now.
    pub(crate) fn keys(&self) -> Arc<BTreeSet<LeaseKey>> {
        Arc::clone(&self.lock())
    }

    /// Waits for the first change after this call, polled or not.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<BTreeSet<LeaseKey>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
