//! Two workers of one fleet with the same name: each takes the leases of the other for its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::lease::Lease;
use crate::types::{LeaseKey, Moment};

/// So often must another worker be seen to write to one lease under this worker's name ...
const SIGHTINGS: usize = 3;
/// ... within this many failover times. A restart under the name of a worker that was killed is seen once at most.
const WINDOW: u32 = 6;
/// Of sightings that a lost answer may explain, this many keep this worker from taking the lease.
const BARRING: usize = 2;
/// The least time between two reports.
const REPORT_PAUSE: Duration = Duration::from_secs(60);

/// Finds out from the rows that name this worker, and that it does not hold, whether somebody else writes
/// to them. No more writes are made for that.
///
/// A worker that lost a lease to its own name waits until nobody has renewed it for the failover time, so that
/// two workers of one name do not take it from each other for ever.
#[derive(Debug, Default)]
pub(crate) struct DuplicateWorkerDetector {
    rows: BTreeMap<LeaseKey, Row>,
    reported: Option<Moment>,
}

/// A row that names this worker.
#[derive(Debug, Default)]
struct Row {
    /// The counter as it was last seen, and since when it has stood still; `None` while this worker holds
    /// the lease.
    seen: Option<(u64, Moment)>,
    /// A write of this worker's on that counter may have landed.
    is_indeterminate: bool,
    /// When somebody else was last seen to write, oldest first, [`SIGHTINGS`] at most.
    sightings: VecDeque<Moment>,
    is_barred: bool,
}

impl Row {
    fn sighted(&mut self, now: Moment) {
        if self.sightings.len() == SIGHTINGS {
            self.sightings.pop_front();
        }
        self.sightings.push_back(now);
    }

    fn sightings_since(&self, window: Duration, now: Moment) -> usize {
        self.sightings.iter().filter(|&&sighting| now.since(sighting) <= window).count()
    }
}

impl DuplicateWorkerDetector {
    /// A read showed a row that names this worker, which does not hold it.
    pub(crate) fn observe(&mut self, lease: &Lease, failover_time: Duration, now: Moment) {
        let row = self.rows.entry(lease.key.clone()).or_default();
        match row.seen {
            // Reads may be stale.
            Some((counter, _)) if lease.counter <= counter => return,
            Some((counter, _)) if !(row.is_indeterminate && lease.counter == counter + 1) => {
                row.sighted(now);
                row.is_barred |= row.sightings_since(failover_time * WINDOW, now) >= BARRING;
            }
            _ => {}
        }
        row.seen = Some((lease.counter, now));
        row.is_indeterminate = false;
    }

    /// A write to a lease that this worker held was refused, because somebody else has written to it under
    /// the same name.
    pub(crate) fn stolen(&mut self, lease: &Lease, now: Moment) {
        let row = self.rows.entry(lease.key.clone()).or_default();
        row.sighted(now);
        row.seen = Some((lease.counter, now));
        (row.is_indeterminate, row.is_barred) = (false, true);
    }

    /// This worker writes to a row that it does not hold, or has stopped to use one it held: a write on this
    /// counter may land.
    pub(crate) fn note_indeterminate(&mut self, lease: &Lease, now: Moment) {
        let row = self.rows.entry(lease.key.clone()).or_default();
        if row.seen.is_none_or(|(counter, _)| counter < lease.counter) {
            row.seen = Some((lease.counter, now));
        }
        row.is_indeterminate = true;
    }

    /// This worker holds the lease now.
    pub(crate) fn taken(&mut self, key: &LeaseKey) {
        if let Some(row) = self.rows.get_mut(key) {
            (row.seen, row.is_indeterminate, row.is_barred) = (None, false, false);
        }
    }

    /// Forgets the rows that do not name this worker any more.
    pub(crate) fn retain(&mut self, names_us: impl Fn(&LeaseKey) -> bool) {
        self.rows.retain(|key, _| names_us(key));
    }

    /// Leases that name this worker and that somebody else seems to hold: not to be taken.
    pub(crate) fn barred(&self, failover_time: Duration, now: Moment) -> BTreeSet<LeaseKey> {
        let is_renewed = |row: &Row| row.seen.is_some_and(|(_, changed)| now.since(changed) <= failover_time);
        let barred = self.rows.iter().filter(|(_, row)| row.is_barred && is_renewed(row));
        barred.map(|(key, _)| key.clone()).collect()
    }

    /// Whether another worker has this one's name, as far as is known at `now`.
    pub(crate) fn is_suspected(&self, failover_time: Duration, now: Moment) -> bool {
        self.rows.values().any(|row| row.sightings_since(failover_time * WINDOW, now) == SIGHTINGS)
    }

