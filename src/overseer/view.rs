use std::collections::BTreeMap;
use std::time::Duration;

use crate::lease::Lease;
use crate::types::{LeaseKey, Moment, WorkerId};

/// The lease table as this worker has seen it, and since when each counter has stood still.
///
/// No clock but the observer's own is involved: a lease expires when its counter has not changed
/// for the failover time while being watched (KCL's `LeaseTaker` and `Lease::isExpired`).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct View {
    leases: BTreeMap<LeaseKey, Observed>,
}

/// A lease, and when its counter was last seen to change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Observed {
    pub(crate) lease: Lease,
    /// `None` if it had no owner when it was first seen: it has never been renewed.
    changed: Option<Moment>,
}

impl Observed {
    /// When its counter was last seen to change; `None` if it has never been renewed.
    pub(crate) fn changed(&self) -> Option<Moment> {
        self.changed
    }

    /// Whether nobody has renewed the lease for longer than `time`.
    pub(crate) fn is_stale(&self, time: Duration, now: Moment) -> bool {
        self.changed.is_none_or(|changed| now.since(changed) > time)
    }
}

impl View {
    /// Takes in a scan that was complete at `now`. Rows that are older than what is known (scans may
    /// be stale) count as unchanged; rows that are gone are forgotten.
    pub(crate) fn observe_scan(&mut self, leases: Vec<Lease>, now: Moment) {
        let mut known = std::mem::take(&mut self.leases);
        for lease in leases {
            let observed = match known.remove(&lease.key) {
                Some(known) if lease.counter <= known.lease.counter => {
                    // The same counter may come with new meta data, such as child shards.
                    let is_same = lease.counter == known.lease.counter;
                    Observed { lease: if is_same { lease } else { known.lease }, changed: known.changed }
                }
                Some(_) => Observed { lease, changed: Some(now) },
                None => {
                    let changed = lease.owner.is_some().then_some(now);
                    Observed { lease, changed }
                }
            };
            self.leases.insert(observed.lease.key.clone(), observed);
        }
    }

    /// Takes in one row as it really was at `now`: a write's answer, or news from the hub.
    pub(crate) fn learn(&mut self, lease: Lease, now: Moment) {
        let changed = match self.leases.get(&lease.key) {
            Some(known) if known.lease.counter == lease.counter => known.changed,
            Some(_) => Some(now),
            None => lease.owner.is_some().then_some(now),
        };
        self.leases.insert(lease.key.clone(), Observed { lease, changed });
    }

    /// A view of these leases, each with the moment its counter was last seen to change.
    #[cfg(feature = "internals")]
    pub(crate) fn from_parts(parts: impl IntoIterator<Item = (Lease, Option<Moment>)>) -> Self {
        let observed = |(lease, changed): (Lease, _)| (lease.key.clone(), Observed { lease, changed });
        Self { leases: parts.into_iter().map(observed).collect() }
    }

    /// What [`from_parts`](Self::from_parts) takes.
    #[cfg(feature = "internals")]
    pub(crate) fn into_parts(self) -> impl Iterator<Item = (Lease, Option<Moment>)> {
        self.leases.into_values().map(|observed| (observed.lease, observed.changed))
    }

    /// Forgets a row that was deleted.
    pub(crate) fn forget(&mut self, key: &LeaseKey) {
        self.leases.remove(key);
    }

    /// Forgets all rows but those that `keep` keeps.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Lease) -> bool) {
        self.leases.retain(|_, observed| keep(&observed.lease));
    }

    /// Every lease in the order of keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Observed> {
        self.leases.values()
    }

    /// Every row in the order of keys.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.iter().map(|observed| &observed.lease)
    }

    /// The owners of leases that are being renewed, once per lease.
    pub(crate) fn live_owners(
        &self,
        failover_time: Duration,
        now: Moment,
    ) -> impl Iterator<Item = &WorkerId> {
        self.iter()
            .filter(move |observed| !observed.is_stale(failover_time, now))
            .filter_map(|observed| observed.lease.owner.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Checkpoint;

    const F: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Moment {
        Moment::after_origin(Duration::from_secs(seconds))
    }

    fn lease(owner: Option<&str>, counter: u64) -> Lease {
        let mut lease = Lease::new("shardId-0", Checkpoint::TrimHorizon);
        lease.owner = owner.map(Into::into);
        lease.counter = counter;
        lease
    }

    fn is_stale_at(view: &View, seconds: u64) -> bool {
        view.iter().next().expect("one lease").is_stale(F, at(seconds))
    }

    #[test]
    fn an_owned_lease_expires_when_its_counter_stands_still() {
        let mut view = View::default();
        view.observe_scan(vec![lease(Some("a"), 5)], at(0));
        assert!(!is_stale_at(&view, 10) && is_stale_at(&view, 11));
        view.observe_scan(vec![lease(Some("a"), 6)], at(8));
        assert!(!is_stale_at(&view, 18));
        view.observe_scan(vec![lease(Some("a"), 6)], at(18));
        assert!(is_stale_at(&view, 19));
    }

    #[test]
    fn a_lease_without_owner_has_never_been_renewed() {
        let mut view = View::default();
        view.observe_scan(vec![lease(None, 0)], at(100));
        assert!(is_stale_at(&view, 100));
    }

    #[test]
    fn a_stale_scan_neither_rewinds_nor_renews() {
        let mut view = View::default();
        view.observe_scan(vec![lease(Some("a"), 6)], at(0));
        view.observe_scan(vec![lease(Some("b"), 5)], at(9));
        let observed = view.iter().next().expect("one lease");
        assert_eq!((observed.lease.counter, observed.is_stale(F, at(11))), (6, true));
    }

    #[test]
    fn a_row_that_was_recreated_is_believed_when_a_write_shows_it() {
        let mut view = View::default();
        view.observe_scan(vec![lease(Some("a"), 6)], at(0));
        view.learn(lease(None, 0), at(1));
        assert_eq!(view.iter().next().map(|observed| observed.lease.counter), Some(0));
    }

    #[test]
    fn rows_that_are_gone_are_forgotten() {
        let mut view = View::default();
        view.observe_scan(vec![lease(None, 0)], at(0));
        view.observe_scan(vec![], at(1));
        assert_eq!(view.leases().count(), 0);
    }
}
