use clap::ValueEnum;
use kinesis_consumer::HashKeyRange;
use kinesis_consumer::aggregation::{Added, Aggregator};
use kinesis_consumer::testing::{NewRecord, SimulatedKinesis};
use md5::{Digest, Md5};

use crate::Outcome;

pub(crate) const STREAM: &str = "orders";
/// User records in a KPL aggregate.
const AGGREGATED: usize = 100;
/// Keys in a shard.
const KEYS: usize = 16;

/// What the records of a stream look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Records of 100 bytes
    Small,
    /// Records of 1 KB
    Large,
    /// KPL aggregates of 100 user records of 100 bytes
    Kpl,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Large, Self::Kpl];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "100 B plain",
            Self::Large => "1 KB plain",
            Self::Kpl => "KPL, 100 x 100 B",
        }
    }

    /// Its name on the command line.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
            Self::Kpl => "kpl",
        }
    }

    pub(crate) fn payload_bytes(self) -> usize {
        match self {
            Self::Small | Self::Kpl => 100,
            Self::Large => 1000,
        }
    }

    /// User records in one Kinesis record.
    pub(crate) fn user_records(self) -> usize {
        match self {
            Self::Small | Self::Large => 1,
            Self::Kpl => AGGREGATED,
        }
    }
}

/// A stream with `records` user records, as many in each shard, whose keys belong there.
pub(crate) fn fill(kinesis: &SimulatedKinesis, kind: Kind, shards: u32, records: usize) -> Outcome {
    kinesis.create_stream(STREAM, shards)?;
    let mut random = fastrand::Rng::with_seed(7);
    for shard in kinesis.open_shards(STREAM)? {
        let keys = keys(&shard.hash_key_range);
        let mut left = records / shards as usize;
        while left > 0 {
            let count = left.min(kind.user_records());
            left -= count;
            let record = match kind {
                Kind::Small | Kind::Large => NewRecord::new(keys[0].as_str(), payload(kind, &mut random)),
                Kind::Kpl => aggregate(count, &keys, &mut random)?,
            };
            kinesis.put_record(STREAM, record)?;
        }
    }
    Ok(())
}

/// Some keys whose hashes are in `range`.
fn keys(range: &HashKeyRange) -> Vec<String> {
    let hash = |key: &String| u128::from_be_bytes(Md5::digest(key.as_bytes()).into());
    let keys = (0_u64..).map(|number| format!("customer-{number:06}"));
    keys.filter(|key| range.contains(hash(key))).take(KEYS).collect()
}

fn aggregate(count: usize, keys: &[String], random: &mut fastrand::Rng) -> Outcome<NewRecord> {
    let mut aggregator = Aggregator::new();
    for _ in 0..count {
        let key = &keys[random.usize(..keys.len())];
        if aggregator.add(key, None, &payload(Kind::Kpl, random)) != Added::Yes {
            return Err("a hundred records do not fit an aggregate".into());
        }
    }
    let aggregate = aggregator.finish().ok_or("no record was added")?;
    Ok(NewRecord::new(aggregate.partition_key, aggregate.data))
}

fn payload(kind: Kind, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut payload = vec![0; kind.payload_bytes()];
    random.fill(&mut payload);
    payload
}
