/// DynamoDB keeps numbers between 1E-130 and 9.99E+125.
const EXPONENT_MAX: i64 = 130;

/// A DynamoDB number in normal form, so that numerically equal texts (`1`, `1.0`, `0.1E1`) are equal.
/// The derived order only serves sets; it is not the numeric one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Decimal {
    negative: bool,
    /// Without zeros at either end; empty for 0.
    digits: String,
    /// The value is `digits * 10^exponent`.
    exponent: i64,
}

impl Decimal {
    /// Parses a number in any form a DynamoDB client may write: sign, fraction and exponent.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, power) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, power.parse::<i16>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let significant = all.trim_end_matches('0');
        let digits = significant.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        let exponent = i64::from(power) - length(fraction) + length(&all) - length(significant);
        let magnitude = exponent + length(&digits);
        (-EXPONENT_MAX..=EXPONENT_MAX).contains(&magnitude).then_some(Self { negative, digits, exponent })
    }

    /// Whether the number is below 0.
    pub(super) fn is_negative(&self) -> bool {
        self.negative
    }

    /// The number, if it is an integer from 0 to 2^64 − 1.
    pub(super) fn to_u64(&self) -> Option<u64> {
        if self.exponent < 0 { None } else { self.to_scaled(0) }
    }

    /// The number times `10^places`, rounded half up, if that is from 0 to 2^64 − 1.
    pub(super) fn to_scaled(&self, places: u8) -> Option<u64> {
        if self.negative {
            return None;
        }
        let shift = self.exponent + i64::from(places);
        if shift >= 0 {
            let zeros = usize::try_from(shift).ok()?;
            return match self.digits.as_str() {
                "" => Some(0),
                digits => format!("{digits}{:0<zeros$}", "").parse().ok(),
            };
        }
        let dropped = usize::try_from(-shift).ok()?;
        let Some(kept) = self.digits.len().checked_sub(dropped) else { return Some(0) };
        let (whole, fraction) = self.digits.split_at(kept);
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        whole.checked_add(u64::from(fraction.as_bytes().first() >= Some(&b'5')))
    }
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        for (a, b) in [("1", "1.0"), ("1", "0.1e1"), ("0", "-0.00"), ("1E-6", "0.000001"), ("+120", "1.2E+2")]
        {
            assert_eq!(parse(a), parse(b), "{a} {b}");
        }
        for (a, b) in [("1", "-1"), ("1", "10"), ("0.1", "0.01")] {
            assert_ne!(parse(a), parse(b), "{a} {b}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", ".", "e5", "1e", "1e99999", "0x1", "1_0", "NaN", "--1", "1.2.3", "1E+200"] {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn integers_and_scaled_values() {
        assert_eq!(parse("18446744073709551615").to_u64(), Some(u64::MAX));
        assert_eq!(parse("1.2E2").to_u64(), Some(120));
        for text in ["18446744073709551616", "-1", "1.5", "1E100"] {
            assert_eq!(parse(text).to_u64(), None, "{text}");
        }
        let micros = [("412.337891", 412_337_891), ("0", 0), ("1E-6", 1), ("0.0000005", 1), ("4E-7", 0)];
        for (text, scaled) in micros {
            assert_eq!(parse(text).to_scaled(6), Some(scaled), "{text}");
        }
        assert_eq!(parse("1E-100").to_scaled(6), Some(0));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-+]?[0-9.]{0,50}[eE]?[-+]?[0-9]{0,6}") {
            if let Some(number) = Decimal::parse(&text) {
                let _ = (number.to_u64(), number.to_scaled(6));
            }
        }
    }
}
