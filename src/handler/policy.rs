use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::dead_letter::DeadLetters;
use crate::error::{Error, invalid};

/// What to do when a handler fails. By default records are retried indefinitely, so that none is passed over: the
/// shard waits for a record that cannot be handled.
///
/// ```
/// use std::time::Duration;
/// use kinesis_consumer::ErrorPolicy;
/// # fn example(letters: impl kinesis_consumer::DeadLetters + 'static) {
/// let policy = ErrorPolicy::attempts(5).older_than(Duration::from_secs(6 * 60 * 60)).dead_letter(letters);
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ErrorPolicy {
    /// The pause between two attempts.
    pub pause: Pause,
    /// How often a record is tried; `None` for no limit. At least 1.
    pub attempts: Option<u32>,
    /// A record that arrived in the stream longer ago than this is not tried again; `None` for no limit.
    pub record_age: Option<Duration>,
    /// How the record is found that makes a batch fail.
    pub isolate: Isolate,
    /// What becomes of a record that is not tried again.
    pub then: Then,
    /// How often the process may end while a record is handled, by an abort, for want of memory or by a stack overflow,
    /// before the record is not tried again (at least 1; default 2); `None` for no limit. Has no effect with
    /// [`Then::RetryForever`], nor with [`Concurrency`](crate::Concurrency) or streams.
    ///
    /// Nobody can count these attempts but through the lease table. If two owners of a shard were lost without a
    /// checkpoint, the third one stores a mark before every 100 records, and the one after it before every single one of those:
    /// a pending checkpoint, which costs a write. A record whose mark says that this number of processes have ended in it is given up. It
    /// takes three ends more than this until then.
    pub crash_attempts: Option<u32>,
}

/// With two ends of the process, and no other limits.
impl Default for ErrorPolicy {
    fn default() -> Self {
        Self {
            pause: Pause::default(),
            attempts: None,
            record_age: None,
            isolate: Isolate::default(),
            then: Then::default(),
            crash_attempts: Some(2),
        }
    }
}

/// The pause between two attempts: doubles from `first` to `max`, and is random between half of that and all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pause {
    /// After the first failure (1 ms to 1 h; default 200 ms).
    pub first: Duration,
    /// The longest (at least `first`, at most 1 h; default 30 s).
    pub max: Duration,
}

/// How the record is found that makes a batch fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isolate {
    /// A batch that fails is split in half at once, and each half is handled by itself, the first one first.
    /// To find one record among `n` takes at most `2 * log2(n) + 1` calls, and that record has all its attempts
    /// then. Halves that succeed are not handled again.
    #[default]
    Bisect,
    /// A batch that fails is tried again as it is. When its attempts are used up, each of its records is
    /// handled by itself, with attempts of its own.
    OneByOne,
    /// A batch that fails is tried again as it is. When its attempts are used up, or its first record is too old, none of
    /// its records is tried again.
    Off,
}

/// What becomes of a record that is not tried again.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Then {
    /// It is tried again all the same.
    #[default]
    RetryForever,
    /// It is sent to a destination, and passed over as soon as it is durable there. If the destination fails, it
    /// is retried indefinitely.
    DeadLetter(Arc<dyn DeadLetters>),
    /// It is passed over: counted (metric `RecordsSkipped`) and reported
    /// ([`Event::RecordSkipped`](crate::Event::RecordSkipped)).
    Skip,
    /// The shard stops before it; with [`Concurrency`](crate::Concurrency), records of other keys that were fetched with it
    /// are still handled. The lease is kept, so that no other worker fails at it too; other shards go on.
    /// [`ShardStatus::stopped`](crate::ShardStatus::stopped) says why. A restart of the worker tries again.
    StopShard,
}

impl Default for Pause {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), max: Duration::from_secs(30) }
    }
}

