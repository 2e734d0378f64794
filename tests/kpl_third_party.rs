//! What the aggregator writes, read back by somebody else: the PyPI package `aws-kinesis-agg`.
//!
//! To run it:
//!
//! ```sh
//! python3 -m venv target/kpl && target/kpl/bin/pip install aws-kinesis-agg six
//! KPL_PYTHON=target/kpl/bin/python cargo test --test kpl_third_party -- --ignored
//! ```

#![allow(clippy::cast_possible_truncation, reason = "any bytes will do")]

use std::io::Write;
use std::process::{Command, Stdio};

use kinesis_consumer::aggregation::{Added, Aggregator};
use serde::Deserialize;

#[derive(Debug, Deserialize, PartialEq)]
struct UserRecord {
    partition_key: String,
    explicit_hash_key: Option<String>,
    data_hex: String,
    sub_sequence_number: u64,
}

#[test]
#[ignore = "needs Python and the package aws-kinesis-agg; .ci/run installs it"]
fn aggregates_are_read_back_by_aws_kinesis_agg() {
    let python = std::env::var("KPL_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let package = Command::new(&python).args(["-c", "import aws_kinesis_agg.deaggregator"]).output();
    assert!(
        package.is_ok_and(|output| output.status.success()),
        "{python} cannot import aws_kinesis_agg (the top of this file says how to get it)"
    );
    // The package takes a record without an explicit hash key for one with the first key of the
    // table, so no case has both kinds.
    let cases = [
        case(1, |_| "key".to_owned(), |_| None, |_| 5),
        case(1000, |number| format!("key-{}", number % 300), |_| None, |number| number % 400),
        case(500, |number| format!("ключ-😀-{number}"), |_| None, |number| number * 7 % 130),
        case(300, |_| "key".to_owned(), |number| Some(u128::MAX - number as u128), |_| 100),
        case(40, |number| "k".repeat(1 + number * 6), |number| Some(number as u128 % 3), |_| 20_000),
    ];
    let payloads: Vec<String> = cases.iter().map(|(payload, _)| hex(payload)).collect();
    let read_back = read_back(&python, &payloads);
    assert_eq!(read_back.len(), cases.len());
    for (read_back, (_, expected)) in read_back.iter().zip(&cases) {
        assert_eq!(read_back, expected);
    }
}

/// An aggregate, and what is in it.
fn case(
    count: usize,
    partition_key: impl Fn(usize) -> String,
    explicit_hash_key: impl Fn(usize) -> Option<u128>,
    data_bytes: impl Fn(usize) -> usize,
) -> (Vec<u8>, Vec<UserRecord>) {
    let mut aggregator = Aggregator::new();
    let mut user_records = Vec::new();
    for number in 0..count {
        let data: Vec<u8> = (0..data_bytes(number)).map(|at| (at * 31 + number) as u8).collect();
        let (partition_key, explicit_hash_key) = (partition_key(number), explicit_hash_key(number));
        assert_eq!(aggregator.add(&partition_key, explicit_hash_key, &data), Added::Yes);
        user_records.push(UserRecord {
            partition_key,
            explicit_hash_key: explicit_hash_key.map(|key| key.to_string()),
            data_hex: hex(&data),
            sub_sequence_number: number as u64,
        });
    }
    (aggregator.finish().expect("records were added").data.to_vec(), user_records)
}

fn read_back(python: &str, payloads: &[String]) -> Vec<Vec<UserRecord>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/kpl/read_back.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(serde_json::to_string(payloads).expect("JSON").as_bytes()).expect("python reads");
    drop(stdin);
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "{script} failed");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
