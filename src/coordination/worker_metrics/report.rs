use std::sync::Arc;
use std::time::Duration;

use super::WorkerLiveness;
use super::agreement::CpuAgreement;
use super::cpu::CpuMeter;
use super::seen::look;
use super::stats::{CPU, WorkerStats};
use crate::coordination::Worker;
use crate::coordination::migration::Protocol;
use crate::lease::EntityKind;
use crate::metrics::{Operation, names};

/// How often the CPU is looked at (`inMemoryWorkerMetricsCaptureFrequencyMillis`).
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
/// The time from the first look at the CPU to the second, after which there is a first value.
const FIRST_SAMPLE: Duration = Duration::from_millis(100);
/// Up to where the CPU may be used; above it, leases are taken away.
const CPU_LIMIT: f64 = 100.0;

/// Reports to the leader how busy this worker is, until it stops, for as long as it is polled and somebody
/// wants to know (KCL's `WorkerMetricStatsReporter`). The first report is made at once, because a worker
/// that has not reported gets no leases.
pub(crate) async fn run(worker: Arc<Worker>) {
    let _ = worker.context.stopping.run_until_cancelled(report_until_stopped(&worker)).await;
    std::future::pending().await
}

/// Retracts the report of a worker that stops, because a leader would give it leases for another
/// minute.
pub(crate) async fn retract(worker: &Worker) {
    if worker.protocol.get() == Protocol::Independent {
        return;
    }
    let (kind, key) = (EntityKind::WorkerMetricStats, worker.context.id.as_str().into());
    if let Err(error) = worker.context.store.delete_entity(kind, &key, &[]).await {
        tracing::warn!(%error, "cannot report to the leader that this worker stops");
        worker.context.coordination_failed("DeleteWorkerMetrics", &error);
    }
}

async fn report_until_stopped(worker: &Worker) {
    worker.protocol.until_reporting().await;
    let mut stats = WorkerStats::new(worker.context.id.clone());
    let (mut agreement, mut liveness) = (CpuAgreement::default(), WorkerLiveness::default());
    let mut meter = if worker.measures_cpu { CpuMeter::detect(&worker.context.clock).await } else { None };
    if let Some(meter) = &mut meter {
        // Fargate knows nothing of a container in its first second.
        let first = meter.sample(&worker.context.clock).await;
        worker.context.clock.sleep(if first.is_some() { FIRST_SAMPLE } else { SAMPLE_PERIOD }).await;
    }
    loop {
        let mut values = Vec::new();
        let next_report =
            worker.context.clock.now() + worker.context.coordination.leader.worker_metrics_interval;
        if let Some(meter) = &mut meter
            && stats.samples.is_empty()
        {
            values.push(meter.sample(&worker.context.clock).await);
            stats.push(CPU, average(&values), CPU_LIMIT);
            values.clear();
        }
        if meter.is_some() {
            look(worker, &mut agreement, &mut liveness).await;
            if stats.withholds_cpu != agreement.withholds() {
                stats.withholds_cpu = agreement.withholds();
                tracing::info!(
                    withheld = stats.withholds_cpu,
                    "whether this worker reports its CPU changes, because of what other workers report"
                );
            }
        }
        report(worker, &stats).await;
        match &mut meter {
            None => worker.context.clock.sleep_until(next_report).await,
            Some(meter) => {
                while worker.context.clock.now() < next_report {
                    worker
                        .context
                        .clock
                        .sleep(SAMPLE_PERIOD.min(next_report.since(worker.context.clock.now())))
                        .await;
                    values.push(meter.sample(&worker.context.clock).await);
                }
                stats.push(CPU, average(&values), CPU_LIMIT);
            }
        }
        worker.protocol.until_reporting().await;
    }
}

/// The mean of the values that could be had.
fn average(values: &[Option<f64>]) -> Option<f64> {
    let known: Vec<f64> = values.iter().copied().flatten().collect();
    #[expect(clippy::cast_precision_loss, reason = "some tens of values")]
    let count = known.len() as f64;
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / count)
}

async fn report(worker: &Worker, stats: &WorkerStats) {
    let since = worker.context.clock.now();
    let write = stats.to_write(worker.context.clock.wall());
    let outcome = worker.context.store.apply_to_entity(EntityKind::WorkerMetricStats, &write).await;
    let took = worker.context.clock.now().since(since);
    worker.context.metrics.operation(Operation::WorkerMetricStatsReporter).outcome(
        names::RUN,
        outcome.is_ok(),
        took,
    );
    if let Err(error) = outcome {
        tracing::warn!(%error, "cannot report how busy this worker is; trying again");
        worker.context.coordination_failed("UpdateWorkerMetrics", &error);
    }
}
