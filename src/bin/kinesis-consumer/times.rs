//! Times as they are given on the command line.

use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// `90s`, `15m`, `12h`, `7d`, `250ms`.
pub(crate) fn parse_span(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// A time ago (`-7d`) or a time of RFC 3339 (`2026-11-20T12:00:00Z`).
pub(crate) fn parse_time(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let ago = text.strip_prefix('-').and_then(parse_span);
    if let Some(time) = ago.and_then(|ago| now.checked_sub(ago)) {
        return Ok(time);
    }
    let time = DateTime::from_str(text, Format::DateTimeWithOffset).ok();
    time.and_then(|time| SystemTime::try_from(time).ok()).ok_or_else(|| {
        format!("{text:?} is no time: expected a time ago (-7d, -90m) or a time such as 2026-11-20T12:00:00Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_given_as_ago_or_in_full() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let seconds = |text: &str| {
            let time = parse_time(text, now).map_err(|error| panic!("{error}"));
            time.unwrap_or(now).duration_since(SystemTime::UNIX_EPOCH).expect("after").as_secs()
        };
        for (text, expected) in [
            ("-1d", 913_600),
            ("-90m", 994_600),
            ("-0s", 1_000_000),
            ("1970-01-02T00:00:00Z", 86_400),
            ("1970-01-02T02:00:00+02:00", 86_400),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for text in ["", "-", "7d", "-7", "-7w", "yesterday", "2026-11-20"] {
            assert!(parse_time(text, now).is_err(), "{text}");
        }
    }
}
