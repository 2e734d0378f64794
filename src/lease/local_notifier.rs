use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::lease::Lease;

const CAPACITY: usize = 1024;

/// Notifies the workers of one lease table that live in the same process of rows that just changed,
/// so that a lease one of them frees, ends or creates is taken by another at once, without a scan.
///
/// It only saves time: rows that come this way are checked by the condition of the next write, and
/// what is missed is found by the next scan.
///
/// Until it is [bound](Self::bind) to a table, nobody is notified.
#[derive(Debug, Default)]
pub(crate) struct LocalLeaseNotifier(OnceLock<broadcast::Sender<Lease>>);

static CHANNELS: LazyLock<Mutex<HashMap<String, broadcast::WeakSender<Lease>>>> =
    LazyLock::new(Mutex::default);

impl LocalLeaseNotifier {
    /// A notifier of one worker alone.
    #[cfg(feature = "internals")]
    pub(crate) fn isolated() -> Self {
        let notifier = Self::default();
        notifier.bind(None);
        notifier
    }

    /// From now on it is the one that all workers of this process share for a table, which `identity`
    /// distinguishes from all others. Without, the worker stays alone.
    pub(crate) fn bind(&self, identity: Option<String>) {
        self.sender(identity);
    }

    fn sender(&self, identity: Option<String>) -> &broadcast::Sender<Lease> {
        self.0.get_or_init(|| {
            let alone = broadcast::Sender::new(CAPACITY);
            let Some(table) = identity else { return alone };
            let mut notifiers = CHANNELS.lock();
            notifiers.retain(|_, notifier| notifier.upgrade().is_some());
            let known = notifiers.get(&table).and_then(broadcast::WeakSender::upgrade);
            known.unwrap_or_else(|| {
                notifiers.insert(table, alone.downgrade());
                alone
            })
        })
    }

    /// Notifies all of them, this worker included, of what a row has become.
    pub(crate) fn publish(&self, lease: Lease) {
        if let Some(notifier) = self.0.get() {
            // Nobody listening is fine.
            let _ = notifier.send(lease);
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
    fn workers_of_one_table_notify_each_other_and_no_others() {
        let notifiers = ["notifier-test a", "notifier-test a", "notifier-test b"].map(|table| {
            let notifier = LocalLeaseNotifier::default();
            notifier.bind(Some(table.to_owned()));
            notifier
        });
        let (alone, unbound) = (LocalLeaseNotifier::default(), LocalLeaseNotifier::default());
        alone.bind(None);
        let mut receivers =
            [&notifiers[0], &notifiers[1], &notifiers[2], &alone].map(LocalLeaseNotifier::listen);
        notifiers[0].publish(Lease::new("shardId-0", Checkpoint::Latest));
        unbound.publish(Lease::new("shardId-1", Checkpoint::Latest));
        let received = receivers.each_mut().map(|news| std::iter::from_fn(|| news.try_recv().ok()).count());
        assert_eq!(received, [1, 1, 0, 0]);
    }
}
