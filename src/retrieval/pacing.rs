use std::time::Duration;

use crate::retrieval::RetrievalConfig;
use crate::types::Moment;

/// The shortest pause between reads of a shard that is not behind.
const IDLE_MIN: Duration = Duration::from_millis(200);

/// A shard that just had records is read this much more often than an idle one.
const ACTIVE_SPEEDUP: u32 = 4;

/// When a shard may be read next.
///
/// Several clocks run at once, and the latest of them decides: the budget of requests, the budget of
/// bytes, and the pause that follows from what the last read brought.
#[derive(Debug, Clone)]
pub(super) struct Pacer {
    idle: Duration,
    read_interval: Duration,
    bytes_per_second: Option<u64>,
    /// When the last read was started.
    started: Moment,
    /// When the request budget allows another read.
    reads_allowed: Moment,
    /// When the bytes read so far are paid for.
    bytes_allowed: Moment,
    /// When the pause after the last read is over.
    rested: Moment,
    /// The pause after the last page, while the shard is not behind.
    pause: Duration,
    /// Failures in a row.
    failures: u32,
}

/// What a read brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageSummary {
    pub(super) payload_bytes: u64,
    pub(super) has_records: bool,
    /// More records are waiting.
    pub(super) is_behind: bool,
}

/// How long to stay away after a failure: a random time from `floor` to a limit that starts at `first`
/// and doubles with every further failure up to `max`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    floor: Duration,
    first: Duration,
    max: Duration,
}

impl Backoff {
    /// For what passes by itself: throttling, outages, expired iterators.
    pub(super) const PASSING: Self = Self {
        floor: Duration::from_millis(100),
        first: Duration::from_millis(200),
        max: Duration::from_secs(10),
    };

    /// For what somebody has to fix.
    pub(super) const LASTING: Self =
        Self { floor: Duration::from_secs(5), first: Duration::from_secs(10), max: Duration::from_secs(60) };

    fn delay(self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let limit = self.first.saturating_mul(1 << doublings).min(self.max);
        self.floor + (limit.saturating_sub(self.floor)).mul_f64(rng.f64())
    }
}

impl Pacer {
    /// A pacer that allows the first read at once.
    pub(super) fn new(config: &RetrievalConfig) -> Self {
        Self {
            idle: config.idle_time_between_reads,
            read_interval: config
                .reads_per_second
                .map_or(Duration::ZERO, |reads| Duration::from_secs_f64(reads.recip())),
            bytes_per_second: config.bytes_per_second,
            started: Moment::ORIGIN,
            reads_allowed: Moment::ORIGIN,
            bytes_allowed: Moment::ORIGIN,
            rested: Moment::ORIGIN,
            pause: config.idle_time_between_reads,
            failures: 0,
        }
    }

    /// The moment from which on the next read may be sent; it may have passed.
    pub(super) fn next_read(&self) -> Moment {
        self.reads_allowed.max(self.bytes_allowed).max(self.rested)
    }

    /// A read is sent.
    pub(super) fn read_started(&mut self, now: Moment) {
        self.started = now;
        self.reads_allowed = now + self.read_interval;
    }

    /// The read was answered with a page.
    pub(super) fn page_read(&mut self, now: Moment, page: PageSummary) {
        self.failures = 0;
        if let Some(rate) = self.bytes_per_second {
            // The service counts the same way: after 10 MB it refuses reads for five seconds.
            let paid_in = Duration::from_secs_f64(page.payload_bytes as f64 / rate as f64);
            self.bytes_allowed = self.bytes_allowed.max(now) + paid_in;
        }
        if page.is_behind {
            self.rested = now;
            return;
        }
        self.pause = if page.has_records { self.idle / ACTIVE_SPEEDUP } else { self.pause * 2 };
        self.pause = self.pause.max(IDLE_MIN).min(self.idle);
        self.rested = self.started + self.pause;
    }

    /// The read, or what had to precede it, failed. Returns how long to stay away.
    pub(super) fn read_failed(&mut self, now: Moment, backoff: Backoff, rng: &mut fastrand::Rng) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let delay = backoff.delay(self.failures, rng);
        self.rested = now + delay;
        self.next_read().since(now)
    }

    /// How many reads failed since the last that did not.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}
