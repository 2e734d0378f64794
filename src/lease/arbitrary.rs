//! Made-up leases, rows and writes for property tests. Names are drawn from small sets, so that
//! writes meet rows they fit and rows they do not.

use std::collections::BTreeSet;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::{Attribute, BehindLatest, Item, Lease, LeaseWrite, Paused, PendingCheckpoint, Throughput, names};
use crate::types::{Checkpoint, HashKeyRange, ShardId, WorkerId};

const NAMES: [&str; 27] = [
    names::LEASE_KEY,
    names::LEASE_OWNER,
    names::LEASE_COUNTER,
    names::OWNER_SWITCHES,
    names::CHECKPOINT,
    names::CHECKPOINT_SUB_SEQUENCE,
    names::PENDING_CHECKPOINT,
    names::PENDING_CHECKPOINT_SUB_SEQUENCE,
    names::PENDING_CHECKPOINT_STATE,
    names::PARENT_SHARDS,
    names::CHILD_SHARDS,
    names::STARTING_HASH_KEY,
    names::ENDING_HASH_KEY,
    names::THROUGHPUT,
    names::CHECKPOINT_OWNER,
    names::ENTITY_TYPE,
    names::STREAM_NAME,
    names::SHARD_ID,
    names::STARTING_SEQUENCE_NUMBER,
    names::SOURCE_STREAM,
    names::LATEST_SINCE,
    names::MILLIS_BEHIND_LATEST,
    names::MILLIS_BEHIND_LATEST_AT,
    names::PAUSED,
    names::SEEK_ID,
    names::SEEK_UNDER_WAY,
    "somethingElse",
];

pub(super) fn worker() -> impl Strategy<Value = WorkerId> {
    prop::sample::select(vec!["wA", "wB", "wC"]).prop_map(WorkerId::from)
}

fn shard_ids() -> impl Strategy<Value = BTreeSet<ShardId>> {
    btree_set("shardId-[0-9]{1,3}".prop_map(ShardId::from), 0..3)
}

pub(super) fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    let text = prop_oneof!["AT_TIMESTAMP|TRIM_HORIZON|LATEST|SHARD_END", "0|[1-9][0-9]{0,128}"];
    (text, 0..1_u64 << 63).prop_map(|(text, sub)| Checkpoint::parse(&text, sub).unwrap())
}

fn pending() -> impl Strategy<Value = PendingCheckpoint> {
    (checkpoint(), option::of(vec(any::<u8>(), 0..9)))
        .prop_map(|(checkpoint, state)| PendingCheckpoint::new(checkpoint, state.map(Into::into)))
}

fn range() -> impl Strategy<Value = HashKeyRange> {
    any::<[u128; 2]>().prop_map(|[a, b]| HashKeyRange::new(a.min(b), a.max(b)).unwrap())
}

fn throughput() -> impl Strategy<Value = Throughput> {
    any::<u32>().prop_map(|bytes| Throughput::from_bytes(bytes.into(), std::time::Duration::from_secs(7)))
}

fn kcl_lease() -> impl Strategy<Value = Lease> {
    let numbers = (prop_oneof![0..3_u64, 0..1_u64 << 63], 0..1_u64 << 63);
    let shard = ("[a-b]", option::of(("[0-9]{12}:s:1", "shardId-[0-9]")));
    let owners = (option::of(worker()), option::of(worker()));
    let shards = (shard_ids(), shard_ids(), option::of(range()));
    let start = "0|[1-9][0-9]{0,128}".prop_map(|text| text.parse().unwrap());
    let origin = (option::of(start), option::of("[a-z]{1,9}"), option::of(0..1_u64 << 63));
    let checkpoints = (checkpoint(), option::of(pending()));
    (shard, owners, numbers, checkpoints, shards, option::of(throughput()), origin).prop_map(
        |((key, stream), owners, (counter, switches), (checkpoint, pending), shards, throughput, origin)| {
            let mut lease = Lease::new(key, checkpoint);
            if let Some((stream, shard)) = stream {
                lease.stream_name = Some(stream);
                lease.shard_id = shard.into();
            }
            (lease.owner, lease.checkpoint_owner) = owners;
            (lease.counter, lease.owner_switches) = (counter, switches);
            lease.pending_checkpoint = pending;
            (lease.parents, lease.children, lease.hash_key_range) = shards;
            lease.throughput = throughput;
            (lease.starting_sequence_number, lease.source_stream, lease.latest_since) = origin;
            lease
        },
    )
}

