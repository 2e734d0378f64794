use std::time::{Duration, SystemTime};

/// The time `seconds` after the epoch, to the nanosecond as far as a float can say.
pub(super) fn from_seconds(seconds: f64) -> SystemTime {
    let duration = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    if seconds < 0.0 {
        SystemTime::UNIX_EPOCH.checked_sub(duration(-seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
    } else {
        // Rounded to microseconds, which a float of today's seconds still resolves.
        let micros = (seconds * 1e6).round() / 1e6;
        SystemTime::UNIX_EPOCH.checked_add(duration(micros)).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

pub(super) fn seconds(time: SystemTime) -> f64 {
    since_epoch(time).as_secs_f64()
}

pub(super) fn millis(time: SystemTime) -> u64 {
    u64::try_from(since_epoch(time).as_millis()).unwrap_or(u64::MAX)
}

/// Parses epoch seconds or the form `2026-01-31T12:00:00Z`, with or without a fraction.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    if let Ok(seconds) = text.parse() {
        return Some(from_seconds(seconds));
    }
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let (hours, minutes) = (time.next()?.parse::<u64>().ok()?, time.next()?.parse::<u64>().ok()?);
    let seconds = Duration::try_from_secs_f64(time.next()?.parse().ok()?).ok()?;
    let days = days_since_epoch(year, month, day)?;
    let whole = Duration::from_secs(((days * 24 + hours) * 60 + minutes) * 60);
    SystemTime::UNIX_EPOCH.checked_add(whole)?.checked_add(seconds)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Counted from March, so that a leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    Some(year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_mean_the_same() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0.0),
            ("2000-02-29T12:00:00Z", 951_825_600.0),
            ("2026-11-20T20:00:49.250Z", 1_795_204_849.25),
        ] {
            assert_eq!(parse(text), Some(from_seconds(seconds)), "{text}");
        }
        assert_eq!(parse("1795204849.25"), parse("2026-11-20T20:00:49.25Z"));
        for text in ["", "now", "2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:-1Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
