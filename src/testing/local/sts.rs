//! GetCallerIdentity, the one operation of STS that set-up code and producers use first.

use super::protocol::ApiError;
use super::wire::Wire;
use crate::testing::stream::ACCOUNT;

/// Handles one request. With any credentials, the caller is the only user of the endpoints' account.
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
