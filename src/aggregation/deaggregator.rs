use std::num::NonZeroUsize;

use super::index::{Entry, Index, Parts, Place};
use super::md5::{DIGEST_BYTES, Hasher};
use super::{Counts, MAGIC, Malformation};
use crate::types::{
    ExplicitHashKey, ExtendedSequenceNumber, HashKeyRange, KinesisClientRecord, PartitionKey, Record,
};

/// Takes the KPL aggregates of one shard apart.
///
/// ```
/// use std::num::NonZeroUsize;
///
/// use kinesis_consumer::Record;
/// use kinesis_consumer::aggregation::{Aggregator, Deaggregator};
///
/// let mut aggregator = Aggregator::new();
/// aggregator.add("customer-1", None, b"first");
/// aggregator.add("customer-2", None, b"second");
/// let aggregate = aggregator.finish().expect("two records were added");
///
/// let record = Record::new(1_u128.into(), aggregate.partition_key, aggregate.data);
/// let batch_size = NonZeroUsize::new(100).expect("not zero");
/// let user_records: Vec<_> =
///     Deaggregator::new(None).deaggregate(vec![record], None, batch_size).flatten().collect();
/// assert_eq!(user_records.len(), 2);
/// assert_eq!(user_records[1].record.partition_key, "customer-2");
/// assert_eq!(user_records[1].record.data.as_ref(), b"second");
/// assert_eq!(user_records[1].sub_sequence_number, 1);
/// ```
#[derive(Debug)]
pub struct Deaggregator {
    range: HashKeyRange,
}

impl Deaggregator {
    /// A de-aggregator for a shard with `range`: user records with hash keys outside it are left out.
    /// `None` stands for every hash key.
    #[must_use]
    pub fn new(range: Option<HashKeyRange>) -> Self {
        Self { range: range.unwrap_or(HashKeyRange::FULL) }
    }

    /// Takes a page of Kinesis records apart, leaving out the user records up to and including
    /// `after`, and hands the rest on in their order, in batches of at most `batch_records_max`.
    ///
    /// Checks and indexes the whole page before it returns, which takes CPU time in proportion to the
    /// page's bytes: about 15 ms for the worst page, one aggregate of 10 MiB. Payloads are slices of
    /// the records given.
    pub fn deaggregate(
        &mut self,
        records: Vec<Record>,
        after: Option<&ExtendedSequenceNumber>,
        batch_records_max: NonZeroUsize,
    ) -> Batches {
        let mut page = Page { range: self.range, index: Index::default(), counts: Counts::default() };
        let plans: Vec<Plan> = records.iter().map(|record| page.plan(record, after)).collect();
        Batches {
            records: records.into_iter(),
            plans: plans.into_iter(),
            index: page.index,
            open: None,
            batch_records_max: batch_records_max.get(),
            remaining: page.counts.user_records,
            counts: page.counts,
        }
    }
}

/// What to do with a Kinesis record.
#[derive(Debug)]
enum Plan {
    Drop,
    Plain,
    Aggregate {
        parts: Parts,
        /// How many user records at its start are left out.
        skip: usize,
    },
}

struct Page {
    range: HashKeyRange,
    index: Index,
    counts: Counts,
}

impl Page {
    fn plan(&mut self, record: &Record, after: Option<&ExtendedSequenceNumber>) -> Plan {
        self.counts.records += 1;
        let skip = match after {
            Some(after) if record.sequence_number < after.sequence_number => {
                self.counts.already_processed += 1;
                return Plan::Drop;
            }
            Some(after) if record.sequence_number == after.sequence_number => {
                usize::try_from(after.sub_sequence_number).unwrap_or(usize::MAX).saturating_add(1)
            }
            _ => 0,
        };
        match self.read(&record.data) {
            Ok(Some(parts)) => {
                self.counts.aggregates += 1;
                let skip = skip.min(parts.entries.len());
                self.counts.already_processed += skip as u64;
                self.filter(&record.data, &parts, skip);
                Plan::Aggregate { parts, skip }
            }
            not_aggregated => {
                if let Err(kind) = not_aggregated {
                    self.counts.add_malformed(kind);
                }
                if skip > 0 {
                    self.counts.already_processed += 1;
                    return Plan::Drop;
                }
                self.counts.user_records += 1;
                self.counts.bytes += record.data.len() as u64;
                Plan::Plain
            }
        }
    }

