use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::lease::{
    Fault, FaultyLeaseStore, Lease, LeaseStore, LeaseWrite, MemoryLeaseStore, StoreErrorKind, WriteOutcome,
    WritePacer,
};

const FAILOVER: Duration = Duration::from_secs(10);

fn at(number: u128) -> ExtendedSequenceNumber {
    ExtendedSequenceNumber::new(number.into(), 0)
}

/// A checkpointer that was given records up to 100, on a table that throttles its first `throttled` writes.
async fn fixture(throttled: usize) -> (MemoryLeaseStore, Checkpointer) {
    let table = MemoryLeaseStore::default();
    let fresh = Lease::new("shardId-0", Checkpoint::TrimHorizon);
    table.create(&fresh).await.unwrap();
    let clock = Clock::system();
    let taken = clock.now();
    let outcome = table.apply(&LeaseWrite::take(&fresh, &"me".into())).await.unwrap();
    let WriteOutcome::Applied(lease) = outcome else { panic!("{outcome:?}") };
    let faults = Mutex::new(VecDeque::from(vec![Fault::refused(StoreErrorKind::Throttled); throttled]));
    let hook =
        Arc::new(move |_: &'static str, _: Option<&LeaseKey>| faults.lock().pop_front().unwrap_or_default());
    let events = EventSink::new();
    let pacer = Arc::new(WritePacer::new(clock.clone(), FAILOVER, events.clone(), &"me".into()));
    let store = Arc::new(FaultyLeaseStore::new(table.clone(), hook));
    let held = HeldLease::new(store, pacer, clock.clone(), "me".into(), FAILOVER, *lease, taken, 1);
    let checkpointer = Checkpointer::new(CheckpointerParts {
        held: Arc::new(held),
        stream: "orders".parse().unwrap(),
        application: "test".into(),
        events,
        metrics: Metrics::disabled(),
        clock,
        worker: "worker".into(),
        stopping: CancellationToken::new(),
        stopped: StoppedReason::default(),
        seed: 1,
    });
    checkpointer.deliver(at(100));
    (table, checkpointer)
}

async fn row(table: &MemoryLeaseStore) -> Lease {
    table.lease(&"shardId-0".into()).await.unwrap().expect("a row")
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_while_the_table_throttles_are_stored_by_one_write() {
    let (table, checkpointer) = fixture(6).await;
    let calls = [5, 7, 9, 8].map(|number| checkpointer.checkpoint(at(number)));
    for outcome in futures_util::future::join_all(calls).await {
        outcome.unwrap();
    }
    let row = row(&table).await;
    assert_eq!((row.checkpoint, row.counter), (at(9).into(), 2), "in one write");
    assert_eq!(checkpointer.stored_checkpoint(), at(9).into());
    let error = checkpointer.checkpoint(at(8)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "a call that comes later is refused as ever");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_was_not_delivered_is_no_newer_one() {
    let (table, checkpointer) = fixture(6).await;
    let (stored, refused) = tokio::join!(checkpointer.checkpoint(at(5)), checkpointer.checkpoint(at(101)));
    stored.unwrap();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(row(&table).await.checkpoint, at(5).into());
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_waits_does_not_overtake_one_that_is_prepared_before_it() {
    let (table, checkpointer) = fixture(6).await;
    let prepared = async {
        let prepared = checkpointer.prepare(at(6), None).await.unwrap();
        assert!(row(&table).await.pending_checkpoint.is_some());
        prepared
    };
    let (prepared, later, ()) = tokio::join!(prepared, checkpointer.checkpoint(at(9)), async {
        checkpointer.0.parts.held.renew(None).await.unwrap();
    });
    later.unwrap();
    let now = row(&table).await;
    assert_eq!((now.checkpoint, now.pending_checkpoint), (at(9).into(), None));
    assert_eq!(prepared.commit().await.unwrap_err().kind(), ErrorKind::Invalid, "it is behind");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_is_not_waited_for_longer_than_the_failover_time() {
    let (_table, checkpointer) = fixture(1000).await;
    let since = checkpointer.0.parts.clock.now();
    let error = checkpointer.checkpoint(at(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "the lease runs out before");
    assert!(checkpointer.0.parts.clock.now().since(since) <= FAILOVER + Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_is_stored_and_what_comes_meanwhile_is_not() {
    let (table, checkpointer) = fixture(3).await;
    // The prepared one is written first, so that the other is decided after the delivery.
    let (prepared, stored, ()) =
        tokio::join!(checkpointer.prepare(at(50), None), checkpointer.checkpoint_delivered(), async {
            checkpointer.deliver(at(200));
        });
    drop(prepared.unwrap());
    stored.unwrap();
    assert_eq!(row(&table).await.checkpoint, at(100).into());
    checkpointer.checkpoint_delivered().await.unwrap();
    let now = row(&table).await;
    assert_eq!(now.checkpoint, at(200).into());
    checkpointer.checkpoint_delivered().await.unwrap();
    assert_eq!(row(&table).await.counter, now.counter, "nothing new was delivered, so nothing is written");
    checkpointer.reach_end();
    checkpointer.checkpoint_delivered().await.unwrap();
    assert_eq!(row(&table).await.checkpoint, Checkpoint::ShardEnd);
}
