use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// Refuses a setting outside its range, naming the setting, its value and the range.
pub(crate) fn check<T: PartialOrd + Display + Copy>(
    setting: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    let (min, max) = range.into_inner();
    Err(Error::new(ErrorKind::Invalid, format!("{setting} is {value}; it must be between {min} and {max}")))
}

/// [`check`] for durations, shown in milliseconds.
pub(crate) fn check_duration(
    setting: &str,
    value: Duration,
    range: RangeInclusive<Duration>,
) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    let (min, max) = range.into_inner();
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "{setting} is {} ms; it must be between {} and {} ms",
            value.as_millis(),
            min.as_millis(),
            max.as_millis()
        ),
    ))
}
