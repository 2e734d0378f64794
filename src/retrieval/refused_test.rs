//! Responses that do not find the shard or refuse a position in it, while it is polled.

use std::time::Duration;

use super::fake_shard::{END, Script};
use super::retrieval_test::{Bench, after, at, batch, drain, next, numbers};
use super::*;
use crate::kinesis::Shard;
use crate::lease::origin::lease_of;
use crate::types::{Checkpoint, HashKeyRange, SequenceNumber};

const MINUTE: Duration = Duration::from_secs(60);

fn fail(kind: StreamErrorKind, times: usize) -> impl Iterator<Item = Script> {
    std::iter::repeat_with(move || Script::Fail(kind)).take(times)
}

/// A checkpoint at a record.
fn checkpoint(number: &str) -> Checkpoint {
    Checkpoint::parse(number, 0).expect("a number")
}

/// Nothing is delivered within this time, and the shard does not end.
async fn nothing_within(retrieval: &mut Retrieval, time: Duration) {
    let came = Clock::system().timeout(time, retrieval.next()).await;
    assert!(came.is_err(), "{came:?}");
}

#[tokio::test(start_paused = true)]
async fn a_listed_shard_is_read_however_often_it_is_not_found() {
    for (opening, times) in [(true, 1), (true, 2), (true, 7), (false, 1), (false, 2), (false, 7)] {
        let bench = Bench { limit: 5, ..Bench::new() };
        bench.shard.put(5, 10);
        let mut retrieval = bench.start();
        assert_eq!(batch(&mut retrieval).await, numbers(1..=5));
        if opening {
            bench.shard.state().records_scripts.extend(fail(StreamErrorKind::ExpiredIterator, 1));
            bench.shard.state().iterator_scripts.extend(fail(StreamErrorKind::NotFound, times));
        } else {
            bench.shard.state().records_scripts.extend(fail(StreamErrorKind::NotFound, times));
        }
        bench.shard.put(5, 10);
        bench.shard.close();
        let (records, children) = drain(&mut retrieval).await;
        assert_eq!((records, children.len()), (numbers(6..=10), 2), "{opening} {times}");
        assert!(bench.opened()[1..].iter().all(|position| *position == after(5)), "{:?}", bench.opened());
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_has_expired_ends_without_children_once_it_was_not_found_twice() {
    for opening in [true, false] {
        let bench = Bench::new();
        let mut heirs = bench.shard.state().shards();
        heirs[0] = Shard::new("shard-1", HashKeyRange::FULL, SequenceNumber::from(END + 1));
        heirs[0].parents = ["shard-0".into()].into();
        bench.shard.state().listed = Some(Ok(heirs));
        let gone = fail(StreamErrorKind::NotFound, 100);
        match opening {
            true => bench.shard.state().iterator_scripts.extend(gone),
            false => bench.shard.state().records_scripts.extend(gone),
        }
        assert_eq!(drain(&mut bench.start()).await, (Vec::new(), Vec::new()));
        assert_eq!(bench.shard.state().lists, 2);
        assert_eq!(bench.seen().last().map(String::as_str), Some("expired: None"));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_ends_while_the_stream_is_missing_or_cannot_be_listed() {
    use StreamErrorKind::{Denied, Malformed, NotFound, Throttled, Unavailable};
    let gap = Shard::new("shard-9", HashKeyRange::new(0, 9).expect("a range"), SequenceNumber::from(9));
    for listed in
        [Err(NotFound), Err(Denied), Err(Malformed), Err(Throttled), Err(Unavailable), Ok(vec![gap])]
    {
        let bench = Bench::new();
        bench.shard.state().listed = Some(listed.clone());
        bench.shard.state().iterator_scripts.extend(fail(NotFound, 30));
        bench.shard.put(3, 10);
        let mut retrieval = bench.start();
        nothing_within(&mut retrieval, 3 * MINUTE).await;
        let opened = bench.opened().len();
        assert!((6..=20).contains(&opened), "{opened} tries in three minutes; {listed:?}");
        assert_eq!(batch(&mut retrieval).await, numbers(1..=3), "{listed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_number_of_a_closed_shard_that_is_refused_is_its_end() {
    for kind in [StreamErrorKind::InvalidArgument, StreamErrorKind::NotFound] {
        let bench = Bench::new();
        bench.shard.put(3, 10);
        bench.shard.close();
        bench.shard.state().records_scripts.extend([
            // The last record has the last sequence number, and then the iterator expires.
            Script::Change(|page| {
                page.records[2].sequence_number = SequenceNumber::from(END);
                page.child_shards.clear();
                page.next_iterator = Some("0 0 0".to_owned().into());
            }),
            Script::Fail(StreamErrorKind::ExpiredIterator),
        ]);
        let mut retrieval = bench.start();
        assert_eq!(batch(&mut retrieval).await.len(), 3);
        bench.shard.state().iterator_scripts.extend(fail(kind, 100));
        let (records, children) = drain(&mut retrieval).await;
        assert_eq!((records.len(), children.len()), (0, 2), "{kind:?}");
        assert!(children.iter().all(|child| child.parents.contains("shard-0")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_at_the_last_number_of_a_closed_shard_that_is_refused_is_its_end() {
    let bench = Bench { checkpoint: checkpoint("1000"), ..Bench::new() };
    bench.shard.close();
    bench.shard.state().iterator_scripts.extend(fail(StreamErrorKind::InvalidArgument, 100));
    let (records, children) = drain(&mut bench.start()).await;
    assert_eq!((records.len(), children.len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refused_checkpoint_is_reported_and_left_until_it_is_taken() {
    let bench = Bench { checkpoint: checkpoint("3"), ..Bench::new() };
    bench.shard.put(5, 10);
    bench.shard.state().iterator_scripts.extend(fail(StreamErrorKind::InvalidArgument, 10));
    let mut retrieval = bench.start();
    assert_eq!(batch(&mut retrieval).await, numbers(3..=5));
    let seen = bench.seen();
    assert!(seen[0].starts_with("GetShardIterator"), "once decides nothing: {seen:?}");
    assert!(seen[1].starts_with("refused: stream orders refuses checkpoint 3/0"), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn settings_start_a_shard_over() {
    let from_oldest = || {
        let mut bench = Bench { checkpoint: checkpoint("3"), ..Bench::new() };
        bench.config.on_refused_checkpoint = OnRefusedCheckpoint::ReadFromOldest;
        bench
    };
    let start_over = |kind| {
        let bench = Bench { on_recreated_stream: OnRecreatedStream::StartOver, ..Bench::new() };
        let began = Some(SequenceNumber::from(77));
        (Bench { lease: Lease { starting_sequence_number: began, ..bench.lease.clone() }, ..bench }, kind)
    };
    for (bench, kind) in [
        (from_oldest(), StreamErrorKind::InvalidArgument),
        start_over(StreamErrorKind::InvalidArgument),
        start_over(StreamErrorKind::NotFound),
    ] {
        bench.shard.put(5, 10);
        bench.shard.state().iterator_scripts.extend(fail(kind, 100));
        let delivery = next(&mut bench.start()).await;
        let Delivery::StartOver { fresh } = delivery else { panic!("{delivery:?}") };
        let shard = &bench.shard.state().shards()[0];
        let stream = "orders".parse().expect("a name");
        assert_eq!(*fresh, lease_of(shard, Checkpoint::TrimHorizon).in_stream(&stream));
        assert_eq!(bench.opened().len(), 2, "one refusal alone decides nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn each_setting_applies_only_to_its_own_purpose() {
    let mut bench = Bench { checkpoint: checkpoint("3"), ..Bench::new() };
    bench.lease.starting_sequence_number = Some(SequenceNumber::from(0));
    bench.on_recreated_stream = OnRecreatedStream::StartOver;
    bench.shard.put(5, 10);
    bench.shard.state().iterator_scripts.extend(fail(StreamErrorKind::InvalidArgument, 10));
    assert_eq!(batch(&mut bench.start()).await, numbers(3..=5));
    assert!(bench.opened().iter().all(|position| *position == at(3)));
}

#[tokio::test(start_paused = true)]
async fn records_that_expired_unread_are_reported_by_the_oldest_that_is_left() {
    // Of ten records: how many expired, and what is reported for a checkpoint at the third.
    for (expired, empty_pages, report) in [
        (0, 0, None),
        (2, 5, None),
        (3, 0, Some("expired: Some(\"4\")")),
        (7, 5, Some("expired: Some(\"8\")")),
        (10, 0, Some("expired: None")),
    ] {
        let bench =
            Bench { checkpoint: Checkpoint::parse("3", 2).expect("a number"), limit: 4, ..Bench::new() };
        bench.shard.put(10, 10);
        bench.shard.expire(expired);
        bench.shard.state().empty_pages = empty_pages;
        // Reopening before any record was seen reports nothing.
        bench.shard.state().records_scripts.extend(fail(StreamErrorKind::ExpiredIterator, 2));
        bench.shard.close();
        drain(&mut bench.start()).await;
        let mut seen = bench.seen();
        seen.retain(|text| !text.starts_with("GetRecords"));
        assert_eq!(seen, Vec::from_iter(report.map(str::to_owned)), "{expired} {empty_pages}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_after_the_first_record_is_not_reported() {
    let bench = Bench { checkpoint: checkpoint("3"), limit: 2, ..Bench::new() };
    bench.shard.put(6, 10);
    let mut retrieval = bench.start();
    assert_eq!(batch(&mut retrieval).await, numbers(3..=4));
    bench.shard.state().records_scripts.extend(fail(StreamErrorKind::ExpiredIterator, 1));
    bench.shard.put(6, 10);
    bench.shard.close();
    drain(&mut retrieval).await;
    assert!(!bench.seen().iter().any(|text| text.starts_with("expired")), "{:?}", bench.seen());
}

/// A shard whose ten records are numbered from 1, with a lease at a number far beyond them.
fn restarted() -> Bench {
    let bench = Bench { checkpoint: checkpoint("500"), limit: 4, ..Bench::new() };
    bench.shard.put(10, 10);
    // The endpoint opens the shard at its oldest record.
    bench.shard.state().is_lenient = true;
    bench
}

#[tokio::test(start_paused = true)]
async fn restarted_numbers_are_reported_once() {
    let bench = restarted();
    let mut retrieval = bench.start();
    for page in [1..=4, 5..=8, 9..=10] {
        assert_eq!(batch(&mut retrieval).await, numbers(page));
    }
    nothing_within(&mut retrieval, 10 * MINUTE).await;
    assert_eq!(bench.seen(), ["restarted: 1"]);
    assert_eq!(bench.shard.state().lists, 0);
}

#[tokio::test(start_paused = true)]
async fn restarted_numbers_start_the_shard_over_if_it_is_another() {
    // The starting sequence number that the lease stores, if any; the shard itself begins at 0.
    for (began, starts_over) in [(None, true), (Some(77), true), (Some(0), false)] {
        let mut bench = restarted();
        bench.on_recreated_stream = OnRecreatedStream::StartOver;
        bench.lease.starting_sequence_number = began.map(SequenceNumber::from);
        let mut retrieval = bench.start();
        for _ in 0..3 {
            batch(&mut retrieval).await;
        }
        if starts_over {
            let delivery = next(&mut retrieval).await;
            assert!(matches!(delivery, Delivery::StartOver { .. }), "{delivery:?}");
        } else {
            nothing_within(&mut retrieval, 10 * MINUTE).await;
            assert_eq!(bench.shard.state().lists, 1);
        }
    }
}