impl Pause {
    /// Pauses from `first` to `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max }
    }

    /// The pause after this many failures in a row; `jitter` is from 0 to 1.
    pub(super) fn after(self, failures: u32, jitter: f64) -> Duration {
        let longest = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(self.max);
        longest.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

impl ErrorPolicy {
    /// Tries each record at most `attempts` times. Say what becomes of it then.
    #[must_use]
    pub fn attempts(attempts: u32) -> Self {
        Self { attempts: Some(attempts), ..Self::default() }
    }

    /// Does not try records again that arrived in the stream longer ago than `age`.
    #[must_use]
    pub fn older_than(self, age: Duration) -> Self {
        Self { record_age: Some(age), ..self }
    }

    /// Pauses from `first` to `max` between attempts.
    #[must_use]
    pub fn pause(self, first: Duration, max: Duration) -> Self {
        Self { pause: Pause { first, max }, ..self }
    }

    /// Gives a record up after this number of ends of the process; `None` for no limit.
    #[must_use]
    pub fn crash_attempts(self, crash_attempts: Option<u32>) -> Self {
        Self { crash_attempts, ..self }
    }

    /// Finds the record that makes a batch fail like this.
    #[must_use]
    pub fn isolate(self, isolate: Isolate) -> Self {
        Self { isolate, ..self }
    }

    /// Sends what is not tried again to `letters`.
    #[must_use]
    pub fn dead_letter(self, letters: impl DeadLetters + 'static) -> Self {
        Self { then: Then::DeadLetter(Arc::new(letters)), ..self }
    }

    /// Passes over what is not tried again.
    #[must_use]
    pub fn skip(self) -> Self {
        Self { then: Then::Skip, ..self }
    }

    /// Stops the shard at what is not tried again.
    #[must_use]
    pub fn stop_shard(self) -> Self {
        Self { then: Then::StopShard, ..self }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let hour = Duration::from_secs(3600);
        let Pause { first, max } = self.pause;
        if first < Duration::from_millis(1) || max < first || max > hour {
            return Err(invalid(format!(
                "the pause of the error policy is {first:?} to {max:?}; it must be 1 ms or more, rising, and 1 h at most"
            )));
        }
        if self.crash_attempts == Some(0) {
            return Err(invalid("crash_attempts of the error policy is 0; a record is tried at least once"));
        }
        if self.attempts == Some(0) {
            return Err(invalid("attempts of the error policy is 0; a record is tried at least once"));
        }
        let has_limit = self.attempts.is_some() || self.record_age.is_some();
        if has_limit && matches!(self.then, Then::RetryForever) {
            return Err(invalid(
                "the error policy limits attempts, but does not say what becomes of a record then; call \
                 dead_letter(..), skip() or stop_shard() on it",
            ));
        }
        Ok(())
    }

    /// What comes after a failure of `records` records, the oldest of which arrived `age` ago.
    pub(super) fn next(&self, failed: Failed, records: usize, age: Duration, jitter: f64) -> Next {
        let retry = Next::Retry(self.pause.after(failed.failures.saturating_add(failed.transient), jitter));
        let reason = match failed.kind {
            FailureKind::Transient => return retry,
            FailureKind::Poison => GiveUp::Poison,
            FailureKind::Failed if self.attempts.is_some_and(|most| failed.failures >= most) => {
                GiveUp::Attempts(failed.failures)
            }
            FailureKind::Failed if self.record_age.is_some_and(|most| age > most) => GiveUp::Age(age),
            FailureKind::Failed if records > 1 && self.isolate == Isolate::Bisect => return Next::Split,
            FailureKind::Failed => return retry,
        };
        match (self.isolate, &self.then) {
            (Isolate::Bisect, _) if records > 1 => Next::Split,
            (Isolate::OneByOne, _) if records > 1 => Next::OneByOne,
            (_, Then::RetryForever) => retry,
            _ => Next::GiveUp(reason),
        }
    }
}

/// A failure, and how often its records have failed, this time included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) kind: FailureKind,
    pub(crate) failures: u32,
    pub(crate) transient: u32,
}

/// A [`Failure`](super::Failure) without its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Failed,
    Transient,
    Poison,
}

/// What comes next for records that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The same again after this pause.
    Retry(Duration),
    /// Each half by itself.
    Split,
    /// Each record by itself.
    OneByOne,
    /// What [`Then`] says.
    GiveUp(GiveUp),
}

/// Why a record is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GiveUp {
    Attempts(u32),
    Age(Duration),
    Poison,
    Crashes(u32),
}

/// With the reason, as it is logged.
impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(pause) => write!(f, "tried again in {pause:?}"),
            Self::Split => f.write_str("divided in halves, to find the record that fails"),
            Self::OneByOne => f.write_str("handled one by one, to find the record that fails"),
            Self::GiveUp(reason) => write!(f, "not tried again: {reason}"),
        }
    }
}

