use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::text::serialized_as_text;
use super::{LeaseKey, ShardId};

/// A stream, given by its name, by its ARN, or by what it is called in the lease table of a consumer
/// of several streams: `<account>:<name>:<creation epoch>` (KCL's serialized `StreamIdentifier`).
///
/// ```
/// use kinesis_consumer::StreamId;
///
/// let by_name: StreamId = "orders".parse()?;
/// let by_arn: StreamId = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders".parse()?;
/// let serialized: StreamId = "123456789012:orders:1700000000".parse()?;
/// assert_eq!(by_name.name(), by_arn.name());
/// assert_eq!(by_name.arn(), None);
/// assert_eq!(by_arn.account(), serialized.account());
/// # Ok::<(), kinesis_consumer::ParseStreamError>(())
/// ```
///
/// With the feature `serde` it is written as one of these texts: the last in multi-stream mode, else the ARN if it
/// is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    name: Arc<str>,
    arn: Option<Arc<str>>,
    /// Only in multi-stream mode.
    serialized: Option<Arc<str>>,
}

/// A text that names no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a stream name (1 to 128 of a-z A-Z 0-9 _ . -) nor a stream ARN \
     (arn:aws:kinesis:<region>:<account>:stream/<name>) nor <account>:<name>:<creation epoch>"
)]
#[non_exhaustive]
pub struct ParseStreamError(String);

impl StreamId {
    /// The name of the stream.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ARN, if the stream was given by it; always in multi-stream mode.
    #[must_use]
    pub fn arn(&self) -> Option<&str> {
        self.arn.as_deref()
    }

    /// The account that owns the stream, unless the stream was given by its name.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        match (&self.serialized, &self.arn) {
            (Some(serialized), _) => serialized.split(':').next(),
            (None, Some(arn)) => arn.split(':').nth(4),
            (None, None) => None,
        }
    }

    /// `<account>:<name>:<creation epoch>`, which is the attribute `streamName` of the stream's leases
    /// in multi-stream mode and what their keys begin with; `None` in single-stream mode.
    #[must_use]
    pub fn serialized(&self) -> Option<&str> {
        self.serialized.as_deref()
    }

    /// When the stream was created, in seconds since 1970; only in multi-stream mode.
    #[must_use]
    pub fn creation_epoch(&self) -> Option<u64> {
        self.serialized.as_deref()?.rsplit(':').next()?.parse().ok()
    }

    /// The stream in multi-stream mode, given by its ARN; `None` if it is not, or if the epoch is zero
    /// or no positive `long` of Java's.
    pub(crate) fn created_at(&self, epoch: u64) -> Option<Self> {
        let account = self.arn().and(self.account())?;
        let serialized = is_epoch(epoch).then(|| format!("{account}:{}:{epoch}", self.name))?;
        Some(Self { serialized: Some(serialized.into()), ..self.clone() })
    }

    /// The row of the lease table for one of its shards.
    pub(crate) fn lease_key(&self, shard: &ShardId) -> LeaseKey {
        match &self.serialized {
            Some(stream) => format!("{stream}:{shard}").into(),
            None => shard.as_str().into(),
        }
    }

    /// Whether both may be the same stream, as far as each of them shows.
    pub(crate) fn may_be(&self, other: &Self) -> bool {
        fn agree(one: Option<&str>, other: Option<&str>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        self.name == other.name
            && agree(self.arn(), other.arn())
            && agree(self.account(), other.account())
            && agree(self.serialized(), other.serialized())
    }
}

/// Java keeps the epoch in a `long`.
fn is_epoch(epoch: u64) -> bool {
    epoch > 0 && i64::try_from(epoch).is_ok()
}

fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl FromStr for StreamId {
    type Err = ParseStreamError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let parsed = match parts[..] {
            [name] if is_name(name) => Some(Self { name: name.into(), arn: None, serialized: None }),
            [account, name, epoch] if is_digits(account) && is_name(name) && is_digits(epoch) => {
                // Zeros in front would make another key of it than KCL does.
                let epoch = epoch.parse().ok().filter(|&epoch| is_epoch(epoch));
                epoch.map(|epoch: u64| {
                    let serialized = format!("{account}:{name}:{epoch}").into();
                    Self { name: name.into(), arn: None, serialized: Some(serialized) }
                })
            }
            ["arn", partition, "kinesis", region, account, resource]
                if partition.starts_with("aws")
                    && !region.is_empty()
                    && account.len() == 12
                    && is_digits(account) =>
            {
                let name = resource.strip_prefix("stream/").filter(|name| is_name(name));
                name.map(|name| Self { name: name.into(), arn: Some(text.into()), serialized: None })
            }
            _ => None,
        };
        parsed.ok_or_else(|| ParseStreamError(text.to_owned()))
    }
}

