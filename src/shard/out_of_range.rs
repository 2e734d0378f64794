//! How many records were left out because their hash keys lie outside the shard's, and when to report it.

use std::time::Duration;

use crate::types::Moment;

/// The least time between two reports.
const INTERVAL: Duration = Duration::from_secs(60);

/// Counts what was left out since the last report.
#[derive(Debug, Clone, Default)]
pub(super) struct OutOfRange {
    count: u64,
    reported: Option<Moment>,
}

impl OutOfRange {
    /// This many more were left out.
    pub(super) fn add(&mut self, count: u64) {
        self.count = self.count.saturating_add(count);
    }

    /// When the next report is due, if there is something to report; it may have passed.
    pub(super) fn due(&self) -> Option<Moment> {
        let due = self.reported.map_or(Moment::ORIGIN, |reported| reported + INTERVAL);
        (self.count > 0).then_some(due)
    }

    /// What is to be reported at `now`: how many since the last report.
    pub(super) fn take(&mut self, now: Moment) -> Option<u64> {
        self.due().filter(|due| *due <= now)?;
        self.reported = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn the_first_is_reported_at_once_and_the_rest_once_a_minute() {
        let mut out = OutOfRange::default();
        assert_eq!((out.due(), out.take(at(10))), (None, None));
        out.add(3);
        assert_eq!(out.take(at(10)), Some(3));
        out.add(1);
        assert_eq!((out.due(), out.take(at(69))), (Some(at(70)), None));
        out.add(4);
        assert_eq!((out.take(at(70)), out.take(at(200))), (Some(5), None));
        out.add(0);
        assert_eq!(out.due(), None);
        out.add(9);
        assert_eq!(out.take(at(200)), Some(9));
    }
}
