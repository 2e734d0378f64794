use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::lease::names::LEASE_KEY;
use crate::lease::{Attribute, EntityKind, Item, LeaseWrite, Update};
use crate::types::WorkerId;

const UPDATED: &str = "lut";
const SAMPLES: &str = "sts";
const LIMITS: &str = "opr";
const SUPPORT: &str = "sup";
const SUPPORT_UPDATED: &str = "slu";
/// This crate's own: the CPU could be reported, but is not.
const WITHHOLDS_CPU: &str = "cpuWithheld";

/// KCL's code for the CPU utilisation of a worker in percent (`WorkerMetricType`).
pub(crate) const CPU: &str = "C";
/// Stands for a value that is not available.
const FAILED: f64 = -1.0;
/// Samples that are kept (`noOfPersistedMetricsPerWorkerMetrics`).
const SAMPLES_MAX: usize = 10;
/// A row that has not changed for longer is of a worker that is gone
/// (`staleWorkerMetricsEntryCleanupDuration`).
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// How much the latest sample weighs (`workerMetricsEMAAlpha`).
const ALPHA: f64 = 0.5;
/// What this crate supports: rows that are no leases in the lease table (KCL 3.5).
const SUPPORTED: u64 = 1;

/// What one worker reports about itself (KCL's `WorkerMetricStats`).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkerStats {
    pub(crate) worker: WorkerId,
    /// When it reported, in seconds of the epoch, by its own clock.
    pub(crate) updated: u64,
    /// The latest values of each metric, oldest first; -1 where one was not available. A worker may
    /// report none: then it is judged by the throughput of its leases alone.
    pub(crate) samples: BTreeMap<String, Vec<f64>>,
    /// Up to where each metric may go, in percent.
    pub(crate) limits: BTreeMap<String, f64>,
    /// It does not report its CPU because others do not report theirs.
    pub(crate) withholds_cpu: bool,
}

impl WorkerStats {
    /// A worker that has reported nothing but that it is there.
    pub(crate) fn new(worker: WorkerId) -> Self {
        Self { worker, updated: 0, samples: BTreeMap::new(), limits: BTreeMap::new(), withholds_cpu: false }
    }

    /// `None` if the row is of another kind.
    ///
    /// # Errors
    ///
    /// Which attribute cannot be read.
    pub(crate) fn from_item(row: &Item) -> Result<Option<Self>, String> {
        if !EntityKind::WorkerMetricStats.is_kind_of(row) {
            return Ok(None);
        }
        let worker = row.get(LEASE_KEY).and_then(Attribute::text).ok_or("the key is missing")?;
        let updated = row.get(UPDATED).and_then(Attribute::float).ok_or(format!("{UPDATED} is no number"))?;
        let lists = |name: &str| -> Result<BTreeMap<String, Vec<f64>>, String> {
            let unreadable = || format!("{name} is no map of lists of numbers");
            let Some(map) = row.get(name) else { return Ok(BTreeMap::new()) };
            let Attribute::M(map) = map else { return Err(unreadable()) };
            map.iter()
                .map(|(metric, list)| match list {
                    Attribute::L(values) => {
                        let values: Option<Vec<f64>> = values.iter().map(Attribute::float).collect();
                        Ok((metric.clone(), values.ok_or_else(unreadable)?))
                    }
                    _ => Err(unreadable()),
                })
                .collect()
        };
        let limits = lists(LIMITS)?.into_iter();
        Ok(Some(Self {
            worker: worker.into(),
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
            updated: updated as u64,
            samples: lists(SAMPLES)?,
            limits: limits.filter_map(|(metric, limit)| Some((metric, *limit.first()?))).collect(),
            withholds_cpu: row.contains_key(WITHHOLDS_CPU),
        }))
    }

    /// Puts the row, whatever was there. `now` is a wall-clock time.
    pub(crate) fn to_write(&self, now: SystemTime) -> LeaseWrite {
        let is_reported = |metric: &String| !(self.withholds_cpu && metric == CPU);
        let number = |value: &f64| Attribute::N(format!("{value}"));
        let seconds = Attribute::N(epoch_seconds(now).to_string());
        let samples = self
            .samples
            .iter()
            .filter(|(metric, _)| is_reported(metric))
            .map(|(metric, values)| (metric.clone(), Attribute::L(values.iter().map(number).collect())));
        let limits = self
            .limits
            .iter()
            .filter(|(metric, _)| is_reported(metric))
            .map(|(metric, limit)| (metric.clone(), Attribute::L(vec![number(limit)])));
        let withholds = match self.withholds_cpu {
            true => Update::Set(WITHHOLDS_CPU, Attribute::N("1".to_owned())),
            false => Update::Remove(WITHHOLDS_CPU),
        };
        let updates = vec![
            withholds,
            Update::Set(UPDATED, seconds.clone()),
            Update::Set(SAMPLES, Attribute::M(samples.collect())),
            Update::Set(LIMITS, Attribute::M(limits.collect())),
            Update::Set(SUPPORT, Attribute::N(SUPPORTED.to_string())),
            Update::Set(SUPPORT_UPDATED, seconds),
        ];
        let kind = EntityKind::WorkerMetricStats;
        LeaseWrite::to_entity("UpdateWorkerMetrics", kind, &self.worker.as_str().into(), Vec::new(), updates)
    }

