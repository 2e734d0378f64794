use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use super::statistics::{Series, Statistics};
use crate::runtime::Clock;

/// Series per request. CloudWatch takes 1,000 and 1 MB; each is below 1 kB. (KCL sends 20 at a time,
/// CloudWatch's limit of old, which takes 50 times as many requests.)
const SERIES_PER_REQUEST: usize = 1000;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Where metrics are sent.
#[async_trait]
pub(super) trait Sink: Send + Sync + fmt::Debug {
    /// Sends one request.
    async fn put(&self, series: &[(Series, Statistics)], time: SystemTime) -> Result<(), SinkError>;
}

/// Metrics were not taken.
#[derive(Debug, thiserror::Error)]
#[error("metrics were not taken: {0}")]
pub(super) struct SinkError(pub(super) String);

/// Sends what was gathered: every buffer time, earlier if there is much of it, and once more at the
/// end. What is not taken is merged with what follows, within the bound of the queue.
#[derive(Debug)]
pub(crate) struct Publisher {
    metrics: Metrics,
    sink: Option<Box<dyn Sink>>,
    clock: Clock,
}

impl Publisher {
    pub(super) fn new(metrics: Metrics, sink: Option<Box<dyn Sink>>, clock: Clock) -> Self {
        Self { metrics, sink, clock }
    }

    /// Runs until `stop`, and at most the time of one request longer.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Some(sink) = &self.sink else { return };
        let buffer_time = self.metrics.0.config.buffer_time;
        let mut failures: u32 = 0;
        loop {
            let pause = buffer_time.saturating_mul(1 << failures.min(8)).min(PAUSE_MAX.max(buffer_time));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.clock.sleep(pause) => {}
                () = self.metrics.0.half_full.notified(), if failures == 0 => {}
            }
            let sent = tokio::select! {
                biased;
                sent = self.send(&**sink) => sent,
                () = stop.cancelled() => break,
            };
            failures = if sent { 0 } else { failures.saturating_add(1) };
        }
        // What is left after this is of no use to anybody.
        let _ = self.clock.timeout(REQUEST_TIMEOUT, self.send(&**sink)).await;
    }

    /// Whether everything was taken.
    async fn send(&self, sink: &dyn Sink) -> bool {
        let (gathered, dropped) =
            self.metrics.gathered().map(|mut gathered| gathered.take()).unwrap_or_default();
        if dropped > 0 {
            tracing::warn!(dropped, "metrics were dropped because CloudWatch does not take them");
        }
        let time = self.clock.wall();
        let mut unsent = Unsent { metrics: &self.metrics, series: gathered };
        while !unsent.series.is_empty() {
            let request = &unsent.series[unsent.series.len().saturating_sub(SERIES_PER_REQUEST)..];
            let count = request.len();
            let failure = match self.clock.timeout(REQUEST_TIMEOUT, sink.put(request, time)).await {
                Ok(Ok(())) => {
                    unsent.series.truncate(unsent.series.len() - count);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {REQUEST_TIMEOUT:?}"),
            };
            tracing::debug!(failure, "metrics are kept and sent later");
            return false;
        }
        true
    }
}

/// Gives back what was not sent, also if sending is given up half-way.
struct Unsent<'a> {
    metrics: &'a Metrics,
    series: Vec<(Series, Statistics)>,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if let Some(mut gathered) = self.metrics.gathered() {
            for (series, statistics) in self.series.drain(..) {
                gathered.merge(series, statistics);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Notify;

    use super::super::statistics::Gathered;
    use super::super::{MetricsConfig, Operation, Shared, names};
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Mood {
        Fine,
        Failing,
        Hanging,
    }

    #[derive(Debug, Clone)]
    struct Fake {
        mood: Arc<Mutex<Mood>>,
        requests: Arc<Mutex<Vec<Vec<(Series, Statistics)>>>>,
    }

    #[async_trait]
    impl Sink for Fake {
        async fn put(&self, series: &[(Series, Statistics)], _: SystemTime) -> Result<(), SinkError> {
            let mood = *self.mood.lock().unwrap();
            match mood {
                Mood::Fine => {
                    self.requests.lock().unwrap().push(series.to_vec());
                    Ok(())
                }
                Mood::Failing => Err(SinkError("no".to_owned())),
                Mood::Hanging => std::future::pending().await,
            }
        }
    }

    struct Running {
        metrics: Metrics,
        fake: Fake,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
        clock: Clock,
    }

    fn run(mood: Mood, queue_max: usize) -> Running {
        let fake = Fake { mood: Arc::new(Mutex::new(mood)), requests: Arc::default() };
        let metrics = Metrics(Arc::new(Shared {
            gathered: Some(Mutex::new(Gathered::new(queue_max))),
            config: MetricsConfig { queue_max, ..MetricsConfig::default() },
            worker: "w".into(),
            half_full: Notify::new(),
        }));
        let (clock, stop) = (Clock::system(), CancellationToken::new());
        let publisher = Publisher::new(metrics.clone(), Some(Box::new(fake.clone())), clock.clone());
        let task = tokio::spawn(publisher.run(stop.clone()));
        Running { metrics, fake, stop, task, clock }
    }

    impl Running {
        fn lose(&self, leases: u64) {
            self.metrics.report(Operation::RenewAllLeases).count(names::LOST_LEASES, leases);
        }

        fn sent(&self) -> f64 {
            self.fake.requests.lock().unwrap().iter().flatten().map(|(_, statistics)| statistics.sum).sum()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_are_sent_every_buffer_time_and_at_the_end() {
        let running = run(Mood::Fine, 1000);
        running.lose(1);
        running.clock.sleep(Duration::from_secs(9)).await;
        assert_eq!(running.sent(), 0.0);
        running.clock.sleep(Duration::from_secs(2)).await;
        assert_eq!(running.sent(), 1.0);
        running.lose(2);
        running.stop.cancel();
        running.task.await.unwrap();
        assert_eq!(running.fake.requests.lock().unwrap().len(), 2);
        assert_eq!(running.fake.requests.lock().unwrap()[1][0].1.sum, 2.0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_is_merged_and_sent_later() {
        for mood in [Mood::Failing, Mood::Hanging] {
            let running = run(mood, 1000);
            for _ in 0..60 {
                running.lose(1);
                running.clock.sleep(Duration::from_secs(1)).await;
            }
            *running.fake.mood.lock().unwrap() = Mood::Fine;
            running.clock.sleep(PAUSE_MAX).await;
            assert_eq!(running.sent(), 60.0, "{mood:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_hangs_does_not_hold_up_the_end() {
        let running = run(Mood::Hanging, 1000);
        running.lose(1);
        running.clock.sleep(Duration::from_secs(12)).await;
        let stopped = running.clock.now();
        running.stop.cancel();
        running.task.await.unwrap();
        assert!(running.clock.now().since(stopped) <= REQUEST_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn many_series_go_in_several_requests_and_before_the_time() {
        let running = run(Mood::Fine, 6000);
        for shard in 0..3500 {
            let shard = format!("shardId-{shard}").into();
            running.metrics.report(Operation::ProcessTask).shard(&shard).count(names::RECORDS_PROCESSED, 1);
        }
        running.clock.sleep(Duration::from_secs(1)).await;
        let sizes: Vec<_> = running.fake.requests.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(sizes, [1000, 1000, 1000, 500]);
    }
}
