//! A page with a plain record, an aggregate with any message, and a copy of it with any range and
//! resume position, against the oracles of the property tests.
//!
//! `cargo +nightly fuzz run deaggregate`

#![no_main]

#[path = "../../tests/kpl_oracle/mod.rs"]
mod kpl_oracle;

use std::num::NonZeroUsize;

use kinesis_consumer::aggregation::internals::{Hasher, deaggregator};
use kinesis_consumer::{ExtendedSequenceNumber, HashKeyRange, Record};
use libfuzzer_sys::fuzz_target;

use self::kpl_oracle::{Outcome, UserRecord, according_to_prost, outcome, seal};

fuzz_target!(|input: &[u8]| {
    let Some((&[choice, from, len, skip], rest)) = input.split_first_chunk() else {
        return;
    };
    let range = match choice & 3 {
        0 | 1 => HashKeyRange::FULL,
        2 => HashKeyRange::new(from.into(), u128::from(from) + u128::from(len)).expect("in order"),
        _ => HashKeyRange::new(u128::from(from) << 120, u128::MAX >> (len % 8)).unwrap_or(HashKeyRange::FULL),
    };
    let data = if choice & 4 == 0 { seal(rest) } else { rest.to_vec() };
    let after = (choice & 8 != 0).then(|| ExtendedSequenceNumber::new(3_u128.into(), skip.into()));

    let contents = [b"plain".to_vec(), data.clone(), b"plain too".to_vec(), data.clone(), data.clone()];
    let mut expected = Vec::new();
    for (number, content) in (1_u64..).zip(&contents) {
        let records = match outcome(content, range) {
            Outcome::Aggregated(records) => records,
            Outcome::Raw => vec![UserRecord {
                partition_key: "outer".to_owned(),
                explicit_hash_key: None,
                data: content.clone(),
                sub_sequence_number: 0,
            }],
        };
        expected.extend(
            records
                .into_iter()
                .filter(|record| after.is_none() || (number, record.sub_sequence_number) > (3, skip.into())),
        );
    }
    if choice & 4 == 0 && !rest.is_empty() {
        if let Some(prost) = according_to_prost(rest) {
            assert_eq!(outcome(&data, HashKeyRange::FULL), prost);
        }
    }
    let page: Vec<Record> = (1_u128..)
        .zip(&contents)
        .map(|(number, content)| Record::new(number.into(), "outer", content.clone()))
        .collect();
    for hasher in Hasher::all() {
        let batches = deaggregator(Some(range), hasher).deaggregate(
            page.clone(),
            after.as_ref(),
            NonZeroUsize::new(usize::from(skip) + 1).expect("not zero"),
        );
        let count = batches.counts().user_records;
        let delivered: Vec<UserRecord> =
            batches.flat_map(|batch| batch.iter().map(UserRecord::from).collect::<Vec<_>>()).collect();
        assert_eq!(count, delivered.len() as u64);
        assert!(delivered == expected, "{delivered:?} instead of {expected:?}");
    }
});
