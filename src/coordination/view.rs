use std::collections::btree_map::IntoValues;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
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
    /// Rows that were deleted though their shards had not ended, as they were last seen.
    vanished: BTreeMap<LeaseKey, Lease>,
    /// Who has given leases back since the last scan but one, unless that was asked meanwhile.
    released_by: BTreeSet<WorkerId>,
}

/// A lease, and when its counter was last seen to change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Observed {
    pub(crate) lease: Lease,
    /// `None` if it had no owner when it was first seen: it has never been renewed.
    changed: Option<Moment>,
    /// Its owner has written to it, as far as is known: not since it was given to that owner.
    is_acknowledged: bool,
}

impl Observed {
    fn new(lease: Lease, now: Moment) -> Self {
        let changed = lease.owner.is_some().then_some(now);
        Self { lease, changed, is_acknowledged: true }
    }

    /// With another counter than before.
    fn after(before: &Self, lease: Lease, now: Moment) -> Self {
        let is_acknowledged = lease.actual_owner() == before.lease.actual_owner();
        Self { lease, changed: Some(now), is_acknowledged }
    }

    /// Whether its owner knows that it has it. One that was given to a worker is the worker's, and its
    /// counter stands still, from then until that has found it.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.is_acknowledged
    }

    /// When its counter was last seen to change; `None` if it has never been renewed.
    pub(crate) fn changed(&self) -> Option<Moment> {
        self.changed
    }

    /// Whether nobody has renewed the lease for longer than `time`.
    pub(crate) fn is_stale(&self, time: Duration, now: Moment) -> bool {
        self.changed.is_none_or(|changed| now.since(changed) > time)
    }
}

/// A scan that is being taken in.
#[derive(Debug)]
pub(crate) struct ScanUnderWay {
    now: Moment,
    /// What was known before, in the order of keys.
    known: Peekable<IntoValues<LeaseKey, Observed>>,
    observed: Vec<(LeaseKey, Observed)>,
    gone: Vec<Lease>,
    released_by: BTreeSet<WorkerId>,
}

impl ScanUnderWay {
    /// The next row, in the order of keys: it goes side by side with what is known, so that nothing is
    /// searched for.
    pub(crate) fn observe(&mut self, lease: Lease) {
        while let Some(before) = self.known.next_if(|known| known.lease.key < lease.key) {
            self.gone.push(before.lease);
        }
        let observed = match self.known.next_if(|known| known.lease.key == lease.key) {
            // The same counter may come with new meta data, such as child shards.
            Some(known) if lease.counter == known.lease.counter => Observed { lease, ..known },
            Some(known) if lease.counter < known.lease.counter => known,
            Some(known) => {
                self.released_by.extend(released(&known.lease, &lease));
                Observed::after(&known, lease, self.now)
            }
            None => Observed::new(lease, self.now),
        };
        self.observed.push((observed.lease.key.clone(), observed));
    }
}

/// Who has given the lease back, if that is what happened.
fn released(before: &Lease, after: &Lease) -> Option<WorkerId> {
    before.owner.clone().filter(|_| after.owner.is_none())
}

