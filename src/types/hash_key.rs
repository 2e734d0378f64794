use std::fmt;
use std::str::FromStr;

use super::text::serialized_as_text;

/// An inclusive range of partition-key hashes, which are unsigned 128-bit integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKeyRange {
    start: u128,
    end: u128,
}

/// A hash key range that is not two decimal integers below 2^128 in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a hash key range: expected two decimal integers below 2^128, the first not above the second")]
#[non_exhaustive]
pub struct ParseHashKeyError;

impl HashKeyRange {
    /// Every hash key.
    pub const FULL: Self = Self { start: 0, end: u128::MAX };

    /// The range from `start` to `end`, both included; `None` if `start > end`.
    #[must_use]
    pub const fn new(start: u128, end: u128) -> Option<Self> {
        if start <= end { Some(Self { start, end }) } else { None }
    }

    /// Parses the decimal texts in which Kinesis and the lease table write the two ends.
    ///
    /// # Errors
    ///
    /// If either is not a decimal integer below 2^128, or they are out of order.
    pub fn parse(start: &str, end: &str) -> Result<Self, ParseHashKeyError> {
        let parse = |text: &str| parse_hash_key(text).ok_or(ParseHashKeyError);
        Self::new(parse(start)?, parse(end)?).ok_or(ParseHashKeyError)
    }

    /// The smallest hash key in the range.
    #[must_use]
    pub const fn start(&self) -> u128 {
        self.start
    }

    /// The largest hash key in the range.
    #[must_use]
    pub const fn end(&self) -> u128 {
        self.end
    }

    /// Whether `ranges`, in any order and overlapping or not, leave out none of the range's hash keys.
    #[must_use]
    pub fn is_covered_by(&self, ranges: impl IntoIterator<Item = Self>) -> bool {
        let mut ranges: Vec<Self> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut missing = self.start;
        for range in ranges {
            if range.start > missing {
                return false;
            }
            if range.end >= self.end {
                return true;
            }
            missing = missing.max(range.end + 1);
        }
        false
    }

    /// Whether `hash_key` lies in the range.
    #[must_use]
    pub const fn contains(&self, hash_key: u128) -> bool {
        self.start <= hash_key && hash_key <= self.end
    }
}

/// Reads what [`Display`](fmt::Display) writes: both ends, with a hyphen between.
impl FromStr for HashKeyRange {
    type Err = ParseHashKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (start, end) = text.split_once('-').ok_or(ParseHashKeyError)?;
        Self::parse(start, end)
    }
}

impl fmt::Display for HashKeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// Parses a hash key: ASCII digits only (`u128::from_str` would also take a sign).
fn parse_hash_key(text: &str) -> Option<u128> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

serialized_as_text!(HashKeyRange);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(a in any::<u128>(), b in any::<u128>()) {
            let range = HashKeyRange::new(a.min(b), a.max(b)).expect("in order");
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,60}") {
            let _ = text.parse::<HashKeyRange>();
        }
    }

    #[test]
    fn parses_what_kinesis_writes() {
        let range = HashKeyRange::parse("0", "340282366920938463463374607431768211455");
        assert_eq!(range, Ok(HashKeyRange::FULL));
        assert_eq!(HashKeyRange::FULL.to_string(), "0-340282366920938463463374607431768211455");
    }

    #[test]
    fn rejects_everything_else() {
        for (start, end) in [
            ("", "1"),
            ("+0", "1"),
            ("-1", "1"),
            ("2", "1"),
            ("0", "340282366920938463463374607431768211456"),
            ("0x0", "1"),
        ] {
            assert_eq!(HashKeyRange::parse(start, end), Err(ParseHashKeyError), "{start} {end}");
            assert_eq!(format!("{start}-{end}").parse::<HashKeyRange>(), Err(ParseHashKeyError));
        }
    }

    #[test]
    fn cover_has_no_gaps() {
        let range = |start, end| HashKeyRange::new(start, end).expect("in order");
        let wanted = range(10, 99);
        assert!(wanted.is_covered_by([range(50, 99), range(0, 20), range(15, 49), range(0, 5)]));
        assert!(!wanted.is_covered_by([range(50, 99), range(10, 48)]));
        assert!(!wanted.is_covered_by([range(11, 99)]));
        assert!(!wanted.is_covered_by([range(10, 98)]));
        assert!(!wanted.is_covered_by([]));
        assert!(HashKeyRange::FULL.is_covered_by([range(0, 5), range(6, u128::MAX)]));
    }

    #[test]
    fn both_ends_are_included() {
        let range = HashKeyRange::new(3, 5).expect("in order");
        assert_eq!([2, 3, 5, 6].map(|key| range.contains(key)), [false, true, true, false]);
    }
}
