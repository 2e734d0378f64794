//! Faults of one worker's requests to the lease table and the stream.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kinesis_consumer::kinesis::StreamErrorKind;
use kinesis_consumer::lease::{Fault, FaultHook, StoreErrorKind};
use kinesis_consumer::testing;
use tokio::time::Instant;

/// The probability of each kind of fault per request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Odds {
    pub(crate) throttled: f64,
    pub(crate) unavailable: f64,
    pub(crate) timed_out: f64,
    pub(crate) answer_lost: f64,
    pub(crate) slow: f64,
    pub(crate) stale: f64,
    pub(crate) expired_iterator: f64,
    pub(crate) empty_page: f64,
    /// A subscription stops sending events without ending.
    pub(crate) silent: f64,
    /// An event says that the shard has ended, but names no children.
    pub(crate) contradiction: f64,
}

impl Odds {
    /// Draws each kind independently: never, seldom, often or very often.
    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Self {
        let mut odds = || [0.0, 0.0, 0.01, 0.05, 0.15][rng.usize(..5)];
        Self {
            throttled: odds(),
            unavailable: odds(),
            timed_out: odds() / 2.0,
            answer_lost: odds(),
            slow: odds(),
            stale: odds() * 2.0,
            expired_iterator: odds(),
            empty_page: odds(),
            silent: odds(),
            contradiction: odds(),
        }
    }
}

/// The maximum staleness of a scan.
pub(crate) const STALE_MAX: Duration = Duration::from_secs(2);
/// The index of owners is a copy, and may be staler.
const INDEX_STALE_MAX: Duration = Duration::from_secs(6);
/// Longer than any run.
const FOREVER: Duration = Duration::from_secs(1_000_000);

/// When the lease table changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes(Arc<Mutex<Vec<Instant>>>);

impl Changes {
    pub(crate) fn note(&self) {
        self.0.lock().expect("not poisoned").push(Instant::now());
    }

    fn within(&self, time: Duration) -> usize {
        let changes = self.0.lock().expect("not poisoned");
        changes.iter().rev().take_while(|change| change.elapsed() <= time).count()
    }
}

/// The faults of one worker: their probabilities, until all faults stop, and whether it is suspended.
#[derive(Clone, Debug)]
pub(crate) struct FaultSchedule(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rng: fastrand::Rng,
    odds: Odds,
    failover: Duration,
    changes: Changes,
    suspended_until: Instant,
    no_fan_out_until: Instant,
    /// The number of further requests to the lease table after which the worker is cut off from
    /// everything.
    cut_off_after: Option<u32>,
}

impl FaultSchedule {
    pub(crate) fn new(seed: u64, odds: Odds, failover: Duration, changes: Changes) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let (suspended_until, no_fan_out_until) = (Instant::now(), Instant::now());
        let state =
            State { rng, odds, failover, changes, suspended_until, no_fan_out_until, cut_off_after: None };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Replaces the probabilities, and ends suspensions, outages and pending cut-offs.
    pub(crate) fn change(&self, odds: Odds) {
        let mut state = self.0.lock().expect("not poisoned");
        state.odds = odds;
        state.cut_off_after = None;
        state.suspended_until = Instant::now();
        state.no_fan_out_until = Instant::now();
    }

    /// Suspends all requests and processors of the worker for `length`, as if its process were
    /// suspended.
    pub(crate) fn suspend(&self, length: Duration) {
        self.0.lock().expect("not poisoned").suspended_until = Instant::now() + length;
    }

    /// Cuts the worker off from everything after this many further requests to the lease table.
    pub(crate) fn cut_off_after(&self, requests: u32) {
        self.0.lock().expect("not poisoned").cut_off_after = Some(requests);
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.0.lock().expect("not poisoned").cut_off_after == Some(0)
    }

    /// Makes all subscriptions fail for `length`.
    pub(crate) fn lose_fan_out(&self, length: Duration) {
        self.0.lock().expect("not poisoned").no_fan_out_until = Instant::now() + length;
    }

