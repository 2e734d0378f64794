//! Times as people read and write them.

use std::time::{Duration, SystemTime};

use crate::types::SequenceNumber;

const DAY: u64 = 86_400;

/// When the service took a record with this sequence number, to the second; `None` if the number does not look like
/// one of the service's. The layout of the numbers is not documented: for people only, never for decisions.
pub(crate) fn arrival_of(number: &SequenceNumber) -> Option<SystemTime> {
    let [high, middle, low] = number.words()?;
    // From the lowest bit: 4 of a version, 32 of the shard's index, 36 of seconds since 1970. The version is there
    // again at the top, which makes others unlikely to pass.
    if (high >> 56, low & 0xF) != (2, 2) {
        return None;
    }
    let seconds = (middle & 0xFF) << 28 | low >> 36;
    (seconds > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Seconds since 1970; 0 before.
fn epoch_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Milliseconds since 1970; 0 before.
pub(crate) fn epoch_millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `2026-11-27 17:20:22`, in UTC.
pub(crate) fn utc(at: SystemTime) -> String {
    let seconds = epoch_seconds(at);
    let (year, month, day) = date_of(seconds / DAY);
    let [hour, minute, second] = [seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The date of a day counted from 1970-01-01, by the Gregorian calendar.
fn date_of(day: u64) -> (u64, u64, u64) {
    // Years that begin in March end with the leap day.
    let day = day + 719_468;
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, of_month)
}

/// `0.4 s`, `38 s`, `14 min`, `5 h`, `3 d`: as exact as people need it.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_545_084_650, "2018-12-17 22:10:50"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(at(seconds)), expected);
        }
    }

    #[test]
    fn a_number_of_the_service_shows_when_the_record_arrived() {
        let number = |text: &str| text.parse().expect("a number");
        let arrived = arrival_of(&number("49590338271490256608559692538361571095921575989136588898"));
        assert_eq!(arrived.map(utc).as_deref(), Some("2018-12-17 22:10:50"));
        for other in ["0", "12345", &"9".repeat(57), &"9".repeat(129)] {
            assert_eq!(arrival_of(&number(other)), None, "{other}");
        }
    }

    #[test]
    fn spans_are_short() {
        for (millis, expected) in [
            (0, "0.0 s"),
            (1249, "1.2 s"),
            (10_000, "10 s"),
            (119_000, "119 s"),
            (120_000, "2 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), expected);
        }
    }
}
