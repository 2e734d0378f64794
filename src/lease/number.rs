use std::fmt;
use std::ops::Add;
use std::str::FromStr;

use bigdecimal::BigDecimal;

use super::Attribute;

/// The most significant digits of a number in DynamoDB.
const DIGITS_MAX: u64 = 38;
/// The largest and the smallest magnitude, as powers of ten.
const MAGNITUDE_MAX: i64 = 126;
const MAGNITUDE_MIN: i64 = -130;

/// A number as DynamoDB stores it: an exact decimal of up to 38 significant digits, never a binary float.
///
/// ```
/// use kinesis_consumer::lease::Number;
///
/// let cents: Number = "0.10".parse()?;
/// assert_eq!((cents.clone() + cents + Number::from(1)).to_string(), "1.2");
/// # Ok::<(), kinesis_consumer::lease::ParseNumberError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(BigDecimal);

/// A text that is not a number, or one that DynamoDB cannot store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no number of up to 38 significant digits between 1E-130 and 9.99E+125")]
pub struct ParseNumberError;

impl Number {
    /// The sum; `None` if it has more than 38 significant digits or is too large.
    #[must_use]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        Self(&self.0 + &other.0).within_limits()
    }

    /// With the sign reversed.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self(-&self.0)
    }

    pub(super) fn within_limits(self) -> Option<Self> {
        let normal = self.0.normalized();
        let (digits, scale) = normal.as_bigint_and_exponent();
        if digits == 0.into() {
            return Some(Self(0.into()));
        }
        let magnitude = i64::try_from(normal.digits()).ok()? - scale;
        let fits = normal.digits() <= DIGITS_MAX && (MAGNITUDE_MIN < magnitude && magnitude <= MAGNITUDE_MAX);
        fits.then_some(Self(normal))
    }
}

/// The exact sum. One that DynamoDB cannot store is refused when it is written.
impl Add for Number {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl FromStr for Number {
    type Err = ParseNumberError;

    fn from_str(text: &str) -> Result<Self, ParseNumberError> {
        // An exponent could ask for gigabytes of zeros.
        if text.len() > 256 {
            return Err(ParseNumberError);
        }
        BigDecimal::from_str(text)
            .ok()
            .and_then(|number| Self(number).within_limits())
            .ok_or(ParseNumberError)
    }
}

macro_rules! from_integers {
    ($($integer:ty),+) => {
        $(impl From<$integer> for Number {
            fn from(number: $integer) -> Self {
                Self(number.into())
            }
        })+
    };
}

from_integers!(i32, u32, i64, u64);

impl From<Number> for Attribute {
    fn from(number: Number) -> Self {
        Self::N(number.to_string())
    }
}

/// Without an exponent and without trailing zeros.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.normalized().to_plain_string())
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_and_as_large_as_dynamodb_stores_them() {
        for (text, shown) in [
            ("0", "0"),
            ("-0.0", "0"),
            ("1.50", "1.5"),
            ("1E3", "1000"),
            ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
            ("-99.99e-2", "-0.9999"),
        ] {
            assert_eq!(text.parse::<Number>().unwrap().to_string(), shown, "{text}");
        }
        for text in ["", "x", "1e126", "1e-131", "1e99999999999", "123456789012345678901234567890123456789"] {
            assert_eq!(text.parse::<Number>(), Err(ParseNumberError), "{text}");
        }
        assert!("1e125".parse::<Number>().is_ok() && "1e-130".parse::<Number>().is_ok());
    }

    #[test]
    fn sums_are_exact_or_refused() {
        let tenth: Number = "0.1".parse().unwrap();
        let sum = (0..10).try_fold(Number::from(0), |sum, _| sum.checked_add(&tenth));
        assert_eq!(sum, Some(Number::from(1)));
        let large: Number = "1e37".parse().unwrap();
        assert_eq!(large.checked_add(&"0.1".parse().unwrap()), None);
        assert_eq!(large.clone() + large.negated(), Number::from(0));
    }
}
