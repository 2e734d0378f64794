use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::aggregate::StatisticSet;
use super::{Dimensions, Metric, Sample, Sink};

/// Keeps the metrics of a consumer for a test to read back, under the names that CloudWatch would get.
/// Clones share what they keep, and several consumers may report to one.
///
/// Given to the builder with [`metrics_recorder`](crate::ConsumerBuilder::metrics_recorder).
#[derive(Debug, Clone, Default)]
pub struct MetricsRecorder(Arc<Mutex<BTreeMap<(Dimensions, Metric), StatisticSet>>>);

impl MetricsRecorder {
    /// The values of a metric that were reported with exactly these dimensions, in KCL's order:
    /// `Operation`, `ShardId`, `StreamId`, `WorkerIdentifier`. `None` if there were none.
    #[must_use]
    pub fn read(&self, name: &str, dimensions: &[(&str, &str)]) -> Option<StatisticSet> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = kept.iter().filter(|((reported, metric), _)| {
            metric.name == name && reported.pairs().collect::<Vec<(&str, &str)>>() == dimensions
        });
        found.next().map(|(_, statistics)| *statistics)
    }

    /// Whether nothing was reported at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Sink for MetricsRecorder {
    fn record(&self, dimensions: &Dimensions, samples: &[Sample]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for &Sample { metric, value } in samples {
            let new = StatisticSet::of(value);
            kept.entry((dimensions.clone(), metric)).and_modify(|present| present.merge(new)).or_insert(new);
        }
    }
}
