//! What the processors of an example have done so far.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kinesis_consumer::{Checkpointer, ExtendedSequenceNumber, KinesisClientRecord, ShardId};

/// Counts records and checkpoints. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Tally(Arc<Mutex<Counts>>);

#[derive(Debug)]
struct Counts {
    started: Instant,
    first_record: Option<Duration>,
    records: u64,
    bytes: u64,
    checkpoints: u64,
    shards: BTreeMap<ShardId, Progress>,
    /// Every position seen, if records that come again are counted. It grows with the stream, so only
    /// for a stream of sample orders.
    seen: Option<HashSet<(ShardId, ExtendedSequenceNumber)>>,
}

#[derive(Debug, Default)]
struct Progress {
    processed: Option<ExtendedSequenceNumber>,
    checkpointed: Option<ExtendedSequenceNumber>,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Tally {
    /// Also counts the records that come again, which takes about 230 bytes of memory for each record.
    pub(crate) fn of_distinct_records() -> Self {
        Self::new(Some(HashSet::new()))
    }

    fn new(seen: Option<HashSet<(ShardId, ExtendedSequenceNumber)>>) -> Self {
        Self(Arc::new(Mutex::new(Counts {
            started: Instant::now(),
            first_record: None,
            records: 0,
            bytes: 0,
            checkpoints: 0,
            shards: BTreeMap::new(),
            seen,
        })))
    }

    /// A record of `shard` was processed.
    pub(crate) fn processed(&self, shard: &ShardId, record: &KinesisClientRecord) {
        let mut counts = self.counts();
        let elapsed = counts.started.elapsed();
        counts.first_record.get_or_insert(elapsed);
        counts.records += 1;
        counts.bytes += record.record.data.len() as u64;
        let position = record.extended_sequence_number();
        if let Some(seen) = &mut counts.seen {
            seen.insert((shard.clone(), position.clone()));
        }
        counts.shards.entry(shard.clone()).or_default().processed = Some(position);
    }

    /// The shard of `checkpointer` was checkpointed.
    pub(crate) fn checkpointed(&self, checkpointer: &Checkpointer) {
        let mut counts = self.counts();
        counts.checkpoints += 1;
        let position = checkpointer.stored_checkpoint().position().cloned();
        counts.shards.entry(checkpointer.shard_id().clone()).or_default().checkpointed = position;
    }

    /// Whether `records` records were processed (different ones, where those that come again are counted),
    /// and the last of each shard checkpointed.
    pub(crate) fn is_done(&self, records: u64) -> bool {
        let counts = self.counts();
        counts.distinct().unwrap_or(counts.records) >= records
            && counts.shards.values().all(|shard| shard.processed == shard.checkpointed)
    }

    /// One line for programs to read.
    pub(crate) fn summary(&self) -> String {
        let counts = self.counts();
        let distinct = counts.distinct();
        let text = |number: Option<u64>| number.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
        format!(
            "summary records={} distinct={} shards={} checkpoints={} duplicates={} elapsed_ms={}",
            counts.records,
            text(distinct),
            counts.shards.len(),
            counts.checkpoints,
            text(distinct.map(|distinct| counts.records - distinct)),
            counts.started.elapsed().as_millis()
        )
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn distinct(&self) -> Option<u64> {
        self.seen.as_ref().map(|seen| seen.len() as u64)
    }
}

/// One line for people to read.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        let seconds = counts.started.elapsed().as_secs_f64();
        write!(
            f,
            "{} records, {:.1} MB, {:.0} records/s, {} checkpoints",
            counts.records,
            counts.bytes as f64 / 1e6,
            counts.records as f64 / seconds,
            counts.checkpoints
        )?;
        if let Some(first) = counts.first_record {
            write!(f, ", first record after {} ms", first.as_millis())?;
        }
        Ok(())
    }
}
