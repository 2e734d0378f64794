use std::error::Error as StdError;
use std::fmt;

use crate::kinesis::{StreamError, StreamErrorKind};
use crate::lease::{StoreError, StoreErrorKind};

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// AWS did not answer, or throttled: try again later.
    Unavailable,
    /// The lease is no longer held by this worker: stop working on this shard.
    LeaseLost,
    /// The consumer, or this processor, has been stopped: nothing more can be done with it.
    Closed,
    /// The call, a setting, a name, or a permission is wrong: fix it, then try again.
    Invalid,
    /// A row of the lease table or an answer of the service is not what it should be.
    Data,
    /// A defect of this crate: please report it.
    Internal,
}

/// What went wrong, and with what. The message is for people and may change in any release;
/// programs go by the [`kind`](Self::kind).
pub struct Error(Box<Repr>);

struct Repr {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Repr { kind, message: message.into(), source: None }))
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What can be done about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

/// The message and those of all causes, on one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match self.source() {
            Some(cause) => write!(f, ": {}", with_causes(cause)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// What a caller can do about a failed request to the lease table: the same at the start, at a
/// checkpoint, and everywhere else.
impl From<StoreErrorKind> for ErrorKind {
    fn from(kind: StoreErrorKind) -> Self {
        match kind {
            StoreErrorKind::Throttled | StoreErrorKind::Unavailable => Self::Unavailable,
            StoreErrorKind::TableMissing | StoreErrorKind::Denied | StoreErrorKind::Unsuitable => {
                Self::Invalid
            }
            StoreErrorKind::Malformed => Self::Data,
        }
    }
}

impl From<StoreError> for Error {
    fn from(mut error: StoreError) -> Self {
        let advice = match error.kind() {
            StoreErrorKind::Throttled => {
                "the lease table is throttled; raise its capacity or use on-demand billing"
            }
            StoreErrorKind::Unavailable => {
                "DynamoDB could not be reached; check the region, endpoint and network"
            }
            StoreErrorKind::TableMissing => "the lease table is gone; a running consumer creates it again",
            StoreErrorKind::Unsuitable => "the lease table cannot be used; choose another table name",
            StoreErrorKind::Denied => {
                "DynamoDB refused the credentials; compare them with the IAM policy in the README"
            }
            StoreErrorKind::Malformed => {
                "DynamoDB refused the request, or its answer could not be understood"
            }
        };
        let advice = error.take_explanation().unwrap_or_else(|| advice.to_owned());
        Self::new(error.kind().into(), advice).with_source(error)
    }
}

impl From<StreamError> for Error {
    fn from(error: StreamError) -> Self {
        let (kind, advice) = match error.kind() {
            StreamErrorKind::Throttled => (ErrorKind::Unavailable, "Kinesis is throttling; try again later"),
            StreamErrorKind::InUse => {
                (ErrorKind::Unavailable, "the stream is being changed; try again later")
            }
            StreamErrorKind::Unavailable => (
                ErrorKind::Unavailable,
                "Kinesis could not be reached; check the region, endpoint and network",
            ),
            StreamErrorKind::NotFound => {
                (ErrorKind::Invalid, "no such stream; check its name, the region and the account")
            }
            StreamErrorKind::Denied => (
                ErrorKind::Invalid,
                "Kinesis refused the credentials; compare them with the IAM policy in the README",
            ),
            StreamErrorKind::InvalidArgument | StreamErrorKind::ExpiredIterator => {
                (ErrorKind::Invalid, "Kinesis refused an argument")
            }
            StreamErrorKind::Malformed => (ErrorKind::Data, "an answer of Kinesis could not be understood"),
        };
        Self::new(kind, advice).with_source(error)
    }
}

/// Something that was given cannot work.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

/// An error and all its causes on one line.
pub(crate) fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        // Some errors tell their causes themselves.
        if !text.ends_with(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_lease_table_has_one_kind_wherever_it_is_met() {
        for (kind, expected) in [
            (StoreErrorKind::Throttled, ErrorKind::Unavailable),
            (StoreErrorKind::Unavailable, ErrorKind::Unavailable),
            (StoreErrorKind::TableMissing, ErrorKind::Invalid),
            (StoreErrorKind::Unsuitable, ErrorKind::Invalid),
            (StoreErrorKind::Denied, ErrorKind::Invalid),
            (StoreErrorKind::Malformed, ErrorKind::Data),
        ] {
            assert_eq!(Error::from(StoreError::new(kind, "GetLease", "orders")).kind(), expected, "{kind:?}");
        }
    }

    #[test]
    fn a_table_that_cannot_be_used_is_described_first() {
        let error = StoreError::new(StoreErrorKind::Unsuitable, "DescribeLeaseTable", "orders")
            .with_detail("its key is id (HASH, S), not leaseKey (HASH, S)");
        assert_eq!(
            Error::from(error).to_string(),
            "its key is id (HASH, S), not leaseKey (HASH, S): DescribeLeaseTable on lease table orders found a \
             table that cannot be used"
        );
    }
}
