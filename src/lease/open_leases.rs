use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::types::LeaseKey;

/// Consumers that read the rows of their parents at the same time: those requests are sent by the thread
/// that renews leases.
const LOOKS_AT_ONCE: usize = 64;

/// Which consumers wait for the ends of which leases, and which of these are known not to have ended, as
/// the coordinator last saw the table.
///
/// What the coordinator reports costs time in proportion to the consumers that wait for that lease, not to
/// the leases of the table, nor to all consumers that wait.
///
/// Consumers are woken in the order in which they came, so that a simulation repeats exactly.
#[derive(Debug)]
pub(crate) struct OpenLeases {
    waiting: Mutex<Waiting>,
    looks: Semaphore,
}

#[derive(Debug, Default)]
struct Waiting {
    /// How many have come so far.
    arrivals: u64,
    consumers: BTreeMap<u64, Consumer>,
    awaited: BTreeMap<LeaseKey, Awaited>,
}

#[derive(Debug)]
struct Consumer {
    parents: Vec<LeaseKey>,
    wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Awaited {
    /// It is known not to have ended.
    is_open: bool,
    by: BTreeSet<u64>,
}

/// A consumer that waits, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    open_leases: &'a OpenLeases,
    arrival: u64,
    wake: Arc<Notify>,
}

impl Default for OpenLeases {
    fn default() -> Self {
        Self { waiting: Mutex::default(), looks: Semaphore::new(LOOKS_AT_ONCE) }
    }
}

impl OpenLeases {
    /// From now on a consumer waits for the ends of `parents`, of which nothing is known yet.
    pub(crate) fn wait_for(&self, parents: Vec<LeaseKey>) -> Waiter<'_> {
        let mut waiting = self.waiting.lock();
        let arrival = waiting.arrivals;
        waiting.arrivals += 1;
        for parent in &parents {
            waiting.awaited.entry(parent.clone()).or_default().by.insert(arrival);
        }
        let wake = Arc::new(Notify::new());
        waiting.consumers.insert(arrival, Consumer { parents, wake: Arc::clone(&wake) });
        Waiter { open_leases: self, arrival, wake }
    }

    /// A row as it is now.
    pub(crate) fn learn(&self, key: &LeaseKey, is_open: bool) {
        let mut waiting = self.waiting.lock();
        let Some(awaited) = waiting.awaited.get_mut(key) else { return };
        awaited.is_open = is_open;
        if !is_open {
            waiting.wake(&awaited_by(&waiting, [key]));
        }
    }

    /// The whole table was looked at.
    pub(crate) fn observe(&self, is_open: impl Fn(&LeaseKey) -> bool) {
        let mut waiting = self.waiting.lock();
        for (key, awaited) in &mut waiting.awaited {
            awaited.is_open = is_open(key);
        }
        let ended = waiting.awaited.iter().filter(|(_, awaited)| !awaited.is_open);
        waiting.wake(&awaited_by(&waiting, ended.map(|(key, _)| key)));
    }

    /// Nobody has looked at the whole table: each of those who wait has to look for itself, except for
    /// leases of which this worker `knows`, because it holds them.
    pub(crate) fn suspect(&self, knows: impl Fn(&LeaseKey) -> bool) {
        self.observe(knows);
    }

    /// Waits for its turn to read the rows of parents.
    pub(crate) async fn may_look(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.looks.acquire().await.ok()
    }
}

/// Who waits for any of these, in the order in which they came.
fn awaited_by<'a>(waiting: &Waiting, keys: impl IntoIterator<Item = &'a LeaseKey>) -> BTreeSet<u64> {
    let awaited = keys.into_iter().filter_map(|key| waiting.awaited.get(key));
    awaited.flat_map(|awaited| &awaited.by).copied().collect()
}

