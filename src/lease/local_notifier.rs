use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use tokio::sync::broadcast;

use crate::lease::Lease;

const CAPACITY: usize = 1024;

/// Tells the workers of one lease table that live in the same process about rows that just changed,
/// so that a lease one of them frees, ends or creates is taken by another at once, without a scan.
///
/// It only saves time: rows that come this way are checked by the condition of the next write, and
/// what is missed is found by the next scan.
///
/// Until it is [bound](Self::bind) to a table, nobody hears anything.
#[derive(Debug, Default)]
pub(crate) struct LocalLeaseNotifier(OnceLock<broadcast::Sender<Lease>>);

static HUBS: LazyLock<Mutex<HashMap<String, broadcast::WeakSender<Lease>>>> = LazyLock::new(Mutex::default);

impl LocalLeaseNotifier {
    /// A hub of one worker alone.
    #[cfg(feature = "internals")]
    pub(crate) fn isolated() -> Self {
        let hub = Self::default();
        hub.bind(None);
        hub
    }

    /// From now on it is the one that all workers of this process share for a table, which `identity`
    /// tells from all others. Without, the worker stays alone.
    pub(crate) fn bind(&self, identity: Option<String>) {
        self.sender(identity);
    }

    fn sender(&self, identity: Option<String>) -> &broadcast::Sender<Lease> {
        self.0.get_or_init(|| {
            let alone = broadcast::Sender::new(CAPACITY);
            let Some(table) = identity else { return alone };
            let mut hubs = HUBS.lock().unwrap_or_else(PoisonError::into_inner);
            hubs.retain(|_, hub| hub.upgrade().is_some());
            let known = hubs.get(&table).and_then(broadcast::WeakSender::upgrade);
            known.unwrap_or_else(|| {
                hubs.insert(table, alone.downgrade());
                alone
            })
        })
    }

    /// Tells everybody, this worker included, what a row has become.
    pub(crate) fn publish(&self, lease: Lease) {
        if let Some(hub) = self.0.get() {
            // Nobody listening is fine.
            let _ = hub.send(lease);
        }
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Lease> {
        self.sender(None).subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Checkpoint;

    #[test]
    fn workers_of_one_table_hear_each_other_and_no_others() {
        let hubs = ["hub-test a", "hub-test a", "hub-test b"].map(|table| {
            let hub = LocalLeaseNotifier::default();
            hub.bind(Some(table.to_owned()));
            hub
        });
        let (alone, unbound) = (LocalLeaseNotifier::default(), LocalLeaseNotifier::default());
        alone.bind(None);
        let mut heard = [&hubs[0], &hubs[1], &hubs[2], &alone].map(LocalLeaseNotifier::listen);
        hubs[0].publish(Lease::new("shardId-0", Checkpoint::Latest));
        unbound.publish(Lease::new("shardId-1", Checkpoint::Latest));
        let heard = heard.each_mut().map(|news| std::iter::from_fn(|| news.try_recv().ok()).count());
        assert_eq!(heard, [1, 1, 0, 0]);
    }
}