    /// Whether that should be reported now; true at most once a minute.
    pub(crate) fn is_report_due(&mut self, failover_time: Duration, now: Moment) -> bool {
        let is_due = self.is_suspected(failover_time, now)
            && self.reported.is_none_or(|reported| now.since(reported) >= REPORT_PAUSE);
        if is_due {
            self.reported = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Checkpoint;

    const F: Duration = Duration::from_secs(10);

    /// What is seen in a second: the row at a counter, a refused renewal, a write of this worker's, or
    /// that it holds the lease.
    #[derive(Clone, Copy)]
    enum Step {
        Row(u64),
        Stolen(u64),
        InDoubt(u64),
        Taken,
    }
    use Step::{InDoubt, Row, Stolen, Taken};

    fn lease(counter: u64) -> Lease {
        let mut lease = Lease::new("shardId-0", Checkpoint::TrimHorizon);
        (lease.counter, lease.owner) = (counter, Some("duplicate".into()));
        lease
    }

    fn at(seconds: u64) -> Moment {
        Moment::after_origin(Duration::from_secs(seconds))
    }

    fn after(steps: &[(u64, Step)]) -> DuplicateWorkerDetector {
        let mut detector = DuplicateWorkerDetector::default();
        for &(seconds, step) in steps {
            match step {
                Row(counter) => detector.observe(&lease(counter), F, at(seconds)),
                Stolen(counter) => detector.stolen(&lease(counter), at(seconds)),
                InDoubt(counter) => detector.note_indeterminate(&lease(counter), at(seconds)),
                Taken => detector.taken(&"shardId-0".into()),
            }
        }
        detector
    }

    #[test]
    fn sightings_distinguish_a_duplicate_from_a_restart_and_from_lost_answers() {
        for (what, steps, now, barred, suspected) in [
            ("a row after a restart", vec![(0, Row(5))], 1, false, false),
            ("it stands still", vec![(0, Row(5)), (5, Row(5)), (9, Row(5))], 9, false, false),
            ("a stale read", vec![(0, Row(5)), (1, Row(4)), (2, Row(5))], 2, false, false),
            ("the last write of a worker that was killed", vec![(0, Row(5)), (1, Row(6))], 1, false, false),
            ("a take whose answer was lost", vec![(0, InDoubt(5)), (1, Row(6))], 1, false, false),
            (
                "taken back then",
                vec![(0, InDoubt(5)), (1, Row(6)), (2, Taken), (3, InDoubt(9))],
                3,
                false,
                false,
            ),
            (
                "such answers again and again",
                vec![
                    (0, InDoubt(5)),
                    (1, Row(6)),
                    (2, InDoubt(6)),
                    (3, Row(7)),
                    (4, InDoubt(7)),
                    (5, Row(8)),
                ],
                5,
                false,
                false,
            ),
            ("somebody renews it", vec![(0, Row(5)), (3, Row(6)), (6, Row(7))], 6, true, false),
            ("and goes on", vec![(0, Row(5)), (3, Row(6)), (6, Row(7)), (9, Row(8))], 9, true, true),
            ("and stops", vec![(0, Row(5)), (3, Row(6)), (6, Row(7)), (9, Row(8))], 20, false, true),
            ("long ago", vec![(0, Row(5)), (3, Row(6)), (6, Row(7)), (9, Row(8))], 70, false, false),
            ("stolen once", vec![(0, Stolen(5))], 1, true, false),
            ("stolen once by a worker that died", vec![(0, Stolen(5))], 11, false, false),
            ("stolen and renewed", vec![(0, Stolen(5)), (3, Row(6)), (6, Row(7))], 6, true, true),
            (
                "stolen again and again",
                vec![(0, Stolen(5)), (1, Taken), (2, Stolen(7)), (3, Taken), (4, Stolen(9))],
                4,
                true,
                true,
            ),
            (
                "stolen now and then",
                vec![(0, Stolen(5)), (15, Taken), (40, Stolen(99)), (55, Taken), (80, Stolen(200))],
                80,
                true,
                false,
            ),
        ] {
            let detector = after(&steps);
            assert_eq!(!detector.barred(F, at(now)).is_empty(), barred, "barred: {what}");
            assert_eq!(detector.is_suspected(F, at(now)), suspected, "suspected: {what}");
        }
    }

    #[test]
    fn it_is_reported_once_a_minute_while_it_lasts() {
        let mut detector = DuplicateWorkerDetector::default();
        let reports = (0..=120).filter(|&second| {
            detector.observe(&lease(second), F, at(second));
            detector.is_report_due(F, at(second))
        });
        assert_eq!(reports.collect::<Vec<_>>(), [3, 63]);
        detector.retain(|_| false);
        assert!(!detector.is_suspected(F, at(121)), "the row names another worker");
    }
}
