use std::fmt;

use super::SequenceNumber;

/// A position inside a shard: a record and, for a record that came out of a KPL aggregate, its index
/// in it. Records that were not aggregated have sub-sequence number 0.
///
/// Ordered by sequence number, then sub-sequence number (KCL's `ExtendedSequenceNumber`; the
/// sentinels that class also holds are variants of [`Checkpoint`] here).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedSequenceNumber {
    /// The sequence number of the Kinesis record.
    pub sequence_number: SequenceNumber,
    /// The index of the user record inside the Kinesis record, from 0.
    pub sub_sequence_number: u64,
}

impl ExtendedSequenceNumber {
    /// A position at user record `sub_sequence_number` of Kinesis record `sequence_number`.
    #[must_use]
    pub fn new(sequence_number: SequenceNumber, sub_sequence_number: u64) -> Self {
        Self { sequence_number, sub_sequence_number }
    }
}

impl fmt::Display for ExtendedSequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sequence_number, self.sub_sequence_number)
    }
}

/// How far a shard has been processed, as the lease table stores it: a record that has been
/// processed, or one of KCL's sentinels (`SentinelCheckpoint`).
///
/// The order is KCL's: `AT_TIMESTAMP < TRIM_HORIZON < LATEST < records < SHARD_END`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Checkpoint {
    /// Nothing processed; start at the configured timestamp (which the table does not store).
    AtTimestamp,
    /// Nothing processed; start at the oldest record the stream still has.
    TrimHorizon,
    /// Nothing processed; start with records that arrive from now on.
    Latest,
    /// Everything up to and including this (sub-)record is processed.
    Sequence(ExtendedSequenceNumber),
    /// The shard is closed and everything in it is processed.
    ShardEnd,
}

/// A checkpoint text in a lease row that is neither a sentinel nor a sequence number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a checkpoint: expected a sequence number, TRIM_HORIZON, LATEST, AT_TIMESTAMP or SHARD_END")]
#[non_exhaustive]
pub struct ParseCheckpointError;

impl Checkpoint {
    /// Parses the pair of attributes `checkpoint` and `checkpointSubSequenceNumber`. The latter is
    /// ignored for sentinels.
    ///
    /// # Errors
    ///
    /// If `text` is neither a sentinel nor a sequence number.
    pub fn parse(text: &str, sub_sequence_number: u64) -> Result<Self, ParseCheckpointError> {
        Ok(match text {
            "AT_TIMESTAMP" => Self::AtTimestamp,
            "TRIM_HORIZON" => Self::TrimHorizon,
            "LATEST" => Self::Latest,
            "SHARD_END" => Self::ShardEnd,
            number => Self::Sequence(ExtendedSequenceNumber {
                sequence_number: number.parse().map_err(|_| ParseCheckpointError)?,
                sub_sequence_number,
            }),
        })
    }

    /// The text of the attribute `checkpoint`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::AtTimestamp => "AT_TIMESTAMP".to_owned(),
            Self::TrimHorizon => "TRIM_HORIZON".to_owned(),
            Self::Latest => "LATEST".to_owned(),
            Self::Sequence(position) => position.sequence_number.to_string(),
            Self::ShardEnd => "SHARD_END".to_owned(),
        }
    }

    /// The number of the attribute `checkpointSubSequenceNumber`: 0 for sentinels.
    #[must_use]
    pub fn sub_sequence_number(&self) -> u64 {
        self.position().map_or(0, |position| position.sub_sequence_number)
    }

    /// The (sub-)record this checkpoint stands at, unless it is a sentinel.
    #[must_use]
    pub fn position(&self) -> Option<&ExtendedSequenceNumber> {
        match self {
            Self::Sequence(position) => Some(position),
            _ => None,
        }
    }

    /// Whether the shard is finished.
    #[must_use]
    pub fn is_shard_end(&self) -> bool {
        *self == Self::ShardEnd
    }
}

impl From<ExtendedSequenceNumber> for Checkpoint {
    fn from(position: ExtendedSequenceNumber) -> Self {
        Self::Sequence(position)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence(position) => position.fmt(f),
            sentinel => f.write_str(&sentinel.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_kcl() {
        let ascending = [
            Checkpoint::AtTimestamp,
            Checkpoint::TrimHorizon,
            Checkpoint::Latest,
            Checkpoint::parse("0", 0).expect("a number"),
            Checkpoint::parse("9", 5).expect("a number"),
            Checkpoint::parse("9", 6).expect("a number"),
            Checkpoint::parse("10", 0).expect("a number"),
            Checkpoint::ShardEnd,
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn text_round_trips_and_sentinels_have_sub_sequence_zero() {
        for text in ["AT_TIMESTAMP", "TRIM_HORIZON", "LATEST", "SHARD_END"] {
            let checkpoint = Checkpoint::parse(text, 7).expect("a sentinel");
            assert_eq!((checkpoint.text().as_str(), checkpoint.sub_sequence_number()), (text, 0));
        }
        let checkpoint = Checkpoint::parse("42", 7).expect("a number");
        assert_eq!((checkpoint.text().as_str(), checkpoint.sub_sequence_number()), ("42", 7));
        assert_eq!(Checkpoint::parse("latest", 0), Err(ParseCheckpointError));
    }
}
