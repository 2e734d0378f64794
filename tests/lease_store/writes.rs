//! Conditional writes: each succeeds and is refused as KCL's table of writes says.

use std::collections::BTreeSet;

use kinesis_consumer::lease::{
    Attribute, Condition, Item, Lease, LeaseWrite, PendingCheckpoint, Throughput, WriteOutcome,
};
use kinesis_consumer::{Checkpoint, HashKeyRange, LeaseKey, WorkerId};

use crate::rows::{HANDOFF, OLD, OWNED, shard};
use crate::table::{Table, item};

/// Puts a row and reads it as the lease it is.
async fn seen(table: &Table, row: &Item) -> Lease {
    table.put(row).await;
    Lease::from_item(row).unwrap().unwrap()
}

async fn owned(table: &Table) -> Lease {
    seen(table, &item(OWNED)).await
}

async fn in_handoff(table: &Table) -> Lease {
    seen(table, &item(HANDOFF)).await
}

fn at(text: &str, sub_sequence: u64) -> Checkpoint {
    Checkpoint::parse(text, sub_sequence).unwrap()
}

pub(crate) async fn renew(table: &Table) {
    let lease = owned(table).await;
    let rate = Throughput::from_bytes(3 * 1024, std::time::Duration::from_secs(2));
    let renewed = table.applied(&LeaseWrite::renew(&lease, Some(rate))).await;
    let expected = {
        let mut lease = lease.clone();
        lease.counter = 58;
        lease.throughput = Some(rate);
        lease
    };
    assert_eq!(renewed, expected);
    // The response to the first attempt was lost: the row that is returned shows it.
    assert_eq!(table.refused(&LeaseWrite::renew(&lease, None)).await, Some(expected));
    let renewed = table.applied(&LeaseWrite::renew(&renewed, None)).await;
    assert_eq!((renewed.counter, renewed.throughput), (59, Some(rate)));
}

pub(crate) async fn renew_during_a_handoff(table: &Table) {
    let lease = owned(table).await;
    table.applied(&LeaseWrite::start_handoff(&lease.key, &"wA".into(), &"wB".into())).await;
    let current = table.refused(&LeaseWrite::renew(&lease, None)).await.unwrap();
    assert_eq!(current.checkpoint_owner, Some("wA".into()));
    assert_eq!(current.counter, lease.counter);
    let renewed = table.applied(&LeaseWrite::renew(&current, None)).await;
    assert_eq!((renewed.owner, renewed.counter), (Some("wB".into()), 58));
}

pub(crate) async fn take(table: &Table) {
    let lease = owned(table).await;
    let stolen = table.applied(&LeaseWrite::take(&lease, &"wC".into())).await;
    assert_eq!((stolen.owner.as_ref(), stolen.counter), (Some(&"wC".into()), 58));
    assert_eq!(stolen.owner_switches, 1);
    table.refused(&LeaseWrite::renew(&lease, None)).await;
    table.refused(&LeaseWrite::take(&lease, &"wD".into())).await;

    let lease = in_handoff(table).await;
    let taken = table.applied(&LeaseWrite::take(&lease, &"wC".into())).await;
    assert_eq!((taken.owner, taken.checkpoint_owner, taken.owner_switches), (Some("wC".into()), None, 1));

    let old = seen(table, &item(OLD)).await;
    table.applied(&LeaseWrite::take(&old, &"wC".into())).await;
    assert!(!table.item(old.key.as_str()).await.unwrap().contains_key("entityType"));
}

pub(crate) async fn release(table: &Table) {
    let lease = owned(table).await;
    table.refused(&LeaseWrite::release(&lease, &"wB".into())).await;
    let released = table.applied(&LeaseWrite::release(&lease, &"wA".into())).await;
    let expected = {
        let mut lease = lease.clone();
        lease.counter = 58;
        lease.owner = None;
        lease
    };
    assert_eq!(released, expected);
    table.refused(&LeaseWrite::renew(&lease, None)).await;
    let taken = table.applied(&LeaseWrite::take(&released, &"wB".into())).await;
    assert_eq!(taken.owner_switches, 0);

    let lease = in_handoff(table).await;
    table.refused(&LeaseWrite::release(&lease, &"wA".into())).await;
    table.refused(&LeaseWrite::release(&lease, &"wB".into())).await;
}

