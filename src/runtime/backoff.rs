use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The pauses between the attempts of one request: doubling, with jitter, and limited in number.
#[derive(Debug)]
pub(crate) struct Backoff(ExponentialBackoff);

impl Backoff {
    /// At most `retries` pauses, from `min` to twice `max`; `seed` determines the jitter.
    pub(crate) fn new(min: Duration, max: Duration, retries: usize, seed: u64) -> Self {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(min)
            .with_max_delay(max)
            .with_max_times(retries)
            .with_jitter()
            .with_jitter_seed(seed);
        Self(backoff.build())
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_bounds_and_end() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<Duration> = Backoff::new(min, max, 8, 7).collect();
        assert_eq!(pauses.len(), 8);
        assert!(pauses.iter().all(|pause| (min..=max * 2).contains(pause)), "{pauses:?}");
        assert_eq!(pauses, Backoff::new(min, max, 8, 7).collect::<Vec<_>>(), "the seed decides");
    }
}