impl fmt::Display for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attempts(attempts) => write!(f, "it failed {attempts} time(s)"),
            Self::Age(age) => write!(f, "it failed and is {} s old", age.as_secs()),
            Self::Poison => f.write_str("it can never be handled"),
            Self::Crashes(times) => write!(f, "the process ended {times} time(s) while it was handled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Duration = Duration::ZERO;

    fn failed(kind: FailureKind, failures: u32) -> Failed {
        Failed { kind, failures, transient: 0 }
    }

    #[test]
    fn what_comes_next_follows_from_the_failure_and_the_history() {
        use FailureKind::{Failed, Poison, Transient};
        let skip = || ErrorPolicy::attempts(3).older_than(Duration::from_secs(60)).skip();
        let by_one = || skip().isolate(Isolate::OneByOne);
        let whole = || skip().isolate(Isolate::Off);
        let (old, retry) = (Duration::from_secs(61), Next::Retry(Duration::from_millis(100)));
        let second = Next::Retry(Duration::from_millis(200));
        for (policy, kind, failures, records, age, expected) in [
            (ErrorPolicy::default(), Failed, 1, 1, old, retry),
            (ErrorPolicy::default(), Poison, 2, 1, old, second),
            (ErrorPolicy::default(), Failed, 1, 8, NEW, Next::Split),
            (skip(), Failed, 2, 1, NEW, second),
            (skip(), Failed, 3, 1, NEW, Next::GiveUp(GiveUp::Attempts(3))),
            (skip(), Failed, 1, 1, old, Next::GiveUp(GiveUp::Age(old))),
            (skip(), Poison, 1, 1, NEW, Next::GiveUp(GiveUp::Poison)),
            (skip(), Poison, 1, 2, NEW, Next::Split),
            (skip(), Transient, 9, 2, old, Next::Retry(Duration::from_millis(15_000))),
            (by_one(), Failed, 1, 8, NEW, retry),
            (by_one(), Failed, 3, 8, NEW, Next::OneByOne),
            (by_one(), Poison, 1, 8, NEW, Next::OneByOne),
            (whole(), Failed, 1, 8, NEW, retry),
            (whole(), Failed, 3, 8, NEW, Next::GiveUp(GiveUp::Attempts(3))),
        ] {
            let next = policy.next(failed(kind, failures), records, age, 0.0);
            assert_eq!(next, expected, "{kind:?} {failures} of {records} under {policy:?}");
        }
    }

    #[test]
    fn what_comes_next_is_printed_with_its_reason() {
        for (next, expected) in [
            (Next::Retry(Duration::from_millis(200)), "tried again in 200ms"),
            (Next::Split, "divided in halves, to find the record that fails"),
            (Next::OneByOne, "handled one by one, to find the record that fails"),
            (Next::GiveUp(GiveUp::Attempts(3)), "not tried again: it failed 3 time(s)"),
            (
                Next::GiveUp(GiveUp::Age(Duration::from_secs(61))),
                "not tried again: it failed and is 61 s old",
            ),
            (Next::GiveUp(GiveUp::Poison), "not tried again: it can never be handled"),
            (
                Next::GiveUp(GiveUp::Crashes(2)),
                "not tried again: the process ended 2 time(s) while it was handled",
            ),
        ] {
            assert_eq!(next.to_string(), expected);
        }
    }

    #[test]
    fn pauses_double_to_a_limit_with_jitter() {
        let pause = Pause::default();
        let shortest: Vec<u128> = (1..=9).map(|n| pause.after(n, 0.0).as_millis()).collect();
        assert_eq!(shortest, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000]);
        assert_eq!(pause.after(u32::MAX, 1.0), pause.max);
    }

    #[test]
    fn a_policy_that_cannot_be_meant_is_refused() {
        for (policy, says) in [
            (ErrorPolicy::attempts(0).skip(), "at least once"),
            (ErrorPolicy::default().crash_attempts(Some(0)).skip(), "crash_attempts"),
            (ErrorPolicy::attempts(5), "dead_letter(..), skip() or stop_shard()"),
            (ErrorPolicy::default().older_than(NEW), "dead_letter"),
            (ErrorPolicy::default().pause(NEW, Duration::from_secs(1)), "1 ms"),
            (ErrorPolicy::default().pause(Duration::from_secs(2), Duration::from_secs(1)), "rising"),
        ] {
            let error = policy.validate().expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(ErrorPolicy::default().validate().is_ok());
        assert!(ErrorPolicy::default().skip().validate().is_ok(), "for poisoned records only");
    }
}
