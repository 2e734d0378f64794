use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::error::DisplayErrorContext;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit, StatisticSet};

use super::publisher::{Sink, SinkError};
use super::statistics::{Series, Statistics};

/// Amazon CloudWatch (PutMetricData).
#[derive(Debug)]
pub(super) struct CloudWatch {
    client: Client,
    namespace: String,
}

impl CloudWatch {
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }
}

#[async_trait]
impl Sink for CloudWatch {
    async fn put(&self, series: &[(Series, Statistics)], time: SystemTime) -> Result<(), SinkError> {
        let time = DateTime::from(time);
        let data = series.iter().map(|(series, statistics)| datum(series, *statistics, time)).collect();
        let request = self.client.put_metric_data().namespace(&self.namespace).set_metric_data(Some(data));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(SinkError(DisplayErrorContext(error).to_string())),
        }
    }
}

fn datum(series: &Series, statistics: Statistics, time: DateTime) -> MetricDatum {
    let dimensions = [
        ("Operation", series.operation),
        ("ShardId", series.shard.as_ref().map(AsRef::as_ref)),
        ("WorkerIdentifier", series.worker.as_ref().map(AsRef::as_ref)),
    ];
    let dimensions = dimensions
        .into_iter()
        .filter_map(|(name, value)| Some(Dimension::builder().name(name).value(value?).build()))
        .collect();
    let statistics = StatisticSet::builder()
        .sample_count(statistics.count)
        .sum(statistics.sum)
        .minimum(statistics.min)
        .maximum(statistics.max)
        .build();
    MetricDatum::builder()
        .metric_name(series.metric.name)
        .set_dimensions(Some(dimensions))
        .timestamp(time)
        .statistic_values(statistics)
        .unit(StandardUnit::from(series.metric.unit.as_str()))
        .build()
}