pub(super) fn lease() -> impl Strategy<Value = Lease> {
    let seek = (option::of("[a-z]{1,9}"), option::of("[a-z]{1,9}"));
    let paused = option::of((0..1_u64 << 63, "[a-z]{0,9}", "[a-z]{0,9}"));
    (kcl_lease(), option::of((0..1_u64 << 63, 0..1_u64 << 63)), paused, seek).prop_map(
        |(mut lease, behind, paused, seek)| {
            lease.behind_latest = behind.map(|(millis, counter)| BehindLatest { millis, counter });
            lease.paused = paused.map(|(since, by, why)| Paused::new(since, by, why));
            (lease.seek_id, lease.seek_under_way) = seek;
            lease
        },
    )
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let text = || prop_oneof!["LEASE|LEADER|SHARD_END|[0-9]{1,40}", ".{0,9}"];
    let number = || "-?[0-9]{1,25}([.][0-9]{1,9})?(E[+-]?[0-9]{1,3})?";
    let leaf = prop_oneof![
        text().prop_map(Attribute::S),
        number().prop_map(Attribute::N),
        vec(any::<u8>(), 0..9).prop_map(|bytes| Attribute::B(bytes.into())),
        any::<bool>().prop_map(Attribute::Bool),
        Just(Attribute::Null),
        btree_set(text(), 1..4).prop_map(Attribute::Ss),
        btree_set(number(), 1..4).prop_map(Attribute::Ns),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Attribute::L),
            btree_map("[a-z]", inner, 0..3).prop_map(Attribute::M),
        ]
    })
}

/// Any row at all: a lease with some attributes replaced, or one made of nothing but noise.
pub(super) fn item() -> impl Strategy<Value = Item> {
    let noise = || btree_map(prop::sample::select(NAMES.map(str::to_owned).to_vec()), attribute(), 0..5);
    prop_oneof![
        (lease(), noise()).prop_map(|(lease, noise)| {
            let mut item = lease.to_item();
            item.extend(noise);
            item
        }),
        noise(),
    ]
}

/// Every kind of write.
pub(super) fn write() -> impl Strategy<Value = LeaseWrite> {
    prop_oneof![
        (lease(), option::of(throughput())).prop_map(|(lease, rate)| LeaseWrite::renew(&lease, rate)),
        (lease(), worker()).prop_map(|(lease, worker)| LeaseWrite::take(&lease, &worker)),
        (lease(), worker()).prop_map(|(lease, worker)| LeaseWrite::release(&lease, &worker)),
        (lease(), checkpoint()).prop_map(|(lease, at)| LeaseWrite::checkpoint(&lease, &at)),
        (lease(), pending()).prop_map(|(lease, pending)| LeaseWrite::prepare(&lease, &pending)),
        (lease(), range()).prop_map(|(lease, range)| LeaseWrite::update_hash_range(&lease.key, range)),
        (lease(), worker()).prop_map(|(lease, worker)| LeaseWrite::assign(&lease, &worker)),
        (lease(), worker(), worker())
            .prop_map(|(lease, from, to)| LeaseWrite::start_handoff(&lease.key, &from, &to)),
        lease().prop_filter_map("no handoff", |lease| LeaseWrite::finish_handoff(&lease)),
        (lease(), lease()).prop_map(|(lease, origin)| LeaseWrite::update_origin(&lease.key, &origin)),
        (lease(), lease()).prop_map(|(lease, fresh)| LeaseWrite::reset(&lease, &fresh)),
        (lease(), checkpoint(), option::of("[a-z]{1,9}")).prop_map(|(lease, to, under_way)| {
            LeaseWrite::seek(&lease, &to, "seek", under_way.as_deref())
        }),
        lease().prop_map(|lease| LeaseWrite::finish_seek(&lease.key, "seek")),
        lease().prop_map(|lease| LeaseWrite::pause(&lease.key, &Paused::new(7, "eve", "why"))),
        lease().prop_map(|lease| LeaseWrite::resume(&lease.key)),
        lease().prop_map(|lease| LeaseWrite::evict(&lease)),
        (lease(), option::of(throughput()), option::of(0..1_u64 << 63)).prop_map(|(lease, rate, behind)| {
            LeaseWrite::renew(&lease, rate).with_behind_latest(&lease, behind)
        }),
        (lease(), worker(), 0..1_u64 << 63)
            .prop_map(|(lease, worker, at)| LeaseWrite::take(&lease, &worker).with_latest_since(&lease, at)),
    ]
}
