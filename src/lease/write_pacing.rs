//! How fast one worker writes to a lease table that throttles it: the decisions, without a clock.
//!
//! DynamoDB does not say how much it would accept, and a throttled request costs no capacity. So the time
//! from one write to the next is found by trying: it is what it last took to get a write through, a fifth
//! less after each success, and a refused write is tried again after a quarter of it; sooner if the lease
//! is about to run out, later if it is not. More than four fifths of a table's capacity are used that way,
//! for one or two refused attempts per write, up to seven if it only just suffices; and other workers on
//! the table get their part.

use std::time::Duration;

use crate::types::Moment;

/// The time between two writes when throttling begins: little enough to find the pace of a table that is
/// only a little too small at once.
const GAP_START: Duration = Duration::from_millis(200);
const GAP_MIN: Duration = Duration::from_millis(1);
const GAP_MAX: Duration = Duration::from_secs(2);
/// Throttling is reported at most this often.
const REPORT_PERIOD: Duration = Duration::from_secs(60);
/// How long a write is put off, as a multiple of the pause, by the part of the failover time that is left.
const PATIENCE: f64 = 2.5;
const PATIENCE_MIN: f64 = 0.25;
const PATIENCE_MAX: f64 = 1.5;
/// How much the latest interval between two writes weighs.
const ALPHA: f64 = 0.3;

/// The pace of one worker's writes. Without throttling there is none, and nothing waits.
#[derive(Debug)]
pub(crate) struct WritePacing {
    /// The table counts as large enough after so long without a throttled write.
    calm_after: Duration,
    throttled: Option<Throttled>,
    /// When throttling was last reported.
    reported: Option<Moment>,
    /// When a lease was last taken beyond what can be kept.
    extra_take: Option<Moment>,
}

#[derive(Debug, Clone, Copy)]
struct Throttled {
    /// From one write to the next.
    gap: Duration,
    /// What that has been lately; `None` before the first write that got through.
    interval: Option<Duration>,
    /// No write is sent before so long after the last one, more or less.
    pause: Duration,
    /// When that was sent or refused.
    last: Moment,
    /// The last write that got through, or the first that did not.
    since: Moment,
    /// The last write that did not get through.
    refused: Moment,
    /// One was refused since the last that got through.
    is_refused: bool,
}

impl WritePacing {
    pub(crate) fn new(failover_time: Duration) -> Self {
        Self { calm_after: failover_time, throttled: None, reported: None, extra_take: None }
    }

    /// Whether writes need not wait for one another.
    pub(crate) fn is_free(&mut self, now: Moment) -> bool {
        if self.throttled.is_some_and(|throttled| now.since(throttled.refused) >= self.calm_after) {
            self.throttled = None;
        }
        self.throttled.is_none()
    }

    /// Sends a write to a lease that runs out at `expires`, or says from when on it may be sent.
    pub(crate) fn send(&mut self, expires: Moment, now: Moment) -> Result<(), Moment> {
        let next = self.next(expires, now);
        if let Some(next) = next
            && now < next
        {
            return Err(next);
        }
        if let Some(throttled) = &mut self.throttled {
            (throttled.last, throttled.pause) = (now, throttled.gap);
        }
        Ok(())
    }

    /// From when on a write to a lease that runs out at `expires` may be sent; `None` if none need wait. The
    /// more urgent it is the sooner, so that of several workers on a table those that need it get more.
    pub(crate) fn next(&mut self, expires: Moment, now: Moment) -> Option<Moment> {
        if self.is_free(now) {
            return None;
        }
        let throttled = self.throttled?;
        let left = expires.since(throttled.last).as_secs_f64() / self.calm_after.as_secs_f64();
        Some(throttled.last + throttled.pause.mul_f64((left * PATIENCE).clamp(PATIENCE_MIN, PATIENCE_MAX)))
    }

    /// A write that was let through turned out not to be needed.
    pub(crate) fn not_sent(&mut self) {
        if let Some(throttled) = &mut self.throttled {
            throttled.pause = Duration::ZERO;
        }
    }

    /// A write was not throttled.
    pub(crate) fn accepted(&mut self, now: Moment) {
        let Some(throttled) = &mut self.throttled else { return };
        let took = now.since(throttled.since).max(GAP_MIN);
        if throttled.is_refused {
            // The table gave what it could in this time.
            let known = throttled.interval.unwrap_or(took);
            throttled.interval = Some(known.mul_f64(1.0 - ALPHA) + took.mul_f64(ALPHA));
            throttled.gap = took.min(GAP_MAX);
        } else {
            // It could have been more.
            throttled.interval = throttled.interval.map(|known| known.min(took));
        }
        throttled.gap = throttled.gap.mul_f64(0.8).max(GAP_MIN);
        throttled.pause = throttled.pause.min(throttled.gap);
        (throttled.since, throttled.is_refused) = (now, false);
    }

