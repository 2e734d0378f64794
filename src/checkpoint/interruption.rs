use std::sync::Arc;

use parking_lot::Mutex;

/// Why a processor is to stop what it is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Interruption {
    /// The lease is lost: checkpoints are refused from now on.
    LeaseLost,
    /// The leader asks for the lease on behalf of another worker, which waits for it.
    HandoffRequested,
    /// The worker is about to stop, or the stream was removed from it.
    ShutdownRequested,
}

/// Why an error policy has stopped a shard, if it has. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoppedReason(Arc<Mutex<Option<Arc<str>>>>);

impl StoppedReason {
    pub(crate) fn set(&self, reason: Option<Arc<str>>) {
        *self.0.lock() = reason;
    }

    pub(crate) fn get(&self) -> Option<Arc<str>> {
        self.0.lock().clone()
    }
}
