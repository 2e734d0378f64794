use std::time::Duration;

use crate::kinesis::StreamErrorKind;
use crate::retrieval::RetrievalConfig;
use crate::types::Moment;

/// The shortest pause between reads of a shard that is not behind.
const IDLE_MIN: Duration = Duration::from_millis(200);

/// A shard that had records lately is read this many times as often as an idle one.
const ACTIVE_SPEEDUP: u32 = 4;

/// A shard counts as active for this long after a page with records, or until the usual gap between such
/// pages has passed `GAPS` times, if that is longer.
const ACTIVE_MIN: Duration = Duration::from_secs(3);
const ACTIVE_MAX: Duration = Duration::from_secs(30);
const GAPS: u32 = 8;

/// If records come less often than this, more reads in between find too few of them.
const GAP_MAX: Duration = Duration::from_secs(6);

/// When a shard may be read next.
///
/// Three limits apply, and the latest decides: the request rate, the byte rate, and the pause after the
/// last read.
#[derive(Debug, Clone)]
pub(super) struct Pacer {
    idle: Duration,
    read_interval: Duration,
    bytes_per_second: Option<u64>,
    /// When the last read was started.
    started: Moment,
    /// When the request rate allows another read.
    reads_allowed: Moment,
    /// When the byte rate allows another read.
    bytes_allowed: Moment,
    /// When the pause after the last read ends.
    pause_until: Moment,
    /// The pause after a page that is not behind: short while the shard is active, and doubled by every
    /// page after that.
    pause: Duration,
    activity: Activity,
    /// Consecutive failures.
    failures: u32,
}

/// When a shard had records, and for how long it counts as active since.
#[derive(Debug, Clone, Copy, Default)]
struct Activity {
    /// When the last page with records was read.
    last: Option<Moment>,
    /// The usual gap between pages with records, of which recent ones count more.
    gap: Option<Duration>,
    until: Moment,
}

impl Activity {
    fn records_at(&mut self, now: Moment) {
        if let Some(last) = self.last {
            let gap = now.since(last).min(GAP_MAX * 4);
            self.gap = Some(self.gap.map_or(gap, |usual| (usual * 3 + gap) / 4));
        }
        self.last = Some(now);
        let window = self.gap.filter(|gap| *gap <= GAP_MAX).unwrap_or_default() * GAPS;
        self.until = now + window.clamp(ACTIVE_MIN, ACTIVE_MAX);
    }
}

/// The result of a read.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageSummary {
    pub(super) payload_bytes: u64,
    pub(super) has_records: bool,
    /// Whether more records are available.
    pub(super) is_behind: bool,
}

/// The pause after a failure: random between `floor` and a limit that starts at `first` and doubles with
/// every consecutive failure up to `max`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    floor: Duration,
    first: Duration,
    max: Duration,
}

impl Backoff {
    /// For transient failures: throttling, outages, expired iterators.
    pub(super) const TRANSIENT: Self = Self {
        floor: Duration::from_millis(100),
        first: Duration::from_millis(200),
        max: Duration::from_secs(10),
    };

    /// For failures that persist until they are fixed by hand.
    pub(super) const PERSISTENT: Self =
        Self { floor: Duration::from_secs(5), first: Duration::from_secs(10), max: Duration::from_secs(60) };

    /// The back-off for a failure of which only the kind is known.
    pub(super) fn after(kind: StreamErrorKind) -> Self {
        match kind {
            StreamErrorKind::Denied => Self::PERSISTENT,
            _ => Self::TRANSIENT,
        }
    }