    /// A write was throttled. Whether that is to be reported. `jitter`, from 0 to 1, keeps workers on one
    /// table from trying in step.
    pub(crate) fn refused(&mut self, now: Moment, jitter: f64) -> bool {
        let was_free = self.is_free(now);
        let throttled = self.throttled.get_or_insert(Throttled {
            gap: GAP_START,
            interval: None,
            pause: Duration::ZERO,
            last: now,
            since: now,
            refused: now,
            is_refused: false,
        });
        if !was_free {
            throttled.gap = throttled.gap.mul_f64(1.25).min(GAP_MAX);
        }
        if now.since(throttled.since.max(throttled.refused)) > GAP_MAX * 2 {
            // Nothing was to be sent for a while, which says nothing about how long a write takes.
            throttled.since = now;
        }
        (throttled.last, throttled.pause) = (now, (throttled.gap / 4).mul_f64(0.75 + 0.5 * jitter));
        (throttled.refused, throttled.is_refused) = (now, true);
        let is_due = self.reported.is_none_or(|reported| now.since(reported) >= REPORT_PERIOD);
        if is_due {
            self.reported = Some(now);
        }
        is_due
    }

    /// How many leases this worker can keep at the pace found, with a tenth of the failover time to spare;
    /// `None` if there is no pace, or it is not known yet.
    pub(crate) fn sustainable(&mut self, failover_time: Duration, now: Moment) -> Option<usize> {
        if self.is_free(now) {
            return None;
        }
        let interval = self.throttled?.interval?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, saturates")]
        let leases = (failover_time.as_secs_f64() * 0.9 / interval.as_secs_f64()) as usize;
        Some(leases.max(1))
    }

    /// How many leases may be taken when `held` are held: as many as can be kept. Beyond that one per
    /// failover time, which another lease is lost for: so that each shard is read now and then, however
    /// little the table accepts.
    pub(crate) fn takes(&mut self, held: usize, failover_time: Duration, now: Moment) -> usize {
        let Some(sustainable) = self.sustainable(failover_time, now) else { return usize::MAX };
        let room = sustainable.saturating_sub(held);
        let is_extra_due = self.extra_take.is_none_or(|taken| now.since(taken) >= failover_time);
        if room > 0 || !is_extra_due {
            return room;
        }
        self.extra_take = Some(now);
        1
    }

