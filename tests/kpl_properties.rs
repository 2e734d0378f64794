//! De-aggregation against two oracles, for valid aggregates, for damaged ones, and for anything.

#![allow(clippy::cast_possible_truncation, reason = "the low bytes of a number")]

mod kpl_oracle;

use std::num::NonZeroUsize;

use kinesis_consumer::aggregation::internals::{Hasher, deaggregator};
use kinesis_consumer::aggregation::{Aggregator, Deaggregator};
use kinesis_consumer::{ExtendedSequenceNumber, HashKeyRange, KinesisClientRecord, Record};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

use self::kpl_oracle::messages::{self, AggregatedRecord};
use self::kpl_oracle::{MAGIC, Outcome, UserRecord, according_to_prost, outcome, seal};

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Valid and nearly valid messages, read exactly as the oracles read them.
    #[test]
    fn messages_are_read_as_prost_reads_them(message in aggregated_record(), range in range()) {
        let message = message.encode_to_vec();
        let data = seal(&message);
        let expected = outcome(&data, HashKeyRange::FULL);
        if !message.is_empty() {
            prop_assert_eq!(Some(expected), according_to_prost(&message));
        }
        check(&data, HashKeyRange::FULL);
        check(&data, range);
    }

    /// Messages put together of well-formed and broken pieces.
    #[test]
    fn anything_that_looks_like_a_message_is_read_right(message in wire(), range in range()) {
        let data = seal(&message);
        check(&data, HashKeyRange::FULL);
        check(&data, range);
        if let Some(prost) = according_to_prost(&message).filter(|_| !message.is_empty()) {
            prop_assert_eq!(outcome(&data, HashKeyRange::FULL), prost);
        }
    }

    /// A flipped bit or a cut in a sealed aggregate lets it through whole.
    #[test]
    fn damage_is_noticed(message in aggregated_record(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut data = seal(&message.encode_to_vec());
        let at = at.index(data.len());
        data[at] ^= 1 << bit;
        check(&data, HashKeyRange::FULL);
        prop_assert_eq!(outcome(&data, HashKeyRange::FULL), Outcome::Raw);
        check(&data[..at], HashKeyRange::FULL);
    }

    #[test]
    fn any_bytes_are_delivered(bytes in vec(any::<u8>(), 0..100)) {
        check(&bytes, HashKeyRange::FULL);
        check(&[&MAGIC, &bytes[..]].concat(), HashKeyRange::FULL);
        check(&seal(&bytes), HashKeyRange::FULL);
    }

    /// Pages of plain records, aggregates and damaged ones, resumed anywhere, in batches of any size.
    #[test]
    fn pages_are_handed_on_in_order_and_resumed_where_they_were_left(
        contents in vec(content(), 0..40),
        after in option::of((0..50_u128, 0..6_u64)),
        range in range(),
        batch in 1..20_usize,
    ) {
        let page: Vec<Record> = (contents.iter().enumerate())
            .map(|(number, data)| Record::new((number as u128 + 5).into(), "outer", data.clone()))
            .collect();
        let expected: Vec<(u128, UserRecord)> = (contents.iter().enumerate())
            .flat_map(|(number, data)| expand(data, range).into_iter().map(move |record| (number as u128 + 5, record)))
            .filter(|(number, record)| after.is_none_or(|after| (*number, record.sub_sequence_number) > after))
            .collect();
        let after = after.map(|(number, sub)| ExtendedSequenceNumber::new(number.into(), sub));
        for hasher in Hasher::all() {
            let batches = deaggregator(Some(range), hasher).deaggregate(
                page.clone(),
                after.as_ref(),
                NonZeroUsize::new(batch).expect("not zero"),
            );
            let counts = *batches.counts();
            let batches: Vec<Vec<KinesisClientRecord>> = batches.collect();
            let full = batches.len().saturating_sub(1);
            prop_assert!(batches.iter().take(full).all(|each| each.len() == batch));
            prop_assert!(batches.iter().skip(full).all(|each| (1..=batch).contains(&each.len())));
            let records = batches.concat();
            let delivered: Vec<(u128, UserRecord)> =
                records.iter().map(|record| (number(record), UserRecord::from(record))).collect();
            prop_assert_eq!(counts.user_records, delivered.len() as u64);
            prop_assert_eq!(counts.records, page.len() as u64);
            prop_assert_eq!(counts.bytes, delivered.iter().map(|(_, record)| record.data.len() as u64).sum::<u64>());
            prop_assert_eq!(&delivered, &expected);
        }
    }

    /// What the aggregator packs comes out again, and every position can be resumed from.
    #[test]
    fn what_is_packed_comes_out_again(
        records in vec(("\\PC{0,50}", option::of(any::<u128>()), vec(any::<u8>(), 0..300)), 1..80),
        bytes_max in 900..5000_usize,
    ) {
        let mut aggregator = Aggregator::with_bytes_max(bytes_max);
        let mut aggregates = Vec::new();
        for (partition_key, explicit_hash_key, data) in &records {
            use kinesis_consumer::aggregation::Added;
            if aggregator.add(partition_key, *explicit_hash_key, data) == Added::Full {
                aggregates.extend(aggregator.finish());
                prop_assert_eq!(aggregator.add(partition_key, *explicit_hash_key, data), Added::Yes);
            }
        }
        prop_assert_eq!(aggregator.finish().map(|aggregate| aggregates.push(aggregate)), Some(()));
        prop_assert_eq!(aggregator.finish(), None);
        let mut page = Vec::new();
        for (number, aggregate) in aggregates.into_iter().enumerate() {
            prop_assert!(aggregate.data.len() + aggregate.partition_key.len() <= bytes_max);
            page.push(Record::new((number as u128).into(), aggregate.partition_key, aggregate.data));
        }
        let out: Vec<_> = unpack(page).iter().map(|record| {
            let UserRecord { partition_key, explicit_hash_key, data, .. } = record.into();
            (partition_key, explicit_hash_key.map(|key| key.parse().expect("a hash key")), data)
        }).collect();
        prop_assert_eq!(out, records);
    }
}

