//! The unreliable way to a table, on which simulations rely.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kinesis_consumer::lease::{
    Fault, FaultyLeaseStore, Lease, LeaseStore, LeaseWrite, MemoryLeaseStore, StoreErrorKind, WriteOutcome,
};
use kinesis_consumer::{Checkpoint, LeaseKey, WorkerId};

/// A table with one fresh lease, and a way to it with a fault that can be changed.
async fn table() -> (MemoryLeaseStore, FaultyLeaseStore, Arc<Mutex<Fault>>, Lease) {
    let table = MemoryLeaseStore::default();
    let lease = Lease::new("shardId-0", Checkpoint::Latest);
    table.create(&lease).await.unwrap();
    let fault = Arc::new(Mutex::new(Fault::default()));
    let current = fault.clone();
    let faulty = FaultyLeaseStore::new(table.clone(), Arc::new(move |_, _| *current.lock().unwrap()));
    (table, faulty, fault, lease)
}

fn owner(table: &MemoryLeaseStore) -> Option<WorkerId> {
    let item = table.items().remove(&LeaseKey::from("shardId-0")).unwrap();
    Lease::from_item(&item).unwrap().unwrap().owner
}

#[tokio::test]
async fn a_request_that_is_not_sent_has_no_effect() {
    let (table, faulty, fault, lease) = table().await;
    *fault.lock().unwrap() = Fault::refused(StoreErrorKind::Throttled);
    let error = faulty.apply(&LeaseWrite::take(&lease, &"a".into())).await.unwrap_err();
    assert_eq!((error.kind(), owner(&table)), (StoreErrorKind::Throttled, None));
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_the_effect() {
    let (table, faulty, fault, lease) = table().await;
    *fault.lock().unwrap() = Fault::answer_lost();
    let take = LeaseWrite::take(&lease, &"a".into());
    assert!(faulty.apply(&take).await.unwrap_err().is_indeterminate());
    assert_eq!(owner(&table), Some("a".into()));
    *fault.lock().unwrap() = Fault::default();
    let again = faulty.apply(&take).await.unwrap();
    assert!(matches!(again, WriteOutcome::Refused(Some(current)) if current.counter == 1));
}

#[tokio::test]
async fn scans_may_be_stale_and_reads_of_one_row_are_not() {
    let (table, faulty, fault, lease) = table().await;
    let taken = table.apply(&LeaseWrite::take(&lease, &"a".into())).await.unwrap();
    assert!(matches!(taken, WriteOutcome::Applied(_)));
    *fault.lock().unwrap() = Fault::stale(1);
    assert_eq!(faulty.scan().await.unwrap().leases, std::slice::from_ref(&lease));
    assert!(faulty.keys_owned_by(&"a".into()).await.unwrap().is_empty());
    assert_eq!(faulty.lease(&lease.key).await.unwrap().unwrap().owner, Some("a".into()));
}

#[tokio::test(start_paused = true)]
async fn a_request_takes_its_time_there_and_back() {
    let (table, faulty, fault, lease) = table().await;
    *fault.lock().unwrap() = Fault::default().delayed(Duration::from_secs(1), Duration::from_secs(2));
    let started = tokio::time::Instant::now();
    let write = tokio::spawn(async move { faulty.apply(&LeaseWrite::take(&lease, &"a".into())).await });
    tokio::time::sleep(Duration::from_millis(999)).await;
    assert_eq!(owner(&table), None);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(owner(&table), Some("a".into()));
    assert!(matches!(write.await.unwrap(), Ok(WriteOutcome::Applied(_))));
    assert_eq!(started.elapsed(), Duration::from_secs(3));
}
