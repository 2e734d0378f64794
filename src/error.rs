use std::error::Error as StdError;
use std::fmt;

use crate::kinesis::{StreamError, StreamErrorKind};
use crate::lease::{HeldError, StoreError, StoreErrorKind};

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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

impl ErrorKind {
    /// Whether the same call may succeed a little later, with nothing changed: true of
    /// [`Unavailable`](Self::Unavailable) alone.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        self == Self::Unavailable
    }
}

/// What went wrong, and with what. The message is for people and may change in any release;
/// programs go by the [`kind`](Self::kind).
///
/// `{error}` shows the failure without its causes, which [`source`](std::error::Error::source) returns, so
/// that error reporters such as `anyhow` print each once. `{error:#}` shows the failure and all its causes
/// on one line, and so does `{error:?}`, which `main` prints.
///
/// ```
/// use std::error::Error as _;
/// use kinesis_consumer::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Unavailable, "the orders are not saved").with_source("connection reset");
/// assert_eq!(format!("{error}"), "the orders are not saved");
/// assert_eq!(format!("{error:#}"), "the orders are not saved: connection reset");
/// assert!(error.is_retryable() && error.source().is_some());
/// ```
pub struct Error(Box<Repr>);

struct Repr {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind: for tests, and for what is called by this crate and returns such errors.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Repr { kind, message: message.into(), source: None }))
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What can be done about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed a little later, with nothing changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }
}

/// The message; with `{:#}` also those of all causes, on the same line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match self.source() {
            Some(cause) if f.alternate() => write!(f, ": {}", with_causes(cause)),
            _ => Ok(()),
        }
    }
}

/// The kind, the message and those of all causes, on one line.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self:#}", self.0.kind)
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
            StoreErrorKind::Throttled | StoreErrorKind::Conflict | StoreErrorKind::Unavailable => {
                Self::Unavailable
            }
            StoreErrorKind::TableMissing | StoreErrorKind::Denied | StoreErrorKind::Unsuitable => {
                Self::Invalid
            }
            StoreErrorKind::Malformed => Self::Data,
        }
    }
}

/// What a caller can do about a failed request to the stream, wherever it was made.
impl From<StreamErrorKind> for ErrorKind {
    fn from(kind: StreamErrorKind) -> Self {
        match kind {
            StreamErrorKind::Throttled | StreamErrorKind::InUse | StreamErrorKind::Unavailable => {
                Self::Unavailable
            }
            StreamErrorKind::NotFound
            | StreamErrorKind::Denied
            | StreamErrorKind::InvalidArgument
            | StreamErrorKind::ExpiredIterator => Self::Invalid,
            StreamErrorKind::Malformed => Self::Data,
        }
    }
}

/// What a caller can do about a write to a held lease that failed.
impl From<&HeldError> for ErrorKind {
    fn from(error: &HeldError) -> Self {
        match error {
            HeldError::Lost => Self::LeaseLost,
            HeldError::Backwards { .. } => Self::Invalid,
            HeldError::Store(error) => error.kind().into(),
        }
    }
}

