use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use parking_lot::Mutex;

/// The maximum number of points kept; after that, the oldest are dropped.
const POINTS_MAX: usize = 200_000;

/// The points that were put, in the order of arrival.
#[derive(Debug, Default)]
pub(in crate::testing::local) struct MetricSink {
    points: Mutex<VecDeque<MetricPoint>>,
}

/// One datum of a PutMetricData call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MetricPoint {
    /// The namespace of the metric.
    pub namespace: String,
    /// The name of the metric.
    pub name: String,
    /// The dimensions of the metric, by name.
    pub dimensions: BTreeMap<String, String>,
    /// When it was measured, or put if the datum has no time.
    pub timestamp: SystemTime,
    /// The unit, such as `Milliseconds`; `None` if not given.
    pub unit: Option<String>,
    /// The number of values.
    pub sample_count: f64,
    /// The sum of the values.
    pub sum: f64,
    /// The smallest value.
    pub minimum: f64,
    /// The largest value.
    pub maximum: f64,
}

impl MetricSink {
    pub(super) fn put(&self, points: impl IntoIterator<Item = MetricPoint>) {
        let mut kept = self.points.lock();
        for point in points {
            if kept.len() == POINTS_MAX {
                kept.pop_front();
            }
            kept.push_back(point);
        }
    }

    /// The points for which `wanted` returns true, oldest first.
    pub(in crate::testing::local) fn points(
        &self,
        wanted: impl Fn(&MetricPoint) -> bool,
    ) -> Vec<MetricPoint> {
        let kept = self.points.lock();
        kept.iter().filter(|point| wanted(point)).cloned().collect()
    }
}
