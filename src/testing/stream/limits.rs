use std::time::{Duration, SystemTime};

use crate::config::with_settings;

/// The rates at which the simulated service throttles. Each can be disabled with `None`.
///
/// A rate can be exceeded by one second's worth at once, as in the service. After that, calls fail with
/// `ProvisionedThroughputExceeded` or `LimitExceeded` until enough time has passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// GetRecords calls per second and shard.
    pub reads: Option<u32>,
    /// Bytes read per second and shard, by all GetRecords calls together and by each registered consumer
    /// separately.
    pub read_bytes: Option<u32>,
    /// Records written per second and shard.
    pub writes: Option<u32>,
    /// Bytes written per second and shard.
    pub write_bytes: Option<u32>,
    /// GetShardIterator calls per second and shard.
    pub iterators: Option<u32>,
    /// ListShards calls per second and stream.
    pub lists: Option<u32>,
    /// DescribeStreamSummary calls per second and account.
    pub describes: Option<u32>,
}

impl Limits {
    /// No throttling at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The documented limits of the service: 5 reads and 2 MiB per second and shard, 1,000 records and 1
    /// MiB written, 5 iterators, 1,000 lists per stream, 20 describes per account.
    #[must_use]
    pub fn service() -> Self {
        Self {
            reads: Some(5),
            read_bytes: Some(2 << 20),
            writes: Some(1000),
            write_bytes: Some(1 << 20),
            iterators: Some(5),
            lists: Some(1000),
            describes: Some(20),
        }
    }
}

with_settings!(Limits {} optional {
    with_reads = reads: u32,
    with_read_bytes = read_bytes: u32,
    with_writes = writes: u32,
    with_write_bytes = write_bytes: u32,
    with_iterators = iterators: u32,
    with_lists = lists: u32,
    with_describes = describes: u32,
});

/// The use of one rate: a token bucket that holds one second's worth and refills steadily.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// When the bucket will be full again.
    settled: Option<SystemTime>,
}

impl Usage {
    /// Whether any tokens are left at `now`. One large call may overdraw the bucket; later calls then
    /// wait.
    pub(super) fn allows(&self, now: SystemTime, rate: Option<u32>) -> bool {
        rate.is_none() || self.debt(now) < Duration::from_secs(1)
    }

    /// Whether `amount` can be used without overdrawing.
    pub(super) fn allows_whole(&self, now: SystemTime, rate: Option<u32>, amount: usize) -> bool {
        let Some(rate) = rate else { return true };
        let cost = cost(rate, amount);
        self.debt(now) + cost <= Duration::from_secs(1)
            || (cost > Duration::from_secs(1) && self.debt(now).is_zero())
    }

    /// Uses `amount`.
    pub(super) fn spend(&mut self, now: SystemTime, rate: Option<u32>, amount: usize) {
        if let Some(rate) = rate {
            self.settled = Some(self.settled.map_or(now, |settled| settled.max(now)) + cost(rate, amount));
        }
    }

    /// When [`allows`](Self::allows) will return true.
    pub(super) fn allowed_at(&self, now: SystemTime, rate: Option<u32>) -> SystemTime {
        match rate {
            None => now,
            Some(_) => now + self.debt(now).saturating_sub(Duration::from_millis(999)),
        }
    }

    fn debt(&self, now: SystemTime) -> Duration {
        self.settled.and_then(|settled| settled.duration_since(now).ok()).unwrap_or_default()
    }
}

fn cost(rate: u32, amount: usize) -> Duration {
    let amount = u64::try_from(amount).unwrap_or(u64::MAX);
    Duration::from_nanos(amount.saturating_mul(1_000_000_000) / u64::from(rate.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn five_calls_fit_a_second_and_the_sixth_waits_for_its_fifth() {
        let (mut usage, rate) = (Usage::default(), Some(5));
        for _ in 0..5 {
            assert!(usage.allows(START, rate));
            usage.spend(START, rate, 1);
        }
        assert!(!usage.allows(START, rate));
        assert!(usage.allows(START + Duration::from_millis(201), rate));
        assert!(usage.allows(usage.allowed_at(START, rate), rate));
    }

    #[test]
    fn a_large_call_overdraws_and_is_paid_off() {
        let (mut usage, rate) = (Usage::default(), Some(2 << 20));
        usage.spend(START, rate, 10 << 20);
        assert!(!usage.allows(START + Duration::from_millis(3_900), rate));
        assert!(usage.allows(START + Duration::from_millis(4_100), rate));
    }

    #[test]
    fn without_a_rate_nothing_is_refused() {
        let mut usage = Usage::default();
        usage.spend(START, None, usize::MAX);
        assert!(usage.allows(START, None) && usage.allows_whole(START, None, usize::MAX));
    }
}
