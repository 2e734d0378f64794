use std::time::{Duration, SystemTime};

use crate::kinesis::IteratorPosition;
use crate::planted::{Bug, planted};
use crate::types::{Checkpoint, SequenceNumber};

/// A shard is opened this long before the last moment at which it was known to have no records for us,
/// to allow for clock skew. It costs nothing: there are no records in between.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);

/// Where reading of a lease starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartPosition {
    /// The checkpoint of the lease. At `SHARD_END` there is nothing to read: the retrieval ends at once,
    /// without children.
    pub(crate) checkpoint: Checkpoint,
    /// The wall-clock time at which `LATEST` begins.
    pub(crate) latest_since: SystemTime,
    /// The configured start time, for leases at `AT_TIMESTAMP`.
    pub(crate) timestamp: Option<SystemTime>,
}

impl StartPosition {
    /// Whether the lease starts at a configured timestamp and none is configured (any more), so that the
    /// shard is read from its oldest record.
    pub(super) fn is_timestamp_missing(&self) -> bool {
        self.checkpoint == Checkpoint::AtTimestamp && self.timestamp.is_none()
    }
}

/// Where to open a shard so that nothing is skipped. It only moves forward, and only with pages that
/// were accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Position {
    /// No record was fetched yet: every iterator starts here until a record arrives.
    Start(IteratorPosition),
    /// No record was fetched yet from a shard that is read from its tip. All records that arrive after
    /// the start are needed, however late the first iterator is obtained. `LATEST` would skip those that
    /// arrive in between, so the shard is opened at a time before which it has no records for us.
    Tip { nothing_before: SystemTime },
    /// The last record fetched.
    Fetched(SequenceNumber),
}

impl Position {
    /// The position at which a lease starts; `None` if the shard is finished.
    pub(super) fn new(start: &StartPosition) -> Option<Self> {
        Some(match &start.checkpoint {
            Checkpoint::TrimHorizon => Self::Start(IteratorPosition::TrimHorizon),
            Checkpoint::AtTimestamp => Self::Start(
                start.timestamp.map_or(IteratorPosition::TrimHorizon, IteratorPosition::AtTimestamp),
            ),
            Checkpoint::Latest => Self::Tip { nothing_before: start.latest_since },
            // AT rather than AFTER, because only some user records of an aggregate may have been
            // processed. The filter after de-aggregation drops those.
            Checkpoint::Sequence(done) if planted(Bug::ResumesAfter) => {
                Self::Start(IteratorPosition::After(done.sequence_number.clone()))
            }
            Checkpoint::Sequence(done) => Self::Start(IteratorPosition::At(done.sequence_number.clone())),
            Checkpoint::ShardEnd => return None,
        })
    }

    /// Where the next iterator starts.
    pub(super) fn next_iterator(&self) -> IteratorPosition {
        match self {
            Self::Start(position) => position.clone(),
            Self::Tip { nothing_before } => IteratorPosition::AtTimestamp(*nothing_before),
            Self::Fetched(last) => IteratorPosition::After(last.clone()),
        }
    }

    /// Where the iterator starts instead if the service refuses [`next_iterator`](Self::next_iterator)
    /// as invalid. `Some` only at the tip, where the local clock may be ahead of the service's: then the
    /// records that arrive from now on are the ones needed.
    pub(super) fn alternative(&self) -> Option<IteratorPosition> {
        matches!(self, Self::Tip { .. }).then_some(IteratorPosition::Latest)
    }

    /// Whether a record was fetched.
    pub(super) fn is_fetched(&self) -> bool {
        matches!(self, Self::Fetched(_))
    }

    /// The sequence number at or after which the shard is opened.
    pub(super) fn number(&self) -> Option<&SequenceNumber> {
        match self {
            Self::Start(IteratorPosition::At(number) | IteratorPosition::After(number))
            | Self::Fetched(number) => Some(number),
            Self::Start(_) | Self::Tip { .. } => None,
        }
    }

    /// A page was accepted whose last record is `last`.
    pub(super) fn advance(&mut self, last: &SequenceNumber) {
        if !matches!(self, Self::Fetched(fetched) if *fetched >= *last) {
            *self = Self::Fetched(last.clone());
        }
    }

    /// A page requested at `asked` was accepted; it has no records and is not behind.
    pub(super) fn nothing_until(&mut self, asked: SystemTime) {
        if let Self::Tip { nothing_before } = self
            && let Some(proven) = asked.checked_sub(CLOCK_SKEW_MAX)
        {
            *nothing_before = proven.max(*nothing_before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: u128) -> SequenceNumber {
        SequenceNumber::from(n)
    }

    fn hour(n: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * n)
    }

    fn start(checkpoint: &str, timestamp: Option<SystemTime>) -> StartPosition {
        StartPosition {
            checkpoint: Checkpoint::parse(checkpoint, 3).expect("a checkpoint"),
            latest_since: hour(10),
            timestamp,
        }
    }

    #[test]
    fn until_a_record_is_fetched_every_iterator_starts_where_the_first_did() {
        let cases = [
            ("TRIM_HORIZON", None, IteratorPosition::TrimHorizon),
            ("AT_TIMESTAMP", Some(hour(5)), IteratorPosition::AtTimestamp(hour(5))),
            ("AT_TIMESTAMP", None, IteratorPosition::TrimHorizon),
            ("LATEST", Some(hour(5)), IteratorPosition::AtTimestamp(hour(10))),
            ("42", Some(hour(5)), IteratorPosition::At(number(42))),
        ];
        for (checkpoint, timestamp, expected) in cases {
            let mut position = Position::new(&start(checkpoint, timestamp)).expect("not finished");
            assert_eq!(position.next_iterator(), expected, "{checkpoint}");
            position.advance(&number(50));
            assert_eq!(position.next_iterator(), IteratorPosition::After(number(50)), "{checkpoint}");
            position.advance(&number(49));
            assert_eq!(position.next_iterator(), IteratorPosition::After(number(50)), "never back");
        }
        assert_eq!(Position::new(&start("SHARD_END", None)), None);
    }

    #[test]
    fn only_a_lease_at_a_timestamp_misses_the_timestamp() {
        assert!(start("AT_TIMESTAMP", None).is_timestamp_missing());
        assert!(!start("AT_TIMESTAMP", Some(hour(5))).is_timestamp_missing());
        assert!(!start("LATEST", None).is_timestamp_missing());
    }

    #[test]
    fn the_tip_moves_with_the_proof_that_nothing_came_and_allows_for_clock_skew() {
        let mut position = Position::new(&start("LATEST", None)).expect("not finished");
        position.nothing_until(hour(10) + Duration::from_secs(299));
        assert_eq!(position.next_iterator(), IteratorPosition::AtTimestamp(hour(10)));
        position.nothing_until(hour(12));
        let moved = IteratorPosition::AtTimestamp(hour(12) - CLOCK_SKEW_MAX);
        assert_eq!(position.next_iterator(), moved);
        position.nothing_until(hour(11));
        assert_eq!(position.next_iterator(), moved, "never back");
    }

    #[test]
    fn only_the_tip_may_be_replaced_if_refused() {
        for checkpoint in ["TRIM_HORIZON", "AT_TIMESTAMP", "42"] {
            let position = Position::new(&start(checkpoint, Some(hour(5)))).expect("not finished");
            assert_eq!(position.alternative(), None, "{checkpoint}");
        }
        let mut position = Position::new(&start("LATEST", None)).expect("not finished");
        assert_eq!(position.alternative(), Some(IteratorPosition::Latest));
        position.advance(&number(1));
        assert_eq!(position.alternative(), None, "would skip what follows the last record");
    }
}
