use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::WorkerStats;
use crate::planted::{Bug, planted};
use crate::types::{Moment, WorkerId};

/// A worker that has told nothing for longer gets no leases.
const FRESH: Duration = Duration::from_secs(60);

/// When each worker was last heard of.
///
/// The rows state a time by their writers' clocks. KCL compares it with the leader's; here that counts only
/// when a row is first seen, and afterwards whether it changes, so that a worker whose clock is off is
/// neither left out nor taken for alive.
#[derive(Debug, Default)]
pub(crate) struct Heard(BTreeMap<WorkerId, LastHeard>);

/// What a worker told as its time, in seconds, and when that was news; `None` if it never was.
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]
pub type LastHeard = (u64, Option<Moment>);

impl Heard {
    /// Whether leases can be given to a worker whose row was seen at `now`, and at `wall` by the
    /// leader's clock.
    pub(crate) fn is_active(&mut self, stats: &WorkerStats, wall: SystemTime, now: Moment) -> bool {
        let first = stats.age(wall) <= FRESH;
        let known = self.0.entry(stats.worker.clone()).or_insert((stats.updated, first.then_some(now)));
        if known.0 != stats.updated {
            *known = (stats.updated, Some(now));
        }
        let is_fresh = known.1.is_some_and(|heard| now.since(heard) <= FRESH);
        (is_fresh || planted(Bug::AssignsToTheSilent)) && stats.is_valid()
    }

    /// What was heard of one worker.
    #[cfg(feature = "internals")]
    pub(crate) fn of(worker: WorkerId, last: Option<LastHeard>) -> Self {
        Self(last.map(|last| (worker, last)).into_iter().collect())
    }

    /// What [`of`](Self::of) takes.
    #[cfg(feature = "internals")]
    pub(crate) fn last(&self, worker: &WorkerId) -> Option<LastHeard> {
        self.0.get(worker).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_active(heard: &mut Heard, updated: u64, wall: u64, now: u64) -> bool {
        let stats = WorkerStats { updated, ..WorkerStats::new("a".into()) };
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(wall);
        heard.is_active(&stats, wall, Moment::after_origin(Duration::from_secs(now)))
    }

    #[test]
    fn a_worker_is_active_while_it_goes_on_telling() {
        let mut heard = Heard::default();
        assert!(is_active(&mut heard, 1000, 1060, 0));
        assert!(is_active(&mut heard, 1000, 1120, 60) && !is_active(&mut heard, 1000, 1121, 61));
        assert!(is_active(&mut heard, 1030, 1130, 70));
    }

    #[test]
    fn a_clock_that_is_off_does_not_matter() {
        let mut heard = Heard::default();
        assert!(!is_active(&mut heard, 1000, 5000, 0), "an old row");
        assert!(is_active(&mut heard, 1030, 5030, 30), "or a slow clock");
        let mut heard = Heard::default();
        assert!(is_active(&mut heard, 9000, 5000, 0));
        assert!(!is_active(&mut heard, 9000, 5061, 61), "a fast clock does not keep the dead alive");
    }
}
