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

#[test]
fn a_hostile_aggregate_costs_at_most_64_bytes_per_user_record() {
    // The least a user record can be: its partition key is the first, its data empty.
    let tiny = [0x1A, 4, 0x08, 0, 0x1A, 0];
    // The same with a partition key of its own, empty like all others.
    let tiny_with_key = [0x0A, 0, 0x1A, 4, 0x08, 0, 0x1A, 0];
    for (name, user_record) in [("tiny", &tiny[..]), ("tiny, each with a key", &tiny_with_key)] {
        let user_records = (PAYLOAD_BYTES_MAX - 30) / user_record.len();
        let message = [&[0x0A, 1, b'k'], &*user_record.repeat(user_records)].concat();
        let data = [&[0xF3, 0x89, 0x9A, 0xC2], &*message, &Md5::digest(&message)[..]].concat();
        drop(message);
        for range in [None, HashKeyRange::new(1, u128::MAX)] {
            let page = vec![Record::new(1_u128.into(), "outer", data.clone())];
            let input = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let batches = Deaggregator::new(range).deaggregate(page, None, BATCH);
            let indexed = MEMORY.current_usage() - input;
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
