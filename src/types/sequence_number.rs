use std::fmt;
use std::str::FromStr;

use super::text::serialized_as_text;

/// Decimal digits that fit one limb of the conversions below: 10^19 < 2^64.
const DIGITS_PER_CHUNK: usize = 19;
const CHUNK: u64 = 10_u64.pow(19);
const NARROW_LIMBS: usize = 3;
const WIDE_LIMBS: usize = 7;

/// The sequence number of a Kinesis record: an integer of 1 to 129 decimal digits without leading
/// zeros (pattern `0|([1-9]\d{0,128})` of the Kinesis API).
///
/// Ordered as an integer, not as text. Every number the service hands out today (56 digits) is held
/// inline in 24 bytes; only numbers above 2^192 allocate. Comparison never allocates, and
/// [`Display`](fmt::Display) gives back exactly the text that was parsed.
///
/// ```
/// use kinesis_consumer::SequenceNumber;
///
/// let small: SequenceNumber = "9".parse()?;
/// let large: SequenceNumber = "49590338271490256608559692538361571095921575989136588898".parse()?;
/// assert!(small < large);
/// assert_eq!(large, "49590338271490256608559692538361571095921575989136588898");
/// # Ok::<(), kinesis_consumer::ParseSequenceNumberError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(Repr);

/// Limbs are kept most significant first and numbers in the narrowest variant, so that the derived
/// order is the numeric one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Narrow([u64; NARROW_LIMBS]),
    Wide(Box<[u64; WIDE_LIMBS]>),
}

/// A text that is not a sequence number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a sequence number: expected 1 to 129 decimal digits without leading zeros")]
#[non_exhaustive]
pub struct ParseSequenceNumberError;

impl SequenceNumber {
    /// The most decimal digits a sequence number can have.
    pub const DIGITS_MAX: usize = 129;

    fn limbs(&self) -> [u64; WIDE_LIMBS] {
        match &self.0 {
            Repr::Wide(limbs) => **limbs,
            Repr::Narrow(narrow) => {
                let mut limbs = [0; WIDE_LIMBS];
                limbs[WIDE_LIMBS - NARROW_LIMBS..].copy_from_slice(narrow);
                limbs
            }
        }
    }

    fn from_limbs(limbs: [u64; WIDE_LIMBS]) -> Self {
        let (high, low) = limbs.split_at(WIDE_LIMBS - NARROW_LIMBS);
        match <[u64; NARROW_LIMBS]>::try_from(low) {
            Ok(low) if high.iter().all(|&limb| limb == 0) => Self(Repr::Narrow(low)),
            _ => Self(Repr::Wide(Box::new(limbs))),
        }
    }
}

impl SequenceNumber {
    /// The number with these 64-bit words, most significant first.
    #[inline]
    pub(crate) fn from_words(words: [u64; 3]) -> Self {
        Self(Repr::Narrow(words))
    }

    /// The 64-bit words of the number, most significant first; `None` from 2^192.
    #[inline]
    pub(crate) fn words(&self) -> Option<[u64; 3]> {
        match &self.0 {
            Repr::Narrow(words) => Some(*words),
            Repr::Wide(_) => None,
        }
    }
}

impl From<u128> for SequenceNumber {
    fn from(value: u128) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the value")]
        let (high, low) = ((value >> 64) as u64, value as u64);
        Self(Repr::Narrow([0, high, low]))
    }
}

impl FromStr for SequenceNumber {
    type Err = ParseSequenceNumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        let well_formed = matches!(digits.len(), 1..=Self::DIGITS_MAX)
            && digits.iter().all(u8::is_ascii_digit)
            && (digits[0] != b'0' || digits.len() == 1);
        if !well_formed {
            return Err(ParseSequenceNumberError);
        }
        let mut limbs = [0_u64; WIDE_LIMBS];
        let (head, chunks) = digits.split_at(digits.len() % DIGITS_PER_CHUNK);
        for chunk in std::iter::once(head).chain(chunks.chunks(DIGITS_PER_CHUNK)) {
            let value = chunk.iter().fold(0_u64, |n, digit| n * 10 + u64::from(digit - b'0'));
            multiply_add(&mut limbs, CHUNK, value);
        }
        Ok(Self::from_limbs(limbs))
    }
}

