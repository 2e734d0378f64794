use super::*;
use crate::shard_sync::CreateReason;
use crate::types::{Checkpoint, HashKeyRange};

fn at(seconds: u64) -> Moment {
    Moment::after_origin(Duration::from_secs(seconds))
}

fn rules(is_multi: bool) -> SyncRules {
    SyncRules {
        audit_interval: Duration::from_secs(10),
        audit_confidence_threshold: 3,
        failover_time: Duration::from_secs(10),
        is_multi,
    }
}

fn sync(is_multi: bool) -> StreamSync {
    StreamSync::new(rules(is_multi), StartStrategy::Latest, None, at(0))
}

/// A lease of the hash keys from 0 to `end`.
fn lease(id: &str, end: Option<u128>) -> Lease {
    let mut lease = Lease::new(id, Checkpoint::TrimHorizon);
    lease.hash_key_range = end.and_then(|end| HashKeyRange::new(0, end));
    lease
}

fn whole() -> Lease {
    lease("0", Some(u128::MAX))
}

fn half() -> Lease {
    lease("0", Some(u128::MAX / 2))
}

/// What a scan at a second that shows `leases` makes necessary, in words.
fn scan(sync: &mut StreamSync, leases: &[Lease], seconds: u64) -> Vec<String> {
    scan_without(sync, leases, &[], seconds)
}

fn scan_without(sync: &mut StreamSync, leases: &[Lease], vanished: &[Lease], seconds: u64) -> Vec<String> {
    let leases: Vec<&Lease> = leases.iter().collect();
    let steps = sync.handle_scan(&leases, vanished.iter(), false, at(seconds));
    steps.requests.iter().map(ToString::to_string).collect()
}

fn planned(id: &str) -> NewLease {
    NewLease { lease: lease(id, None), reason: CreateReason::EmptyTable }
}

#[test]
fn a_stream_without_leases_gets_its_first_from_the_list_it_was_found_by() {
    let shards = vec![Shard::new("0", HashKeyRange::FULL, 0_u128.into())];
    let mut sync = StreamSync::new(rules(false), StartStrategy::Latest, Some(shards), at(0));
    assert_eq!(scan(&mut sync, &[], 0), ["create the first leases, of 1 listed shards"]);
    assert_eq!(scan(&mut sync, &[], 1), ["create the first leases"], "that list is used once");
}

#[test]
fn leases_that_were_there_are_compared_with_the_list_the_stream_was_found_by() {
    let mut sync = StreamSync::new(rules(false), StartStrategy::Latest, Some(Vec::new()), at(0));
    assert_eq!(scan(&mut sync, &[whole()], 0), ["compare the leases with the shards"]);
    assert!(scan(&mut sync, &[whole()], 1).is_empty());
}

#[test]
fn a_table_of_another_stream_gets_no_leases() {
    let steps = sync(false).handle_scan(&[], [].into_iter(), true, at(0));
    assert_eq!(steps, SyncSteps::default());
}

#[test]
fn a_hole_is_filled_when_three_audits_have_found_it() {
    let mut sync = sync(false);
    for seconds in [0, 9, 10, 11, 20, 29] {
        assert!(scan(&mut sync, &[half()], seconds).is_empty(), "{seconds}");
    }
    assert_eq!(scan(&mut sync, &[half()], 30), ["create missing leases"]);
}

#[test]
fn deleted_rows_are_put_back_at_once() {
    let mut sync = sync(false);
    assert_eq!(scan_without(&mut sync, &[half()], &[whole()], 1), ["create missing leases"]);
    assert_eq!(scan_without(&mut sync, &[], &[whole(), half()], 2), ["put 2 deleted row(s) back"]);
}

#[test]
fn what_could_not_be_created_is_tried_again_as_planned_while_the_plan_is_fresh() {
    for (scanned, expected) in [(1, "create 1 planned lease(s)"), (0, "create missing leases")] {
        let mut sync = sync(false);
        let retry = sync.handle_created(Err(vec![planned("1")]), at(scanned), at(9));
        assert_eq!(retry, Some(at(10)));
        assert!(scan(&mut sync, &[half()], 9).is_empty(), "not before the pause has passed");
        assert_eq!(scan(&mut sync, &[half()], 10), [expected]);
        assert_eq!(sync.handle_created(Ok(()), at(10), at(10)), None);
        assert!(scan(&mut sync, &[whole()], 11).is_empty());
    }
}

#[test]
fn one_of_several_streams_is_retried_ever_more_rarely() {
    let mut sync = sync(true);
    let fail = |sync: &mut StreamSync, seconds| {
        let retry = sync.handle_created(Err(Vec::new()), at(seconds), at(seconds));
        retry.expect("it failed").since(at(seconds)).as_secs()
    };
    let pauses: Vec<u64> = (0..8).map(|_| fail(&mut sync, 100)).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert!(scan(&mut sync, &[], 159).is_empty());
    assert_eq!(scan(&mut sync, &[], 160), ["create the first leases"]);
    sync.handle_created(Ok(()), at(160), at(160));
    assert_eq!(fail(&mut sync, 200), 1, "it counts from anew");
}

#[test]
fn missing_ranges_are_looked_up_once() {
    let mut sync = sync(false);
    let rows = [lease("0", None), lease("1", None)];
    assert_eq!(scan(&mut sync, &rows, 10), ["fill in 2 hash key range(s)"]);
    sync.note_range_lookup(&"0".into());
    assert_eq!(scan(&mut sync, &rows, 20), ["fill in 1 hash key range(s)"]);
    sync.note_range_lookup(&"1".into());
    assert!(scan(&mut sync, &rows, 30).is_empty());
}

#[test]
fn a_stream_that_was_created_again_is_read_from_its_oldest_record() {
    let mut sync = sync(true);
    assert_eq!([sync.note_earlier_stream(), sync.note_earlier_stream()], [true, false]);
    let steps = sync.handle_scan(&[], [].into_iter(), false, at(0));
    let oldest = SyncRequest::CreateFirst { listed: None, strategy: StartStrategy::Oldest };
    assert_eq!(steps.requests, [oldest]);
}
