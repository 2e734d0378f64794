//! What the loops of coordination have found out that a user should know, and in which words.

use std::time::Duration;

use parking_lot::Mutex;

use crate::types::{LeaseKey, Moment, WorkerId};

/// Shards that nobody has read for this many failover times are in trouble: a healthy fleet needs one, and
/// a round.
const UNREAD_AFTER: u32 = 3;

/// What coordination wants of the lease table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Scans, and queries of the index of owners.
    Reading,
    /// Renewals, and takes.
    Renewing,
    /// The leader's lock.
    Leading,
}

const PURPOSES: [Purpose; 3] = [Purpose::Reading, Purpose::Renewing, Purpose::Leading];

/// The facts by which the health of coordination is judged. The loops keep them up to date.
#[derive(Debug, Default)]
pub(crate) struct CoordinationHealth(Mutex<Facts>);

#[derive(Debug, Default)]
struct Facts {
    requests: [Requests; PURPOSES.len()],
    /// The last answer was that there is no such table.
    is_table_missing: bool,
    unread: Option<Unread>,
    /// Since when a worker that is to be led has known no leader.
    leaderless_since: Option<Moment>,
    is_name_taken: bool,
}

/// The requests of one purpose.
#[derive(Debug, Default)]
struct Requests {
    /// When the first one was sent since the last that was answered.
    unanswered_since: Option<Moment>,
    /// Why the last one failed.
    failure: Option<String>,
}

/// Leases of shards that have not ended and that nobody renews, as of the last scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    /// Since when there have been some.
    since: Moment,
    count: usize,
    /// One of them.
    example: LeaseKey,
}

/// What the facts are judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure<'a> {
    pub(crate) worker: &'a WorkerId,
    pub(crate) failover_time: Duration,
    pub(crate) held: usize,
    pub(crate) max_leases: usize,
}

impl CoordinationHealth {
    /// A request is sent.
    pub(crate) fn sent(&self, purpose: Purpose, now: Moment) {
        self.0.lock().requests[purpose as usize].unanswered_since.get_or_insert(now);
    }

    /// A request was answered, whatever the answer.
    pub(crate) fn answered(&self, purpose: Purpose) {
        let mut facts = self.0.lock();
        facts.requests[purpose as usize] = Requests::default();
        if purpose == Purpose::Reading {
            facts.is_table_missing = false;
        }
    }

    /// A write that was sent at `sent` is known to have landed.
    pub(crate) fn landed(&self, sent: Moment) {
        let mut facts = self.0.lock();
        let renewals = &mut facts.requests[Purpose::Renewing as usize];
        if renewals.unanswered_since.is_some_and(|since| since < sent) {
            *renewals = Requests::default();
        }
    }

    /// A request failed.
    pub(crate) fn failed(&self, purpose: Purpose, reason: String) {
        self.0.lock().requests[purpose as usize].failure = Some(reason);
    }

    /// A read was answered that there is no table. Whether that is new.
    pub(crate) fn table_missing(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().is_table_missing, true)
    }

    /// A scan showed this many leases that nobody renews.
    pub(crate) fn scanned(&self, count: usize, example: Option<LeaseKey>, now: Moment) {
        let mut facts = self.0.lock();
        let since = facts.unread.as_ref().map_or(now, |unread| unread.since);
        facts.unread = example.map(|example| Unread { since, count, example });
    }

    /// Whether this worker knows who leads it, if it is to be led.
    pub(crate) fn led(&self, has_leader: bool, now: Moment) {
        let mut facts = self.0.lock();
        if has_leader {
            facts.leaderless_since = None;
        } else {
            facts.leaderless_since.get_or_insert(now);
        }
    }

    /// Whether another worker has this one's name.
    pub(crate) fn set_name_taken(&self, is_taken: bool) {
        self.0.lock().is_name_taken = is_taken;
    }

    /// What is wrong at `now`, and what to do about it.
    pub(crate) fn problems(&self, measure: Measure<'_>, now: Moment) -> Vec<String> {
        self.0.lock().problems(measure, now)
    }
}