pub(crate) async fn checkpoint(table: &Table) {
    let mut row = item(OWNED);
    row.insert("ownerSwitchesSinceCheckpoint".to_owned(), Attribute::N("4".to_owned()));
    row.insert("pendingCheckpoint".to_owned(), Attribute::S("7".to_owned()));
    row.insert("pendingCheckpointSubSequenceNumber".to_owned(), Attribute::N("1".to_owned()));
    let lease = seen(table, &row).await;
    let position = at("49590338271490256608559692538361571095921575989136588899", 7);
    let stored = table.applied(&LeaseWrite::checkpoint(&lease, &position)).await;
    let mut expected = lease.clone();
    expected.counter = 58;
    expected.owner_switches = 0;
    expected.checkpoint = position.clone();
    expected.pending_checkpoint = None;
    assert_eq!(stored, expected);
    table.refused(&LeaseWrite::checkpoint(&lease, &position)).await;
}

pub(crate) async fn checkpoint_end(table: &Table) {
    let lease = owned(table).await;
    let children = [5, 6].map(|index| shard(index).as_str().into()).into();
    let mut parent = lease.clone();
    parent.children = children;
    let ended = table.applied(&LeaseWrite::checkpoint(&parent, &Checkpoint::ShardEnd)).await;
    assert_eq!((ended.checkpoint, ended.children), (Checkpoint::ShardEnd, parent.children));
    let row = table.item(lease.key.as_str()).await.unwrap();
    assert_eq!(row["checkpointSubSequenceNumber"], Attribute::N("0".to_owned()));
}

pub(crate) async fn prepare(table: &Table) {
    let lease = owned(table).await;
    let pending = PendingCheckpoint::new(at("77", 2), Some(vec![0, 255].into()));
    let prepared = table.applied(&LeaseWrite::prepare(&lease, &pending)).await;
    assert_eq!(prepared.pending_checkpoint, Some(pending.clone()));
    assert_eq!((prepared.counter, &prepared.checkpoint), (58, &lease.checkpoint));
    table.refused(&LeaseWrite::prepare(&lease, &pending)).await;

    let stateless = PendingCheckpoint::new(Checkpoint::ShardEnd, None);
    let prepared = table.applied(&LeaseWrite::prepare(&prepared, &stateless)).await;
    assert_eq!(prepared.pending_checkpoint, Some(stateless));
    let committed = table.applied(&LeaseWrite::checkpoint(&prepared, &at("77", 2))).await;
    assert_eq!((committed.pending_checkpoint, committed.checkpoint), (None, at("77", 2)));
}

/// What anybody may add without a say in who owns the lease.
pub(crate) async fn details(table: &Table) {
    let lease = seen(table, &item(OLD)).await;
    let range = HashKeyRange::new(1, u128::MAX).unwrap();
    let with_range = table.applied(&LeaseWrite::update_hash_range(&lease.key, range)).await;
    let mut expected = lease.clone();
    expected.hash_key_range = Some(range);
    assert_eq!(with_range, expected);
    // The owner's memory lacks the range, and its renewals go on.
    let renewed = table.applied(&LeaseWrite::renew(&lease, None)).await;
    assert_eq!(renewed.hash_key_range, Some(range));
}

pub(crate) async fn assign(table: &Table) {
    let lease = owned(table).await;
    // The owner goes on renewing between the leader's scan and its write.
    table.applied(&LeaseWrite::renew(&lease, None)).await;
    table.refused(&LeaseWrite::assign_expired(&lease, &"wC".into())).await;
    let assigned = table.applied(&LeaseWrite::assign(&lease, &"wC".into())).await;
    let (owner, counter, switches) = (&assigned.owner, assigned.counter, assigned.owner_switches);
    assert_eq!((owner, counter, switches), (&Some("wC".into()), 59, 1));
    table.refused(&LeaseWrite::assign(&lease, &"wD".into())).await;
    let assigned = table.applied(&LeaseWrite::assign_expired(&assigned, &"wD".into())).await;
    assert_eq!((assigned.owner, assigned.counter), (Some("wD".into()), 60));

    let free = Lease::new("shardId-free", Checkpoint::Latest);
    table.store.create(&free).await.unwrap();
    let assigned = table.applied(&LeaseWrite::assign(&free, &"wC".into())).await;
    assert_eq!((assigned.counter, assigned.owner_switches), (1, 0));
    table.refused(&LeaseWrite::assign(&free, &"wD".into())).await;
}

pub(crate) async fn handoff(table: &Table) {
    let [old, next, other] = ["wA", "wB", "wC"].map(WorkerId::from);
    let lease = owned(table).await;
    assert_eq!(LeaseWrite::finish_handoff(&lease), None);
    table.refused(&LeaseWrite::start_handoff(&lease.key, &other, &next)).await;
    let started = table.applied(&LeaseWrite::start_handoff(&lease.key, &old, &next)).await;
    assert_eq!((&started.owner, &started.checkpoint_owner), (&Some(next.clone()), &Some(old.clone())));
    assert_eq!(started.counter, lease.counter);
    table.refused(&LeaseWrite::start_handoff(&lease.key, &next, &other)).await;

    let finish = LeaseWrite::finish_handoff(&started).unwrap();
    let finished = table.applied(&finish).await;
    assert_eq!((&finished.owner, &finished.checkpoint_owner), (&Some(next.clone()), &None));
    assert_eq!((finished.counter, finished.owner_switches), (58, 0));
    table.refused(&finish).await;
    table.refused(&LeaseWrite::renew(&started, None)).await;

    let lease = in_handoff(table).await;
    table.applied(&LeaseWrite::assign(&lease, &other)).await;
    table.refused(&LeaseWrite::finish_handoff(&lease).unwrap()).await;
}

