#![expect(clippy::disallowed_methods, reason = "the one place that reads clocks and sets timers")]

use std::future::Future;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::types::Moment;

/// One worker's clock: monotonic moments and timers from tokio (so that tests can pause them), and the
/// wall-clock time where the protocol stores or sends one.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    origin: Instant,
    wall: Wall,
    rate: f64,
}

#[derive(Debug, Clone, Copy)]
enum Wall {
    System,
    /// The wall-clock time at the origin; it advances with tokio's clock.
    #[cfg(any(test, feature = "test-util"))]
    StartingAt(SystemTime),
}

/// A timeout has elapsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no response within the timeout")]
pub(crate) struct Elapsed;

impl Clock {
    /// The system clock.
    pub(crate) fn system() -> Self {
        Self { origin: Instant::now(), wall: Wall::System, rate: 1.0 }
    }

    /// A clock whose wall-clock time starts at `wall` and follows tokio's clock, paused or not,
    /// running `rate` times as fast.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn simulated(wall: SystemTime, rate: f64) -> Self {
        Self { origin: Instant::now(), wall: Wall::StartingAt(wall), rate }
    }

    /// The current moment.
    pub(crate) fn now(&self) -> Moment {
        Moment::after_origin(self.origin.elapsed().mul_f64(self.rate))
    }

    /// The current wall-clock time.
    pub(crate) fn wall(&self) -> SystemTime {
        match self.wall {
            Wall::System => SystemTime::now(),
            #[cfg(any(test, feature = "test-util"))]
            Wall::StartingAt(start) => start + self.now().since(Moment::ORIGIN),
        }
    }

    /// Waits for `duration` by this clock.
    pub(crate) async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration.div_f64(self.rate)).await;
    }

    /// Waits until `moment` by this clock.
    pub(crate) async fn sleep_until(&self, moment: Moment) {
        self.sleep(moment.since(self.now())).await;
    }

    /// Runs `future` for at most `duration` by this clock, then drops it.
    pub(crate) async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(duration.div_f64(self.rate), future).await.map_err(|_| Elapsed)
    }
}
