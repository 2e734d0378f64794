//! What a leader has learned about workers that their last reports alone do not show.

use std::collections::BTreeMap;

use crate::coordination::worker_metrics::WorkerStats;
use crate::types::WorkerId;

/// A change that is smaller, in percent, is forgotten.
const SETTLED: f64 = 0.01;

/// What leases cost each worker, and what moves will change about how busy they are.
///
/// KCL's leader knows neither: it assumes that all machines are alike, and that reports show the present. But
/// a report is a moving average, so that its next plan moves once more what the last one moved
/// already; and a lease that is too much for a small machine goes round and round.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LoadForecast(BTreeMap<WorkerId, Worker>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Worker {
    /// When the worker last reported, by its clock.
    updated: u64,
    /// It has reported since the last plan.
    has_news: bool,
    metrics: BTreeMap<String, Metric>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Metric {
    /// By how much it will change yet because of moves.
    to_come: f64,
    /// What a KiB per second adds to it.
    cost: Option<f64>,
}

impl LoadForecast {
    /// Notes what workers have reported lately. With each new sample the moving average shows half of
    /// what it did not show before.
    pub(crate) fn observe(&mut self, workers: &[WorkerStats]) {
        let mut known = std::mem::take(&mut self.0);
        for stats in workers {
            let is_new = !known.contains_key(&stats.worker);
            let mut worker = known.remove(&stats.worker).unwrap_or_default();
            worker.has_news = is_new || worker.updated != stats.updated;
            if worker.has_news {
                worker.updated = stats.updated;
                for metric in worker.metrics.values_mut() {
                    metric.to_come /= 2.0;
                    if metric.to_come.abs() < SETTLED {
                        metric.to_come = 0.0;
                    }
                }
            }
            self.0.insert(stats.worker.clone(), worker);
        }
    }

    /// Whether a worker has reported since the last plan.
    pub(super) fn has_news(&self, worker: &WorkerId) -> bool {
        self.0.get(worker).is_some_and(|worker| worker.has_news)
    }

    /// By how much a metric will change yet because of moves.
    pub(super) fn to_come(&self, worker: &WorkerId, metric: &str) -> f64 {
        self.metric(worker, metric).to_come
    }

    /// What a KiB per second adds to a metric, if that is known.
    pub(super) fn cost(&self, worker: &WorkerId, metric: &str) -> Option<f64> {
        self.metric(worker, metric).cost
    }

    /// Moves change a metric by so much.
    pub(super) fn expect(&mut self, worker: &WorkerId, metric: &str, change: f64) {
        if let Some(metric) = self.metric_mut(worker, metric) {
            metric.to_come += change;
        }
    }

    /// A KiB per second adds so much to a metric.
    pub(super) fn learn(&mut self, worker: &WorkerId, metric: &str, cost: f64) {
        if let Some(metric) = self.metric_mut(worker, metric) {
            metric.cost = Some(cost);
        }
    }

    fn metric(&self, worker: &WorkerId, metric: &str) -> Metric {
        self.0.get(worker).and_then(|worker| worker.metrics.get(metric)).copied().unwrap_or_default()
    }

    fn metric_mut(&mut self, worker: &WorkerId, metric: &str) -> Option<&mut Metric> {
        Some(self.0.get_mut(worker)?.metrics.entry(metric.to_owned()).or_default())
    }
}
