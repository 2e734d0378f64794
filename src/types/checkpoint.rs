use std::fmt;
use std::str::FromStr;

use super::SequenceNumber;
use super::text::serialized_as_text;

/// A position inside a shard: a record and, for a record that came out of a KPL aggregate, its index
/// in it. Records that were not aggregated have sub-sequence number 0.
///
/// Ordered by sequence number, then sub-sequence number (KCL's `ExtendedSequenceNumber`; the
/// sentinels that class also holds are variants of [`Checkpoint`] here).
///
/// As text it is `<sequence number>/<sub-sequence number>`; a sequence number alone is read as that of a record
/// that was not aggregated.
///
/// ```
/// use kinesis_consumer::ExtendedSequenceNumber;
///
/// let position: ExtendedSequenceNumber = "49590338271490256608/3".parse()?;
/// assert_eq!(position.sub_sequence_number, 3);
/// assert_eq!(position.to_string(), "49590338271490256608/3");
/// assert_eq!("7".parse(), Ok(ExtendedSequenceNumber::new(7.into(), 0)));
/// # Ok::<(), kinesis_consumer::ParsePositionError>(())
/// ```
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

impl From<&ExtendedSequenceNumber> for ExtendedSequenceNumber {
    fn from(position: &Self) -> Self {
        position.clone()
    }
}

/// A text that is not a position in a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a position: expected a sequence number, or <sequence number>/<sub-sequence number>")]
#[non_exhaustive]
pub struct ParsePositionError;

/// Reads what [`Display`](fmt::Display) writes, or a sequence number alone.
impl FromStr for ExtendedSequenceNumber {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, sub) = text.split_once('/').unwrap_or((text, "0"));
        // Not what `u64` alone would let through, such as `+5`.
        let sub = sub.bytes().all(|byte| byte.is_ascii_digit()).then(|| sub.parse().ok()).flatten();
        let number = number.parse().map_err(|_| ParsePositionError)?;
        Ok(Self::new(number, sub.ok_or(ParsePositionError)?))
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

/// A text that is no checkpoint: neither a sentinel nor a sequence number.
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

/// Reads what [`Display`](fmt::Display) writes: a sentinel, or a position.
impl FromStr for Checkpoint {
    type Err = ParseCheckpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<ExtendedSequenceNumber>() {
            Ok(position) => Ok(position.into()),
            Err(_) => Self::parse(text, 0),
        }
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

serialized_as_text!(ExtendedSequenceNumber);
serialized_as_text!(Checkpoint);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn positions() -> impl Strategy<Value = ExtendedSequenceNumber> {
        ("0|[1-9][0-9]{0,128}", any::<u64>())
            .prop_map(|(number, sub)| ExtendedSequenceNumber::new(number.parse().expect("a number"), sub))
    }

    fn checkpoints() -> impl Strategy<Value = Checkpoint> {
        let sentinels =
            [Checkpoint::AtTimestamp, Checkpoint::TrimHorizon, Checkpoint::Latest, Checkpoint::ShardEnd];
        prop_oneof![positions().prop_map(Checkpoint::from), proptest::sample::select(sentinels.to_vec()),]
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(position in positions(), checkpoint in checkpoints()) {
            prop_assert_eq!(position.to_string().parse(), Ok(position));
            prop_assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,60}") {
            let _ = text.parse::<ExtendedSequenceNumber>();
            let _ = text.parse::<Checkpoint>();
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in ["", "/", "7/", "/7", "7/+1", "7/-1", "7/1/2", "07/1", "7/18446744073709551616", "LATEST"]
        {
            assert_eq!(text.parse::<ExtendedSequenceNumber>(), Err(ParsePositionError), "{text:?}");
        }
        for text in ["", "7/", "latest", "LATEST/0"] {
            assert_eq!(text.parse::<Checkpoint>(), Err(ParseCheckpointError), "{text:?}");
        }
    }

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
