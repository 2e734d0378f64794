//! What an aggregate costs that claims to hold as many user records as it can.
//!
//! The only test in this file, because it measures the whole process.

use std::num::NonZeroUsize;

use kinesis_consumer::aggregation::Deaggregator;
use kinesis_consumer::{HashKeyRange, Record};
use md5::{Digest, Md5};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const PAYLOAD_BYTES_MAX: usize = 10 << 20;
const BATCH: NonZeroUsize = NonZeroUsize::new(1000).expect("not zero");

/// A table of one partition key, then as many user records as there is room for.
fn message(key: &[u8], user_record: impl Fn(u32) -> Vec<u8>) -> (usize, Vec<u8>) {
    let mut message = vec![0x0A];
    prost::encoding::encode_varint(key.len() as u64, &mut message);
    message.extend(key);
    let mut count = 0;
    loop {
        let next = user_record(count);
        if message.len() + next.len() > PAYLOAD_BYTES_MAX - 20 {
            return (count as usize, message);
        }
        message.extend(next);
        count += 1;
    }
}

#[test]
fn a_hostile_aggregate_costs_at_most_64_bytes_per_user_record() {
    // The least a user record can be: its partition key is the first, its data empty.
    let tiny = |_| vec![0x1A, 4, 0x08, 0, 0x1A, 0];
    let (short, long_and_no_text) = (&b"k"[..], &[0xFF; 1000][..]);
    let messages = [
        ("tiny", message(short, tiny)),
        ("tiny, sharing a key that is no text", message(long_and_no_text, tiny)),
        // An empty partition key of their own; one that is no text; an explicit hash key.
        ("tiny, each with a key", message(short, |_| vec![0x0A, 0, 0x1A, 4, 0x08, 0, 0x1A, 0])),
        (
            "tiny, each with a key that is no text",
            message(short, |_| vec![0x0A, 1, 0xFF, 0x1A, 4, 0x08, 0, 0x1A, 0]),
        ),
        (
            "tiny, each with an explicit hash key",
            message(short, |number| {
                // Three bytes, however small it is.
                let [low, middle, high, _] =
                    (number & 0x7F | (number >> 7 & 0x7F) << 8 | (number >> 14) << 16 | 0x8080).to_le_bytes();
                vec![0x12, 1, b'7', 0x1A, 8, 0x08, 0, 0x10, low, middle, high, 0x1A, 0]
            }),
        ),
    ];
    for (name, (user_records, message)) in messages {
        let data = [&[0xF3, 0x89, 0x9A, 0xC2], &*message, &Md5::digest(&message)[..]].concat();
        drop(message);
        for range in [None, HashKeyRange::new(1, u128::MAX)] {
            let page = vec![Record::new(1_u128.into(), "outer", data.clone())];
            let input = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let batches = Deaggregator::new(range).deaggregate(page, None, BATCH);
            let indexed = MEMORY.current_usage() - input;
            assert_eq!(batches.counts().aggregates, 1);
            assert_eq!(batches.map(|batch| batch.len()).sum::<usize>(), user_records);
            let cost = (MEMORY.peak_usage() - input) as f64 / user_records as f64;
            println!(
                "{user_records} {name}, filter {}: {cost:.1} bytes each at most, {:.1} while they wait",
                range.is_some(),
                indexed as f64 / user_records as f64
            );
            assert!(cost <= 64.0, "{name}: {cost} bytes per user record");
        }
    }
}
