use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Dimensions, Metric, Sample};

/// A summary of many values that are not kept (CloudWatch's `StatisticSet`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
#[cfg_attr(not(feature = "test-util"), expect(unreachable_pub, reason = "only tests read it"))]
pub struct StatisticSet {
    /// How many values there were.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// Values that CloudWatch would add up to one point of one graph: of the same metric and dimensions,
/// within the same minute, which is CloudWatch's resolution.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    minute: u64,
    pub(crate) dimensions: Dimensions,
    pub(crate) metric: Metric,
}

/// The statistics of one series, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Datum {
    pub(crate) series: Series,
    pub(crate) statistics: StatisticSet,
}

/// Statistics that wait to be sent, by series; never more than `capacity` of them.
#[derive(Debug)]
pub(crate) struct Pending {
    capacity: usize,
    statistics: BTreeMap<Series, StatisticSet>,
    dropped: u64,
}

impl Pending {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, statistics: BTreeMap::new(), dropped: 0 }
    }

    /// Takes in what was measured at `time`.
    pub(crate) fn record(&mut self, time: SystemTime, dimensions: &Dimensions, samples: &[Sample]) {
        let minute = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60;
        for &Sample { metric, value } in samples {
            let series = Series { minute, dimensions: dimensions.clone(), metric };
            self.merge(series, StatisticSet::of(value));
        }
    }

    /// Takes back what could not be sent.
    pub(crate) fn put_back(&mut self, data: impl IntoIterator<Item = Datum>) {
        for Datum { series, statistics } in data {
            self.merge(series, statistics);
        }
    }

    /// Hands out everything, the oldest minutes first.
    pub(crate) fn take(&mut self) -> Vec<Datum> {
        let statistics = std::mem::take(&mut self.statistics);
        statistics.into_iter().map(|(series, statistics)| Datum { series, statistics }).collect()
    }

    /// How many sets of statistics were given up for lack of room since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    pub(crate) fn len(&self) -> usize {
        self.statistics.len()
    }

    /// Without room, the oldest minute loses a series to a newer one. Within the same minute the
    /// newcomer is refused, so that the series that are kept are right.
    fn merge(&mut self, series: Series, statistics: StatisticSet) {
        if let Some(present) = self.statistics.get_mut(&series) {
            present.merge(statistics);
            return;
        }
        if self.statistics.len() >= self.capacity {
            self.dropped += 1;
            match self.statistics.first_entry() {
                Some(oldest) if oldest.key().minute < series.minute => drop(oldest.remove()),
                _ => return,
            }
        }
        self.statistics.insert(series, statistics);
    }
}

impl Series {
    /// The start of its minute.
    pub(crate) fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.minute * 60)
    }
}

impl StatisticSet {
    /// The statistics of one value.
    pub(crate) fn of(value: f64) -> Self {
        Self { count: 1, sum: value, min: value, max: value }
    }

    /// Takes in the values behind `other`.
    pub(crate) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

/// The most datums CloudWatch takes in one request.
const BATCH_MAX: usize = 1000;

/// The most bytes in one request: CloudWatch takes 1 MB; some are left for the frame.
const BATCH_BYTES_MAX: usize = 990_000;

/// How many of `data`, from its start, go into one request: all, or as many as CloudWatch takes.
/// At least one, if there is any.
pub(crate) fn batch_len(data: &[Datum]) -> usize {
    let mut bytes = 0;
    let fitting = data.iter().take(BATCH_MAX).take_while(|datum| {
        bytes += datum.encoded_len_max();
        bytes <= BATCH_BYTES_MAX
    });
    fitting.count().max(1).min(data.len())
}

impl Datum {
    /// An upper bound of its length in a request, uncompressed.
    fn encoded_len_max(&self) -> usize {
        /// The names of all fields, and the numbers and unit among their values.
        const FIELDS: usize = 220;
        const DIMENSION: usize = 24;
        let dimensions = self.series.dimensions.pairs();
        let dimensions = dimensions.map(|(name, value)| DIMENSION + name.len() + value.len()).sum::<usize>();
        FIELDS + self.series.metric.name.len() + dimensions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Operation, names};
    use crate::types::WorkerId;

    fn minute(number: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(number * 60)
    }

    fn shard(number: usize) -> Dimensions {
        let shard = Some(format!("shardId-{number:012}").into());
        Dimensions { shard, ..Dimensions::of(Operation::ProcessTask) }
    }

    fn records(value: f64) -> [Sample; 1] {
        [Sample { metric: names::RECORDS_PROCESSED, value }]
    }

    #[test]
    fn values_of_one_series_are_merged_and_others_kept_apart() {
        let mut pending = Pending::new(100);
        for value in [5.0, 1.0, 9.0] {
            pending.record(minute(7) + Duration::from_secs(3), &shard(0), &records(value));
        }
        pending.record(minute(7), &shard(1), &records(2.0));
        pending.record(minute(8), &shard(0), &records(3.0));

        let data = pending.take();
        let reported: Vec<_> = data.iter().map(|datum| (datum.series.time(), datum.statistics)).collect();
        assert_eq!(
            reported,
            [
                (minute(7), StatisticSet { count: 3, sum: 15.0, min: 1.0, max: 9.0 }),
                (minute(7), StatisticSet::of(2.0)),
                (minute(8), StatisticSet::of(3.0)),
            ]
        );
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn what_could_not_be_sent_merges_with_what_came_meanwhile() {
        let mut pending = Pending::new(100);
        pending.record(minute(7), &shard(0), &records(5.0));
        let unsent = pending.take();
        pending.record(minute(7), &shard(0), &records(1.0));
        pending.put_back(unsent);
        assert_eq!(pending.take()[0].statistics, StatisticSet { count: 2, sum: 6.0, min: 1.0, max: 5.0 });
    }

    #[test]
    fn without_room_the_oldest_minute_goes_first_and_the_present_one_stays_right() {
        let mut pending = Pending::new(2);
        pending.record(minute(1), &shard(0), &records(1.0));
        pending.record(minute(2), &shard(0), &records(2.0));
        pending.record(minute(3), &shard(0), &records(3.0));
        pending.record(minute(3), &shard(1), &records(4.0));
        pending.record(minute(3), &shard(2), &records(5.0));
        pending.record(minute(3), &shard(0), &records(6.0));

        assert_eq!(pending.take_dropped(), 3);
        assert_eq!(pending.take_dropped(), 0);
        let sums: Vec<f64> = pending.take().iter().map(|datum| datum.statistics.sum).collect();
        assert_eq!(sums, [9.0, 4.0]);
    }

    #[test]
    fn requests_keep_to_both_limits_of_the_service() {
        let mut pending = Pending::new(10_000);
        for number in 0..1500 {
            pending.record(minute(1), &shard(number), &records(1.0));
        }
        let data = pending.take();
        assert_eq!((batch_len(&data), batch_len(&data[1000..]), batch_len(&[])), (1000, 500, 0));

        let worker = Some(WorkerId::from("w".repeat(1024)));
        for number in 0..1500 {
            let dimensions = Dimensions { worker: worker.clone(), ..shard(number) };
            pending.record(minute(1), &dimensions, &records(1.0));
        }
        let length = batch_len(&pending.take());
        assert!((600..970).contains(&length), "{length} datums of more than 1 kB");
    }
}