impl View {
    /// Takes in a scan that was complete at `now`. Rows that are older than what is known (scans may
    /// be stale) count as unchanged; rows that are gone are forgotten, except for what they were if their
    /// shards had not ended.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn observe_scan(&mut self, mut leases: Vec<Lease>, now: Moment) {
        leases.sort_by(|a, b| a.key.cmp(&b.key));
        let mut scan = self.begin_scan(now);
        leases.into_iter().for_each(|lease| scan.observe(lease));
        self.finish_scan(scan);
    }

    /// The same row by row, for callers that have other things to do in between. Until it is
    /// [finished](Self::finish_scan), nothing is known.
    pub(crate) fn begin_scan(&mut self, now: Moment) -> ScanUnderWay {
        self.released_by.clear();
        let known = std::mem::take(&mut self.leases).into_values().peekable();
        ScanUnderWay { now, known, observed: Vec::new(), gone: Vec::new(), released_by: BTreeSet::new() }
    }

    pub(crate) fn finish_scan(&mut self, scan: ScanUnderWay) {
        let ScanUnderWay { known, observed, mut gone, released_by, .. } = scan;
        gone.extend(known.map(|known| known.lease));
        gone.retain(|lease| !lease.checkpoint.is_shard_end());
        self.leases = observed.into_iter().collect();
        self.released_by.extend(released_by);
        self.vanished.extend(gone.into_iter().map(|lease| (lease.key.clone(), lease)));
        let Self { leases, vanished, .. } = self;
        vanished.retain(|key, _| !leases.contains_key(key));
    }

    /// Takes in one row as it really was at `now`: a write's answer, or news from the notifier.
    pub(crate) fn learn(&mut self, lease: Lease, now: Moment) {
        let observed = match self.leases.remove(&lease.key) {
            Some(known) if known.lease.counter == lease.counter => Observed { lease, ..known },
            Some(known) => {
                self.released_by.extend(released(&known.lease, &lease));
                Observed::after(&known, lease, now)
            }
            None => Observed::new(lease, now),
        };
        self.vanished.remove(&observed.lease.key);
        self.leases.insert(observed.lease.key.clone(), observed);
    }

    /// Rows that were deleted though their shards had not ended, as they were last seen.
    pub(crate) fn vanished(&self) -> impl Iterator<Item = &Lease> {
        self.vanished.values()
    }

    /// Of these it is clear by now what became of them.
    pub(crate) fn forget_vanished(&mut self, which: impl Fn(&Lease) -> bool) {
        self.vanished.retain(|_, lease| !which(lease));
    }

    /// The workers that have given leases back since this was last asked.
    pub(crate) fn take_released_by(&mut self) -> BTreeSet<WorkerId> {
        std::mem::take(&mut self.released_by)
    }

    /// The owner of a lease has taken it up without writing to it.
    pub(crate) fn acknowledge(&mut self, key: &LeaseKey) {
        if let Some(observed) = self.leases.get_mut(key) {
            observed.is_acknowledged = true;
        }
    }

    /// A view of these leases, each with the moment its counter was last seen to change, and whether its
    /// owner has acknowledged it.
    #[cfg(feature = "internals")]
    pub(crate) fn from_parts(parts: impl IntoIterator<Item = (Lease, Option<Moment>, bool)>) -> Self {
        let observed = |(lease, changed, is_acknowledged): (Lease, _, _)| {
            (lease.key.clone(), Observed { lease, changed, is_acknowledged })
        };
        Self { leases: parts.into_iter().map(observed).collect(), ..Self::default() }
    }

    /// What [`from_parts`](Self::from_parts) takes.
    #[cfg(feature = "internals")]
    pub(crate) fn into_parts(self) -> impl Iterator<Item = (Lease, Option<Moment>, bool)> {
        let parts =
            |Observed { lease, changed, is_acknowledged }: Observed| (lease, changed, is_acknowledged);
        self.leases.into_values().map(parts)
    }

    /// Forgets a row that was deleted.
    pub(crate) fn forget(&mut self, key: &LeaseKey) {
        self.leases.remove(key);
    }

    /// Forgets all rows but those that `keep` keeps.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Lease) -> bool) {
        self.leases.retain(|_, observed| keep(&observed.lease));
        self.vanished.retain(|_, lease| keep(lease));
    }

    /// A row as it was last seen.
    pub(crate) fn get(&self, key: &LeaseKey) -> Option<&Observed> {
        self.leases.get(key)
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Every lease in the order of keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Observed> {
        self.leases.values()
    }

    /// Every row in the order of keys.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.iter().map(|observed| &observed.lease)
    }

    /// The rows of each stream by its `streamName`, in the order of keys.
    pub(crate) fn by_stream(&self) -> BTreeMap<Option<&str>, Vec<&Lease>> {
        let mut streams: BTreeMap<Option<&str>, Vec<&Lease>> = BTreeMap::new();
        for lease in self.leases() {
            streams.entry(lease.stream_name.as_deref()).or_default().push(lease);
        }
        streams
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
    fn a_lease_is_taken_up_when_its_new_owner_has_written_to_it() {
        let is_acknowledged = |view: &View| view.iter().next().expect("one lease").is_acknowledged();
        let mut view = View::default();
        view.observe_scan(vec![lease(Some("a"), 5)], at(0));
        assert!(is_acknowledged(&view), "nothing else is known");
        view.learn(lease(Some("b"), 6), at(1));
        view.observe_scan(vec![lease(Some("b"), 6)], at(2));
        assert!(!is_acknowledged(&view));
        view.observe_scan(vec![lease(Some("b"), 7)], at(3));
        assert!(is_acknowledged(&view));
        let mut handoff = lease(Some("c"), 7);
        handoff.checkpoint_owner = Some("b".into());
        view.learn(handoff, at(4));
        assert!(is_acknowledged(&view), "b still works on it");
        view.learn(lease(Some("c"), 8), at(5));
        assert!(!is_acknowledged(&view));
        view.acknowledge(&"shardId-0".into());
        assert!(is_acknowledged(&view));
    }

    #[test]
    fn who_gives_a_lease_back_is_known_once() {
        let mut view = View::default();
        view.observe_scan(vec![lease(Some("a"), 5)], at(0));
        view.observe_scan(vec![lease(None, 6)], at(1));
        assert_eq!(view.take_released_by(), ["a".into()].into());
        view.observe_scan(vec![lease(None, 6)], at(2));
        assert_eq!(view.take_released_by(), [].into());
        view.learn(lease(Some("b"), 7), at(3));
        view.learn(lease(None, 8), at(4));
        assert_eq!(view.take_released_by(), ["b".into()].into());
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
        assert_eq!((view.leases().count(), view.vanished().count()), (0, 1));
        view.learn(lease(None, 1), at(2));
        assert_eq!((view.leases().count(), view.vanished().count()), (1, 0));
        let ended = Lease { checkpoint: Checkpoint::ShardEnd, ..lease(None, 2) };
        view.observe_scan(vec![ended], at(3));
        view.observe_scan(vec![], at(4));
        assert_eq!(view.vanished().count(), 0, "nobody needs the row of a shard that has ended");
    }
}
