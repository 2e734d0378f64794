use std::cmp::Ordering;
use std::num::NonZeroUsize;

use super::index::{Index, Open, Parts};
use super::md5::{DIGEST_BYTES, Hasher};
use super::{Counts, MAGIC, Malformation};
use crate::types::{ExtendedSequenceNumber, HashKeyRange, KinesisClientRecord, Record};

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
    hasher: Hasher,
}

impl Deaggregator {
    /// A de-aggregator for a shard with `range`: user records with hash keys outside it are left out.
    /// `None` stands for every hash key.
    #[must_use]
    pub fn new(range: Option<HashKeyRange>) -> Self {
        Self::with_hasher(range, Hasher::detect())
    }

    pub(super) fn with_hasher(range: Option<HashKeyRange>, hasher: Hasher) -> Self {
        Self { range: range.unwrap_or(HashKeyRange::FULL), hasher }
    }

    /// Takes a page of Kinesis records apart, leaving out the user records up to and including
    /// `after`, and hands the rest on in their order, in batches of at most `batch_records_max`.
    ///
    /// Checks and indexes the whole page before it returns, which takes CPU time in proportion to the
    /// page's bytes: about 15 ms for the worst page, one aggregate of 10 MiB. Payloads are slices of
    /// the records given.
    pub fn deaggregate(
        &self,
        records: Vec<Record>,
        after: Option<&ExtendedSequenceNumber>,
        batch_records_max: NonZeroUsize,
    ) -> Batches {
        let mut counts = Counts::of_page(records.len());
        let mut index = Index::default();
        let mut plans = self.verify(&records, after);
        for (record, plan) in records.iter().zip(&mut plans) {
            if let Fate::Verified = plan.fate {
                plan.fate = match index.read(&record.data, &self.range) {
                    Ok(parts) => Fate::Aggregate(parts),
                    Err(kind) => Fate::Malformed(kind),
                };
            }
        }
        if self.range != HashKeyRange::FULL {
            let aggregates = records.iter().zip(&plans).filter_map(|(record, plan)| match &plan.fate {
                Fate::Aggregate(parts) => Some((&record.data[..], parts)),
                _ => None,
            });
            index.place_partition_keys(aggregates, &self.range, self.hasher);
        }
        for (record, plan) in records.iter().zip(&mut plans) {
            plan.settle(record, &mut index, &mut counts);
        }
        Batches {
            records: records.into_iter(),
            plans: plans.into_iter(),
            index,
            open: None,
            batch_records_max: batch_records_max.get(),
            remaining: counts.user_records,
            counts,
        }
    }

    /// Plans by what can be told from the outside of each record, its digest included.
    fn verify(&self, records: &[Record], after: Option<&ExtendedSequenceNumber>) -> Vec<Plan> {
        let mut plans: Vec<Plan> = records.iter().map(|record| Plan::new(record, after)).collect();
        let (messages, expected): (Vec<&[u8]>, Vec<&[u8; DIGEST_BYTES]>) = (records.iter().zip(&plans))
            .filter(|(_, plan)| matches!(plan.fate, Fate::Verified))
            .filter_map(|(record, _)| split(&record.data))
            .unzip();
        let right = self.hasher.digests(&messages).into_iter().zip(expected).map(|(is, said)| is == *said);
        let candidates = plans.iter_mut().filter(|plan| matches!(plan.fate, Fate::Verified));
        for (plan, right) in candidates.zip(right) {
            if !right {
                plan.fate = Fate::Malformed(Malformation::Digest);
            }
        }
        plans
    }
}

/// What to do with a Kinesis record.
#[derive(Debug)]
struct Plan {
    fate: Fate,
    /// How many user records at its start are left out, because they have been processed.
    skip: usize,
}

#[derive(Debug)]
enum Fate {
    /// It is left out.
    Drop,
    /// It is delivered as it is.
    Plain,
    /// It is delivered as it is, though it starts like an aggregate.
    Malformed(Malformation),
    /// It is an aggregate as far as can be told without reading the message.
    Verified,
    /// Its user records are delivered.
    Aggregate(Parts),
}

impl Plan {
    fn new(record: &Record, after: Option<&ExtendedSequenceNumber>) -> Self {
        let skip = match after.map(|after| (record.sequence_number.cmp(&after.sequence_number), after)) {
            None | Some((Ordering::Greater, _)) => 0,
            Some((Ordering::Equal, after)) => {
                usize::try_from(after.sub_sequence_number).unwrap_or(usize::MAX).saturating_add(1)
            }
            Some((Ordering::Less, _)) => return Self { fate: Fate::Drop, skip: usize::MAX },
        };
        let fate = match (record.data.starts_with(&MAGIC), split(&record.data)) {
            (false, _) => Fate::Plain,
            (true, None) => Fate::Malformed(Malformation::Truncated),
            (true, Some(_)) => Fate::Verified,
        };
        Self { fate, skip }
    }

    /// Decides what becomes of each user record, and counts it.
    fn settle(&mut self, record: &Record, index: &mut Index, counts: &mut Counts) {
        if let Fate::Aggregate(parts) = &mut self.fate {
            self.skip = self.skip.min(parts.entries.len());
            let settled = index.settle(parts, self.skip);
            counts.aggregates += 1;
            counts.already_processed += self.skip as u64;
            counts.user_records += settled.delivered;
            counts.bytes += settled.bytes;
            counts.out_of_range += settled.out_of_range;
            counts.unreachable += settled.unreachable;
            return;
        }
        if let Fate::Malformed(kind) = self.fate {
            counts.add_malformed(kind);
        }
        if self.skip > 0 {
            self.fate = Fate::Drop;
            counts.already_processed += 1;
        } else {
            counts.user_records += 1;
            counts.bytes += record.data.len() as u64;
        }
    }
}

/// The message and the digest of what looks like an aggregate.
fn split(data: &[u8]) -> Option<(&[u8], &[u8; DIGEST_BYTES])> {
    data.strip_prefix(&MAGIC)?.split_last_chunk().filter(|(message, _)| !message.is_empty())
}

/// The records of a page in order, batch by batch; no batch is empty.
///
/// Until it is handed on, a user record costs 16 bytes, however many of them an aggregate claims to
/// hold.
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
                if self.index.hand_on(open, &mut batch, size) {
                    self.open = None;
                }
                continue;
            }
            let (Some(record), Some(plan)) = (self.records.next(), self.plans.next()) else {
                break;
            };
            match plan.fate {
                Fate::Aggregate(parts) => {
                    self.open = Some(self.index.open(record, parts, plan.skip));
                }
                Fate::Drop => {}
                Fate::Plain | Fate::Malformed(_) | Fate::Verified => batch.push(record.into()),
            }
        }
        self.remaining -= batch.len() as u64;
        (!batch.is_empty()).then_some(batch)
    }
}
