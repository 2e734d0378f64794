//! A CloudWatch that stores what is put and returns it.

mod put;
mod query;
mod sink;

use std::time::SystemTime;

use super::protocol::ApiError;
use super::wire::Wire;
use crate::testing::stream::ErrorCode;

pub use self::sink::MetricPoint;
pub(super) use self::sink::MetricSink;

/// Handles one request.
pub(super) fn answer(
    sink: &MetricSink,
    now: SystemTime,
    operation: &str,
    input: &Wire,
) -> Result<Wire, ApiError> {
    match operation {
        "PutMetricData" => put::put_metric_data(sink, now, input),
        "GetMetricStatistics" => query::get_metric_statistics(sink, input),
        "GetMetricData" => query::get_metric_data(sink, input),
        "ListMetrics" => query::list_metrics(sink, input),
        _ => {
            let message = format!("The local endpoint has no CloudWatch operation {operation}.");
            Err(ErrorCode::UnknownOperation.error(message).into())
        }
    }
}

fn invalid_value(message: impl Into<String>) -> ApiError {
    ApiError::bad_request("InvalidParameterValueException", message)
}
