use std::fmt;
use std::sync::Arc;

use super::names::Unit;
use super::{Dimensions, Sample};
use crate::types::{ShardId, StreamId, WorkerId};

/// Where the metrics of a consumer go, besides CloudWatch: to Prometheus, statsd, or a test.
///
/// Given to the builder with [`metrics_sink`](crate::ConsumerBuilder::metrics_sink). What
/// [`MetricsConfig`](crate::MetricsConfig) says about the level and the dimensions holds for it, too.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex, PoisonError};
///
/// use kinesis_consumer::{MetricUnit, MetricsReport, MetricsSink};
///
/// /// The sums and latest values, for an endpoint that Prometheus scrapes.
/// #[derive(Debug, Clone, Default)]
/// struct Scraped(Arc<Mutex<BTreeMap<String, f64>>>);
///
/// impl MetricsSink for Scraped {
///     fn record(&self, report: &MetricsReport<'_>) {
///         let labels: Vec<String> =
///             report.dimensions().map(|(name, value)| format!("{name}={value:?}")).collect();
///         let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         for value in report.values() {
///             let kept = series.entry(format!("{}{{{}}}", value.name, labels.join(","))).or_default();
///             match value.unit {
///                 _ if value.is_gauge => *kept = value.value,
///                 MetricUnit::Milliseconds => *kept += value.value / 1000.0,
///                 _ => *kept += value.value,
///             }
///         }
///     }
/// }
/// ```
pub trait MetricsSink: Send + Sync + fmt::Debug {
    /// Takes in one report. Called by the task that did what is reported, several times a second for each
    /// shard and from several threads: it must neither block nor panic.
    fn record(&self, report: &MetricsReport<'_>);
}

impl<T: MetricsSink + ?Sized> MetricsSink for Arc<T> {
    fn record(&self, report: &MetricsReport<'_>) {
        (**self).record(report);
    }
}

/// What one run of an operation measured: one batch processed, one round of renewals.
#[derive(Debug, Clone, Copy)]
pub struct MetricsReport<'a> {
    pub(crate) dimensions: &'a Dimensions,
    pub(crate) samples: &'a [Sample],
}

/// One value of one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct MetricValue {
    /// KCL's name, such as `RecordsProcessed`.
    pub name: &'static str,
    /// The unit.
    pub unit: Unit,
    /// Whether it is a level rather than an amount: the latest value counts, and a sum over time means
    /// nothing.
    pub is_gauge: bool,
    /// The value; finite.
    pub value: f64,
}

impl<'a> MetricsReport<'a> {
    /// The operation, such as `ProcessTask` (KCL's dimension `Operation`).
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.dimensions.operation.name()
    }

    /// The shard, if it is about one.
    #[must_use]
    pub fn shard(&self) -> Option<&'a ShardId> {
        self.dimensions.shard.as_ref()
    }

    /// The stream, if it is about one that was given by its ARN.
    #[must_use]
    pub fn stream(&self) -> Option<&'a StreamId> {
        self.dimensions.stream.as_ref()
    }

    /// The worker, if it is about leases.
    #[must_use]
    pub fn worker(&self) -> Option<&'a WorkerId> {
        self.dimensions.worker.as_ref()
    }

    /// All of these as CloudWatch gets them: KCL's names, in the order `Operation`, `ShardId`, `StreamId`,
    /// `WorkerIdentifier`.
    pub fn dimensions(&self) -> impl Iterator<Item = (&'static str, &'a str)> + use<'a> {
        self.dimensions.pairs()
    }

    /// The values. A metric may occur more than once.
    pub fn values(&self) -> impl ExactSizeIterator<Item = MetricValue> + use<'a> {
        self.samples.iter().map(|&Sample { metric, value }| MetricValue {
            name: metric.name,
            unit: metric.unit,
            is_gauge: metric.is_gauge,
            value,
        })
    }
}
