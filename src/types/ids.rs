use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Declares a text identifier that is cheap to clone and cannot be mistaken for another kind.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

text_id! {
    /// The identifier of a shard, such as `shardId-000000000002`.
    ShardId
}

text_id! {
    /// The primary key of a row in the lease table: the shard id, or in multi-stream mode
    /// `<accountId>:<streamName>:<creationEpoch>:<shardId>`.
    LeaseKey
}

text_id! {
    /// The ARN of a consumer that is registered with a stream for enhanced fan-out.
    ConsumerArn
}

text_id! {
    /// The name of one worker, unique in its fleet (KCL's `workerIdentifier`).
    WorkerId
}

/// A stream, given by its name or its ARN.
///
/// ```
/// use kinesis_consumer::StreamId;
///
/// let by_name: StreamId = "orders".parse()?;
/// let by_arn: StreamId = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders".parse()?;
/// assert_eq!(by_name.name(), by_arn.name());
/// assert_eq!(by_name.arn(), None);
/// # Ok::<(), kinesis_consumer::ParseStreamError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    name: Arc<str>,
    arn: Option<Arc<str>>,
}

/// A text that is neither a stream name nor a stream ARN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a stream name (1 to 128 of a-z A-Z 0-9 _ . -) nor a stream ARN \
     (arn:aws:kinesis:<region>:<account>:stream/<name>)"
)]
#[non_exhaustive]
pub struct ParseStreamError(String);

impl StreamId {
    /// The name of the stream.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ARN, if the stream was given by it.
    #[must_use]
    pub fn arn(&self) -> Option<&str> {
        self.arn.as_deref()
    }
}

impl FromStr for StreamId {
    type Err = ParseStreamError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseStreamError(text.to_owned());
        let is_name = |name: &str| {
            (1..=128).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        if !text.starts_with("arn:") {
            return if is_name(text) { Ok(Self { name: text.into(), arn: None }) } else { Err(invalid()) };
        }
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        match parts[..] {
            [_, partition, "kinesis", region, account, resource]
                if partition.starts_with("aws")
                    && !region.is_empty()
                    && account.len() == 12
                    && account.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                let name =
                    resource.strip_prefix("stream/").filter(|name| is_name(name)).ok_or_else(invalid)?;
                Ok(Self { name: name.into(), arn: Some(text.into()) })
            }
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