fn unpack(page: Vec<Record>) -> Vec<KinesisClientRecord> {
    Deaggregator::new(None).deaggregate(page, None, NonZeroUsize::MAX).flatten().collect()
}

fn number(record: &KinesisClientRecord) -> u128 {
    record.record.sequence_number.to_string().parse().expect("a small number")
}

/// What must be delivered of a record with `data`.
fn expand(data: &[u8], range: HashKeyRange) -> Vec<UserRecord> {
    match outcome(data, range) {
        Outcome::Aggregated(records) => records,
        Outcome::Raw => vec![UserRecord {
            partition_key: "outer".to_owned(),
            explicit_hash_key: None,
            data: data.to_vec(),
            sub_sequence_number: 0,
        }],
    }
}

/// A lone record becomes what it must.
fn check(data: &[u8], range: HashKeyRange) {
    let record = Record::new(1_u128.into(), "outer", data.to_vec());
    let batches = Deaggregator::new(Some(range)).deaggregate(vec![record], None, NonZeroUsize::MAX);
    let counts = *batches.counts();
    let records: Vec<KinesisClientRecord> = batches.flatten().collect();
    let expected = outcome(data, range);
    assert!(records.iter().all(|record| record.aggregated == (expected != Outcome::Raw)));
    assert_eq!(records.iter().map(UserRecord::from).collect::<Vec<_>>(), expand(data, range));
    let malformed = u64::from(expected == Outcome::Raw && data.starts_with(&MAGIC));
    assert_eq!(counts.malformed_total(), malformed);
}

fn range() -> impl Strategy<Value = HashKeyRange> {
    prop_oneof![
        Just(HashKeyRange::FULL),
        any::<(u128, u128)>().prop_map(|(a, b)| HashKeyRange::new(a.min(b), a.max(b)).expect("in order")),
        (0..20_u128, 0..20_u128)
            .prop_map(|(from, len)| HashKeyRange::new(from, from + len).expect("in order")),
    ]
}

fn partition_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-c]{0,3}".prop_map(String::into_bytes),
        2 => "\\PC{0,80}".prop_map(String::into_bytes),
        1 => "\\PC{80,300}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..60),
        1 => vec(any::<u8>(), 200..400),
    ]
}

fn explicit_hash_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (0..40_u128).prop_map(|key| key.to_string().into_bytes()),
        4 => any::<u128>().prop_map(|key| key.to_string().into_bytes()),
        1 => "[-+]?[0-9٣५]{0,45}".prop_map(String::into_bytes),
        1 => "0{30,300}[0-9]{1,2}".prop_map(String::into_bytes),
        1 => partition_key(),
    ]
}