    /// How long ago the last write to a lease must be for it to be renewed, when `leases` are held: while
    /// there is a pace, as late as leaves time to write to all the others before it.
    pub(crate) fn renewal_age(
        &mut self,
        usual: Duration,
        failover_time: Duration,
        leases: usize,
        now: Moment,
    ) -> Duration {
        if self.is_free(now) {
            return usual;
        }
        let Some(throttled) = self.throttled else { return usual };
        let leases = u32::try_from(leases).unwrap_or(u32::MAX).saturating_add(2);
        let margin = throttled.gap.max(throttled.interval.unwrap_or_default()).saturating_mul(leases);
        failover_time.saturating_sub(margin).saturating_sub(failover_time / 6).max(usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Duration = Duration::from_secs(10);

    fn at(seconds: f64) -> Moment {
        Moment::after_origin(Duration::from_secs_f64(seconds))
    }

    /// A table that accepts `units` writes a second and keeps none for later; how many of how many attempts
    /// it accepts in `seconds`.
    fn run(pacing: &mut WritePacing, units: f64, seconds: f64) -> (u32, u32) {
        let (mut tokens, mut now, mut accepted, mut attempts) = (0.0, 0.0, 0, 0);
        while now < seconds {
            match pacing.send(at(now) + F * 2 / 5, at(now)) {
                Ok(()) => {
                    attempts += 1;
                    if tokens >= 1.0 {
                        tokens -= 1.0;
                        accepted += 1;
                        pacing.accepted(at(now));
                    } else {
                        pacing.refused(at(now), 0.5);
                    }
                }
                Err(next) => {
                    let next = next.since(Moment::ORIGIN).as_secs_f64().max(now + 1e-6);
                    tokens = f64::min(tokens + (next - now) * units, f64::max(units, 1.0));
                    now = next;
                }
            }
        }
        (accepted, attempts)
    }

    #[test]
    fn without_throttling_nothing_waits() {
        let mut pacing = WritePacing::new(F);
        for _ in 0..1000 {
            assert_eq!(pacing.send(at(9.0), at(0.0)), Ok(()));
            pacing.accepted(at(0.0));
        }
        assert_eq!(pacing.sustainable(F, at(0.0)), None);
        assert_eq!(pacing.renewal_age(F / 6, F, 8, at(0.0)), F / 6);
    }

    #[test]
    fn the_pace_is_that_of_the_table() {
        for units in [0.5, 1.0, 2.0, 5.0, 20.0, 100.0] {
            let mut pacing = WritePacing::new(F);
            pacing.refused(at(0.0), 0.5);
            let (accepted, attempts) = run(&mut pacing, units, 100.0);
            let part = f64::from(accepted) / (units * 100.0);
            assert!(part > 0.8, "{units} units: {accepted} accepted of {attempts} attempts");
            assert!(attempts < 4 * accepted, "{units} units: {accepted} accepted of {attempts} attempts");
        }
    }

    #[test]
    fn what_can_be_kept_follows_from_the_pace() {
        for (units, least, most) in [(1.0, 7, 9), (2.0, 15, 22), (5.0, 36, 56)] {
            let mut pacing = WritePacing::new(F);
            pacing.refused(at(0.0), 0.5);
            run(&mut pacing, units, 60.0);
            let kept = pacing.sustainable(F, at(60.0)).expect("a pace");
            assert!((least..=most).contains(&kept), "{units} units: {kept} leases");
        }
    }

    #[test]
    fn leases_beyond_what_can_be_kept_are_taken_one_per_failover_time() {
        let mut pacing = WritePacing::new(F);
        assert_eq!(pacing.takes(100, F, at(0.0)), usize::MAX);
        pacing.refused(at(0.0), 0.5);
        assert_eq!(pacing.takes(100, F, at(0.0)), usize::MAX, "the pace is not known yet");
        run(&mut pacing, 1.0, 60.0);
        assert!((3..=5).contains(&pacing.takes(4, F, at(60.0))));
        let takes: Vec<usize> =
            (0..8).map(|round| pacing.takes(20, F, at(60.0 + f64::from(round)))).collect();
        assert_eq!(takes, [1, 0, 0, 0, 0, 0, 0, 0]);
        pacing.refused(at(65.0), 0.5);
        assert_eq!(pacing.takes(20, F, at(70.0)), 1);
    }

    #[test]
    fn a_table_that_accepts_nothing_is_asked_at_most_four_times_in_two_seconds() {
        let mut pacing = WritePacing::new(F);
        pacing.refused(at(0.0), 0.5);
        let (accepted, attempts) = run(&mut pacing, 0.0, 100.0);
        assert_eq!(accepted, 0);
        assert!(attempts < 230, "{attempts}");
    }

    #[test]
    fn throttling_is_over_after_a_failover_time_without() {
        let mut pacing = WritePacing::new(F);
        pacing.refused(at(5.0), 0.5);
        assert!(!pacing.is_free(at(14.9)));
        assert!(pacing.is_free(at(15.0)));
        assert_eq!(pacing.send(at(20.0), at(15.0)), Ok(()));
    }

    #[test]
    fn it_is_reported_once_a_minute() {
        let mut pacing = WritePacing::new(F);
        let reports: Vec<f64> =
            (0..200).map(f64::from).filter(|second| pacing.refused(at(*second), 0.5)).collect();
        assert_eq!(reports, [0.0, 60.0, 120.0, 180.0]);
    }

    #[test]
    fn renewals_are_put_off_as_far_as_the_other_leases_allow() {
        let mut pacing = WritePacing::new(F);
        pacing.refused(at(0.0), 0.5);
        run(&mut pacing, 1.0, 60.0);
        let age =
            |pacing: &mut WritePacing, leases| pacing.renewal_age(F / 6, F, leases, at(60.0)).as_secs_f64();
        assert!((4.5..7.0).contains(&age(&mut pacing, 1)), "{}", age(&mut pacing, 1));
        assert!((2.0..5.0).contains(&age(&mut pacing, 3)), "{}", age(&mut pacing, 3));
        assert_eq!(pacing.renewal_age(F / 6, F, 8, at(60.0)), F / 6);
    }
}