    pub(super) fn delay(self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
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
            pause_until: Moment::ORIGIN,
            pause: config.idle_time_between_reads,
            activity: Activity::default(),
            failures: 0,
        }
    }

    /// The earliest moment of the next read; it may have passed.
    pub(super) fn next_read(&self) -> Moment {
        self.reads_allowed.max(self.bytes_allowed).max(self.pause_until)
    }

    /// A read was sent.
    pub(super) fn read_started(&mut self, now: Moment) {
        self.started = now;
        self.reads_allowed = now + self.read_interval;
    }

    /// The read returned a page.
    pub(super) fn page_read(&mut self, now: Moment, page: PageSummary) {
        self.failures = 0;
        if let Some(rate) = self.bytes_per_second {
            // The service counts the same way: after 10 MB it refuses reads for five seconds.
            let paid_in = Duration::from_secs_f64(page.payload_bytes as f64 / rate as f64);
            self.bytes_allowed = self.bytes_allowed.max(now) + paid_in;
        }
        if page.has_records {
            self.activity.records_at(now);
        }
        let is_active = page.is_behind || now < self.activity.until;
        self.pause = if is_active { self.idle / ACTIVE_SPEEDUP } else { self.pause * 2 };
        self.pause = self.pause.max(IDLE_MIN).min(self.idle);
        self.pause_until = if page.is_behind { now } else { self.started + self.pause };
    }

    /// The read, or the request for its iterator, failed. Returns how long to wait.
    pub(super) fn read_failed(&mut self, now: Moment, backoff: Backoff, rng: &mut fastrand::Rng) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let delay = backoff.delay(self.failures, rng);
        self.pause_until = now + delay;
        self.next_read().since(now)
    }

    /// Failures since the last successful read.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_AT_TIP: PageSummary = PageSummary { payload_bytes: 0, has_records: false, is_behind: false };
    const RECORDS_AT_TIP: PageSummary =
        PageSummary { payload_bytes: 1000, has_records: true, is_behind: false };
    const EMPTY_BEHIND: PageSummary = PageSummary { payload_bytes: 0, has_records: false, is_behind: true };
    const TEN_MIB_BEHIND: PageSummary =
        PageSummary { payload_bytes: 10 << 20, has_records: true, is_behind: true };

    fn at(millis: u64) -> Moment {
        Moment::after_origin(Duration::from_millis(millis))
    }

    /// Milliseconds between the starts of reads that return `pages` immediately.
    fn gaps(config: &RetrievalConfig, pages: &[PageSummary]) -> Vec<u128> {
        let mut pacer = Pacer::new(config);
        let mut now = at(10_000);
        assert!(pacer.next_read() <= now, "the first read is allowed at once");
        pages
            .iter()
            .map(|&page| {
                pacer.read_started(now);
                pacer.page_read(now, page);
                let next = pacer.next_read().max(now);
                let gap = next.since(now).as_millis();
                now = next;
                gap
            })
            .collect()
    }

    #[test]
    fn pauses_follow_what_the_reads_bring() {
        let default = RetrievalConfig::default;
        let unlimited = RetrievalConfig { reads_per_second: None, bytes_per_second: None, ..default() };
        let eager = RetrievalConfig { idle_time_between_reads: IDLE_MIN, ..default() };
        let half_share = RetrievalConfig { reads_per_second: Some(2.5), ..default() };
        let cases: [(&str, &RetrievalConfig, &[PageSummary], &[u128]); 8] = [
            ("an idle shard at the idle interval", &default(), &[EMPTY_AT_TIP; 3], &[1500; 3]),
            (
                "a shard that had records more often for a while, then less and less",
                &default(),
                &[
                    RECORDS_AT_TIP,
                    EMPTY_AT_TIP,
                    EMPTY_AT_TIP,
                    EMPTY_AT_TIP,
                    EMPTY_AT_TIP,
                    EMPTY_AT_TIP,
                    EMPTY_AT_TIP,
                    EMPTY_AT_TIP,
                    EMPTY_AT_TIP,
                    EMPTY_AT_TIP,
                    RECORDS_AT_TIP,
                ],
                &[375, 375, 375, 375, 375, 375, 375, 375, 750, 1500, 375],
            ),
            ("never below the shortest pause", &eager, &[RECORDS_AT_TIP, EMPTY_AT_TIP], &[200, 200]),
            ("a shard behind as the request budget allows", &default(), &[EMPTY_BEHIND; 3], &[200; 3]),
            ("a share of the request budget", &half_share, &[EMPTY_BEHIND; 2], &[400; 2]),
            ("a shard behind without budgets", &unlimited, &[EMPTY_BEHIND, TEN_MIB_BEHIND], &[0, 0]),
            ("large pages as the byte budget allows", &default(), &[TEN_MIB_BEHIND; 2], &[5000; 2]),
            ("caught up after being behind", &default(), &[TEN_MIB_BEHIND, EMPTY_AT_TIP], &[5000, 750]),
        ];
        for (what, config, pages, expected) in cases {
            assert_eq!(gaps(config, pages), expected, "{what}");
        }
    }

    /// Reads per second, and the time in milliseconds within which 99 of 100 records are read, if a record is
    /// written every `gap` milliseconds on average.
    fn trickle(gap: f64) -> (f64, u128) {
        let (mut rng, mut pacer) = (fastrand::Rng::with_seed(1), Pacer::new(&RetrievalConfig::default()));
        let (mut now, mut written) = (at(10_000), 10_000.0);
        let (mut reads, mut waits) = (0_u32, Vec::new());
        while waits.len() < 5000 {
            let before = waits.len();
            while Moment::after_origin(Duration::from_secs_f64(written / 1000.0)) <= now {
                waits.push(
                    now.since(Moment::after_origin(Duration::from_secs_f64(written / 1000.0))).as_millis(),
                );
                written -= gap * (1.0 - rng.f64()).ln();
            }
            reads += 1;
            pacer.read_started(now);
            pacer.page_read(now, if waits.len() > before { RECORDS_AT_TIP } else { EMPTY_AT_TIP });
            now = pacer.next_read();
        }
        waits.sort_unstable();
        (f64::from(reads) / now.since(at(10_000)).as_secs_f64(), waits[waits.len() * 99 / 100])
    }

    #[test]
    fn records_that_come_every_few_seconds_are_read_soon() {
        for gap in [100.0, 400.0, 1000.0, 3000.0] {
            let (reads, p99) = trickle(gap);
            assert!(p99 <= 450 && reads <= 2.7, "every {gap} ms: {reads} reads per second, {p99} ms");
        }
        // Where records are rare, they cost few reads more than an idle shard's 0.67 per second.
        let (reads, _) = trickle(60_000.0);
        assert!(reads < 0.8, "{reads} reads per second");
    }

    #[test]
    fn an_answer_that_took_longer_than_the_pause_needs_none() {
        let mut pacer = Pacer::new(&RetrievalConfig::default());
        pacer.read_started(at(0));
        pacer.page_read(at(4000), EMPTY_AT_TIP);
        assert!(pacer.next_read() <= at(4000));
    }

    #[test]
    fn back_offs_double_to_a_limit_and_never_spin() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut pacer = Pacer::new(&RetrievalConfig {
                reads_per_second: None,
                bytes_per_second: None,
                ..RetrievalConfig::default()
            });
            let mut delays = (1..=100).map(|_| pacer.read_failed(at(0), Backoff::TRANSIENT, &mut rng));
            for limit in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
                let delay = delays.next().expect("more").as_millis();
                assert!((100..=limit).contains(&delay), "{delay} of {limit}, seed {seed}");
            }
            assert!(delays.all(|delay| delay <= Duration::from_secs(10)));

            pacer.page_read(at(0), EMPTY_BEHIND);
            assert_eq!(pacer.failures(), 0);
            let delay = pacer.read_failed(at(0), Backoff::TRANSIENT, &mut rng);
            assert!(delay <= Duration::from_millis(200), "a success resets the failure count");
            let delay = pacer.read_failed(at(0), Backoff::PERSISTENT, &mut rng);
            assert!((5..=60).contains(&delay.as_secs()));
        }
    }

    #[test]
    fn only_a_denied_request_waits_for_somebody_to_fix_it() {
        use StreamErrorKind::{Denied, ExpiredIterator, InUse, Malformed, NotFound, Throttled, Unavailable};
        for seed in 0..50 {
            let first = |kind| Backoff::after(kind).delay(1, &mut fastrand::Rng::with_seed(seed)).as_millis();
            assert!((5_000..=10_000).contains(&first(Denied)), "{}", first(Denied));
            for kind in [ExpiredIterator, InUse, Malformed, NotFound, Throttled, Unavailable] {
                assert!((100..=200).contains(&first(kind)), "{kind:?}: {}", first(kind));
            }
        }
    }

    #[test]
    fn a_back_off_does_not_shorten_what_the_budgets_ask_for() {
        let mut pacer = Pacer::new(&RetrievalConfig::default());
        pacer.read_started(at(0));
        pacer.page_read(at(0), TEN_MIB_BEHIND);
        let delay = pacer.read_failed(at(0), Backoff::TRANSIENT, &mut fastrand::Rng::with_seed(1));
        assert_eq!(delay, Duration::from_secs(5));
    }
}
