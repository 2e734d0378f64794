//! How fast a page of Kinesis records becomes user records.
//!
//! `cargo bench --bench deaggregate` compares, for each corpus and in one run: the plain way (prost
//! with owned bytes and strings, md-5, the hash-range filter record by record), this crate with each
//! kind of instructions the processor has, raw MD5 of the same bytes (one message after the other
//! with md-5 and with this crate, side by side with each kind of instructions) and memcpy.
//!
//! Times include dropping the user records, batch by batch in this crate's case, as a consumer would.
//! They are the best of many rounds; in each round every contender has a turn, so that a busy machine
//! is busy for all. Behind each ratio to the plain way stands what it must reach, if anything, and a
//! star if it does not.

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

/// As many as a processor is called with.
const BATCH: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// How long each corpus is measured.
const TIME: Duration = Duration::from_secs(3);

fn main() {
    let hashers = Hasher::all();
    println!("instructions: {}", hashers.iter().map(|hasher| hasher.name()).collect::<Vec<_>>().join(", "));
    println!("rates in MB/s of fetched bytes; n x: against the plain way, and the target; MD5: its share\n");
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
    target: Target,
    page: Vec<Record>,
    user_records: usize,
}

/// What must be reached with the filter on.
#[derive(Clone, Copy)]
enum Target {
    None,
    /// Speed relative to the plain way, with AVX-512 and with AVX2.
    Plain(f64, f64),
    /// This part of the rate of the fastest MD5 of a single message.
    LoneMd5(f64),
}

fn corpora() -> Vec<Corpus> {
    let sixteen = |number: usize| format!("customer-{:04}", number % 16);
    let unique = |number: usize| format!("customer-{number:08}");
    let (few, many, large) = (Target::Plain(12., 9.), Target::Plain(8., 6.), Target::Plain(11., 8.));
    let (tiny, lone) = (Target::Plain(6., 5.), Target::LoneMd5(0.93));
    vec![
        aggregates("16 of 50 KB x 100 B, 16 keys", few, 16, 50_000, 100, sixteen),
        aggregates("64 of 50 KB x 100 B, 16 keys", few, 64, 50_000, 100, sixteen),
        aggregates("16 of 50 KB x 100 B, unique keys", many, 16, 50_000, 100, unique),
        aggregates("64 of 50 KB x 100 B, unique keys", many, 64, 50_000, 100, unique),
        aggregates("16 of 50 KB x 1 KB", large, 16, 50_000, 1000, sixteen),
        aggregates("64 of 50 KB x 1 KB", large, 64, 50_000, 1000, sixteen),
        aggregates("2000 of 512 B x 3", tiny, 2000, 512, 130, sixteen),
        aggregates("16 of 1 MB x 100 B", Target::None, 16, 1_000_000, 100, sixteen),
        aggregates("lone 1 MB x 100 B", lone, 1, 1_000_000, 100, sixteen),
        aggregates("lone 1 MB x 1 KB", lone, 1, 1_000_000, 1000, sixteen),
        aggregates("lone 10 MiB x 100 B", lone, 1, 10 * MIB, 100, sixteen),
        plain("10000 plain of 1 KB", 10_000, 1000),
    ]
}

fn aggregates(
    name: &'static str,
    target: Target,
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
    Corpus { name, target, page, user_records }
}

fn plain(name: &'static str, count: usize, payload_bytes: usize) -> Corpus {
    let page = (0..count).map(|number| record(number, "customer-0001".into(), vec![b'x'; payload_bytes]));
    Corpus { name, target: Target::None, page: page.collect(), user_records: count }
}

fn record(number: usize, partition_key: String, data: Vec<u8>) -> Record {
    let sequence_number = 49_590_338_271_490_256_608_559_692_538_361_u128 + number as u128;
    let mut record = Record::new(sequence_number.into(), partition_key, data);
    record.approximate_arrival_timestamp = Some(SystemTime::UNIX_EPOCH);
    record
}

fn print_head(hashers: &[Hasher]) {
    print!("{:<34}{:>8}{:>7}", "corpus", "records", "plain");
    for hasher in hashers {
        print!(" |{:>8}{:>15}{:>6}{:>8}", hasher.name(), "", "MD5", "ns/rec");
    }
    println!(" |{:>6}{:>9}{:>7}{:>14}", "md-5", "lone MD5", "memcpy", "ours / lone");
}

