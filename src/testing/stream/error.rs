use crate::kinesis::StreamErrorKind;

/// An error of the simulated service, worded like the real one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.code.as_str())]
#[non_exhaustive]
pub struct ServiceError {
    /// The exception of the API.
    pub code: ErrorCode,
    /// The message.
    pub message: String,
}

/// The exceptions of the Kinesis API that the simulated service raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "named as in the API reference")]
pub enum ErrorCode {
    AccessDenied,
    ExpiredIterator,
    ExpiredNextToken,
    InternalFailure,
    InvalidArgument,
    LimitExceeded,
    ProvisionedThroughputExceeded,
    ResourceInUse,
    ResourceNotFound,
    Serialization,
    UnknownOperation,
    Validation,
}

impl ErrorCode {
    /// The name of the exception on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDeniedException",
            Self::ExpiredIterator => "ExpiredIteratorException",
            Self::ExpiredNextToken => "ExpiredNextTokenException",
            Self::InternalFailure => "InternalFailureException",
            Self::InvalidArgument => "InvalidArgumentException",
            Self::LimitExceeded => "LimitExceededException",
            Self::ProvisionedThroughputExceeded => "ProvisionedThroughputExceededException",
            Self::ResourceInUse => "ResourceInUseException",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::Serialization => "SerializationException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::Validation => "ValidationException",
        }
    }

    /// What the error means to a caller of [`StreamApi`](crate::kinesis::StreamApi).
    #[must_use]
    pub fn kind(self) -> StreamErrorKind {
        match self {
            Self::AccessDenied => StreamErrorKind::Denied,
            Self::ExpiredIterator => StreamErrorKind::ExpiredIterator,
            Self::InternalFailure => StreamErrorKind::Unavailable,
            Self::LimitExceeded | Self::ProvisionedThroughputExceeded => StreamErrorKind::Throttled,
            Self::ResourceInUse => StreamErrorKind::InUse,
            Self::ResourceNotFound => StreamErrorKind::NotFound,
            Self::ExpiredNextToken
            | Self::InvalidArgument
            | Self::Serialization
            | Self::UnknownOperation
            | Self::Validation => StreamErrorKind::InvalidArgument,
        }
    }

    pub(crate) fn error(self, message: impl Into<String>) -> ServiceError {
        ServiceError { code: self, message: message.into() }
    }
}
