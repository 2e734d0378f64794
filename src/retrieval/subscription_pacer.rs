use std::time::Duration;

use super::pacing::Backoff;
use crate::types::Moment;

/// The service refuses a subscription within this time of the last one to the same shard.
const EXCLUSIVE: Duration = Duration::from_secs(5);

/// When to subscribe to a shard next, and for how long subscribing has failed.
#[derive(Debug, Clone, Default)]
pub(super) struct SubscriptionPacer {
    /// When the last subscription was made.
    subscribed: Option<Moment>,
    /// When the pause after the last failure ends.
    pause_until: Moment,
    /// Failures since the last event, and the time of the first one.
    failures: u32,
    failing_since: Option<Moment>,
}

impl SubscriptionPacer {
    /// The earliest moment of the next subscription; it may have passed.
    pub(super) fn next_subscription(&self) -> Moment {
        let exclusive = self.subscribed.map_or(Moment::ORIGIN, |subscribed| subscribed + EXCLUSIVE);
        self.pause_until.max(exclusive)
    }

    /// A subscription was made.
    pub(super) fn subscribed(&mut self, now: Moment) {
        self.subscribed = Some(now);
    }

    /// An event arrived: fan-out works.
    pub(super) fn event_arrived(&mut self) {
        (self.failures, self.failing_since) = (0, None);
    }

    /// Subscribing failed, or a subscription broke. Returns how long to wait.
    pub(super) fn failed(&mut self, now: Moment, backoff: Backoff, rng: &mut fastrand::Rng) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        self.pause_until = now + backoff.delay(self.failures, rng);
        self.next_subscription().since(now)
    }

    /// Failures since the last event.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// How long there have been only failures.
    pub(super) fn failing_for(&self, now: Moment) -> Duration {
        self.failing_since.map_or(Duration::ZERO, |since| now.since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn a_subscription_that_ended_regularly_is_renewed_at_once() {
        let mut pacer = SubscriptionPacer::default();
        assert_eq!(pacer.next_subscription(), Moment::ORIGIN);
        pacer.subscribed(at(10));
        assert_eq!(pacer.next_subscription(), at(15), "not before the service allows it");
        assert!(pacer.next_subscription() <= at(310));
    }

    #[test]
    fn failures_are_counted_and_timed_until_an_event_arrives() {
        let (mut pacer, mut rng) = (SubscriptionPacer::default(), fastrand::Rng::with_seed(1));
        for second in 0..60 {
            let pause = pacer.failed(at(second), Backoff::TRANSIENT, &mut rng);
            assert!((Duration::from_millis(100)..=Duration::from_secs(10)).contains(&pause), "{pause:?}");
        }
        assert_eq!((pacer.failures(), pacer.failing_for(at(60))), (60, Duration::from_secs(60)));
        pacer.event_arrived();
        assert_eq!((pacer.failures(), pacer.failing_for(at(61))), (0, Duration::ZERO));
    }

    #[test]
    fn persistent_failures_are_retried_seldom() {
        let (mut pacer, mut rng) = (SubscriptionPacer::default(), fastrand::Rng::with_seed(1));
        let pause = pacer.failed(at(0), Backoff::PERSISTENT, &mut rng);
        assert!(pause >= Duration::from_secs(5), "{pause:?}");
    }
}
