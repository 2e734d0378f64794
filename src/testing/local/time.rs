use std::time::{Duration, SystemTime};

const DAY_MILLIS: u64 = 24 * 3600 * 1000;

/// The time `seconds` after the epoch, to the nanosecond within the precision of a float.
pub(super) fn from_seconds(seconds: f64) -> SystemTime {
    let duration = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    if seconds < 0.0 {
        SystemTime::UNIX_EPOCH.checked_sub(duration(-seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
    } else {
        // Rounded to microseconds, the resolution of a float with current epoch seconds.
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

/// The form `2026-01-31T12:00:00.000Z`.
pub(super) fn text(time: SystemTime) -> String {
    let millis = millis(time);
    let (days, of_day) = (millis / DAY_MILLIS, millis % DAY_MILLIS);
    let (year, month, day) = date(days);
    let (hours, minutes) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (seconds, millis) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

/// Year, month and day of the date that is `days` after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, in cycles of 400 years.
    let days = days + 719_468;
    let (cycle, day_of_cycle) = (days / 146_097, days % 146_097);
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (cycle * 400 + year_of_cycle + year, month, day)
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
    fn both_formats_parse_alike() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0.0),
            ("2000-02-29T12:00:00Z", 951_825_600.0),
            ("2026-11-20T20:00:49.250Z", 1_795_204_849.25),
        ] {
            let time = from_seconds(seconds);
            assert_eq!(parse(text), Some(time), "{text}");
            assert_eq!(parse(&super::text(time)), Some(time), "{text}");
        }
        for days in (0..200_000).step_by(17) {
            let (year, month, day) = date(days);
            assert_eq!(days_since_epoch(year, month, day), Some(days));
        }
        assert_eq!(text(SystemTime::UNIX_EPOCH + Duration::from_millis(1)), "1970-01-01T00:00:00.001Z");
        assert_eq!(parse("1795204849.25"), parse("2026-11-20T20:00:49.25Z"));
        for text in ["", "now", "2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:-1Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
