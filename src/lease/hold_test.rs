use super::*;
use crate::lease::{Item, row_after};
use crate::types::ExtendedSequenceNumber;

const F: Duration = Duration::from_secs(10);

fn second(seconds: u64) -> Moment {
    Moment::after_origin(Duration::from_secs(seconds))
}

fn at(number: u128) -> Checkpoint {
    ExtendedSequenceNumber::new(number.into(), 0).into()
}

fn fresh() -> Lease {
    Lease::new("shardId-0", Checkpoint::TrimHorizon)
}

/// A lease that worker `me` took at second 0, the row in the table, and what is asked for.
struct Story {
    hold: LeaseHold,
    row: Item,
    now: u64,
    steps: Vec<String>,
}

impl Story {
    fn new() -> Self {
        let taken = Lease { owner: Some("me".into()), counter: 1, checkpoint: at(3), ..fresh() };
        let row = taken.to_item();
        Self { hold: LeaseHold::new(taken, "me".into(), F, second(0)), row, now: 0, steps: Vec::new() }
    }

    fn ask(&mut self, request: &str) -> WriteRequest {
        let now = second(self.now);
        let (what, number) = request.split_once(' ').unwrap_or((request, "0"));
        let checkpoint = at(number.parse().expect("a number"));
        match what {
            "renew" => self.hold.ask_to_renew(None, now),
            "checkpoint" => self.hold.ask_for_checkpoint(&checkpoint, now),
            "prepare" => self.hold.ask_to_prepare(&PendingCheckpoint { checkpoint, state: None }, now),
            "release" => self.hold.ask_to_release(now),
            "reset" => self.hold.ask_to_reset(&fresh(), now),
            other => panic!("{other}"),
        }
    }

    fn lease(&self) -> Lease {
        Lease::from_item(&self.row).expect("readable").expect("a lease")
    }

    fn write(&mut self, write: &LeaseWrite) -> WriteOutcome {
        match row_after(write, Some(&self.row)).expect("well formed") {
            Some(row) => {
                self.row = row;
                WriteOutcome::Applied(Box::new(self.lease()))
            }
            None => WriteOutcome::Refused(Some(Box::new(self.lease()))),
        }
    }

    /// Something that others do, or that time does; otherwise what becomes of the next write.
    fn event(&mut self, request: &mut WriteRequest, event: &str) {
        let lease = self.lease();
        match event {
            "stolen" => drop(self.write(&LeaseWrite::take(&lease, &"thief".into()))),
            "retaken" => drop(self.write(&LeaseWrite::take(&lease, &"me".into()))),
            "handoff" => {
                drop(self.write(&LeaseWrite::start_handoff(&lease.key, &"me".into(), &"next".into())))
            }
            "assigned" => drop(self.write(&LeaseWrite::assign(&lease, &"third".into()))),
            "want-9" => self.hold.want(&at(9)),
            "4s" => self.now += 4,
            "given-up" => self.hold.give_up(),
            _ => self.attempt(request, event),
        }
    }

    fn attempt(&mut self, request: &mut WriteRequest, answer: &str) {
        let write = match self.hold.next_write(request, second(self.now)) {
            NextWrite::Send(write) => write,
            next => return self.steps.push(format!("{next:?}")),
        };
        let sent = self.hold.send(second(self.now));
        let failed = |kind| StoreError::new(kind, write.operation, "leases");
        let after = match answer {
            "answered" => {
                let outcome = self.write(&write);
                format!("{:?}", self.hold.on_outcome(request, sent, outcome, second(self.now)))
            }
            "gone" => {
                let outcome = WriteOutcome::Refused(None);
                format!("{:?}", self.hold.on_outcome(request, sent, outcome, second(self.now)))
            }
            "lost" | "unsent" => {
                if answer == "lost" {
                    let _ = self.write(&write);
                }
                let error = failed(StoreErrorKind::Unavailable);
                format!("{:?}", self.hold.on_failure(request, sent, &error))
            }
            "throttled" => {
                let error = failed(StoreErrorKind::Throttled);
                format!("{:?}", self.hold.on_failure(request, sent, &error))
            }
            "denied" => {
                format!("{:?}", self.hold.on_failure(request, sent, &failed(StoreErrorKind::Denied)))
            }
            other => panic!("{other}"),
        };
        self.steps.push(format!("{} {after}", write.operation));
    }
}