impl Facts {
    fn problems(&self, measure: Measure<'_>, now: Moment) -> Vec<String> {
        let Measure { worker, failover_time, held, max_leases } = measure;
        let lasts = |since: Moment, time: Duration| now.since(since) >= time;
        let mut problems = Vec::new();
        if self.is_table_missing {
            problems.push(
                "the lease table does not exist; it is created again if permissions allow \
                 (dynamodb:CreateTable)"
                    .to_owned(),
            );
        }
        for (purpose, requests) in PURPOSES.iter().zip(&self.requests) {
            let Some(since) = requests.unanswered_since.filter(|&since| lasts(since, failover_time)) else {
                continue;
            };
            let what = match purpose {
                Purpose::Reading => "the lease table has not been read",
                Purpose::Renewing => "no lease has been renewed or taken",
                Purpose::Leading => "the leader's lock has not been reached",
            };
            let why = requests.failure.as_deref().unwrap_or("no answer");
            problems.push(format!("{what} for {} s: {why}", now.since(since).as_secs()));
        }
        let unread_after = failover_time * UNREAD_AFTER;
        let may_take_more = held < max_leases;
        if let Some(Unread { since, count, example }) = &self.unread
            && may_take_more
            && lasts(*since, unread_after)
        {
            problems.push(format!(
                "{count} lease(s), such as {example}, have not been renewed by any worker for {} s, and their \
                 shards are not read; this worker holds {held} and may take more; see the events \
                 CoordinationFailed, and compare max_leases of all workers with the number of shards",
                now.since(*since).as_secs()
            ));
        }
        if let Some(since) = self.leaderless_since
            && may_take_more
            && held == 0
            && lasts(since, unread_after)
        {
            problems.push(format!(
                "no leader has been known for {} s, and this worker holds no lease; see the events \
                 CoordinationFailed",
                now.since(since).as_secs()
            ));
        }
        if self.is_name_taken {
            problems.push(format!(
                "another worker of this application has the worker_id {worker} too; give each worker an id of \
                 its own, or none"
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Moment {
        Moment::after_origin(Duration::from_secs(seconds))
    }

    /// The problems at a time, in short: the first words of each.
    fn problems(health: &CoordinationHealth, held: usize, second: u64) -> Vec<String> {
        let worker = "a".into();
        let measure = Measure { worker: &worker, failover_time: F, held, max_leases: 4 };
        let words = |problem: String| problem.split(' ').take(3).collect::<Vec<_>>().join(" ");
        health.problems(measure, at(second)).into_iter().map(words).collect()
    }

    #[test]
    fn requests_without_an_answer_for_the_failover_time_are_a_problem() {
        for (purpose, text) in [
            (Purpose::Reading, "the lease table"),
            (Purpose::Renewing, "no lease has"),
            (Purpose::Leading, "the leader's lock"),
        ] {
            let health = CoordinationHealth::default();
            assert!(problems(&health, 1, 1000).is_empty(), "nothing was asked");
            health.sent(purpose, at(0));
            assert!(problems(&health, 1, 9).is_empty());
            assert_eq!(problems(&health, 1, 10), [text], "one that hangs");
            health.failed(purpose, "denied".to_owned());
            health.sent(purpose, at(9));
            assert_eq!(problems(&health, 0, 11), [text], "the first one counts");
            health.answered(purpose);
            assert!(problems(&health, 1, 1000).is_empty());
        }
    }

    #[test]
    fn a_checkpoint_that_lands_shows_that_leases_can_be_renewed() {
        let health = CoordinationHealth::default();
        health.sent(Purpose::Renewing, at(5));
        health.landed(at(4));
        assert_eq!(problems(&health, 1, 20), ["no lease has"]);
        health.landed(at(6));
        assert!(problems(&health, 1, 20).is_empty());
    }

    #[test]
    fn a_missing_table_is_new_once_until_it_is_back() {
        let health = CoordinationHealth::default();
        assert_eq!([health.table_missing(), health.table_missing()], [true, false]);
        assert_eq!(problems(&health, 1, 0), ["the lease table"]);
        health.answered(Purpose::Renewing);
        assert!(!health.table_missing());
        health.answered(Purpose::Reading);
        assert!(problems(&health, 1, 0).is_empty());
        assert!(health.table_missing());
    }

    #[test]
    fn leases_that_nobody_renews_are_a_problem_of_those_who_may_take_them() {
        let health = CoordinationHealth::default();
        let some = || Some("shardId-0".into());
        health.scanned(1, some(), at(0));
        health.scanned(2, some(), at(25));
        assert!(problems(&health, 0, 29).is_empty());
        assert_eq!(problems(&health, 0, 30), ["2 lease(s), such"]);
        assert_eq!(problems(&health, 3, 30), ["2 lease(s), such"]);
        assert!(problems(&health, 4, 30).is_empty(), "it may take no more");
        health.scanned(0, None, at(31));
        health.scanned(1, some(), at(32));
        assert!(problems(&health, 0, 40).is_empty(), "it counts from anew");
    }

    #[test]
    fn a_worker_without_a_lease_needs_a_leader() {
        let health = CoordinationHealth::default();
        health.led(false, at(0));
        health.led(false, at(20));
        assert_eq!(problems(&health, 0, 30), ["no leader has"]);
        assert!(problems(&health, 1, 30).is_empty());
        health.led(true, at(31));
        assert!(problems(&health, 0, 99).is_empty());
    }

    #[test]
    fn the_setting_that_is_wrong_is_named() {
        let health = CoordinationHealth::default();
        health.set_name_taken(true);
        let worker = "a".into();
        let measure = Measure { worker: &worker, failover_time: F, held: 0, max_leases: 1 };
        assert!(health.problems(measure, at(0))[0].contains("worker_id a "));
    }
}