/// The name or, in multi-stream mode, the serialized form.
impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.serialized().unwrap_or(&self.name))
    }
}

// What the stream can be found again by: more than `Display`, which leaves the ARN out.
serialized_as_text!(StreamId, |stream| stream.serialized().or(stream.arn()).unwrap_or(stream.name()));

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> StreamId {
        text.parse().expect(text)
    }

    #[test]
    fn streams_are_given_by_name_or_arn() {
        for text in ["orders", "a", "A_b.c-9", "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/orders"] {
            assert!(text.parse::<StreamId>().is_ok(), "{text}");
        }
        for text in [
            "",
            "with space",
            "a:b",
            &"x".repeat(129),
            "arn:aws:kinesis:eu-west-1:123456789012:stream/",
            "arn:aws:kinesis::123456789012:stream/orders",
            "arn:aws:s3:eu-west-1:123456789012:stream/orders",
            "arn:aws:kinesis:eu-west-1:12:stream/orders",
        ] {
            assert!(text.parse::<StreamId>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for text in ["orders", "123456789012:orders:1700000000"] {
            let stream = parse(text);
            assert_eq!(parse(&stream.to_string()), stream);
        }
    }

    #[test]
    fn serialized_identifiers_are_digits_a_name_and_positive_digits() {
        let stream = parse("123456789012:orders:1700000000");
        assert_eq!(stream.name(), "orders");
        assert_eq!((stream.account(), stream.creation_epoch()), (Some("123456789012"), Some(1_700_000_000)));
        assert_eq!(stream.to_string(), "123456789012:orders:1700000000");
        assert_eq!(parse("1:a:1").serialized(), Some("1:a:1"));
        assert_eq!(parse("1:a:007").serialized(), Some("1:a:7"), "as Java writes the number");
        for text in [
            "123456789012:orders:0",
            "123456789012:orders:",
            "123456789012:orders:-1",
            "123456789012:orders:1e9",
            "123456789012:orders:9223372036854775808",
            "123456789012:or:ders:1",
            "123456789012::1",
            ":orders:1",
            "account:orders:1",
            "123456789012:orders:1:shardId-000000000000",
        ] {
            assert!(text.parse::<StreamId>().is_err(), "{text}");
        }
    }

    #[test]
    fn keys_begin_with_the_stream_in_multi_stream_mode_only() {
        let shard = ShardId::from("shardId-000000000002");
        let by_arn = parse("arn:aws:kinesis:eu-west-1:123456789012:stream/orders");
        assert_eq!(by_arn.lease_key(&shard), "shardId-000000000002");
        let multi = by_arn.created_at(1_700_000_000).expect("an ARN");
        assert_eq!(multi.lease_key(&shard), "123456789012:orders:1700000000:shardId-000000000002");
        assert_eq!((multi.arn(), multi.account()), (by_arn.arn(), by_arn.account()));
        assert_eq!(parse("orders").created_at(1), None);
        assert_eq!(by_arn.created_at(0), None);
    }

    #[test]
    fn streams_are_told_apart_by_what_both_say() {
        let arn = parse("arn:aws:kinesis:eu-west-1:123456789012:stream/orders");
        let multi = arn.created_at(5).expect("an ARN");
        for same in [parse("orders"), arn, parse("123456789012:orders:5"), multi.clone()] {
            assert!(multi.may_be(&same) && same.may_be(&multi), "{same:?}");
        }
        for other in ["payments", "123456789012:orders:6", "1:orders:5"] {
            assert!(!multi.may_be(&parse(other)), "{other}");
        }
        assert!(!multi.may_be(&parse("arn:aws:kinesis:eu-west-1:210987654321:stream/orders")));
    }
}
