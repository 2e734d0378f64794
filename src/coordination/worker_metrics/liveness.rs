use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::WorkerStats;
use crate::planted::{Bug, planted};
use crate::types::{Moment, WorkerId};

/// A worker that has not reported for longer gets no leases.
pub(crate) const FRESH: Duration = Duration::from_secs(60);

/// Until when each worker counts as alive, by what was last liveness of it.
///
/// The rows state a time by their writers' clocks. KCL compares it with the leader's; here that counts only
/// when a row is first seen, and afterwards whether it changes, so that a worker whose clock is off is
/// neither left out nor taken for alive.
#[derive(Debug, Default)]
pub(crate) struct WorkerLiveness(BTreeMap<WorkerId, (u64, Option<Moment>)>);

impl WorkerLiveness {
    /// Whether leases can be given to a worker whose row was seen at `now`, and at `wall` by the
    /// leader's clock.
    pub(crate) fn is_active(&mut self, stats: &WorkerStats, wall: SystemTime, now: Moment) -> bool {
        let until = match self.0.get(&stats.worker) {
            Some((updated, until)) if *updated == stats.updated => *until,
            Some(_) => Some(now + FRESH),
            None => FRESH.checked_sub(stats.age(wall)).map(|left| now + left),
        };
        self.0.insert(stats.worker.clone(), (stats.updated, until));
        (until.is_some_and(|until| now <= until) || planted(Bug::AssignsToTheSilent)) && stats.is_valid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_active(liveness: &mut WorkerLiveness, updated: u64, wall: u64, now: u64) -> bool {
        let stats = WorkerStats { updated, ..WorkerStats::new("a".into()) };
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(wall);
        liveness.is_active(&stats, wall, Moment::after_origin(Duration::from_secs(now)))
    }

    #[test]
    fn a_worker_is_active_while_it_goes_on_telling() {
        let mut liveness = WorkerLiveness::default();
        assert!(is_active(&mut liveness, 1000, 1020, 0));
        assert!(is_active(&mut liveness, 1000, 1060, 40) && !is_active(&mut liveness, 1000, 1061, 41));
        assert!(is_active(&mut liveness, 1030, 1130, 110));
        assert!(is_active(&mut liveness, 1030, 1190, 170) && !is_active(&mut liveness, 1030, 1191, 171));
    }

    #[test]
    fn a_clock_that_is_off_does_not_matter() {
        let mut liveness = WorkerLiveness::default();
        assert!(!is_active(&mut liveness, 1000, 5000, 0), "an old row");
        assert!(is_active(&mut liveness, 1030, 5030, 30), "or a slow clock");
        let mut liveness = WorkerLiveness::default();
        assert!(is_active(&mut liveness, 9000, 5000, 0));
        assert!(!is_active(&mut liveness, 9000, 5061, 61), "a fast clock does not keep the dead alive");
    }
}
