//! How fast a page of Kinesis records becomes user records.
//!
//! `cargo bench --bench deaggregate` compares, for each corpus and in one run: the plain way (prost
//! with owned bytes and strings, md-5, the hash-range filter record by record), this crate with each
//! kind of instructions the processor has, raw MD5 of the same bytes (one message after the other
//! with md-5, side by side with this crate's kernel) and memcpy.
//!
//! Times are the best of many runs, dropping the records included.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it measures, and prints what it measured"
)]
#![allow(clippy::cast_possible_truncation, reason = "the plain way is written plainly")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant, SystemTime};

use kinesis_consumer::aggregation::internals::{Hasher, deaggregator};
use kinesis_consumer::aggregation::{Added, Aggregator};
use kinesis_consumer::{HashKeyRange, Record};
use md5::{Digest, Md5};

const MIB: usize = 1 << 20;
const BATCH: NonZeroUsize = NonZeroUsize::new(1000).expect("not zero");

fn main() {
    let hashers = Hasher::all();
    println!("instructions: {}", hashers.iter().map(|hasher| hasher.name()).collect::<Vec<_>>().join(", "));
    println!("rates in MB/s of fetched bytes; (n x): against the plain way\n");
    for filtered in [true, false] {
        println!("hash-range filter {}", if filtered { "on, all records inside" } else { "off" });
        print_head(&hashers);
        for corpus in corpora().iter().filter(|corpus| wanted(corpus.name)) {
            print_corpus(corpus, filtered, &hashers);
        }
        println!();
    }
}

/// Whether the command line names no corpus, or part of this one's name.
fn wanted(corpus: &str) -> bool {
    let mut names = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    names.peek().is_none() || names.any(|name| corpus.contains(&name))
}

struct Corpus {
    name: &'static str,
    page: Vec<Record>,
    user_records: usize,
}

fn corpora() -> Vec<Corpus> {
    let sixteen = |number: usize| format!("customer-{:04}", number % 16);
    let unique = |number: usize| format!("customer-{number:08}");
    vec![
        aggregates("16 of 50 KB x 100 B, 16 keys", 16, 50_000, 100, sixteen),
        aggregates("64 of 50 KB x 100 B, 16 keys", 64, 50_000, 100, sixteen),
        aggregates("16 of 50 KB x 100 B, unique keys", 16, 50_000, 100, unique),
        aggregates("64 of 50 KB x 100 B, unique keys", 64, 50_000, 100, unique),
        aggregates("16 of 50 KB x 1 KB", 16, 50_000, 1000, sixteen),
        aggregates("64 of 50 KB x 1 KB", 64, 50_000, 1000, sixteen),
        aggregates("2000 of 512 B x 3", 2000, 512, 130, sixteen),
        aggregates("16 of 1 MB x 100 B", 16, 1_000_000, 100, sixteen),
        aggregates("lone 1 MB x 100 B", 1, 1_000_000, 100, sixteen),
        aggregates("lone 10 MiB x 100 B", 1, 10 * MIB, 100, sixteen),
        plain("10000 plain of 1 KB", 10_000, 1000),
    ]
}

fn aggregates(
    name: &'static str,
    count: usize,
    bytes_max: usize,
    payload_bytes: usize,
    key: impl Fn(usize) -> String,
) -> Corpus {
    let mut random = fastrand::Rng::with_seed(1);
    let mut user_records = 0;
    let page = (0..count)
        .map(|number| {
            let mut aggregator = Aggregator::with_bytes_max(bytes_max);
            loop {
                let payload: Vec<u8> = (0..payload_bytes).map(|_| random.u8(..)).collect();
                if aggregator.add(&key(user_records), None, &payload) != Added::Yes {
                    break;
                }
                user_records += 1;
            }
            let aggregate = aggregator.finish().expect("records were added");
            record(number, aggregate.partition_key, aggregate.data.to_vec())
        })
        .collect();
    Corpus { name, page, user_records }
}

fn plain(name: &'static str, count: usize, payload_bytes: usize) -> Corpus {
    let page = (0..count).map(|number| record(number, "customer-0001".into(), vec![b'x'; payload_bytes]));
    Corpus { name, page: page.collect(), user_records: count }
}

fn record(number: usize, partition_key: String, data: Vec<u8>) -> Record {
    let sequence_number = 49_590_338_271_490_256_608_559_692_538_361_u128 + number as u128;
    let mut record = Record::new(sequence_number.into(), partition_key, data);
    record.approximate_arrival_timestamp = Some(SystemTime::UNIX_EPOCH);
    record
}

fn print_head(hashers: &[Hasher]) {
    print!("{:<34}{:>9}{:>9}", "corpus", "records", "plain");
    for hasher in hashers {
        print!("{:>18}{:>8}{:>10}", hasher.name(), "MD5", "ns/rec");
    }
    println!("{:>9}{:>9}{:>9}{:>9}", "md-5", "lone MD5", "batch", "memcpy");
}

