//! Rows of the lease table as anybody may have written them: reading never panics, and what is read
//! survives being written again.
//!
//! `cargo +nightly fuzz run lease_row`

#![no_main]

use std::collections::BTreeMap;

use kinesis_consumer::lease::{Attribute, Item, Lease};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 18] = [
    "leaseKey",
    "leaseOwner",
    "leaseCounter",
    "ownerSwitchesSinceCheckpoint",
    "checkpoint",
    "checkpointSubSequenceNumber",
    "pendingCheckpoint",
    "pendingCheckpointSubSequenceNumber",
    "pendingCheckpointState",
    "parentShardId",
    "childShardIds",
    "startingHashKey",
    "endingHashKey",
    "throughputKBps",
    "checkpointOwner",
    "entityType",
    "streamName",
    "shardId",
];

const TEXTS: [&str; 9] = [
    "shardId-000000000001",
    "TRIM_HORIZON",
    "LATEST",
    "SHARD_END",
    "AT_TIMESTAMP",
    "49590338271490256608559692538361571095921575989136588898",
    "0",
    "340282366920938463463374607431768211455",
    "LEASE",
];

fn text(input: &mut Unstructured<'_>) -> Result<String> {
    match input.arbitrary::<bool>()? {
        true => Ok((*input.choose(&TEXTS)?).to_owned()),
        false => input.arbitrary(),
    }
}

fn attribute(input: &mut Unstructured<'_>) -> Result<Attribute> {
    Ok(match input.int_in_range(0..=7)? {
        0 | 1 => Attribute::S(text(input)?),
        2 => Attribute::N(text(input)?),
        3 => Attribute::N(input.arbitrary::<u64>()?.to_string()),
        4 => Attribute::B(input.arbitrary::<Vec<u8>>()?.into()),
        5 => Attribute::Ss(std::iter::repeat_with(|| text(input)).take(3).collect::<Result<_>>()?),
        6 => Attribute::Bool(input.arbitrary()?),
        _ => Attribute::Null,
    })
}

fn item(input: &mut Unstructured<'_>) -> Result<Item> {
    let mut item = BTreeMap::new();
    for _ in 0..input.int_in_range(0..=20)? {
        let name = match input.ratio(9, 10)? {
            true => (*input.choose(&NAMES)?).to_owned(),
            false => input.arbitrary()?,
        };
        item.insert(name, attribute(input)?);
    }
    Ok(item)
}

fuzz_target!(|input: &[u8]| {
    let Ok(item) = item(&mut Unstructured::new(input)) else { return };
    // What is not a lease is skipped, what cannot be read reported.
    let Ok(Some(lease)) = Lease::from_item(&item) else { return };
    let again = Lease::from_item(&lease.to_item());
    assert_eq!(again.as_ref().ok().and_then(Option::as_ref), Some(&lease), "{item:?}");
});