/// What is sent for `request`, and decided, while these things happen one after the other.
fn story(request: &str, events: &str) -> String {
    let mut story = Story::new();
    let mut request = story.ask(request);
    events.split_whitespace().for_each(|event| story.event(&mut request, event));
    story.steps.join(", ")
}

/// Each row: what is asked for, what happens, and what is sent and decided.
fn check(table: &[(&str, &str, &str)]) {
    for (request, events, expected) in table {
        assert_eq!(story(request, events), *expected, "{request}: {events}");
    }
}

#[test]
fn an_answer_ends_a_request_or_shows_what_others_did() {
    check(&[
        ("renew", "answered", "RenewLease Done"),
        ("checkpoint 5", "answered", "UpdateLease Done"),
        ("prepare 5", "answered", "UpdateLease Done"),
        ("release", "answered", "ReleaseLease Done"),
        ("reset", "answered", "ResetLease Done"),
        ("renew", "gone", "RenewLease Lost(ToAnother)"),
        ("renew", "stolen answered", "RenewLease Lost(ToAnother)"),
        ("renew", "retaken answered", "RenewLease Lost(ToNamesake)"),
        ("release", "stolen answered", "ReleaseLease Lost(ToAnother)"),
        ("reset", "stolen answered", "ResetLease Lost(ToAnother)"),
        ("renew", "stolen answered answered", "RenewLease Lost(ToAnother), Lost(ToAnother)"),
    ]);
}

#[test]
fn a_write_that_was_not_answered_is_settled_by_the_next_one() {
    check(&[
        ("renew", "unsent answered", "RenewLease Pause, RenewLease Done"),
        ("renew", "lost answered", "RenewLease Pause, RenewLease Done"),
        ("checkpoint 5", "lost answered", "UpdateLease Pause, UpdateLease Done"),
        ("prepare 5", "lost answered", "UpdateLease Pause, UpdateLease Done"),
        ("release", "lost answered", "ReleaseLease Pause, ReleaseLease Done"),
        ("reset", "lost answered", "ResetLease Pause, ResetLease Done"),
        ("renew", "lost stolen answered", "RenewLease Pause, RenewLease Lost(ToAnother)"),
        ("renew", "unsent retaken answered", "RenewLease Pause, RenewLease Done"),
        ("renew", "denied retaken answered", "RenewLease Report, RenewLease Lost(ToNamesake)"),
        ("renew", "throttled retaken answered", "RenewLease WaitForTurn, RenewLease Lost(ToNamesake)"),
        ("release", "lost stolen answered", "ReleaseLease Pause, ReleaseLease Lost(ToAnother)"),
    ]);
}

#[test]
fn an_earlier_write_that_landed_is_not_what_another_request_asked_for() {
    for (request, expected) in [
        ("checkpoint 5", ["UpdateLease EarlierWritten", "UpdateLease Done"]),
        ("prepare 5", ["UpdateLease EarlierWritten", "UpdateLease Done"]),
        ("release", ["ReleaseLease EarlierWritten", "ReleaseLease Done"]),
        ("reset", ["ResetLease EarlierWritten", "ResetLease Done"]),
    ] {
        let mut story = Story::new();
        let mut renew = story.ask("renew");
        story.event(&mut renew, "lost");
        story.steps.clear();
        let mut request = story.ask(request);
        story.event(&mut request, "answered");
        story.event(&mut request, "answered");
        assert_eq!(story.steps, expected);
    }
}

#[test]
fn failures_are_retried_as_often_as_somebody_can_wait() {
    check(&[
        ("renew", "unsent unsent", "RenewLease Pause, RenewLease Report"),
        (
            "checkpoint 5",
            "unsent unsent unsent unsent",
            "UpdateLease Pause, UpdateLease Pause, UpdateLease Pause, UpdateLease Report",
        ),
        ("checkpoint 5", "denied", "UpdateLease Report"),
        // Throttling does not count.
        (
            "renew",
            "throttled throttled unsent answered",
            "RenewLease WaitForTurn, RenewLease WaitForTurn, RenewLease Pause, RenewLease Done",
        ),
    ]);
}