fn print_corpus(corpus: &Corpus, filtered: bool, hashers: &[Hasher]) {
    let bytes: usize = corpus.page.iter().map(|record| record.data.len()).sum();
    let rate = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e6;
    let range = filtered.then(|| HashKeyRange::new(0, u128::MAX - 1).expect("in order"));

    let plain = best(corpus, |page| the_plain_way::deaggregate(page, range).len());
    print!("{:<34}{:>9}{:>9.0}", corpus.name, corpus.user_records, rate(plain));
    let messages: Vec<&[u8]> = corpus.page.iter().filter_map(|record| message(&record.data)).collect();
    for &hasher in hashers {
        let ours = best(corpus, |page| {
            deaggregator(range, hasher)
                .deaggregate(page, None, BATCH)
                .map(|batch| black_box(batch).len())
                .sum::<usize>()
        });
        let hashing = best(corpus, |page| (black_box(hasher.digests(&messages)), page));
        print!(
            "{:>9.0} ({:>4.1} x){:>7.0}%{:>10.1}",
            rate(ours),
            plain.as_secs_f64() / ours.as_secs_f64(),
            100.0 * hashing.as_secs_f64() / ours.as_secs_f64(),
            ours.as_nanos() as f64 / corpus.user_records as f64,
        );
    }
    let md5 = best(corpus, |page| {
        page.iter().for_each(|record| _ = black_box(Md5::digest(&record.data)));
        page
    });
    let lone = best(corpus, |page| {
        page.iter().for_each(|record| _ = black_box(Hasher::digest(&record.data)));
        page
    });
    let payloads: Vec<&[u8]> = corpus.page.iter().map(|record| &record.data[..]).collect();
    let batch = best(corpus, |page| (black_box(Hasher::detect().digests(&payloads)), page));
    let mut copy = Vec::with_capacity(bytes);
    let memcpy = best(corpus, |page| {
        copy.clear();
        page.iter().for_each(|record| copy.extend_from_slice(&record.data));
        black_box(&copy);
        page
    });
    println!("{:>9.0}{:>9.0}{:>9.0}{:>9.0}", rate(md5), rate(lone), rate(batch), rate(memcpy));
}

fn message(data: &[u8]) -> Option<&[u8]> {
    Some(data.strip_prefix(&[0xF3, 0x89, 0x9A, 0xC2])?.split_last_chunk::<16>()?.0)
}

/// The shortest of many runs. What a run returns is dropped after the time is taken.
fn best<T>(corpus: &Corpus, mut run: impl FnMut(Vec<Record>) -> T) -> Duration {
    let mut best = Duration::MAX;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(250) {
        let page = corpus.page.clone();
        let begin = Instant::now();
        let outcome = black_box(run(black_box(page)));
        best = best.min(begin.elapsed());
        drop(outcome);
    }
    best
}

/// What one would write first.
mod the_plain_way {
    use super::*;
    use kinesis_consumer::SequenceNumber;
    use prost::Message;

    #[derive(Clone, PartialEq, prost::Message)]
    struct AggregatedRecord {
        #[prost(string, repeated, tag = "1")]
        partition_key_table: Vec<String>,
        #[prost(string, repeated, tag = "2")]
        explicit_hash_key_table: Vec<String>,
        #[prost(message, repeated, tag = "3")]
        records: Vec<PackedRecord>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct PackedRecord {
        #[prost(uint64, required, tag = "1")]
        partition_key_index: u64,
        #[prost(uint64, optional, tag = "2")]
        explicit_hash_key_index: Option<u64>,
        #[prost(bytes = "vec", required, tag = "3")]
        data: Vec<u8>,
    }

    #[expect(dead_code, reason = "a user would read it")]
    pub(super) struct UserRecord {
        data: Vec<u8>,
        partition_key: String,
        explicit_hash_key: Option<String>,
        sequence_number: SequenceNumber,
        approximate_arrival_timestamp: Option<SystemTime>,
        sub_sequence_number: u64,
        aggregated: bool,
    }

    pub(super) fn deaggregate(page: Vec<Record>, range: Option<HashKeyRange>) -> Vec<UserRecord> {
        let mut user_records = Vec::new();
        for record in page {
            match unpack(&record.data) {
                Some(message) => push_all(&mut user_records, &record, message, range),
                None => user_records.push(UserRecord {
                    data: record.data.to_vec(),
                    partition_key: record.partition_key.to_string(),
                    explicit_hash_key: None,
                    sequence_number: record.sequence_number,
                    approximate_arrival_timestamp: record.approximate_arrival_timestamp,
                    sub_sequence_number: 0,
                    aggregated: false,
                }),
            }
        }
        user_records
    }

    fn unpack(data: &[u8]) -> Option<AggregatedRecord> {
        let message = message(data)?;
        if Md5::digest(message)[..] != data[data.len() - 16..] {
            return None;
        }
        AggregatedRecord::decode(message).ok()
    }

    fn push_all(
        user_records: &mut Vec<UserRecord>,
        record: &Record,
        message: AggregatedRecord,
        range: Option<HashKeyRange>,
    ) {
        for (number, packed) in message.records.into_iter().enumerate() {
            let Some(partition_key) = message.partition_key_table.get(packed.partition_key_index as usize)
            else {
                continue;
            };
            let explicit_hash_key = packed
                .explicit_hash_key_index
                .and_then(|index| message.explicit_hash_key_table.get(index as usize).cloned());
            if let Some(range) = range {
                let hash_key = match &explicit_hash_key {
                    Some(key) => key.parse().unwrap_or_default(),
                    None => u128::from_be_bytes(Md5::digest(partition_key).into()),
                };
                if !range.contains(hash_key) {
                    continue;
                }
            }
            user_records.push(UserRecord {
                data: packed.data,
                partition_key: partition_key.clone(),
                explicit_hash_key,
                sequence_number: record.sequence_number.clone(),
                approximate_arrival_timestamp: record.approximate_arrival_timestamp,
                sub_sequence_number: number as u64,
                aggregated: true,
            });
        }
    }
}