/// Every write that can be made of `lease` and should succeed on the row it was made of.
fn every_write(lease: &Lease) -> Vec<LeaseWrite> {
    let worker = WorkerId::from("wZ");
    let mut writes = vec![
        LeaseWrite::renew(lease, Some(Throughput::default())),
        LeaseWrite::take(lease, &worker),
        LeaseWrite::checkpoint(lease, &Checkpoint::ShardEnd),
        LeaseWrite::prepare(lease, &PendingCheckpoint::new(Checkpoint::ShardEnd, None)),
        LeaseWrite::update_hash_range(&lease.key, HashKeyRange::FULL),
        LeaseWrite::assign(lease, &worker),
        LeaseWrite::assign_expired(lease, &worker),
    ];
    writes.extend(LeaseWrite::finish_handoff(lease));
    if let (Some(owner), None) = (&lease.owner, &lease.checkpoint_owner) {
        writes.push(LeaseWrite::release(lease, owner));
        writes.push(LeaseWrite::start_handoff(&lease.key, owner, &worker));
    }
    writes
}

pub(crate) async fn a_missing_row_is_never_created(table: &Table) {
    for row in [OWNED, HANDOFF, OLD] {
        for write in every_write(&Lease::from_item(&item(row)).unwrap().unwrap()) {
            assert_eq!(table.apply(&write).await, WriteOutcome::Refused(None), "{write}");
            assert_eq!(table.item(write.key.as_str()).await, None, "{write}");
        }
    }
}

pub(crate) async fn unknown_attributes_survive_every_write(table: &Table) {
    let unknown = [
        ("laterVersion", Attribute::L(vec![Attribute::N("1.5".to_owned()), Attribute::Null])),
        ("annotation", Attribute::S("by hand".to_owned())),
    ];
    for row in [OWNED, HANDOFF, OLD] {
        let mut row = item(row);
        row.extend(unknown.clone().map(|(name, value)| (name.to_owned(), value)));
        for write in every_write(&Lease::from_item(&row).unwrap().unwrap()) {
            table.put(&row).await;
            table.applied(&write).await;
            let after = table.item(write.key.as_str()).await.unwrap();
            for (name, value) in &unknown {
                assert_eq!(after.get(*name), Some(value), "{write}");
            }
            assert_eq!(after.get("entityType"), row.get("entityType"), "{write}");
        }
    }
}

pub(crate) async fn numbers_are_compared_by_value(table: &Table) {
    let lease = owned(table).await;
    let mut write = LeaseWrite::renew(&lease, None);
    write.conditions = vec![Condition::Equals("leaseCounter", Attribute::N("5.70E+1".to_owned()))];
    assert_eq!(table.applied(&write).await.counter, 58);
    write.conditions = vec![Condition::Equals("leaseCounter", Attribute::S("58".to_owned()))];
    table.refused(&write).await;
    write.conditions = vec![Condition::Exists("leaseKey"), Condition::Exists("somethingElse")];
    table.refused(&write).await;
}

pub(crate) async fn one_of_many_takers_wins(table: &Table) {
    let lease = Lease::new("shardId-0", Checkpoint::Latest);
    table.store.create(&lease).await.unwrap();
    let takers = (0..20).map(|index| {
        let (store, lease) = (table.store.clone(), lease.clone());
        tokio::spawn(async move {
            let worker = WorkerId::from(format!("w{index}"));
            let outcome = store.apply(&LeaseWrite::take(&lease, &worker)).await.unwrap();
            (worker, outcome)
        })
    });
    let mut winners = Vec::new();
    let mut reported = BTreeSet::new();
    for taker in takers.collect::<Vec<_>>() {
        let (worker, outcome) = taker.await.unwrap();
        match outcome {
            WriteOutcome::Applied(_) => winners.push(worker),
            WriteOutcome::Refused(current) => {
                reported.insert(current.unwrap().owner.unwrap());
            }
        }
    }
    let stored = table.store.lease(&LeaseKey::from("shardId-0")).await.unwrap().unwrap();
    assert_eq!((stored.owner, stored.counter), (winners.first().cloned(), 1));
    assert_eq!((winners.len(), reported), (1, BTreeSet::from([winners[0].clone()])));
}
