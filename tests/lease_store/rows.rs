//! Rows: what is read, created, listed and deleted.

use std::collections::BTreeSet;

use kinesis_consumer::lease::{Attribute, Created, Item, Lease, LeaseWrite, WriteOutcome};
use kinesis_consumer::{Checkpoint, HashKeyRange, LeaseKey, WorkerId};

use crate::table::{Table, item};

/// Rows as KCL 3.5 writes them.
pub(crate) const FRESH: &str = r#"{"leaseKey":{"S":"shardId-000000000002"},"leaseCounter":{"N":"0"},"ownerSwitchesSinceCheckpoint":{"N":"0"},"checkpoint":{"S":"TRIM_HORIZON"},"checkpointSubSequenceNumber":{"N":"0"},"parentShardId":{"SS":["shardId-000000000000"]},"startingHashKey":{"S":"0"},"endingHashKey":{"S":"170141183460469231731687303715884105727"},"entityType":{"S":"LEASE"}}"#;
pub(crate) const OWNED: &str = r#"{"leaseKey":{"S":"shardId-000000000002"},"leaseOwner":{"S":"wA"},"leaseCounter":{"N":"57"},"ownerSwitchesSinceCheckpoint":{"N":"0"},"checkpoint":{"S":"49590338271490256608559692538361571095921575989136588898"},"checkpointSubSequenceNumber":{"N":"3"},"parentShardId":{"SS":["shardId-000000000000"]},"startingHashKey":{"S":"0"},"endingHashKey":{"S":"170141183460469231731687303715884105727"},"throughputKBps":{"N":"412.337891"},"entityType":{"S":"LEASE"}}"#;
pub(crate) const HANDOFF: &str = r#"{"leaseKey":{"S":"shardId-000000000002"},"leaseOwner":{"S":"wB"},"checkpointOwner":{"S":"wA"},"leaseCounter":{"N":"58"},"ownerSwitchesSinceCheckpoint":{"N":"0"},"checkpoint":{"S":"49590338271490256608559692538361571095921575989136588898"},"checkpointSubSequenceNumber":{"N":"3"},"parentShardId":{"SS":["shardId-000000000000"]},"startingHashKey":{"S":"0"},"endingHashKey":{"S":"170141183460469231731687303715884105727"},"throughputKBps":{"N":"412.337891"},"entityType":{"S":"LEASE"}}"#;
pub(crate) const ENDED: &str = r#"{"leaseKey":{"S":"shardId-000000000002"},"leaseOwner":{"S":"wB"},"leaseCounter":{"N":"91"},"ownerSwitchesSinceCheckpoint":{"N":"0"},"checkpoint":{"S":"SHARD_END"},"checkpointSubSequenceNumber":{"N":"0"},"parentShardId":{"SS":["shardId-000000000000"]},"childShardIds":{"SS":["shardId-000000000005","shardId-000000000006"]},"startingHashKey":{"S":"0"},"endingHashKey":{"S":"170141183460469231731687303715884105727"},"throughputKBps":{"N":"0"},"entityType":{"S":"LEASE"}}"#;
/// A row as KCL 2.0 writes it, before hash ranges and `entityType`.
pub(crate) const OLD: &str = r#"{"leaseKey":{"S":"shardId-000000000002"},"leaseOwner":{"S":"w1"},"leaseCounter":{"N":"12"},"ownerSwitchesSinceCheckpoint":{"N":"2"},"checkpoint":{"S":"LATEST"},"checkpointSubSequenceNumber":{"N":"0"}}"#;
/// A row of a multi-stream application.
const MULTI_STREAM: &str = r#"{"leaseKey":{"S":"123456789012:orders:1700000000:shardId-000000000001"},"streamName":{"S":"123456789012:orders:1700000000"},"shardId":{"S":"shardId-000000000001"},"leaseCounter":{"N":"0"},"ownerSwitchesSinceCheckpoint":{"N":"0"},"checkpoint":{"S":"AT_TIMESTAMP"},"checkpointSubSequenceNumber":{"N":"0"},"startingHashKey":{"S":"0"},"endingHashKey":{"S":"340282366920938463463374607431768211455"},"entityType":{"S":"LEASE"}}"#;