impl From<StoreError> for Error {
    fn from(mut error: StoreError) -> Self {
        let advice = match error.kind() {
            StoreErrorKind::Throttled => {
                "the lease table is throttled; raise its capacity or use on-demand billing"
            }
            StoreErrorKind::Conflict => {
                "other transactions write to the same items all the time; spread hot items over several"
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
        let advice = match error.kind() {
            StreamErrorKind::Throttled => "Kinesis is throttling; try again later",
            StreamErrorKind::InUse => "the stream is being changed; try again later",
            StreamErrorKind::Unavailable => {
                "Kinesis could not be reached; check the region, endpoint and network"
            }
            StreamErrorKind::NotFound => "no such stream; check its name, the region and the account",
            StreamErrorKind::Denied => {
                "Kinesis refused the credentials; compare them with the IAM policy in the README"
            }
            StreamErrorKind::InvalidArgument | StreamErrorKind::ExpiredIterator => {
                "Kinesis refused an argument"
            }
            StreamErrorKind::Malformed => "an answer of Kinesis could not be understood",
        };
        Self::new(error.kind().into(), advice).with_source(error)
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
        // Some errors show their causes themselves.
        if !text.ends_with(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
}

/// The kind of an error from the inside: that of the first error in its chain that has one. A task that
/// failed is [`Internal`](ErrorKind::Internal); anything else is a list of shards that cannot be planned
/// with, hence [`Data`](ErrorKind::Data).
pub(crate) fn kind_of(error: &(dyn StdError + 'static)) -> ErrorKind {
    std::iter::successors(Some(error), |error| (*error).source())
        .find_map(|error| {
            if let Some(error) = error.downcast_ref::<Error>() {
                return Some(error.kind());
            }
            if let Some(error) = error.downcast_ref::<StoreError>() {
                return Some(error.kind().into());
            }
            if let Some(error) = error.downcast_ref::<StreamError>() {
                return Some(error.kind().into());
            }
            if let Some(error) = error.downcast_ref::<HeldError>() {
                return Some(error.into());
            }
            error.is::<tokio::task::JoinError>().then_some(ErrorKind::Internal)
        })
        .unwrap_or(ErrorKind::Data)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an error reporter prints that shows each error and then its source.
    fn reported(error: &dyn StdError) -> Vec<String> {
        std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect()
    }

    #[test]
    fn a_reporter_that_follows_sources_prints_each_cause_once() {
        let request = StreamError::new(StreamErrorKind::Unavailable, "GetRecords", "orders")
            .with_source("connection reset by peer");
        let error = Error::new(ErrorKind::Unavailable, "the start failed").with_source(Error::from(request));
        let expected = [
            "the start failed",
            "Kinesis could not be reached; check the region, endpoint and network",
            "GetRecords on orders got no response",
            "connection reset by peer",
        ];
        assert_eq!(reported(&error), expected);
        assert_eq!(format!("{error:#}"), expected.join(": "));
        assert_eq!(format!("{error:?}"), format!("Unavailable: {}", expected.join(": ")));
        assert_eq!(with_causes(&error), expected.join(": "));
    }

    #[test]
    fn the_kind_comes_from_the_first_error_that_has_one() {
        let store = || StoreError::new(StoreErrorKind::Malformed, "GetLease", "orders");
        let cases: [(Box<dyn StdError>, ErrorKind); 5] = [
            (Box::new(store()), ErrorKind::Data),
            (Box::new(HeldError::Store(store())), ErrorKind::Data),
            (Box::new(HeldError::Lost), ErrorKind::LeaseLost),
            (Box::new(invalid("no").with_source(store())), ErrorKind::Invalid),
            (Box::new(StreamError::new(StreamErrorKind::InUse, "ListShards", "s")), ErrorKind::Unavailable),
        ];
        for (error, expected) in cases {
            assert_eq!(kind_of(&*error), expected, "{error}");
        }
    }

    /// A caller that asks any of the three whether to retry gets the same answer.
    #[test]
    fn what_is_retryable_in_a_request_is_retryable_in_its_error() {
        use StreamErrorKind::{Denied, ExpiredIterator, InUse, InvalidArgument, Malformed, NotFound};
        for kind in [Denied, ExpiredIterator, InUse, InvalidArgument, Malformed, NotFound]
            .into_iter()
            .chain([StreamErrorKind::Throttled, StreamErrorKind::Unavailable])
        {
            let error = StreamError::new(kind, "ListShards", "orders");
            assert_eq!((error.is_retryable(), kind), (kind.is_retryable(), kind));
            assert_eq!(Error::from(error).is_retryable(), kind.is_retryable(), "{kind:?}");
        }
        use StoreErrorKind::{TableMissing, Throttled, Unavailable, Unsuitable};
        for kind in [TableMissing, Throttled, Unavailable, Unsuitable] {
            let error = StoreError::new(kind, "GetLease", "orders");
            assert_eq!((error.is_retryable(), kind), (kind.is_retryable(), kind));
            assert_eq!(Error::from(error).is_retryable(), kind.is_retryable(), "{kind:?}");
        }
        assert!(!Error::new(ErrorKind::LeaseLost, "gone").is_retryable());
    }

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
            format!("{:#}", Error::from(error)),
            "its key is id (HASH, S), not leaseKey (HASH, S): DescribeLeaseTable on lease table orders found a \
             table that cannot be used"
        );
    }
}