/// Mostly valid: one reference in a hundred leads nowhere, one field in a hundred is missing.
fn aggregated_record() -> impl Strategy<Value = AggregatedRecord> {
    let record = (
        option::weighted(0.99, 0..8_u64),
        option::weighted(0.3, 0..5_u64),
        option::weighted(0.99, vec(any::<u8>(), 0..200)),
        vec(option::weighted(0.95, vec(any::<u8>(), 0..5)), 0..2),
    )
        .prop_map(|(partition_key_index, explicit_hash_key_index, data, tags)| messages::Record {
            partition_key_index,
            explicit_hash_key_index,
            data,
            tags: tags.into_iter().map(|key| messages::Tag { key, value: None }).collect(),
        });
    (vec(partition_key(), 8..12), vec(explicit_hash_key(), 4..7), vec(record, 0..20)).prop_map(
        |(partition_key_table, explicit_hash_key_table, records)| AggregatedRecord {
            partition_key_table,
            explicit_hash_key_table,
            records,
        },
    )
}

/// Fields of any number and type, in any order, including groups and invalid wire data.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let varint = prop_oneof![
        6 => (0..6_u64).prop_map(|value| varint_of(value, 0)),
        1 => (any::<u64>(), 0..10_usize).prop_map(|(value, padding)| varint_of(value, padding)),
        1 => (0..3_u64, 0..10_usize).prop_map(|(value, padding)| varint_of(value, padding)),
        1 => (0..3_u64).prop_map(|value| varint_of(value | 1 << 32, 0)),
    ];
    let scalar = (1..6_u64, varint).prop_map(|(number, value)| [varint_of(number << 3, 0), value].concat());
    let text = (1..5_u64, explicit_hash_key()).prop_map(|(number, text)| delimited(number, &text));
    let invalid = prop_oneof![
        vec(any::<u8>(), 0..6),
        (1..6_u64, 0..8_u64).prop_map(|(number, wire_type)| varint_of(number << 3 | wire_type, 0)),
        (1..6_u64, any::<u64>()).prop_map(|(number, bits)| [
            &[number as u8 * 8 + 1][..],
            &bits.to_le_bytes()
        ]
        .concat()),
        (1..6_u64, any::<u32>()).prop_map(|(number, bits)| [
            &[number as u8 * 8 + 5][..],
            &bits.to_le_bytes()
        ]
        .concat()),
        (95..104_usize).prop_map(|depth| [vec![0x6B; depth], vec![0x6C; depth]].concat()),
    ];
    let leaf = prop_oneof![6 => scalar, 6 => text, 1 => invalid];
    let fields = vec(leaf, 0..6).prop_map(|fields| fields.concat());
    let user_record = (0..3_u8, vec(any::<u8>(), 0..9), fields.clone())
        .prop_map(|(key, data, more)| [delimited(3, &data), more, vec![0x08, key]].concat());
    let nested = prop_oneof![
        3 => (1..6_u64, fields.clone()).prop_map(|(number, fields)| delimited(number, &fields)),
        9 => user_record.prop_map(|fields| delimited(3, &fields)),
        1 => (1..6_u64, fields.clone()).prop_map(|(number, fields)| {
            [varint_of(number << 3 | 3, 0), fields, varint_of(number << 3 | 4, 0)].concat()
        }),
    ];
    (vec(prop_oneof![nested, fields], 0..8), 0..4_usize)
        .prop_map(|(fields, keys)| [delimited(1, b"key").repeat(keys), fields.concat()].concat())
}

fn delimited(number: u64, content: &[u8]) -> Vec<u8> {
    [varint_of(number << 3 | 2, 0), varint_of(content.len() as u64, 0), content.to_vec()].concat()
}

/// `value` with up to `padding` bytes more than it needs.
fn varint_of(mut value: u64, padding: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    for _ in 0..padding.min(10 - bytes.len().min(10)) {
        *bytes.last_mut().expect("not empty") |= 0x80;
        bytes.push(0);
    }
    bytes
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => aggregated_record().prop_map(|message| seal(&message.encode_to_vec())),
        1 => aggregated_record().prop_map(|message| [seal(&message.encode_to_vec()), vec![0]].concat()),
        1 => wire().prop_map(|message| seal(&message)),
        2 => vec(any::<u8>(), 0..50),
    ]
}
