use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::error::{ErrorCode, ServiceError};

/// How long shard iterators and paging tokens stay valid.
const LIFETIME: Duration = Duration::from_secs(300);

/// The contents of a shard iterator. The service keeps no state for the iterators it issues, so they
/// cost nothing and their number is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IteratorToken {
    /// The generation of the stream: a stream that was deleted and created again is another.
    pub(super) incarnation: u64,
    pub(super) shard: u32,
    /// The ordinal of the record to be read next.
    pub(super) position: u64,
    pub(super) issued: SystemTime,
}

/// Marks the text as ours, and makes short or foreign texts invalid.
const PREFIX: &str = "AAAAAAAAAAF";

impl IteratorToken {
    pub(super) fn encode(self) -> String {
        fields_text(
            PREFIX,
            &[self.incarnation, u64::from(self.shard), self.position, unix_millis(self.issued)],
        )
    }

    /// The shard in an iterator, expired or not.
    pub(super) fn shard(text: &str) -> Option<u32> {
        let [_, shard, _, _] = parse_fields(PREFIX, text)?;
        u32::try_from(shard).ok()
    }

    /// Parses an iterator.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the text is not an iterator, `ExpiredIterator` five minutes after its issue.
    pub(super) fn decode(now: SystemTime, text: &str) -> Result<Self, ServiceError> {
        let invalid = || ErrorCode::InvalidArgument.error("Invalid ShardIterator.");
        let [incarnation, shard, position, issued] = parse_fields(PREFIX, text).ok_or_else(invalid)?;
        let issued = SystemTime::UNIX_EPOCH + Duration::from_millis(issued);
        if is_expired(now, issued) {
            return Err(ErrorCode::ExpiredIterator
                .error("Iterator expired. It was created more than the tolerated 300000 milliseconds ago."));
        }
        let shard = u32::try_from(shard).map_err(|_| invalid())?;
        Ok(Self { incarnation, shard, position, issued })
    }
}

/// Whether something issued at `issued` has expired after its five minutes.
pub(super) fn is_expired(now: SystemTime, issued: SystemTime) -> bool {
    now.duration_since(issued).is_ok_and(|age| age > LIFETIME)
}

/// Encodes numbers as an opaque text.
pub(super) fn fields_text(prefix: &str, fields: &[u64]) -> String {
    let mut text = String::with_capacity(prefix.len() + 16 * fields.len());
    text.push_str(prefix);
    for field in fields {
        // Writing to a String cannot fail.
        let _ = write!(text, "{field:016x}");
    }
    text
}

/// Parses the output of [`fields_text`].
pub(super) fn parse_fields<const N: usize>(prefix: &str, text: &str) -> Option<[u64; N]> {
    let digits = text.strip_prefix(prefix)?;
    if digits.len() != 16 * N || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut fields = [0; N];
    for (index, field) in fields.iter_mut().enumerate() {
        *field = u64::from_str_radix(digits.get(16 * index..16 * (index + 1))?, 16).ok()?;
    }
    Some(fields)
}

pub(super) fn unix_millis(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterators_round_trip_until_they_expire() {
        let issued = SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_000_000_123);
        let token = IteratorToken { incarnation: 2, shard: 7, position: u64::MAX, issued };
        let text = token.encode();
        assert_eq!(IteratorToken::decode(issued + LIFETIME, &text), Ok(token));
        let late = IteratorToken::decode(issued + LIFETIME + Duration::from_millis(1), &text);
        assert_eq!(late.map_err(|error| error.code), Err(ErrorCode::ExpiredIterator));
    }

    #[test]
    fn other_texts_are_invalid() {
        for text in ["", "AAAA", PREFIX, &format!("{PREFIX}{}", "é".repeat(32))] {
            let error = IteratorToken::decode(SystemTime::UNIX_EPOCH, text).map_err(|error| error.code);
            assert_eq!(error, Err(ErrorCode::InvalidArgument), "{text}");
        }
    }
}
