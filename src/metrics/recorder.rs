use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::aggregate::StatisticSet;
use super::{Dimensions, Metric, MetricsReport, MetricsSink, Sample};

/// Keeps the metrics of a consumer for a test to read back, under the names that CloudWatch would get.
/// Clones share what they keep, and several consumers may report to one.
///
/// Given to the builder with [`metrics_sink`](crate::ConsumerBuilder::metrics_sink).
#[derive(Debug, Clone, Default)]
pub struct MetricsRecorder(Arc<Mutex<BTreeMap<(Dimensions, Metric), StatisticSet>>>);

impl MetricsRecorder {
    /// The values of a metric that were reported with exactly these dimensions, in KCL's order:
    /// `Operation`, `ShardId`, `StreamId`, `WorkerIdentifier`. `None` if there were none.
    #[must_use]
    pub fn read(&self, name: &str, dimensions: &[(&str, &str)]) -> Option<StatisticSet> {
        let kept = self.0.lock();
        let mut found = kept.iter().filter(|((reported, metric), _)| {
            metric.name == name && reported.pairs().collect::<Vec<(&str, &str)>>() == dimensions
        });
        found.next().map(|(_, statistics)| *statistics)
    }

    /// Whether nothing was reported at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl MetricsSink for MetricsRecorder {
    fn record(&self, report: &MetricsReport<'_>) {
        let &MetricsReport { dimensions, samples } = report;
        let mut kept = self.0.lock();
        for &Sample { metric, value } in samples {
            let new = StatisticSet::of(value);
            kept.entry((dimensions.clone(), metric)).and_modify(|present| present.merge(new)).or_insert(new);
        }
    }
}
