use crate::lease::Lease;
use crate::types::HashKeyRange;

/// What a check of the leases says (KCL's `PeriodicShardSyncManager`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audit {
    /// Every hash key is covered by a lease that has not ended.
    Covered,
    /// Some leases do not say which hash keys they cover: KCL before 2.3 did not write it.
    RangesMissing,
    /// There is a hole, perhaps only because the scan was old: look again.
    Suspected,
    /// The same hole has been there for long enough: list the shards and create what is missing.
    SyncNow,
}

impl Audit {
    /// Whether no hole is known: what this worker could not create, another has created.
    pub(crate) fn is_without_hole(self) -> bool {
        matches!(self, Self::Covered | Self::RangesMissing)
    }
}

/// Looks for hash keys that no lease covers, and remembers how often it found the same hole.
#[derive(Debug)]
pub(crate) struct HoleTracker {
    threshold: u32,
    hole: Option<Hole>,
    times: u32,
}

/// A hole between two ranges, or before the first, or after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hole {
    before: Option<HashKeyRange>,
    after: Option<HashKeyRange>,
}

impl HoleTracker {
    /// A tracker that believes in a hole when it has seen it `threshold` times in a row.
    pub(crate) fn new(threshold: u32) -> Self {
        Self { threshold, hole: None, times: 0 }
    }

    pub(crate) fn check(&mut self, leases: &[&Lease]) -> Audit {
        if leases.is_empty() {
            return Audit::SyncNow;
        }
        let running = leases.iter().filter(|lease| !lease.checkpoint.is_shard_end());
        let Some(ranges) = running.map(|lease| lease.hash_key_range).collect::<Option<Vec<_>>>() else {
            return Audit::RangesMissing;
        };
        let hole = find_hole(ranges);
        self.times = match hole {
            None => 0,
            Some(_) if hole == self.hole => self.times + 1,
            Some(_) => 1,
        };
        self.hole = hole;
        match self.times {
            0 => Audit::Covered,
            times if times < self.threshold => Audit::Suspected,
            _ => {
                self.times = 0;
                Audit::SyncNow
            }
        }
    }
}

/// The first hole that `ranges` leave.
fn find_hole(mut ranges: Vec<HashKeyRange>) -> Option<Hole> {
    ranges.sort_unstable();
    let mut reaching: Option<HashKeyRange> = None;
    for range in ranges {
        let next = reaching.map_or(0, |reaching| reaching.end().saturating_add(1));
        if range.start() > next {
            return Some(Hole { before: reaching, after: Some(range) });
        }
        if reaching.is_none_or(|reaching| range.end() > reaching.end()) {
            reaching = Some(range);
        }
    }
    let is_covered = reaching.is_some_and(|reaching| reaching.end() == u128::MAX);
    (!is_covered).then_some(Hole { before: reaching, after: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Checkpoint;

    fn lease(start: u128, end: u128) -> Lease {
        let mut lease = Lease::new(format!("shardId-{start}"), Checkpoint::Latest);
        lease.hash_key_range = HashKeyRange::new(start, end);
        lease
    }

    fn check(tracker: &mut HoleTracker, leases: &[Lease]) -> Audit {
        tracker.check(&leases.iter().collect::<Vec<_>>())
    }

    #[test]
    fn full_cover_with_overlaps_is_no_hole() {
        let leases = [lease(0, 99), lease(0, 199), lease(50, 60), lease(200, u128::MAX)];
        assert_eq!(check(&mut HoleTracker::new(1), &leases), Audit::Covered);
    }

    #[test]
    fn holes_are_found_wherever_they_are() {
        for leases in [
            vec![lease(1, u128::MAX)],
            vec![lease(0, 99), lease(101, u128::MAX)],
            vec![lease(0, u128::MAX - 1)],
        ] {
            assert_eq!(check(&mut HoleTracker::new(1), &leases), Audit::SyncNow, "{leases:?}");
        }
    }

    #[test]
    fn an_ended_lease_covers_nothing() {
        let mut ended = lease(0, 99);
        ended.checkpoint = Checkpoint::ShardEnd;
        assert_eq!(check(&mut HoleTracker::new(1), &[ended, lease(100, u128::MAX)]), Audit::SyncNow);
    }

    #[test]
    fn only_the_same_hole_again_and_again_is_believed() {
        let mut tracker = HoleTracker::new(3);
        let (one, other) = ([lease(1, u128::MAX)], [lease(2, u128::MAX)]);
        assert_eq!(check(&mut tracker, &one), Audit::Suspected);
        assert_eq!(check(&mut tracker, &one), Audit::Suspected);
        assert_eq!(check(&mut tracker, &other), Audit::Suspected);
        assert_eq!(check(&mut tracker, &other), Audit::Suspected);
        assert_eq!(check(&mut tracker, &[lease(0, u128::MAX)]), Audit::Covered);
        assert_eq!(check(&mut tracker, &other), Audit::Suspected);
        assert_eq!(check(&mut tracker, &other), Audit::Suspected);
        assert_eq!(check(&mut tracker, &other), Audit::SyncNow);
    }

    #[test]
    fn no_leases_at_all_are_believed_at_once() {
        assert_eq!(HoleTracker::new(3).check(&[]), Audit::SyncNow);
    }

    #[test]
    fn rows_without_a_range_are_told() {
        let mut unknown = lease(0, 99);
        unknown.hash_key_range = None;
        assert_eq!(check(&mut HoleTracker::new(1), &[unknown, lease(200, u128::MAX)]), Audit::RangesMissing);
    }
}