    /// Whether the next event is made inconsistent.
    pub(crate) fn contradicts(&self) -> bool {
        let mut state = self.0.lock().expect("not poisoned");
        let probability = state.odds.contradiction;
        state.chance(probability)
    }

    pub(crate) fn suspended_until(&self) -> Instant {
        self.0.lock().expect("not poisoned").suspended_until
    }

    pub(crate) fn table_faults(&self) -> FaultHook {
        let faults = self.clone();
        Arc::new(move |operation, _| faults.0.lock().expect("not poisoned").table_fault(operation))
    }

    pub(crate) fn stream_fault(&self, operation: &str) -> Option<testing::Fault> {
        self.0.lock().expect("not poisoned").stream_fault(operation)
    }
}

impl State {
    fn chance(&mut self, probability: f64) -> bool {
        self.rng.f64() < probability
    }

    fn table_fault(&mut self, operation: &'static str) -> Fault {
        let suspended = self.suspended_until.saturating_duration_since(Instant::now());
        if !suspended.is_zero() {
            return Fault::default().delayed(suspended, Duration::ZERO);
        }
        if let Some(left) = &mut self.cut_off_after {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.suspended_until = Instant::now() + FOREVER;
                // The last request may still take effect.
                let there = if self.rng.bool() { FOREVER } else { Duration::ZERO };
                return Fault::default().delayed(there, FOREVER);
            }
        }
        // A request takes at most a third of the failover time; then it counts as timed out.
        let timeout = self.failover / 3;
        let part = timeout.mul_f64(self.rng.f64());
        if self.chance(self.odds.throttled) {
            return Fault::refused(StoreErrorKind::Throttled);
        }
        if self.chance(self.odds.unavailable) {
            return Fault::never_sent();
        }
        if self.chance(self.odds.timed_out) {
            return match self.rng.bool() {
                true => Fault::never_sent().delayed(timeout, Duration::ZERO),
                false => Fault::answer_lost().delayed(part, timeout - part),
            };
        }
        if self.chance(self.odds.answer_lost) {
            return Fault::answer_lost();
        }
        let mut fault = Fault::default();
        if matches!(operation, "ListLeases" | "ListLeaseKeysForWorker") && self.chance(self.odds.stale) {
            let recent =
                self.changes.within(if operation == "ListLeases" { STALE_MAX } else { INDEX_STALE_MAX });
            fault = Fault::stale(self.rng.usize(..=recent));
        }
        if self.chance(self.odds.slow) {
            fault = fault.delayed(part, (timeout - part).mul_f64(self.rng.f64()));
        }
        fault
    }

    fn stream_fault(&mut self, operation: &str) -> Option<testing::Fault> {
        let suspended = self.suspended_until.saturating_duration_since(Instant::now());
        if !suspended.is_zero() {
            return Some(testing::Fault::Delay(suspended));
        }
        if operation.starts_with("SubscribeToShard") && Instant::now() < self.no_fan_out_until {
            return Some(testing::Fault::Error(StreamErrorKind::Unavailable));
        }
        // Events are much more frequent than requests.
        if operation == "SubscribeToShardEvent" && !self.chance(0.1) {
            return None;
        }
        if operation == "SubscribeToShardEvent" && self.chance(self.odds.silent) {
            return Some(testing::Fault::Delay(Duration::from_secs(1000)));
        }
        let delay = Duration::from_millis(self.rng.u64(1..4000));
        if self.chance(self.odds.throttled) {
            return Some(testing::Fault::Error(StreamErrorKind::Throttled));
        }
        if self.chance(self.odds.unavailable) {
            return Some(testing::Fault::Error(StreamErrorKind::Unavailable));
        }
        if self.chance(self.odds.timed_out) {
            return Some(testing::Fault::NoAnswer(delay));
        }
        if self.chance(self.odds.slow) {
            return Some(testing::Fault::Delay(delay));
        }
        if operation == "GetRecords" && self.chance(self.odds.expired_iterator) {
            return Some(testing::Fault::Error(StreamErrorKind::ExpiredIterator));
        }
        if operation == "GetRecords" && self.chance(self.odds.empty_page) {
            return Some(testing::Fault::EmptyPage);
        }
        None
    }
}
