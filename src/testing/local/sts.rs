//! The one operation of STS that set-up code and producers ask for before anything else.

use super::protocol::ApiError;
use super::wire::Wire;
use crate::testing::stream::ACCOUNT;

/// Answers one request. Whatever the credentials, the caller is one user of the endpoints' account.
pub(super) fn answer(operation: &str) -> Result<Wire, ApiError> {
    match operation {
        "GetCallerIdentity" => Ok(Wire::map([
            ("Arn", format!("arn:aws:iam::{ACCOUNT}:user/local").into()),
            ("UserId", "AIDALOCALENDPOINTS00".into()),
            ("Account", ACCOUNT.into()),
        ])),
        _ => {
            let message = format!("The local endpoint has no STS operation {operation}.");
            Err(ApiError::bad_request("InvalidAction", message))
        }
    }
}