impl Waiting {
    /// Wakes those of whose parents none is known to be open_leases.
    fn wake(&self, arrivals: &BTreeSet<u64>) {
        let is_open = |parent: &LeaseKey| self.awaited.get(parent).is_some_and(|awaited| awaited.is_open);
        for consumer in arrivals.iter().filter_map(|arrival| self.consumers.get(arrival)) {
            if !consumer.parents.iter().any(is_open) {
                consumer.wake.notify_one();
            }
        }
    }
}

impl Waiter<'_> {
    /// Waits until none of the parents is known to be unfinished, as reported since this was last waited
    /// for. A scan may be old, so it is only a reason to look.
    ///
    /// # Cancel safety
    ///
    /// No report is lost when the future is dropped.
    pub(crate) async fn may_have_ended(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.open_leases.waiting.lock();
        let Some(consumer) = waiting.consumers.remove(&self.arrival) else { return };
        for parent in consumer.parents {
            if let Some(awaited) = waiting.awaited.get_mut(&parent) {
                awaited.by.remove(&self.arrival);
                if awaited.by.is_empty() {
                    waiting.awaited.remove(&parent);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn keys(names: &[&str]) -> Vec<LeaseKey> {
        names.iter().map(|&name| name.into()).collect()
    }

    fn is_woken(waiter: &Waiter<'_>) -> bool {
        waiter.may_have_ended().now_or_never().is_some()
    }

    #[test]
    fn a_parent_that_ends_wakes_its_children_and_no_others() {
        let open_leases = OpenLeases::default();
        let children = [&["0"], &["0"], &["1"]].map(|parents| open_leases.wait_for(keys(parents)));
        open_leases.observe(|_| true);
        assert_eq!(children.each_ref().map(is_woken), [false, false, false]);
        open_leases.learn(&"0".into(), true);
        open_leases.learn(&"2".into(), false);
        assert_eq!(children.each_ref().map(is_woken), [false, false, false]);
        open_leases.learn(&"0".into(), false);
        assert_eq!(children.each_ref().map(is_woken), [true, true, false]);
        assert_eq!(children.each_ref().map(is_woken), [false, false, false], "once");
    }

    #[test]
    fn a_child_of_two_waits_for_both() {
        let open_leases = OpenLeases::default();
        let child = open_leases.wait_for(keys(&["0", "1"]));
        open_leases.observe(|_| true);
        open_leases.learn(&"0".into(), false);
        assert!(!is_woken(&child));
        open_leases.learn(&"1".into(), false);
        assert!(is_woken(&child));
    }

    #[test]
    fn a_scan_wakes_those_of_whose_parents_it_shows_none() {
        let open_leases = OpenLeases::default();
        let children = [&["0"], &["1"]].map(|parents| open_leases.wait_for(keys(parents)));
        for _ in 0..2 {
            open_leases.observe(|key| key == "0");
            assert_eq!(children.each_ref().map(is_woken), [false, true], "and again, if it still waits");
        }
    }

    #[test]
    fn a_follower_looks_for_itself_unless_it_holds_the_parent() {
        let open_leases = OpenLeases::default();
        let children = [&["0"], &["1"]].map(|parents| open_leases.wait_for(keys(parents)));
        open_leases.observe(|_| true);
        open_leases.suspect(|held| held == "1");
        assert_eq!(children.each_ref().map(is_woken), [true, false]);
    }

    #[test]
    fn who_waits_no_more_is_forgotten() {
        let open_leases = OpenLeases::default();
        let (left, stays) = (open_leases.wait_for(keys(&["0", "1"])), open_leases.wait_for(keys(&["1"])));
        drop(left);
        assert_eq!(
            open_leases.waiting.lock().awaited.keys().collect::<Vec<_>>(),
            ["1"].map(LeaseKey::from).each_ref()
        );
        open_leases.learn(&"1".into(), false);
        assert!(is_woken(&stays));
        drop(stays);
        assert!(
            open_leases.waiting.lock().consumers.is_empty() && open_leases.waiting.lock().awaited.is_empty()
        );
    }
}