const LOCK: &str = r#"{"leaseKey":{"S":"Leader"},"ownerName":{"S":"wA"},"leaseDuration":{"S":"120000"},"recordVersionNumber":{"S":"7c0e1c1e-5f0f-4c53-9a53-0d0f6a0a9b11"},"entityType":{"S":"LEADER"}}"#;
const METRICS: &str = r#"{"leaseKey":{"S":"wA"},"lut":{"N":"1752480000"},"sts":{"M":{"C":{"L":[{"N":"41.2"},{"N":"38.75"}]}}},"opr":{"M":{"C":{"L":[{"N":"100"}]}}},"sup":{"N":"1"},"slu":{"N":"1752480000"},"entityType":{"S":"WORKER_METRIC_STATS"}}"#;
const VERSION: &str = r#"{"leaseKey":{"S":"Migration3.0"},"cv":{"S":"CLIENT_VERSION_3X"},"mb":{"S":"wA"},"mts":{"N":"1752480000000"},"h":{"L":[{"M":{"cv":{"S":"CLIENT_VERSION_INIT"},"mb":{"S":"wA"},"mts":{"N":"1752479999000"}}}]},"entityType":{"S":"CLIENT_VERSION_MIGRATION"}}"#;

pub(crate) fn key_of(item: &Item) -> &str {
    match &item["leaseKey"] {
        Attribute::S(key) => key,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn shard(index: usize) -> String {
    format!("shardId-{index:012}")
}

pub(crate) async fn a_row_is_created_once(table: &Table) {
    let mut lease = Lease::new(shard(2).as_str(), Checkpoint::TrimHorizon);
    lease.parents = BTreeSet::from([shard(0).as_str().into()]);
    lease.hash_key_range = HashKeyRange::new(0, u128::MAX / 2);
    assert_eq!(table.store.create(&lease).await.unwrap(), Created::Now);
    assert_eq!(table.item(&shard(2)).await, Some(item(FRESH)));

    let taken = table.applied(&LeaseWrite::take(&lease, &"wA".into())).await;
    assert_eq!(table.store.create(&lease).await.unwrap(), Created::Already);
    assert_eq!(table.store.lease(&lease.key).await.unwrap(), Some(taken));
    assert_eq!(table.store.lease(&"shardId-9".into()).await.unwrap(), None);
}

pub(crate) async fn rows_of_every_kcl_version_are_read_and_written_back_unchanged(table: &Table) {
    for row in [FRESH, OWNED, HANDOFF, ENDED, OLD, MULTI_STREAM] {
        let row = item(row);
        table.put(&row).await;
        let lease = table.store.lease(&key_of(&row).into()).await.unwrap().unwrap();

        let mut expected = row.clone();
        expected.insert("entityType".to_owned(), Attribute::S("LEASE".to_owned()));
        let mut written = lease.to_item();
        // DynamoDB makes 0 of the 0.0 that Java and we write.
        if written.get("throughputKBps") == Some(&Attribute::N("0.0".to_owned())) {
            written.insert("throughputKBps".to_owned(), Attribute::N("0".to_owned()));
        }
        assert_eq!(written, expected);

        // A checkpoint where it stands changes the counter and nothing else.
        table.applied(&LeaseWrite::checkpoint(&lease, &lease.checkpoint)).await;
        let mut expected = row.clone();
        expected.insert("leaseCounter".to_owned(), Attribute::N((lease.counter + 1).to_string()));
        expected.insert("ownerSwitchesSinceCheckpoint".to_owned(), Attribute::N("0".to_owned()));
        assert_eq!(table.item(key_of(&row)).await, Some(expected));
    }
}

pub(crate) async fn rows_of_other_kinds_are_no_leases(table: &Table) {
    for row in [LOCK, METRICS, VERSION, OWNED] {
        table.put(&item(row)).await;
    }
    let scan = table.store.scan().await.unwrap();
    assert_eq!((scan.leases.len(), scan.unreadable.len()), (1, 0));
    assert_eq!(scan.leases[0].key, "shardId-000000000002");
    assert_eq!(table.store.lease(&"Leader".into()).await.unwrap(), None);

    let lock = Lease::new("Leader", Checkpoint::Latest);
    assert_eq!(table.store.create(&lock).await.unwrap(), Created::Already);
    assert_eq!(table.apply(&LeaseWrite::take(&lock, &"wB".into())).await, WriteOutcome::Refused(None));
    table.store.delete_ended(&lock.key).await.unwrap();
    assert_eq!(table.item("Leader").await, Some(item(LOCK)));
}

pub(crate) async fn unreadable_rows_are_reported_and_left_alone(table: &Table) {
    let bad = [
        (r#"{"leaseKey":{"S":"no-counter"},"checkpoint":{"S":"LATEST"}}"#, "leaseCounter"),
        (r#"{"leaseKey":{"S":"no-checkpoint"},"leaseCounter":{"N":"0"}}"#, "checkpoint"),
        (
            r#"{"leaseKey":{"S":"odd"},"leaseCounter":{"N":"0"},"checkpoint":{"S":"SHARD_END"},"leaseOwner":{"N":"1"}}"#,
            "leaseOwner",
        ),
        (r#"{"leaseKey":{"S":"text"},"leaseCounter":{"S":"0"},"checkpoint":{"S":"LATEST"}}"#, "leaseCounter"),
    ];
    for row in bad.iter().map(|(row, _)| *row).chain([OWNED]) {
        table.put(&item(row)).await;
    }
    let scan = table.store.scan().await.unwrap();
    assert_eq!(scan.leases.len(), 1);
    let reported: BTreeSet<_> = scan.unreadable.iter().map(ToString::to_string).collect();
    assert_eq!(reported.len(), bad.len());
    for (row, attribute) in bad {
        let row = item(row);
        let beginning = format!("lease row {}: attribute {attribute}: ", key_of(&row));
        assert!(reported.iter().any(|text| text.starts_with(&beginning)), "{reported:?}");
        assert!(table.store.lease(&key_of(&row).into()).await.is_err());
        assert_eq!(table.item(key_of(&row)).await, Some(row));
    }
    let stale = Lease::new("no-checkpoint", Checkpoint::Latest);
    let mut newer = stale.clone();
    newer.counter = 7;
    assert_eq!(table.apply(&LeaseWrite::renew(&newer, None)).await, WriteOutcome::Refused(None));
}

/// More than one megabyte, which is what DynamoDB returns at once.
pub(crate) async fn a_scan_finds_every_row_of_a_large_table(table: &Table) {
    const ROWS: usize = 60;
    for index in 0..ROWS {
        let mut row = Lease::new(shard(index).as_str(), Checkpoint::Latest).to_item();
        row.insert("padding".to_owned(), Attribute::S("x".repeat(60_000)));
        table.put(&row).await;
    }
    let scan = table.store.scan().await.unwrap();
    let keys: Vec<_> = scan.leases.iter().map(|lease| lease.key.to_string()).collect();
    assert_eq!(keys, (0..ROWS).map(shard).collect::<Vec<_>>());
}

pub(crate) async fn only_ended_leases_are_deleted(table: &Table) {
    let key = shard(2).as_str().into();
    table.store.delete_ended(&key).await.unwrap();
    table.put(&item(OWNED)).await;
    table.store.delete_ended(&key).await.unwrap();
    assert_eq!(table.item(&shard(2)).await, Some(item(OWNED)));
    table.put(&item(ENDED)).await;
    table.store.delete_ended(&key).await.unwrap();
    assert_eq!(table.item(&shard(2)).await, None);
}

pub(crate) async fn leases_are_found_by_owner(table: &Table) {
    table.index_owners().await;
    let mut leases = [0, 1, 2].map(|index| Lease::new(shard(index).as_str(), Checkpoint::Latest));
    for (lease, owner) in leases.iter_mut().zip([Some("wA"), Some("wB"), None]) {
        lease.owner = owner.map(WorkerId::from);
        table.store.create(lease).await.unwrap();
    }
    table.put(&item(METRICS)).await;
    table.applied(&LeaseWrite::start_handoff(&leases[1].key, &"wB".into(), &"wA".into())).await;
    let found = table.store.keys_owned_by(&"wA".into()).await.unwrap();
    assert_eq!(found, [shard(0), shard(1)].map(LeaseKey::from));
    assert!(table.store.keys_owned_by(&"wB".into()).await.unwrap().is_empty());
}
