use parking_lot::Mutex;
use tokio::sync::Notify;

use super::state::Protocol;

/// The protocol this worker goes by now; loops that belong to another one wait.
///
/// Wakes those who wait in the order in which they came, so that a simulation repeats exactly.
#[derive(Debug, Default)]
pub(crate) struct ProtocolCell {
    protocol: Mutex<Protocol>,
    changed: Notify,
}

impl ProtocolCell {
    pub(crate) fn get(&self) -> Protocol {
        *self.protocol.lock()
    }

    pub(super) fn set(&self, protocol: Protocol) {
        *self.protocol.lock() = protocol;
        self.changed.notify_waiters();
    }

    /// Waits until the fleet is run by a leader.
    pub(crate) async fn until_led(&self) {
        self.until(|protocol| protocol == Protocol::Led).await;
    }

    /// Waits until workers report how busy they are.
    pub(crate) async fn until_reporting(&self) {
        self.until(|protocol| protocol != Protocol::Independent).await;
    }

    async fn until(&self, is_reached: impl Fn(Protocol) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_reached(self.get()) {
                return;
            }
            changed.await;
        }
    }
}
