use async_trait::async_trait;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatch::operation::put_metric_data::PutMetricDataError;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit, StatisticSet};

use super::Unit;
use super::aggregate::Datum;
use super::publisher::{PutError, PutMetricData};

#[async_trait]
impl PutMetricData for Client {
    async fn put(&self, namespace: &str, data: &[Datum]) -> Result<(), PutError> {
        let data = data.iter().map(metric_datum).collect();
        let request = self.put_metric_data().namespace(namespace).set_metric_data(Some(data));
        request.send().await.map(|_| ()).map_err(put_error)
    }
}

fn metric_datum(Datum { series, statistics }: &Datum) -> MetricDatum {
    let dimensions = series.dimensions.pairs();
    let dimensions =
        dimensions.map(|(name, value)| Dimension::builder().name(name).value(dimension_value(value)).build());
    let statistics = StatisticSet::builder()
        .sample_count(statistics.count as f64)
        .sum(statistics.sum)
        .minimum(statistics.min)
        .maximum(statistics.max);
    MetricDatum::builder()
        .metric_name(series.metric.name)
        .set_dimensions(Some(dimensions.collect()))
        .timestamp(DateTime::from(series.time()))
        .unit(standard_unit(series.metric.unit))
        .statistic_values(statistics.build())
        .build()
}

fn standard_unit(unit: Unit) -> StandardUnit {
    match unit {
        Unit::Count => StandardUnit::Count,
        Unit::Bytes => StandardUnit::Bytes,
        Unit::Milliseconds => StandardUnit::Milliseconds,
    }
}

/// CloudWatch refuses a whole request for one dimension that is not printable ASCII, starts with a
/// colon or is longer than 1,024 characters; the name of a worker may be anything.
fn dimension_value(text: &str) -> String {
    let allowed = |char: char| if char == ' ' || char.is_ascii_graphic() { char } else { '_' };
    let value: String = text.chars().take(1024).map(allowed).collect();
    match value.strip_prefix(':') {
        Some(rest) => format!("_{rest}"),
        None if value.trim().is_empty() => "_".to_owned(),
        None => value,
    }
}

fn put_error(error: SdkError<PutMetricDataError>) -> PutError {
    /// How the codes of answers begin that depend on nothing but the data. The same refusal has
    /// different codes in the service's protocols (`InvalidParameterValue`, `…ValueException`).
    const REFUSALS: [&str; 4] =
        ["InvalidParameter", "MissingParameter", "MissingRequiredParameter", "Validation"];
    const CONTENT_TOO_LARGE: u16 = 413;
    let is_refusal = match &error {
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or_default();
            answer.raw().status().as_u16() == CONTENT_TOO_LARGE
                || REFUSALS.iter().any(|refusal| code.starts_with(refusal))
        }
        _ => false,
    };
    if is_refusal { PutError::Refused(error.into()) } else { PutError::Unavailable(error.into()) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::metrics::aggregate::Pending;
    use crate::metrics::{Dimensions, Operation, Sample, names};
    use crate::testing::{HttpFault, LocalAws};

    fn lag_of(shards: usize) -> Vec<Datum> {
        let mut pending = Pending::new(shards);
        for shard in 0..shards {
            let dimensions = Dimensions {
                shard: Some(format!("shardId-{shard:012}").into()),
                worker: Some("Köln".into()),
                ..Dimensions::of(Operation::ProcessTask)
            };
            let samples = [2.0, 5.0].map(|value| Sample { metric: names::MILLIS_BEHIND_LATEST, value });
            pending.record(UNIX_EPOCH + Duration::from_secs(59_999), &dimensions, &samples);
        }
        pending.take()
    }

    #[tokio::test]
    async fn statistics_arrive_as_they_were_put() {
        let local = LocalAws::start().await.unwrap();
        let client = Client::new(&local.in_process_config());
        client.put("order-notifications", &lag_of(1000)).await.unwrap();

        let points = local.metrics();
        assert_eq!(points.len(), 1000);
        let point = &points[1];
        assert_eq!(
            (point.namespace.as_str(), point.name.as_str()),
            ("order-notifications", "MillisBehindLatest")
        );
        assert_eq!(point.unit.as_deref(), Some("Milliseconds"));
        assert_eq!((point.sample_count, point.sum, point.minimum, point.maximum), (2.0, 7.0, 2.0, 5.0));
        assert_eq!(point.timestamp, UNIX_EPOCH + Duration::from_secs(59_940));
        let dimensions =
            [("Operation", "ProcessTask"), ("ShardId", "shardId-000000000001"), ("WorkerIdentifier", "K_ln")];
        assert!(dimensions.iter().all(|(name, value)| point.dimensions[*name] == *value), "{point:?}");
    }

    #[tokio::test]
    async fn failures_are_sorted_by_whether_trying_again_helps() {
        let local = LocalAws::start().await.unwrap();
        let config = local.in_process_config().into_builder();
        let client = Client::new(&config.retry_config(aws_config::retry::RetryConfig::disabled()).build());
        for (status, code, is_refused) in [
            (400, "InvalidParameterValue", true),
            (400, "InvalidParameterValueException", true),
            (400, "MissingParameter", true),
            (400, "ValidationError", true),
            (413, "RequestEntityTooLarge", true),
            (400, "Throttling", false),
            (403, "AccessDenied", false),
            (403, "MissingAuthenticationToken", false),
            (500, "InternalServiceFault", false),
        ] {
            local.inject("cloudwatch:PutMetricData", 1, HttpFault::error(status, code));
            let error = client.put("order-notifications", &lag_of(1)).await.unwrap_err();
            assert_eq!(matches!(error, PutError::Refused(_)), is_refused, "{code}: {error:?}");
        }
    }

    #[test]
    fn any_name_of_a_worker_becomes_a_dimension_that_is_accepted() {
        let cases = [
            ("worker-1", "worker-1"),
            ("Köln 1\n", "K_ln 1_"),
            (":a:b", "_a:b"),
            ("  ", "_"),
            (&"x".repeat(2000), &"x".repeat(1024)),
        ];
        for (name, value) in cases {
            assert_eq!(dimension_value(name), value);
        }
    }
}
