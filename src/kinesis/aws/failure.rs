use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;

use crate::error::with_causes;
use crate::kinesis::{StreamError, StreamErrorKind};
use crate::types::{ShardId, StreamId};

/// One request to Kinesis: what an error about it contains.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    operation: &'static str,
    subject: &'a (dyn fmt::Display + Sync),
    shard: Option<&'a ShardId>,
}

impl<'a> Request<'a> {
    pub(super) fn new(operation: &'static str, stream: &'a StreamId) -> Self {
        Self::about(operation, stream)
    }

    /// A request about a stream that is known by another name, or about a stream consumer.
    pub(super) fn about(operation: &'static str, subject: &'a (dyn fmt::Display + Sync)) -> Self {
        Self { operation, subject, shard: None }
    }

    pub(super) fn of_shard(self, shard: &'a ShardId) -> Self {
        Self { shard: Some(shard), ..self }
    }

    pub(super) fn malformed(&self, what: &'static str) -> StreamError {
        self.error(StreamErrorKind::Malformed).with_source(what)
    }

    pub(super) fn timed_out(&self, after: Duration) -> StreamError {
        self.error(StreamErrorKind::Unavailable).with_source(format!("no response within {after:?}"))
    }

    /// The service refused the request with this error code.
    pub(super) fn refused(&self, code: &str, message: &str, status: u16) -> StreamError {
        self.error(kind(code, status)).with_source(format!("{code}: {message}"))
    }

    pub(super) fn interrupted(&self, failure: BoxError) -> StreamError {
        self.error(StreamErrorKind::Unavailable).with_source(failure)
    }

    pub(super) fn failed<E>(&self, failure: &SdkError<E, HttpResponse>) -> StreamError
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let status = failure.raw_response().map_or(0, |response| response.status().as_u16());
        self.failed_with(failure, status)
    }

    /// The failure of an open event stream, whose messages have no status, and in the SDK no code.
    pub(super) fn stream_failed<R>(
        &self,
        failure: &SdkError<SubscribeToShardEventStreamError, R>,
    ) -> StreamError
    where
        R: fmt::Debug + Send + Sync + 'static,
    {
        match failure.as_service_error().and_then(|error| Some((code_of_event(error)?, error.message()))) {
            Some((code, message)) => self.refused(code, message.unwrap_or("no message"), 0),
            None => self.failed_with(failure, 0),
        }
    }

    /// Keeps only the text of the failure: the failure itself holds the response, which may contain
    /// records.
    fn failed_with<E, R>(&self, failure: &SdkError<E, R>, status: u16) -> StreamError
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
        R: fmt::Debug + Send + Sync + 'static,
    {
        match failure {
            SdkError::ServiceError(answer) => {
                let code = answer.err().code().unwrap_or("an error without a code");
                let message = answer.err().message().unwrap_or("no message");
                self.refused(code, message, status)
            }
            // No request was sent: the region or the endpoint is missing.
            SdkError::ConstructionFailure(_) => {
                self.error(StreamErrorKind::InvalidArgument).with_source(with_causes(failure))
            }
            // This includes credentials that could not be loaded, because their provider may be
            // unreachable.
            _ => self.error(StreamErrorKind::Unavailable).with_source(with_causes(failure)),
        }
    }

    fn error(&self, kind: StreamErrorKind) -> StreamError {
        let subject = match self.shard {
            Some(shard) => format!("stream {} (shard {shard})", self.subject),
            None => format!("stream {}", self.subject),
        };
        StreamError::new(kind, self.operation, subject)
    }
}

fn code_of_event(error: &SubscribeToShardEventStreamError) -> Option<&'static str> {
    use SubscribeToShardEventStreamError as Event;
    Some(match error {
        Event::ResourceNotFoundException(_) => "ResourceNotFoundException",
        Event::ResourceInUseException(_) => "ResourceInUseException",
        Event::KmsDisabledException(_) => "KMSDisabledException",
        Event::KmsInvalidStateException(_) => "KMSInvalidStateException",
        Event::KmsAccessDeniedException(_) => "KMSAccessDeniedException",
        Event::KmsNotFoundException(_) => "KMSNotFoundException",
        Event::KmsOptInRequired(_) => "KMSOptInRequired",
        Event::KmsThrottlingException(_) => "KMSThrottlingException",
        Event::InternalFailureException(_) => "InternalFailureException",
        _ => return None,
    })
}

fn kind(code: &str, status: u16) -> StreamErrorKind {
    match code {
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "KMSThrottlingException"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException" => StreamErrorKind::Throttled,
        "ExpiredIteratorException" | "ExpiredNextTokenException" => StreamErrorKind::ExpiredIterator,
        "InvalidArgumentException" | "ValidationException" => StreamErrorKind::InvalidArgument,
        "ResourceNotFoundException" => StreamErrorKind::NotFound,
        "ResourceInUseException" => StreamErrorKind::InUse,
        // In an event stream there is no status.
        "InternalFailureException" | "InternalFailure" | "InternalError" | "ServiceUnavailable" => {
            StreamErrorKind::Unavailable
        }
        "AccessDeniedException"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "KMSOptInRequired"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "UnrecognizedClientException" => StreamErrorKind::Denied,
        _ => match status {
            401 | 403 => StreamErrorKind::Denied,
            429 => StreamErrorKind::Throttled,
            500.. => StreamErrorKind::Unavailable,
            _ => StreamErrorKind::Malformed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_map_to_what_to_do_next() {
        for (code, status, expected) in [
            ("ProvisionedThroughputExceededException", 400, StreamErrorKind::Throttled),
            ("KMSThrottlingException", 400, StreamErrorKind::Throttled),
            ("ExpiredIteratorException", 400, StreamErrorKind::ExpiredIterator),
            ("InvalidArgumentException", 400, StreamErrorKind::InvalidArgument),
            ("ResourceNotFoundException", 400, StreamErrorKind::NotFound),
            ("ResourceInUseException", 400, StreamErrorKind::InUse),
            ("AccessDeniedException", 400, StreamErrorKind::Denied),
            ("KMSDisabledException", 400, StreamErrorKind::Denied),
            ("SomethingNew", 403, StreamErrorKind::Denied),
            ("InternalFailure", 500, StreamErrorKind::Unavailable),
            ("InternalFailureException", 0, StreamErrorKind::Unavailable),
            ("SomethingNew", 400, StreamErrorKind::Malformed),
        ] {
            assert_eq!(kind(code, status), expected, "{code} {status}");
        }
    }

    #[test]
    fn an_error_names_the_operation_and_its_subject() {
        let (stream, shard) = ("orders".parse().expect("a name"), "shardId-0".into());
        let request = Request::new("GetShardIterator", &stream).of_shard(&shard);
        let error = request.timed_out(Duration::from_secs(5));
        assert_eq!(error.to_string(), "GetShardIterator on stream orders (shard shardId-0) got no response");
    }
}
