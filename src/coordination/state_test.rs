use std::time::SystemTime;

use super::*;
use crate::coordination::worker_metrics::WorkerStats;
use crate::lease::{Item, row_after};
use crate::shard_sync::SyncRules;
use crate::types::{Checkpoint, StartStrategy};

const F: Duration = Duration::from_secs(10);
const WALL: u64 = 1_000_000;

fn at(millis: u64) -> Moment {
    Moment::after_origin(Duration::from_millis(millis))
}

/// A row: `0 b 5` is lease `0` of worker `b` at counter 5, and `0 - 5` has no owner.
fn row(text: &str) -> Lease {
    let words: Vec<&str> = text.split(' ').collect();
    let &[key, owner, counter] = words.as_slice() else { panic!("{text}") };
    let mut lease = Lease::new(key, Checkpoint::TrimHorizon);
    lease.owner = (owner != "-").then(|| owner.into());
    lease.counter = counter.parse().expect("a counter");
    lease
}

fn stream(generation: u64) -> KnownStream {
    let rules =
        SyncRules { audit_interval: F, audit_confidence_threshold: 3, failover_time: F, is_multi: false };
    KnownStream {
        generation,
        id: "orders".parse().expect("a stream"),
        latest_since: 0,
        sync: StreamSync::new(rules, StartStrategy::Oldest, None, at(0)),
    }
}

/// Worker `us`, which reads one stream since 0 s, and knows nothing of its leases.
fn us() -> Coordinator {
    let coordination = CoordinationConfig { failover_time: F, ..CoordinationConfig::default() };
    let management = ManagementConfig::default();
    let rng = fastrand::Rng::with_seed(1);
    let mut us = Coordinator::new("us".into(), management, coordination, false, rng, at(0));
    us.handle_stream_added(stream(1), at(0));
    us
}

/// Commands, without those that only report.
fn text(commands: &[Command]) -> String {
    let is_report = |command: &&Command| matches!(command, Command::Report(_) | Command::Note(_));
    let texts = commands.iter().filter(|command| !is_report(command)).map(ToString::to_string);
    texts.collect::<Vec<_>>().join(", ")
}

fn timeout(us: &mut Coordinator, role: Role, millis: u64) -> String {
    let commands = us.handle_timeout(role, at(millis));
    text(&commands)
}

fn step(us: &mut Coordinator, step: Step, millis: u64) -> Vec<Command> {
    us.handle_step(step, |_| usize::MAX, at(millis))
}

/// A round reads these rows.
fn scan(us: &mut Coordinator, role: Role, rows: &[&str], millis: u64) -> String {
    assert_eq!(timeout(us, role, millis), "scan");
    us.view.observe_scan(rows.iter().map(|text| row(text)).filter(|row| us.reads(row)).collect(), at(millis));
    let commands = us.handle_scan(at(millis), at(millis));
    text(&commands)
}

/// The table answers each of the writes in `commands`, one after another, that the row is this now.
fn applied(us: &mut Coordinator, commands: Vec<Command>, after: &str, millis: u64) -> String {
    answer(us, commands, &Written::Applied { lease: Box::new(row(after)), sent: at(millis) }, millis)
}

fn answer(us: &mut Coordinator, commands: Vec<Command>, written: &Written, millis: u64) -> String {
    let mut next = Vec::new();
    for command in commands {
        let Command::Write(planned, generation) = command else { continue };
        let written = match written {
            Written::Applied { lease, sent } => Written::Applied { lease: lease.clone(), sent: *sent },
            Written::Refused(row) => Written::Refused(row.clone()),
            Written::NotLeader => Written::NotLeader,
            Written::Failed => Written::Failed,
        };
        next.extend(us.handle_written(*planned, generation, written, at(millis)));
    }
    text(&next)
}

/// Row of a worker that reported at `seconds`.
fn report(worker: &str, seconds: u64) -> Item {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(WALL + seconds);
    row_after(&WorkerStats::new(worker.into()).to_write(wall), None)
        .expect("well formed")
        .expect("no condition")
}

#[test]
fn a_worker_that_takes_for_itself_scans_and_takes_what_nobody_reads() {
    let mut us = us();
    let steps = scan(&mut us, Role::Independent, &["0 - 0", "1 b 5"], 0);
    assert_eq!(steps, "then sync shards, then plan, then clean up");
    let claims = step(&mut us, Step::Plan, 0);
    assert_eq!(text(&claims), "TakeLease 0: very old", "nobody has ever renewed it");
    assert_eq!(applied(&mut us, claims, "0 us 1", 10), "start 0");
    assert_eq!(text(&step(&mut us, Step::Plan, 20)), "", "it has its share");
    assert_eq!(text(&step(&mut us, Step::CleanUp, 30)), "");
}

