use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::aggregate::{Datum, Pending, batch_len};
use super::{MetricsConfig, MetricsReport, MetricsSink};
use crate::error::with_causes;
use crate::runtime::Clock;

/// The time one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The time that is left for sending when the worker stops.
const LAST_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause between two tries while CloudWatch fails, unless the buffer time is longer.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The one call of CloudWatch that is used.
#[async_trait]
pub(crate) trait PutMetricData: Send + Sync + fmt::Debug {
    /// Sends one request.
    async fn put(&self, namespace: &str, data: &[Datum]) -> Result<(), PutError>;
}

/// Why a request failed, sorted by what becomes of its data.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    /// It may succeed later: keep the data.
    #[error("PutMetricData got no answer, or was throttled or denied")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// It would be refused again: give the data up.
    #[error("PutMetricData was refused its data")]
    Refused(#[source] Box<dyn StdError + Send + Sync>),
}

/// The sink that leads to CloudWatch: merges values by series until the [`Publisher`] takes them.
#[derive(Debug)]
pub(crate) struct Buffer {
    clock: Clock,
    pending: Mutex<Pending>,
    /// Beyond how many series the publisher does not wait any longer.
    crowded_at: usize,
    crowded: Notify,
}

/// Empties a [`Buffer`] into CloudWatch: everything at once every buffer time (or when the buffer is
/// half full), in as few requests as the service allows, because requests cost money. KCL sends 20
/// values a request and does so for every 200 values, which for a worker with a hundred shards means
/// hundreds of requests where two will do.
///
/// # Guarantees
///
/// One request at a time, none longer than 5 s. While CloudWatch fails or hangs, tries become rarer,
/// down to one a minute, and values stay in the buffer, each in the minute it was measured in, until
/// they are sent or the buffer is full. A request that failed may still have arrived: its values are
/// then counted twice.
#[derive(Debug)]
#[must_use = "nothing is sent until it runs"]
pub(crate) struct Publisher(Option<ActivePublisher>);

#[derive(Debug)]
struct ActivePublisher {
    buffer: Arc<Buffer>,
    cloudwatch: Box<dyn PutMetricData>,
    namespace: String,
    buffer_time: Duration,
}

impl Publisher {
    /// A publisher, and the buffer it empties.
    pub(crate) fn new(
        config: &MetricsConfig,
        application: &str,
        clock: Clock,
        cloudwatch: impl PutMetricData + 'static,
    ) -> (Self, Arc<Buffer>) {
        let buffer = Arc::new(Buffer {
            clock,
            pending: Mutex::new(Pending::new(config.max_queue_size)),
            crowded_at: config.max_queue_size / 2,
            crowded: Notify::new(),
        });
        let outlet = ActivePublisher {
            buffer: Arc::clone(&buffer),
            cloudwatch: Box::new(cloudwatch),
            namespace: config.namespace.as_deref().unwrap_or(application).to_owned(),
            buffer_time: config.buffer_time,
        };
        (Self(Some(outlet)), buffer)
    }

    /// A publisher with nothing to do.
    pub(crate) fn idle() -> Self {
        Self(None)
    }

    /// Publishes until `stop` is cancelled, then sends what is left and returns within 5 s.
    ///
    /// # Cancel safety
    ///
    /// Dropping it gives up what has not been sent.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Some(outlet) = self.0 else { return };
        let deadline = async {
            stop.cancelled().await;
            outlet.buffer.clock.sleep(LAST_FLUSH_TIMEOUT).await;
        };
        tokio::select! {
            () = outlet.publish_until(&stop) => {}
            () = deadline => tracing::warn!("CloudWatch does not answer; the last metrics are lost"),
        }
    }
}

impl ActivePublisher {
    async fn publish_until(&self, stop: &CancellationToken) {
        let mut failures = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.buffer.clock.sleep(self.pause(failures)) => {}
                () = self.buffer.crowded.notified(), if failures == 0 => {}
            }
            let is_last = stop.is_cancelled();
            match self.flush().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    let reason = with_causes(&error);
                    tracing::warn!(failures, reason, "cannot send metrics to CloudWatch; trying again later");
                }
            }
            if is_last {
                return;
            }
        }
    }

    /// The buffer time, doubled with every failure in a row.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.buffer_time.saturating_mul(2_u32.saturating_pow(failures));
        doubled.min(PAUSE_MAX.max(self.buffer_time))
    }

    /// Sends everything that is pending, up to the first request that fails.
    async fn flush(&self) -> Result<(), PutError> {
        let (mut data, dropped) = {
            let mut pending = self.buffer.pending.lock();
            (pending.take(), pending.take_dropped())
        };
        if dropped > 0 {
            tracing::warn!(dropped, "metrics were given up: too many waited for CloudWatch");
        }
        while !data.is_empty() {
            let unsent = data.split_off(batch_len(&data));
            match self.put(&data).await {
                Ok(()) => {}
                Err(error @ PutError::Refused(_)) => {
                    let (reason, refused) = (with_causes(&error), data.len());
                    tracing::warn!(refused, reason, "CloudWatch refused metrics; they are given up");
                }
                Err(error) => {
                    self.buffer.pending.lock().put_back(data.into_iter().chain(unsent));
                    return Err(error);
                }
            }
            data = unsent;
        }
        Ok(())
    }

    async fn put(&self, data: &[Datum]) -> Result<(), PutError> {
        let request = self.cloudwatch.put(&self.namespace, data);
        match self.buffer.clock.timeout(REQUEST_TIMEOUT, request).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(PutError::Unavailable(elapsed.into())),
        }
    }
}

impl Buffer {}

impl MetricsSink for Buffer {
    fn record(&self, report: &MetricsReport<'_>) {
        let now = self.clock.wall();
        let is_crowded = {
            let mut pending = self.pending.lock();
            pending.record(now, report.dimensions, report.samples);
            pending.len() >= self.crowded_at
        };
        if is_crowded {
            self.crowded.notify_one();
        }
    }
}

#[cfg(test)]
#[path = "publisher_test.rs"]
mod tests;