    fn read(&mut self, data: &[u8]) -> Result<Option<Parts>, Malformation> {
        let Some(rest) = data.strip_prefix(&MAGIC) else {
            return Ok(None);
        };
        match rest.split_last_chunk::<DIGEST_BYTES>() {
            None | Some(([], _)) => Err(Malformation::Truncated),
            Some((message, digest)) if Hasher::digest(message) != *digest => Err(Malformation::Digest),
            Some((message, _)) => self.index.read(message).map(Some),
        }
    }

    fn filter(&mut self, data: &[u8], parts: &Parts, skip: usize) {
        let message = message_of(data);
        for at in parts.entries.clone().skip(skip) {
            let entry = self.index.entries[at];
            match self.index.place(message, parts, &entry, &self.range) {
                Some(Place::Inside) => {
                    self.counts.user_records += 1;
                    self.counts.bytes += u64::from(entry.data.len);
                    continue;
                }
                Some(Place::Unreachable) => self.counts.unreachable += 1,
                _ => {}
            }
            self.counts.out_of_range += 1;
            self.index.entries[at].partition_key = Entry::NONE;
        }
    }
}

fn message_of(data: &[u8]) -> &[u8] {
    data.get(MAGIC.len()..data.len() - DIGEST_BYTES).unwrap_or_default()
}

/// The records of a page in order, batch by batch; no batch is empty.
///
/// Until a batch is asked for, a user record costs a few bytes of bookkeeping, however small it is.
#[derive(Debug)]
#[must_use = "the records are in the batches"]
pub struct Batches {
    records: std::vec::IntoIter<Record>,
    plans: std::vec::IntoIter<Plan>,
    index: Index,
    /// The aggregate being handed on.
    open: Option<Open>,
    batch_records_max: usize,
    /// How many records are still to be handed on.
    remaining: u64,
    counts: Counts,
}

#[derive(Debug)]
struct Open {
    record: Record,
    parts: Parts,
    /// The sub-sequence number of the next user record.
    next: usize,
}

impl Batches {
    /// What becomes of the page, batches not yet asked for included.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Iterator for Batches {
    type Item = Vec<KinesisClientRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let size = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(self.batch_records_max);
        let mut batch = Vec::with_capacity(size);
        while batch.len() < size {
            if let Some(open) = &mut self.open {
                if hand_on(open, &self.index, &mut batch, size) {
                    self.open = None;
                }
                continue;
            }
            let (Some(record), Some(plan)) = (self.records.next(), self.plans.next()) else {
                break;
            };
            match plan {
                Plan::Drop => {}
                Plan::Plain => batch.push(record.into()),
                Plan::Aggregate { parts, skip } => self.open = Some(Open { record, parts, next: skip }),
            }
        }
        self.remaining -= batch.len() as u64;
        (!batch.is_empty()).then_some(batch)
    }
}

/// Moves user records of `open` into `batch` until that has `size`; whether none are left.
fn hand_on(open: &mut Open, index: &Index, batch: &mut Vec<KinesisClientRecord>, size: usize) -> bool {
    let outer = &open.record;
    let message = outer.data.slice(MAGIC.len()..outer.data.len() - DIGEST_BYTES);
    let entries = &index.entries[open.parts.entries.clone()];
    while batch.len() < size {
        let Some(entry) = entries.get(open.next) else {
            return true;
        };
        open.next += 1;
        if entry.partition_key == Entry::NONE {
            continue;
        }
        let partition_key =
            index.partition_keys[open.parts.partition_keys.start + entry.partition_key as usize];
        let explicit_hash_key = (entry.explicit_hash_key != Entry::NONE).then(|| {
            index.explicit_hash_keys[open.parts.explicit_hash_keys.start + entry.explicit_hash_key as usize]
        });
        batch.push(KinesisClientRecord {
            record: Record {
                data: message.slice(entry.data.range()),
                partition_key: PartitionKey::from(&*partition_key.text(&message)),
                sequence_number: outer.sequence_number.clone(),
                approximate_arrival_timestamp: outer.approximate_arrival_timestamp,
                encryption_type: outer.encryption_type,
            },
            sub_sequence_number: open.next as u64 - 1,
            aggregated: true,
            explicit_hash_key: explicit_hash_key.map(|key| ExplicitHashKey::from(&*key.text(&message))),
        });
    }
    open.next == entries.len()
}
