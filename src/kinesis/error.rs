use std::error::Error as StdError;
use std::fmt;

/// Why a request to the stream failed, by what the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StreamErrorKind {
    /// `ProvisionedThroughputExceeded`, `LimitExceeded`, KMS throttling: back off and retry.
    Throttled,
    /// `ExpiredIterator`: open a new one.
    ExpiredIterator,
    /// `InvalidArgument`: the iterator or position is not valid (any more).
    InvalidArgument,
    /// `ResourceNotFound`: the stream or the shard is gone, or never was.
    NotFound,
    /// `ResourceInUse`: the stream is being created, changed or deleted; retry later.
    InUse,
    /// `AccessDenied` and other refusals of credentials or keys: the permissions must be fixed.
    Denied,
    /// No response in time, no connection, or a 5xx: retry.
    Unavailable,
    /// The response could not be parsed.
    Malformed,
}

impl StreamErrorKind {
    /// Whether the same request may succeed a little later, with nothing changed. That includes
    /// [`InUse`](Self::InUse): a stream that is being changed answers so until it is active again. (Of
    /// `RegisterStreamConsumer` and `SubscribeToShard` it means what [`StreamApi`](crate::kinesis::StreamApi)
    /// says there.)
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::InUse | Self::Unavailable)
    }
}

/// A failed request to the stream: the operation, its subject, and the cause.
#[derive(Debug)]
pub struct StreamError {
    kind: StreamErrorKind,
    operation: &'static str,
    subject: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl StreamError {
    /// A failure of `operation` (the API name) on `subject` (a stream or shard).
    pub fn new(kind: StreamErrorKind, operation: &'static str, subject: impl Into<String>) -> Self {
        Self { kind, operation, subject: subject.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> StreamErrorKind {
        self.kind
    }

    /// Whether the same request may succeed a little later; see [`StreamErrorKind::is_retryable`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }

    /// The API operation that failed.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            StreamErrorKind::Throttled => "was throttled",
            StreamErrorKind::ExpiredIterator => "was refused because the iterator has expired",
            StreamErrorKind::InvalidArgument => "was refused because of an invalid argument",
            StreamErrorKind::NotFound => "found no such stream or shard",
            StreamErrorKind::InUse => "found the stream in use (being created, changed or deleted)",
            StreamErrorKind::Denied => "was denied",
            StreamErrorKind::Unavailable => "got no response",
            StreamErrorKind::Malformed => "got an unexpected response",
        };
        write!(f, "{} on {} {what}", self.operation, self.subject)
    }
}

impl StdError for StreamError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