#[test]
fn a_handoff_changes_who_a_lease_is_given_back_to() {
    check(&[
        ("renew", "handoff answered answered", "RenewLease HandoffBegan, RenewLease Done"),
        ("checkpoint 5", "handoff answered", "UpdateLease Done"),
        ("release", "handoff answered answered", "ReleaseLease HandoffBegan, FinishHandoff Done"),
        ("release", "handoff assigned answered", "ReleaseLease Lost(ToAnother)"),
        (
            "release",
            "handoff answered assigned answered",
            "ReleaseLease HandoffBegan, FinishHandoff Lost(ToAnother)",
        ),
    ]);
}

#[test]
fn a_handoff_is_finished_once_however_its_answer_gets_lost() {
    let mut story = Story::new();
    let mut renew = story.ask("renew");
    for event in ["handoff", "4s", "answered", "4s", "answered"] {
        story.event(&mut renew, event);
    }
    assert_eq!(story.hold.handoff_since(), Some(second(4)), "when it was first seen");
    let mut release = story.ask("release");
    story.steps.clear();
    for event in ["lost", "answered"] {
        story.event(&mut release, event);
    }
    assert_eq!(story.steps, ["FinishHandoff Pause", "FinishHandoff Done"]);
    assert_eq!((story.hold.lease.owner, story.hold.lease.checkpoint_owner), (Some("next".into()), None));
}

#[test]
fn nothing_is_sent_for_what_is_done_or_must_not_be() {
    check(&[
        ("renew", "answered 4s answered", "RenewLease Done, RenewLease Done"),
        ("renew", "4s answered answered", "RenewLease Done, Done"),
        ("checkpoint 5", "answered answered", "UpdateLease Done, Done"),
        ("checkpoint 5", "want-9 answered", "UpdateLease Done"),
        ("renew", "4s 4s 4s answered", "Lost(Expired)"),
        ("renew", "given-up answered", "Lost(GivenUp)"),
        ("release", "given-up answered", "Lost(GivenUp)"),
        ("release", "lost given-up answered", "ReleaseLease Pause, Lost(GivenUp)"),
    ]);
    for request in ["checkpoint 2", "prepare 2"] {
        let mut story = Story::new();
        let request = story.ask(request);
        let next = story.hold.next_write(&request, second(1));
        assert_eq!(next, NextWrite::Backwards { asked: at(2), stored: at(3) });
    }
}

#[test]
fn any_write_takes_along_the_newest_checkpoint_that_somebody_waits_for() {
    let mut story = Story::new();
    let (mut renew, checkpoint) = (story.ask("renew"), story.ask("checkpoint 5"));
    story.hold.note_children(["shardId-1".into()].into());
    story.hold.want(&at(9));
    story.hold.want(&at(7));
    story.event(&mut renew, "answered");
    assert_eq!((story.lease().checkpoint, story.lease().children), (at(9), ["shardId-1".into()].into()));
    assert_eq!(story.hold.next_write(&checkpoint, second(0)), NextWrite::Done, "the renewal did it");
    story.hold.want_nothing();
    story.hold.want(&at(20));
    let renew = story.ask("renew");
    assert_eq!(
        story.hold.next_write(&renew, second(1)),
        NextWrite::Send(LeaseWrite::renew(&story.hold.lease, None)),
        "nobody waits any more"
    );
}

#[test]
fn it_is_held_for_the_failover_time_since_a_write_that_landed_was_sent() {
    for (events, expires) in [
        ("", 10),
        ("4s answered", 14),
        ("4s throttled", 10),
        ("4s unsent", 10),
        // The answer to the second shows that the first, sent at 4 s at the earliest, has landed.
        ("4s lost 4s answered", 14),
        ("4s unsent 4s answered", 18),
        ("4s handoff answered", 10),
    ] {
        let mut story = Story::new();
        let mut request = story.ask("renew");
        events.split_whitespace().for_each(|event| story.event(&mut request, event));
        assert_eq!(story.hold.expires(), second(expires), "{events}");
        assert!(story.hold.is_held(second(expires - 1)) && !story.hold.is_held(second(expires)), "{events}");
    }
    let mut hold = Story::new().hold;
    assert!(!hold.check_held(second(10)) && !hold.check_held(second(0)), "once lost, always lost");
}
