use std::error::Error as StdError;
use std::time::Duration;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::error::with_causes;
use crate::lease::{StoreError, StoreErrorKind};

/// One request to DynamoDB, for what is to be said if it fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// What it is for: the name of the write or read in KCL.
    pub(super) operation: &'static str,
    /// The operation of DynamoDB that carries it out, and the permission it needs.
    pub(super) api: &'static str,
    /// The table, and the row if it is about one.
    pub(super) table: &'a str,
    pub(super) row: Option<&'a str>,
}

impl Request<'_> {
    pub(super) fn error(&self, kind: StoreErrorKind) -> StoreError {
        let subject = match self.row {
            Some(row) => format!("{} (row {row})", self.table),
            None => self.table.to_owned(),
        };
        StoreError::new(kind, self.operation, subject)
    }

    pub(super) fn timed_out(&self, after: Duration) -> StoreError {
        self.error(StoreErrorKind::Unavailable).with_detail(format!("{} took over {after:?}", self.api))
    }

    pub(super) fn failed<E>(&self, failure: &SdkError<E, HttpResponse>) -> StoreError
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let kind = kind(failure);
        let said = match failure.as_service_error() {
            Some(error) => {
                let code = error.code().unwrap_or("an error without a code");
                format!("{code}: {}", error.message().unwrap_or("no message"))
            }
            None => with_causes(failure),
        };
        let advice = match kind {
            StoreErrorKind::Denied => {
                format!("check the credentials and that they allow dynamodb:{}; ", self.api)
            }
            StoreErrorKind::TableMissing => "check the table name, region and account; ".to_owned(),
            _ => String::new(),
        };
        // The causes are in the text; with the failure as source they would be shown twice.
        self.error(kind).with_detail(format!("{advice}{said}"))
    }
}

fn kind<E: ProvideErrorMetadata>(failure: &SdkError<E, HttpResponse>) -> StoreErrorKind {
    match failure {
        SdkError::ServiceError(answer) => {
            kind_of_answer(answer.err().code().unwrap_or_default(), answer.raw().status().as_u16())
        }
        // No request was made: the region or the endpoint is missing.
        SdkError::ConstructionFailure(_) => StoreErrorKind::Malformed,
        // Also credentials that could not be loaded, as their provider may be out of reach.
        _ => StoreErrorKind::Unavailable,
    }
}

fn kind_of_answer(code: &str, status: u16) -> StoreErrorKind {
    match code {
        "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "ThrottlingException"
        | "Throttling"
        | "LimitExceededException"
        | "ResourceInUseException"
        | "ContinuousBackupsUnavailableException"
        | "TransactionConflictException"
        | "ReplicatedWriteConflictException" => StoreErrorKind::Throttled,
        "ResourceNotFoundException" | "TableNotFoundException" => StoreErrorKind::TableMissing,
        "AccessDeniedException"
        | "ExpiredTokenException"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "KMSAccessDeniedException"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "UnrecognizedClientException" => StoreErrorKind::Denied,
        _ => match status {
            401 | 403 => StoreErrorKind::Denied,
            429 => StoreErrorKind::Throttled,
            500.. => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Malformed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_by_what_to_do_next() {
        for (code, status, kind) in [
            ("ThrottlingException", 400, StoreErrorKind::Throttled),
            ("ResourceNotFoundException", 400, StoreErrorKind::TableMissing),
            ("ExpiredTokenException", 400, StoreErrorKind::Denied),
            ("SomethingNew", 403, StoreErrorKind::Denied),
            ("InternalServerError", 500, StoreErrorKind::Unavailable),
            ("", 503, StoreErrorKind::Unavailable),
            ("ValidationException", 400, StoreErrorKind::Malformed),
        ] {
            assert_eq!(kind_of_answer(code, status), kind, "{code} {status}");
        }
    }

    #[test]
    fn an_error_says_what_was_asked_of_what() {
        let request =
            Request { operation: "RenewLease", api: "UpdateItem", table: "orders", row: Some("shardId-0") };
        assert_eq!(
            request.timed_out(Duration::from_secs(5)).to_string(),
            "RenewLease on lease table orders (row shardId-0) got no answer: UpdateItem took over 5s"
        );
    }
}
