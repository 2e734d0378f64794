use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::lease::Lease;

const CAPACITY: usize = 1024;

/// Tells the workers of one lease table that live in the same process about rows that just changed,
/// so that a lease one of them frees, ends or creates is taken by another at once, without a scan.
///
/// It only saves time: rows that come this way are checked by the condition of the next write, and
/// what is missed is found by the next scan.
#[derive(Debug, Clone)]
pub(crate) struct Hub(broadcast::Sender<Lease>);

static HUBS: LazyLock<Mutex<HashMap<String, broadcast::WeakSender<Lease>>>> = LazyLock::new(Mutex::default);

impl Hub {
    /// The hub that all workers of this process share for `table`.
    pub(crate) fn of_process(table: &str) -> Self {
        let mut hubs = HUBS.lock().unwrap_or_else(PoisonError::into_inner);
        hubs.retain(|_, hub| hub.upgrade().is_some());
        if let Some(hub) = hubs.get(table).and_then(broadcast::WeakSender::upgrade) {
            return Self(hub);
        }
        let hub = Self::isolated();
        hubs.insert(table.to_owned(), hub.0.downgrade());
        hub
    }

    /// A hub of one worker alone.
    pub(crate) fn isolated() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }

    /// Tells everybody, this worker included, what a row has become.
    pub(crate) fn publish(&self, lease: Lease) {
        // Nobody listening is fine.
        let _ = self.0.send(lease);
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Lease> {
        self.0.subscribe()
    }
}
