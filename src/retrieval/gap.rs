//! Detects records that are missing between the checkpoint and the first records read.

use super::position::Position;
use crate::kinesis::IteratorPosition;
use crate::types::{Checkpoint, Record, SequenceNumber};

/// A gap between the checkpoint of a lease and the records that were fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gap<'a> {
    /// The record of the checkpoint, at which the shard was opened, no longer exists. Later records may
    /// have expired as well. `oldest` is the oldest record left, if there is one.
    Expired { oldest: Option<&'a Record> },
    /// This sequence number is at or before those already read.
    Restarted { first: &'a SequenceNumber },
}

/// Compares a page fetched from `position` with what was read before it: up to `checkpoint`, and then up
/// to `position`. `is_end` says whether the page is the last of the shard.
pub(super) fn gap<'a>(
    position: &Position,
    checkpoint: &Checkpoint,
    records: &'a [Record],
    is_end: bool,
) -> Option<Gap<'a>> {
    let opened_at = match position {
        Position::Start(IteratorPosition::At(number)) => Some(number),
        _ => None,
    };
    let Some(oldest) = records.first() else {
        return (is_end && opened_at.is_some()).then_some(Gap::Expired { oldest: None });
    };
    let first = &oldest.sequence_number;
    let is_before = checkpoint.position().is_some_and(|done| *first < done.sequence_number)
        || matches!(position, Position::Fetched(last) if first <= last);
    if is_before {
        Some(Gap::Restarted { first })
    } else if opened_at.is_some_and(|number| first != number) {
        Some(Gap::Expired { oldest: Some(oldest) })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(numbers: &[u128]) -> Vec<Record> {
        numbers.iter().map(|&number| Record::new(number.into(), "key", b"".as_slice())).collect()
    }

    fn checkpoint(text: &str, sub: u64) -> Checkpoint {
        Checkpoint::parse(text, sub).expect("a checkpoint")
    }

    fn at(number: u128) -> Position {
        Position::Start(IteratorPosition::At(number.into()))
    }

    fn fetched(number: u128) -> Position {
        Position::Fetched(number.into())
    }

    #[test]
    fn a_shard_opened_at_a_record_that_is_there_has_no_gap() {
        for sub in [0, 3] {
            let page = records(&[50, 51]);
            assert_eq!(gap(&at(50), &checkpoint("50", sub), &page, false), None);
            assert_eq!(gap(&at(50), &checkpoint("50", sub), &page, true), None);
        }
        // No record was seen yet.
        assert_eq!(gap(&at(50), &checkpoint("50", 0), &[], false), None);
    }

    #[test]
    fn an_expired_record_is_detected_by_the_first_one_left() {
        let page = records(&[60, 61]);
        let expected = Some(Gap::Expired { oldest: Some(&page[0]) });
        assert_eq!(gap(&at(50), &checkpoint("50", 0), &page, false), expected);
        let none = Some(Gap::Expired { oldest: None });
        assert_eq!(gap(&at(50), &checkpoint("50", 0), &[], true), none);
    }

    #[test]
    fn only_a_checkpoint_at_a_record_shows_a_gap() {
        let page = records(&[60]);
        for (position, checkpoint) in [
            (Position::Start(IteratorPosition::TrimHorizon), Checkpoint::TrimHorizon),
            (Position::Start(IteratorPosition::After(50.into())), checkpoint("50", 0)),
            (fetched(50), checkpoint("50", 0)),
            (fetched(50), Checkpoint::Latest),
        ] {
            assert_eq!(gap(&position, &checkpoint, &page, false), None, "{position:?}");
            assert_eq!(gap(&position, &checkpoint, &[], true), None, "{position:?}");
        }
    }

    #[test]
    fn restarted_numbers_are_detected_at_every_position() {
        let page = records(&[7, 8]);
        for (position, checkpoint) in [
            (at(50), checkpoint("50", 0)),
            (fetched(6), checkpoint("50", 0)),
            (fetched(7), checkpoint("5", 0)),
            (fetched(90), Checkpoint::TrimHorizon),
        ] {
            let expected = Some(Gap::Restarted { first: &page[0].sequence_number });
            assert_eq!(gap(&position, &checkpoint, &page, false), expected, "{position:?}");
        }
    }
}
