//! Aggregates written by two third-party aggregators, and wire-level edge cases, against what Java's
//! KCL makes of them (`tests/data/kpl`).
//!
//! Two kinds of aggregate are treated otherwise than in Java, on purpose, so that no record is lost:
//! a user record outside the shard's range does not take the others with it, and an aggregate with a
//! table index out of range or an explicit hash key that is no number is delivered whole.

use std::num::NonZeroUsize;

use kinesis_consumer::aggregation::{Counts, Deaggregator, Malformation};
use kinesis_consumer::{HashKeyRange, KinesisClientRecord, Record};
use md5::{Digest, Md5};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
    negative: Vec<Negative>,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    aggregated_hex: String,
    expected: Vec<UserRecord>,
    hash_ranges: Vec<RangeCase>,
}

#[derive(Deserialize)]
struct RangeCase {
    case: String,
    starting_hash_key: String,
    ending_hash_key: String,
    expected_count: usize,
}

#[derive(Deserialize)]
struct Negative {
    id: String,
    data_hex: String,
}

#[derive(Deserialize)]
struct EdgeVectors {
    cases: Vec<EdgeCase>,
}

#[derive(Deserialize)]
struct EdgeCase {
    name: String,
    data_hex: String,
    starting_hash_key: Option<String>,
    ending_hash_key: Option<String>,
    java_result: JavaResult,
    java_records: Vec<UserRecord>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum JavaResult {
    Raw,
    Aggregated,
}

#[derive(Debug, Clone, Deserialize, PartialEq)]
struct UserRecord {
    partition_key: String,
    explicit_hash_key: Option<String>,
    data_hex: String,
    sub_sequence_number: u64,
}

/// What a Kinesis record became.
#[derive(Debug, PartialEq)]
enum Outcome {
    Raw,
    Aggregated(Vec<UserRecord>),
}

#[test]
fn third_party_aggregates_are_taken_apart() {
    let mut wrong = Vec::new();
    for vector in vectors().vectors {
        let data = unhex(&vector.aggregated_hex);
        if deaggregate(&data, None).0 != Outcome::Aggregated(vector.expected.clone()) {
            wrong.push(vector.id.clone());
        }
        for range in &vector.hash_ranges {
            let parsed =
                HashKeyRange::parse(&range.starting_hash_key, &range.ending_hash_key).expect("a range");
            let mut expected = vector.expected.clone();
            expected.retain(|record| parsed.contains(record.hash_key()));
            // Java, whose count this is, drops all if one is outside.
            assert_eq!(range.expected_count == vector.expected.len(), expected == vector.expected);
            if deaggregate(&data, Some(parsed)).0 != Outcome::Aggregated(expected) {
                wrong.push(format!("{} {}", vector.id, range.case));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn damaged_aggregates_pass_through() {
    for vector in vectors().negative {
        let (outcome, counts) = deaggregate(&unhex(&vector.data_hex), None);
        assert_eq!(outcome, Outcome::Raw, "{}", vector.id);
        assert_eq!(counts.malformed_total(), 1, "{}", vector.id);
    }
}

#[test]
fn edge_cases_are_treated_as_in_java() {
    let mut wrong = Vec::new();
    for case in edge_cases() {
        let (outcome, _) = deaggregate(&unhex(&case.data_hex), case.range());
        let expected = match deliberate_difference(&case.name) {
            Some(expected) => expected,
            None if case.java_result == JavaResult::Raw => Outcome::Raw,
            None => Outcome::Aggregated(case.java_records),
        };
        if outcome != expected {
            wrong.push(format!("{}: {outcome:?}, expected {expected:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is expected where Java loses records.
fn deliberate_difference(case: &str) -> Option<Outcome> {
    let kept = |records: &[(&str, Option<&str>, u64, &str)]| {
        let user_record =
            |&(partition_key, explicit_hash_key, sub_sequence_number, data_hex): &(_, Option<&str>, _, _)| {
                UserRecord {
                    partition_key: str::to_owned(partition_key),
                    explicit_hash_key: explicit_hash_key.map(str::to_owned),
                    data_hex: str::to_owned(data_hex),
                    sub_sequence_number,
                }
            };
        Some(Outcome::Aggregated(records.iter().map(user_record).collect()))
    };
    match case {
        "pk_index_oob_first"
        | "pk_index_oob_second_of_3"
        | "pk_index_2^31"
        | "pk_index_2^64-1"
        | "ehk_value_empty"
        | "ehk_value_letters"
        | "ehk_value_undefined(node issue 48)"
        | "ehk_value_space5"
        | "ehk_value_trailing_space"
        | "ehk_value_1e5"
        | "range_bad_index_after_in"
        | "range_bad_index_before_out" => Some(Outcome::Raw),
        "ehk_value_minus1(java issue 29)" | "ehk_value_2^128" => {
            kept(&[("a", Some("9"), 0, "78"), ("a", Some("9"), 2, "7a")])
        }
        "range_above_by_1" => kept(&[("a", Some("1500"), 0, "7230"), ("a", Some("1500"), 1, "7231")]),
        "range_mixed_pk_out_last" => kept(&[("a", None, 0, "78")]),
        _ => None,
    }
}

#[test]
fn malformed_aggregates_are_counted_by_kind() {
    for (name, kind) in [
        ("magic_only", Some(Malformation::Truncated)),
        ("magic_plus_md5_of_empty (20B)", Some(Malformation::Truncated)),
        ("bitflip_in_data_bad_md5", Some(Malformation::Digest)),
        ("trailing_bytes_after_md5", Some(Malformation::Digest)),
        ("unknown_group_unterminated", Some(Malformation::Protobuf)),
        ("missing_pk_index", Some(Malformation::MissingField)),
        ("tag_empty_submessage", Some(Malformation::MissingField)),
        ("pk_index_2^31", Some(Malformation::TableIndex)),
        ("ehk_value_letters", Some(Malformation::HashKey)),
        ("glue_header_outer(plain)", None),
        ("only_unknown_field", None),
    ] {
        let case = edge_cases().into_iter().find(|case| case.name == name).expect(name);
        let counts = deaggregate(&unhex(&case.data_hex), case.range()).1;
        for &every in Malformation::ALL {
            assert_eq!(counts.malformed(every), u64::from(kind == Some(every)), "{name} {every:?}");
        }
    }
}

impl UserRecord {
    fn hash_key(&self) -> u128 {
        match &self.explicit_hash_key {
            Some(key) => key.parse().expect("a hash key"),
            None => u128::from_be_bytes(Md5::digest(&self.partition_key).into()),
        }
    }
}

impl EdgeCase {
    fn range(&self) -> Option<HashKeyRange> {
        let (start, end) = (self.starting_hash_key.as_deref()?, self.ending_hash_key.as_deref()?);
        Some(HashKeyRange::parse(start, end).expect("a range"))
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("data/kpl/vectors.json")).expect("vectors")
}

fn edge_cases() -> Vec<EdgeCase> {
    serde_json::from_str::<EdgeVectors>(include_str!("data/kpl/edge_vectors.json")).expect("vectors").cases
}

fn deaggregate(data: &[u8], range: Option<HashKeyRange>) -> (Outcome, Counts) {
    let record = Record::new(7_u128.into(), "outer", data.to_vec());
    let batches =
        Deaggregator::new(range).deaggregate(vec![record], None, NonZeroUsize::new(3).expect("not zero"));
    let counts = *batches.counts();
    let records: Vec<KinesisClientRecord> = batches.flatten().collect();
    assert_eq!(counts.user_records, records.len() as u64);
    let outcome = match &records[..] {
        [record] if !record.aggregated => {
            assert_eq!(record.record.data, data);
            assert_eq!(record.record.partition_key, "outer");
            assert_eq!((record.sub_sequence_number, &record.explicit_hash_key), (0, &None));
            Outcome::Raw
        }
        records => Outcome::Aggregated(records.iter().map(user_record).collect()),
    };
    (outcome, counts)
}

fn user_record(record: &KinesisClientRecord) -> UserRecord {
    assert!(record.aggregated);
    assert_eq!(record.record.sequence_number, "7");
    UserRecord {
        // A surrogate encoded as UTF-8 becomes one U+FFFD in Java and three in Rust.
        partition_key: record.record.partition_key.replace("\u{FFFD}\u{FFFD}\u{FFFD}", "\u{FFFD}"),
        explicit_hash_key: record.explicit_hash_key.as_ref().map(ToString::to_string),
        data_hex: record.record.data.iter().map(|byte| format!("{byte:02x}")).collect(),
        sub_sequence_number: record.sub_sequence_number,
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}