fn print_corpus(corpus: &Corpus, filtered: bool, hashers: &[Hasher]) {
    let bytes: usize = corpus.page.iter().map(|record| record.data.len()).sum();
    let rate = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e6;
    let range = filtered.then(|| HashKeyRange::new(0, u128::MAX - 1).expect("in order"));
    let messages: Vec<&[u8]> = corpus.page.iter().filter_map(|record| message(&record.data)).collect();
    let mut copy = Vec::with_capacity(bytes);

    let mut contenders: Vec<Contender<'_>> = vec![
        Box::new(|page| {
            black_box(the_plain_way::deaggregate(page, range));
            Vec::new()
        }),
        Box::new(|page| {
            messages.iter().for_each(|message| _ = black_box(Md5::digest(message)));
            page
        }),
        Box::new(|page| {
            messages.iter().for_each(|message| _ = black_box(Hasher::digest(message)));
            page
        }),
        Box::new(|page| {
            copy.clear();
            page.iter().for_each(|record| copy.extend_from_slice(&record.data));
            black_box(&copy);
            page
        }),
    ];
    for &hasher in hashers {
        contenders.push(Box::new(move |page| {
            deaggregator(range, hasher)
                .deaggregate(page, None, BATCH)
                .for_each(|batch| drop(black_box(batch)));
            Vec::new()
        }));
        let messages = &messages;
        contenders.push(Box::new(move |page| {
            black_box(hasher.digests(messages));
            page
        }));
    }
    let times = best(corpus, &mut contenders);
    let [plain, md5, lone, memcpy, ref with_hashers @ ..] = times[..] else { return };

    print!("{:<34}{:>8}{:>7.0}", corpus.name, corpus.user_records, rate(plain));
    let mut fastest = Duration::MAX;
    for (hasher, times) in hashers.iter().zip(with_hashers.as_chunks::<2>().0) {
        let [ours, hashing] = *times;
        fastest = fastest.min(ours);
        let ratio = plain.as_secs_f64() / ours.as_secs_f64();
        let target = match (hasher.name(), corpus.target) {
            ("AVX-512", Target::Plain(target, _)) | ("AVX2", Target::Plain(_, target)) if filtered => {
                Some(target)
            }
            _ => None,
        };
        print!(
            " |{:>8.0}{ratio:>5.1} x{:>8}{:>5.0}%{:>8.1}",
            rate(ours),
            verdict(ratio, target),
            100.0 * hashing.as_secs_f64() / ours.as_secs_f64(),
            ours.as_nanos() as f64 / corpus.user_records as f64,
        );
    }
    print!(" |{:>6.0}{:>9.0}{:>7.0}", rate(md5), rate(lone), rate(memcpy));
    match corpus.target {
        Target::LoneMd5(target) => {
            let ratio = md5.min(lone).as_secs_f64() / fastest.as_secs_f64();
            println!("{ratio:>7.2}{:>8}", verdict(ratio, filtered.then_some(target)));
        }
        _ => println!(),
    }
}

/// The target, with a star if it is not reached.
fn verdict(is: f64, target: Option<f64>) -> String {
    target.map_or_else(String::new, |target| format!("({target}){}", if is < target { '*' } else { ' ' }))
}

/// Does something with a page and gives back what is left of it, to be dropped when nobody measures.
type Contender<'a> = Box<dyn FnMut(Vec<Record>) -> Vec<Record> + 'a>;

/// The shortest time of each, of as many rounds as there is time for.
fn best(corpus: &Corpus, contenders: &mut [Contender<'_>]) -> Vec<Duration> {
    let mut best = vec![Duration::MAX; contenders.len()];
    let start = Instant::now();
    while start.elapsed() < TIME {
        for (best, contender) in best.iter_mut().zip(&mut *contenders) {
            let page = corpus.page.clone();
            let begin = Instant::now();
            let rest = contender(black_box(page));
            *best = begin.elapsed().min(*best);
            drop(rest);
        }
    }
    best
}

fn message(data: &[u8]) -> Option<&[u8]> {
    Some(data.strip_prefix(&[0xF3, 0x89, 0x9A, 0xC2])?.split_last_chunk::<16>()?.0)
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
