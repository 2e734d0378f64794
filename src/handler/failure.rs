use std::error::Error as StdError;
use std::fmt;

/// Any error.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a record was not handled.
///
/// `?` makes any error of the type `E` a [`Failed`](Self::Failed). A closure that returns another error type can
/// return one as well, as `Err(Failure::transient(error))?` with [`BoxError`] as its error type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure<E = BoxError> {
    /// It counts as an attempt: it is tried again, until the policy's attempts are used up.
    Failed(E),
    /// It does not count: something that the record needs is not there. It is tried again until it is.
    Transient(E),
    /// It would fail whenever it is tried: no further attempt is made.
    Poison(E),
}

impl Failure {
    /// A [`Transient`](Self::Transient) failure.
    pub fn transient(error: impl Into<BoxError>) -> Self {
        Self::Transient(error.into())
    }

    /// A [`Poison`](Self::Poison) failure.
    pub fn poison(error: impl Into<BoxError>) -> Self {
        Self::Poison(error.into())
    }
}

impl<E> Failure<E> {
    /// The error.
    pub fn into_inner(self) -> E {
        match self {
            Self::Failed(error) | Self::Transient(error) | Self::Poison(error) => error,
        }
    }

    fn error(&self) -> &E {
        match self {
            Self::Failed(error) | Self::Transient(error) | Self::Poison(error) => error,
        }
    }

    pub(crate) fn boxed(self) -> Failure
    where
        E: Into<BoxError>,
    {
        match self {
            Self::Failed(error) => Failure::of(error),
            Self::Transient(error) => Failure::Transient(error.into()),
            Self::Poison(error) => Failure::Poison(error.into()),
        }
    }
}

impl Failure {
    /// The failure that `error` is or, if it is another error, a failed attempt.
    pub(crate) fn of(error: impl Into<BoxError>) -> Self {
        match error.into().downcast() {
            Ok(failure) => *failure,
            Err(error) => Self::Failed(error),
        }
    }
}

impl<E> From<E> for Failure<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

/// Shows the error.
impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // The error itself is what is shown.
        self.error().source()
    }
}

/// Why a batch was not handled completely.
///
/// `?` makes any error of the type `E` one of the whole [`Batch`](Self::Batch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchFailure<E = BoxError> {
    /// None of its records counts as handled.
    Batch(Failure<E>),
    /// Everything before the record at `index` is handled, and this record failed. An index beyond the batch
    /// means that the last record failed.
    From {
        /// The index in the batch, from 0.
        index: usize,
        /// Why.
        error: E,
    },
}

impl BatchFailure {
    /// The failure that `error` is or, if it is another error, a failed attempt of the whole batch.
    pub(crate) fn of(error: impl Into<BoxError>) -> Self {
        match error.into().downcast() {
            Ok(failure) => *failure,
            Err(error) => Self::Batch(Failure::of(error)),
        }
    }
}

impl<E> BatchFailure<E> {
    /// How many records are handled, and why the next one is not.
    pub(crate) fn boxed(self) -> (usize, Failure, IsFirst)
    where
        E: Into<BoxError>,
    {
        match self {
            Self::Batch(failure) => (0, failure.boxed(), IsFirst(false)),
            Self::From { index, error } => (index, Failure::of(error), IsFirst(true)),
        }
    }
}

/// Whether it is known that the first record failed, rather than any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IsFirst(pub(crate) bool);

/// Shows the error.
impl<E: fmt::Display> fmt::Display for BatchFailure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(failure) => failure.fmt(f),
            Self::From { index, error } => write!(f, "record {index} of the batch: {error}"),
        }
    }
}

impl StdError for BatchFailure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Batch(failure) => failure.source(),
            Self::From { error, .. } => error.source(),
        }
    }
}

impl<E> From<E> for BatchFailure<E> {
    fn from(error: E) -> Self {
        Self::Batch(Failure::Failed(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_inside_another_error_type_keeps_its_kind() {
        fn closure(kind: u8) -> Result<(), BoxError> {
            match kind {
                0 => Err(Failure::transient("down"))?,
                1 => Err(Failure::poison("never"))?,
                _ => Err(fmt::Error)?,
            }
            Ok(())
        }
        let failure = |kind| Failure::of(closure(kind).expect_err("fails"));
        assert!(matches!(failure(0), Failure::Transient(error) if error.to_string() == "down"));
        assert!(matches!(failure(1), Failure::Poison(_)));
        assert!(matches!(failure(2), Failure::Failed(_)));
        // A handler's own error type, too.
        let nested: Failure<BoxError> = Failure::Failed(Failure::poison("never").into());
        assert!(matches!(nested.boxed(), Failure::Poison(_)));
    }
}