/// `limbs = limbs * factor + addend`; the callers' bounds keep it below 2^448.
#[expect(clippy::cast_possible_truncation, reason = "low and high halves of a 128-bit product")]
fn multiply_add(limbs: &mut [u64; WIDE_LIMBS], factor: u64, addend: u64) {
    let mut carry = addend;
    for limb in limbs.iter_mut().rev() {
        let product = u128::from(*limb) * u128::from(factor) + u128::from(carry);
        *limb = product as u64;
        carry = (product >> 64) as u64;
    }
}

/// Divides `limbs` by `CHUNK` in place and returns the remainder.
#[expect(clippy::cast_possible_truncation, reason = "quotient and remainder are below 2^64")]
fn divide_by_chunk(limbs: &mut [u64; WIDE_LIMBS]) -> u64 {
    let mut remainder = 0_u128;
    for limb in limbs.iter_mut() {
        let dividend = (remainder << 64) | u128::from(*limb);
        *limb = (dividend / u128::from(CHUNK)) as u64;
        remainder = dividend % u128::from(CHUNK);
    }
    remainder as u64
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limbs = self.limbs();
        let mut text = [b'0'; (Self::DIGITS_MAX / DIGITS_PER_CHUNK + 1) * DIGITS_PER_CHUNK];
        for chunk in text.rchunks_mut(DIGITS_PER_CHUNK) {
            let mut value = divide_by_chunk(&mut limbs);
            for digit in chunk.iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        }
        let first = text.iter().position(|&digit| digit != b'0').unwrap_or(text.len() - 1);
        f.pad_integral(true, "", std::str::from_utf8(&text[first..]).unwrap_or_default())
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq<str> for SequenceNumber {
    fn eq(&self, other: &str) -> bool {
        other.parse::<Self>().is_ok_and(|other| *self == other)
    }
}

impl PartialEq<&str> for SequenceNumber {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

serialized_as_text!(SequenceNumber);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> SequenceNumber {
        text.parse().expect("a sequence number")
    }

    #[test]
    fn rejects_what_the_api_pattern_rejects() {
        let too_long = "1".repeat(130);
        for text in ["", "00", "01", "-1", "+1", " 1", "1 ", "1_0", "TRIM_HORIZON", "٣", &too_long] {
            assert_eq!(text.parse::<SequenceNumber>(), Err(ParseSequenceNumberError), "{text:?}");
        }
    }

    #[test]
    fn the_largest_number_round_trips() {
        let text = "9".repeat(129);
        assert_eq!(parse(&text).to_string(), text);
    }

    #[test]
    fn numbers_of_today_are_held_inline() {
        assert_eq!(size_of::<SequenceNumber>(), 32);
        let number = parse("49590338271490256608559692538361571095921575989136588898");
        assert!(matches!(number.0, Repr::Narrow(_)));
    }

    #[test]
    fn order_is_numeric_across_the_inline_boundary() {
        let boundary = parse(&num_text(NARROW_LIMBS * 64));
        let below = parse("6277101735386680763835789423207666416102355444464034512895");
        assert!(matches!(below.0, Repr::Narrow(_)) && matches!(boundary.0, Repr::Wide(_)));
        assert!(below < boundary && parse("9") < parse("10") && parse("0") < parse("1"));
    }

    /// 2^bits in decimal.
    fn num_text(bits: usize) -> String {
        let mut limbs = [0; WIDE_LIMBS];
        limbs[WIDE_LIMBS - 1 - bits / 64] = 1 << (bits % 64);
        SequenceNumber::from_limbs(limbs).to_string()
    }

    proptest! {
        #[test]
        fn round_trips_and_orders_as_integers(a in "0|[1-9][0-9]{0,128}", b in "0|[1-9][0-9]{0,128}") {
            let (x, y) = (parse(&a), parse(&b));
            prop_assert_eq!(&x.to_string(), &a);
            prop_assert_eq!(x.cmp(&y), (a.len(), &a).cmp(&(b.len(), &b)));
        }

        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = text.parse::<SequenceNumber>();
        }
    }
}