#[test]
fn claims_are_limited_to_the_leases_that_can_be_renewed() {
    let mut us = us();
    scan(&mut us, Role::Independent, &["0 - 0"], 0);
    assert_eq!(text(&us.handle_step(Step::Plan, |held| held, at(0))), "");
    let claims = us.handle_step(Step::Plan, |held| held + 1, at(0));
    assert_eq!(text(&claims), "TakeLease 0: very old");
    let lost = Written::Refused(Some(Box::new(row("0 b 1"))));
    assert_eq!(answer(&mut us, claims, &lost, 10), "", "b was faster");
    assert_eq!(us.view.get(&"0".into()).map(|seen| seen.lease.counter), Some(1));
}

#[test]
fn a_leader_reads_who_is_there_and_assigns_to_all() {
    let mut us = us();
    let steps = scan(&mut us, Role::Leader, &["0 - 0", "1 us 3"], 0);
    assert_eq!(
        steps,
        "then sync shards, then accept assignments, then plan, then clean up, then end the run"
    );
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(WALL);
    us.handle_workers(&[report("us", 0), report("b", 0)], wall, at(0));
    let accepted = step(&mut us, Step::AcceptAssignments, 0);
    assert_eq!(text(&accepted), "RenewLease 1: assigned to this worker");
    assert_eq!(applied(&mut us, accepted, "1 us 4", 10), "start 1");
    let assigned = step(&mut us, Step::Plan, 20);
    assert_eq!(text(&assigned), "AssignLease 0: to b, it has no owner");
    assert_eq!(applied(&mut us, assigned, "0 b 1", 30), "");
    assert_eq!(text(&step(&mut us, Step::EndRun, 40)), "");
}

#[test]
fn a_leader_that_cannot_write_three_times_in_a_row_resigns() {
    let mut us = us();
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(WALL);
    for (round, expected) in [(0, ""), (1, ""), (2, "resign")] {
        let now = round * 60_000;
        scan(&mut us, Role::Leader, &["0 - 0"], now);
        us.handle_workers(&[report("us", round * 60)], wall + Duration::from_secs(round * 60), at(now));
        let assigned = step(&mut us, Step::Plan, now);
        assert_eq!(answer(&mut us, assigned, &Written::Failed, now), "");
        assert_eq!(text(&step(&mut us, Step::EndRun, now)), expected, "round {round}");
    }
    assert!(!us.leading.is_leader());
}

#[test]
fn what_a_leader_assigns_to_itself_it_starts_without_another_write() {
    let mut us = us();
    scan(&mut us, Role::Leader, &["0 - 0"], 0);
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(WALL);
    us.handle_workers(&[report("us", 0)], wall, at(0));
    let assigned = step(&mut us, Step::Plan, 0);
    assert_eq!(text(&assigned), "AssignLease 0: to us, it has no owner");
    assert_eq!(applied(&mut us, assigned, "0 us 1", 10), "start 0");
}

#[test]
fn a_follower_accepts_what_names_it_once() {
    let mut us = us();
    assert_eq!(timeout(&mut us, Role::Follower, 0), "read what is owned");
    assert_eq!(us.unknown_of(["0".into()]), [LeaseKey::from("0")]);
    let accepted = us.handle_owned(vec![row("0 us 5"), row("1 b 5")], false, at(0));
    assert_eq!(text(&accepted), "RenewLease 0: assigned to this worker");
    assert_eq!(applied(&mut us, accepted, "0 us 6", 10), "start 0");
    assert!(us.unknown_of(["0".into()]).is_empty());
    assert_eq!(text(&us.handle_owned(vec![row("0 us 6")], true, at(20))), "");
    let mut handoff = row("2 us 5");
    handoff.checkpoint_owner = Some("b".into());
    assert_eq!(text(&us.handle_owned(vec![handoff], false, at(30))), "", "b still works on it");
}

#[test]
fn news_of_a_lease_that_is_free_leads_to_a_plan_after_the_pause() {
    let mut us = us();
    scan(&mut us, Role::Independent, &["0 b 5"], 0);
    us.handle_done(at(1_000));
    assert_eq!(text(&us.handle_notice(vec![row("0 c 6")], false, at(1_000))), "");
    assert!(us.next_deadline() > at(1_000), "it is not to be taken");
    us.handle_notice(vec![row("0 - 7")], false, at(1_000));
    assert_eq!(us.next_deadline(), at(1_000) + PAUSE_PER_LEASE);
    assert_eq!(timeout(&mut us, Role::Independent, 1_001), "then plan");
    let claims = step(&mut us, Step::Plan, 1_001);
    assert_eq!(text(&claims), "TakeLease 0: free");
    assert_eq!(applied(&mut us, claims, "0 us 8", 1_002), "start 0");
    us.handle_notice(vec![row("0 - 7")], false, at(1_003));
    let known = us.view.get(&"0".into()).map(|seen| seen.lease.counter);
    assert_eq!(known, Some(8), "what was published before it was taken is old");
    assert_eq!(text(&us.handle_notice(vec![row("0 b 9")], false, at(1_004))), "stop 0");
}

#[test]
fn news_goes_by_the_role() {
    for (role, expected) in [
        (Role::Independent, "then plan"),
        (Role::Leader, "then accept assignments"),
        (Role::Follower, "then accept assignments"),
    ] {
        let mut us = us();
        us.handle_notice(vec![row("0 - 7")], false, at(0));
        assert_eq!(timeout(&mut us, role, 0), expected);
    }
    let mut us = us();
    scan(&mut us, Role::Leader, &[], 0);
    us.handle_notice(vec![row("0 - 7")], false, at(0));
    assert_eq!(timeout(&mut us, Role::Leader, 0), "then accept assignments, then plan");
}

