use std::error::Error as StdError;
use std::fmt;

use crate::lease::{StoreError, StoreErrorKind};
use crate::stream::{StreamError, StreamErrorKind};

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

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let (kind, advice) = match error.kind() {
            StoreErrorKind::Throttled => (
                ErrorKind::Unavailable,
                "the lease table is throttled; raise its capacity or use on-demand billing",
            ),
            StoreErrorKind::Unavailable => (
                ErrorKind::Unavailable,
                "DynamoDB could not be reached; check the region, endpoint and network",
            ),
            StoreErrorKind::TableMissing => {
                (ErrorKind::Invalid, "the lease table is gone; restart the consumer to create it again")
            }
            StoreErrorKind::Denied => (
                ErrorKind::Invalid,
                "DynamoDB refused the credentials; compare them with the IAM policy in the README",
            ),
            StoreErrorKind::Malformed => {
                (ErrorKind::Data, "DynamoDB refused the request or answered nonsense")
            }
        };
        Self::new(kind, advice).with_source(error)
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
            StreamErrorKind::Malformed => (ErrorKind::Data, "Kinesis answered nonsense"),
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
