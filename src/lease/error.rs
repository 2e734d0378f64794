use std::error::Error as StdError;
use std::fmt;

/// Why a request to the lease table failed, sorted by what the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Throttled before anything was done: back off and retry.
    Throttled,
    /// A transaction was cancelled because another request was changing one of its items, or was refused for such a
    /// reason: nothing was done. Retry after a short pause.
    Conflict,
    /// No answer, or a 5xx: a write may have happened or not.
    Unavailable,
    /// The table is not there.
    TableMissing,
    /// The table is there and cannot be used: it is no lease table, or it is archived.
    Unsuitable,
    /// Credentials or permissions are refused: somebody must fix them.
    Denied,
    /// The request was refused as wrong, or the answer could not be understood.
    Malformed,
}

impl StoreErrorKind {
    /// Whether the same request may succeed a little later, with nothing changed.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::Conflict | Self::Unavailable)
    }
}

/// A failed request to the lease table: the operation, the table, the row, and the cause.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    operation: &'static str,
    subject: String,
    detail: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl StoreError {
    /// A failure of `operation` on `subject` (a table, or a table and a row).
    pub fn new(kind: StoreErrorKind, operation: &'static str, subject: impl Into<String>) -> Self {
        Self { kind, operation, subject: subject.into(), detail: None, source: None }
    }

    /// The same failure with what more there is to say: what the service said, what to do about it.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same failure with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Takes out why a table cannot be used, for an error that begins with it.
    pub(crate) fn take_explanation(&mut self) -> Option<String> {
        self.detail.take_if(|_| self.kind == StoreErrorKind::Unsuitable)
    }

    /// Whether the same request may succeed a little later, with nothing changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }

    /// Whether a write that failed like this may have happened all the same.
    #[must_use]
    pub fn is_indeterminate(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unavailable | StoreErrorKind::Malformed)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            StoreErrorKind::Throttled => "was throttled",
            StoreErrorKind::Conflict => "met another write to the same item",
            StoreErrorKind::Unavailable => "got no answer",
            StoreErrorKind::TableMissing => "found no such table",
            StoreErrorKind::Unsuitable => "found a table that cannot be used",
            StoreErrorKind::Denied => "was denied",
            StoreErrorKind::Malformed => "was refused, or its answer makes no sense",
        };
        write!(f, "{} on lease table {} {what}", self.operation, self.subject)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
