use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::names::{Metric, Unit};
use crate::types::{ShardId, WorkerId};

/// What values are merged by: a metric and its dimensions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Series {
    pub(crate) metric: Metric,
    pub(crate) operation: Option<&'static str>,
    pub(crate) shard: Option<ShardId>,
    pub(crate) worker: Option<WorkerId>,
}

/// All values of a series in some time (CloudWatch's `StatisticSet`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Statistics {
    pub(crate) count: f64,
    pub(crate) sum: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Statistics {
    fn of(value: f64) -> Self {
        Self { count: 1.0, sum: value, min: value, max: value }
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

/// Statistics that wait to be sent: merged by series, and only so many series.
#[derive(Debug)]
pub(crate) struct Gathered {
    series: BTreeMap<Series, Statistics>,
    series_max: usize,
    dropped: u64,
}

impl Gathered {
    pub(crate) fn new(series_max: usize) -> Self {
        Self { series: BTreeMap::new(), series_max, dropped: 0 }
    }

    pub(crate) fn add(&mut self, series: Series, value: f64) {
        self.merge(series, Statistics::of(value));
    }

    /// Takes statistics back that could not be sent.
    pub(crate) fn merge(&mut self, series: Series, statistics: Statistics) {
        let is_full = self.series.len() >= self.series_max;
        match self.series.entry(series) {
            Entry::Occupied(mut known) => known.get_mut().merge(statistics),
            Entry::Vacant(_) if is_full => self.dropped += 1,
            Entry::Vacant(new) => {
                new.insert(statistics);
            }
        }
    }

    /// Whether it is time to send, however little time has passed.
    pub(crate) fn is_half_full(&self) -> bool {
        self.series.len() >= self.series_max / 2
    }

    /// Everything gathered, and how often something was dropped.
    pub(crate) fn take(&mut self) -> (Vec<(Series, Statistics)>, u64) {
        (std::mem::take(&mut self.series).into_iter().collect(), std::mem::take(&mut self.dropped))
    }
}

impl Unit {
    /// The name of the unit in CloudWatch.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Bytes => "Bytes",
            Self::Milliseconds => "Milliseconds",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::{CURRENT_LEASES, LOST_LEASES};
    use super::*;

    fn series(metric: Metric, shard: &str) -> Series {
        Series { metric, operation: Some("ProcessTask"), shard: Some(shard.into()), worker: None }
    }

    #[test]
    fn values_of_a_series_are_merged() {
        let mut gathered = Gathered::new(10);
        for value in [3.0, 1.0, 2.0] {
            gathered.add(series(LOST_LEASES, "a"), value);
        }
        gathered.add(series(LOST_LEASES, "b"), 7.0);
        gathered.add(series(CURRENT_LEASES, "a"), 8.0);
        let (taken, dropped) = gathered.take();
        assert_eq!((taken.len(), dropped), (3, 0));
        let merged = Statistics { count: 3.0, sum: 6.0, min: 1.0, max: 3.0 };
        assert!(taken.contains(&(series(LOST_LEASES, "a"), merged)));
        assert!(gathered.take().0.is_empty());
    }

    #[test]
    fn only_new_series_are_dropped_when_it_is_full() {
        let mut gathered = Gathered::new(2);
        for shard in ["a", "b", "c", "d", "a"] {
            gathered.add(series(LOST_LEASES, shard), 1.0);
        }
        let (taken, dropped) = gathered.take();
        assert_eq!((taken.len(), dropped), (2, 2));
        assert_eq!(taken[0].1.sum, 2.0);
    }
}