#[test]
fn the_lease_of_a_consumer_that_ended_is_not_held_and_may_be_taken_again() {
    let mut us = us();
    scan(&mut us, Role::Independent, &["0 - 0"], 0);
    let claims = step(&mut us, Step::Plan, 0);
    applied(&mut us, claims, "0 us 1", 0);
    us.handle_done(at(0));
    assert_eq!(text(&us.handle_consumer_ended(&"0".into(), Some(row("0 - 2")), false, at(100))), "");
    assert!(us.held.is_empty());
    assert_eq!(timeout(&mut us, Role::Independent, 100), "then plan");
    assert_eq!(text(&step(&mut us, Step::Plan, 100)), "TakeLease 0: free");
}

#[test]
fn answers_for_a_stream_that_was_removed_meanwhile_are_ignored() {
    for is_added_again in [false, true] {
        let mut us = us();
        scan(&mut us, Role::Independent, &["0 - 0"], 0);
        let claims = step(&mut us, Step::Plan, 0);
        assert_eq!(text(&us.handle_stream_removed(1)), "close stream 1");
        if is_added_again {
            us.handle_stream_added(stream(2), at(5));
        }
        assert_eq!(applied(&mut us, claims, "0 us 1", 10), "");
        assert!(us.held.is_empty() && us.view.len() == 0);
        assert_eq!(text(&us.handle_stream_removed(1)), "", "it is removed once");
    }
}

#[test]
fn a_scan_that_was_under_way_when_the_stream_was_removed_leads_to_no_claims() {
    let mut us = us();
    assert_eq!(timeout(&mut us, Role::Independent, 0), "scan");
    us.handle_stream_removed(1);
    let rows: Vec<Lease> = [row("0 - 0")].into_iter().filter(|row| us.reads(row)).collect();
    us.view.observe_scan(rows, at(10));
    us.handle_scan(at(0), at(10));
    assert_eq!(text(&step(&mut us, Step::Plan, 10)), "");
}

#[test]
fn rounds_are_due_after_the_interval_and_sooner_if_there_is_a_reason() {
    let mut us = us();
    assert_eq!(us.next_deadline(), at(0), "at the start");
    scan(&mut us, Role::Independent, &[], 0);
    us.handle_done(at(5));
    let interval = us.coordination.assignment_interval(1);
    let due = us.next_deadline();
    assert!(due >= at(0) + interval.mul_f64(0.9) && due <= at(0) + interval.mul_f64(1.1));
    assert_eq!(timeout(&mut us, Role::Independent, 10), "");
    us.handle_notice(Vec::new(), true, at(20));
    assert_eq!(us.next_deadline(), at(20), "news was missed");
    us.handle_done(at(20));
    assert_eq!(timeout(&mut us, Role::Independent, 20), "scan");
    us.handle_done(at(60_000));
    assert_eq!(us.next_deadline(), at(60_000) + ROUND_MIN, "the round took long");
    us.wake(at(60_001));
    assert_eq!(us.next_deadline(), at(60_001));
    us.handle_stream_removed(1);
    us.handle_stream_added(stream(2), at(60_000));
    assert_eq!(us.next_deadline(), at(60_000), "a stream whose leases were not looked at");
}

#[test]
fn finished_rows_are_deleted_once_per_interval_by_the_worker_that_leads() {
    let mut us = us();
    let ended = |text: &str| Lease { checkpoint: Checkpoint::ShardEnd, ..row(text) };
    let mut child = row("1 us 5");
    (child.parents, child.checkpoint) = (["0".into()].into(), Checkpoint::TrimHorizon);
    assert_eq!(timeout(&mut us, Role::Leader, 0), "scan");
    child.checkpoint = "5".parse().expect("a checkpoint");
    us.view.observe_scan(vec![Lease { children: ["1".into()].into(), ..ended("0 us 5") }, child], at(0));
    assert_eq!(text(&step(&mut us, Step::CleanUp, 0)), "", "it is not due");
    let due = 60_000;
    assert_eq!(text(&step(&mut us, Step::CleanUp, due)), "delete 0");
    assert_eq!(text(&step(&mut us, Step::CleanUp, due)), "");
    assert!(text(&us.handle_deleted("0".into())).starts_with("emit LeaseDeleted"));
    assert_eq!(us.view.len(), 1);
}

#[test]
fn a_missing_table_is_created_again_once_per_interval() {
    let mut us = us();
    assert_eq!([0, 10, 60_000].map(|millis| us.is_table_due(at(millis))), [true, false, true]);
}

#[test]
fn a_worker_that_has_not_reported_is_assigned_nothing() {
    let mut us = us();
    scan(&mut us, Role::Leader, &["0 - 0"], 0);
    assert_eq!(text(&step(&mut us, Step::Plan, 0)), "");
}