    /// Adds a value of a metric, or that it is not available, and its limit in percent.
    pub(crate) fn push(&mut self, metric: &str, value: Option<f64>, limit: f64) {
        let samples = self.samples.entry(metric.to_owned()).or_default();
        samples.push(value.filter(|value| (0.0..=100.0).contains(value)).unwrap_or(FAILED));
        if samples.len() > SAMPLES_MAX {
            samples.remove(0);
        }
        self.limits.insert(metric.to_owned(), limit);
    }

    /// How long ago it was reported, by the clocks of the worker and of the caller.
    pub(crate) fn age(&self, wall: SystemTime) -> Duration {
        Duration::from_secs(epoch_seconds(wall).saturating_sub(self.updated))
    }

    /// Whether all of its metrics make sense and could be had the last time.
    pub(crate) fn is_valid(&self) -> bool {
        self.samples.iter().all(|(metric, values)| {
            let is_number = |value: &f64| *value == FAILED || (0.0..=100.0).contains(value);
            let has_limit = self.limits.get(metric).is_some_and(|limit| (0.0..=100.0).contains(limit));
            has_limit && values.iter().all(is_number) && values.last().is_some_and(|last| *last != FAILED)
        })
    }

    /// The exponential moving average of a metric; `None` if it has no value.
    pub(crate) fn value(&self, metric: &str) -> Option<f64> {
        let known = self.samples.get(metric)?.iter().copied().filter(|value| *value != FAILED);
        known.reduce(|average, value| ALPHA * value + (1.0 - ALPHA) * average)
    }

    /// Whether the row of a worker that is gone may be deleted: it has not reported for a day.
    pub(crate) fn is_abandoned(&self, wall: SystemTime) -> bool {
        self.age(wall) > ABANDONED
    }

    /// What must be true of the row for it to be deleted as seen.
    pub(crate) fn unchanged(&self) -> crate::lease::Condition {
        crate::lease::Condition::Equals(UPDATED, Attribute::N(self.updated.to_string()))
    }
}

fn epoch_seconds(wall: SystemTime) -> u64 {
    wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::row_after;

    fn wall(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn stored(stats: &WorkerStats, seconds: u64) -> WorkerStats {
        let row = row_after(&stats.to_write(wall(seconds)), None).unwrap().unwrap();
        WorkerStats::from_item(&row).unwrap().expect("a worker's row")
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let mut stats = WorkerStats::new("wA".into());
        for value in [Some(41.25), None, Some(38.75)] {
            stats.push(CPU, value, 100.0);
        }
        let read = stored(&stats, 1_752_480_000);
        assert_eq!(read, WorkerStats { updated: 1_752_480_000, ..stats });
        assert_eq!(read.samples[CPU], [41.25, -1.0, 38.75]);
        assert_eq!(read.value(CPU), Some(40.0));
        assert_eq!(read.value("M"), None);
    }

    #[test]
    fn a_cpu_that_is_withheld_is_not_in_the_row() {
        let mut stats = WorkerStats::new("wA".into());
        stats.push(CPU, Some(40.0), 100.0);
        stats.withholds_cpu = true;
        let read = stored(&stats, 1000);
        assert!(read.samples.is_empty() && read.limits.is_empty() && read.withholds_cpu && read.is_valid());
        let row = row_after(&stats.to_write(wall(1000)), None).unwrap();
        stats.withholds_cpu = false;
        let row = row_after(&stats.to_write(wall(1030)), row.as_ref()).unwrap().unwrap();
        let read = WorkerStats::from_item(&row).unwrap().unwrap();
        assert!(!read.withholds_cpu && read.value(CPU) == Some(40.0));
    }

    #[test]
    fn ten_samples_are_kept_and_impossible_ones_count_as_missing() {
        let mut stats = WorkerStats::new("wA".into());
        for value in 0..12_u32 {
            stats.push(CPU, Some(f64::from(value)), 100.0);
        }
        assert_eq!(stats.samples[CPU].len(), 10);
        assert_eq!(stats.samples[CPU][0], 2.0);
        for value in [-0.1, 100.1, f64::NAN] {
            stats.push(CPU, Some(value), 100.0);
            assert_eq!(stats.samples[CPU].last(), Some(&-1.0));
        }
    }

    #[test]
    fn leases_go_to_workers_that_could_tell_all() {
        assert!(WorkerStats::new("wA".into()).is_valid());
        let mut failing = WorkerStats::new("wA".into());
        failing.push(CPU, Some(1.0), 100.0);
        assert!(stored(&failing, 1000).is_valid());
        failing.push(CPU, None, 100.0);
        assert!(!stored(&failing, 1000).is_valid());
        let mut unlimited = WorkerStats::new("wA".into());
        unlimited.push(CPU, Some(1.0), 100.0);
        unlimited.limits.clear();
        assert!(!stored(&unlimited, 1000).is_valid());
    }

    #[test]
    fn what_is_no_row_of_a_worker_is_reported_apart() {
        let lease = crate::lease::Lease::new("shardId-0", crate::types::Checkpoint::TrimHorizon).to_item();
        assert_eq!(WorkerStats::from_item(&lease), Ok(None));
        let mut row = row_after(&WorkerStats::new("wA".into()).to_write(wall(1)), None).unwrap().unwrap();
        row.insert("sts".to_owned(), Attribute::S("x".to_owned()));
        assert!(WorkerStats::from_item(&row).unwrap_err().starts_with("sts"));
    }

    #[test]
    fn rows_of_the_dead_are_deleted_after_a_day() {
        let stats = stored(&WorkerStats::new("wA".into()), 1000);
        assert!(!stats.is_abandoned(wall(1000 + 86_400)) && stats.is_abandoned(wall(1001 + 86_400)));
    }
}
