use std::cmp::Ordering;
use std::fmt;
use std::num::NonZeroUsize;

use super::index::{Index, Parts};
use super::md5::{DIGEST_BYTES, Hasher};
use super::{Counts, MAGIC, Malformation};
use crate::types::{ExtendedSequenceNumber, HashKeyRange, KinesisClientRecord, Record};

/// De-aggregates the KPL records of one shard.
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
    /// A de-aggregator for a shard with `range`: user records with hash keys outside it are dropped.
    /// `None` stands for every hash key.
    #[must_use]
    pub fn new(range: Option<HashKeyRange>) -> Self {
        Self::with_hasher(range, Hasher::detect())
    }

    pub(super) fn with_hasher(range: Option<HashKeyRange>, hasher: Hasher) -> Self {
        Self { range: range.unwrap_or(HashKeyRange::FULL), hasher }
    }

    /// De-aggregates a page of Kinesis records, drops the user records up to and including `after`, and
    /// returns the rest in order, in batches of at most `batch_records_max`.
    ///
    /// The whole page is checked and indexed before this returns. That takes CPU time in proportion to
    /// the bytes of the page: about 15 ms for one aggregate of 10 MiB, and a small multiple of that for
    /// a maliciously built one. Payloads are slices of the records given.
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
                Fate::Aggregate(parts) => Some((&record.data, parts)),
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
            batch_records_max: batch_records_max.get(),
            remaining: counts.user_records,
            counts,
        }
    }

    /// Plans by what is known without reading the messages, digests included.
    fn verify(&self, records: &[Record], after: Option<&ExtendedSequenceNumber>) -> Vec<Plan> {
        let mut plans: Vec<Plan> = records.iter().map(|record| Plan::new(record, after)).collect();
        let mut messages = Vec::with_capacity(records.len());
        let mut expected = Vec::with_capacity(records.len());
        for (record, _) in records.iter().zip(&plans).filter(|(_, plan)| matches!(plan.fate, Fate::Verified))
        {
            if let Some((message, digest)) = split(&record.data) {
                messages.push(message);
                expected.push(digest);
            }
        }
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
struct Plan {
    fate: Fate,
    /// The number of user records to drop at its start, because they were processed or delivered.
    skip: usize,
}

enum Fate {
    /// Drop it.
    Drop,
    /// Deliver it as it is.
    Plain,
    /// Deliver it as it is, although it starts like an aggregate.
    Malformed(Malformation),
    /// It is probably an aggregate; the message was not read yet.
    Verified,
    /// Deliver its user records.
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

    /// Decides what to do with each user record, and counts it.
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

/// The message and the digest of a probable aggregate.
fn split(data: &[u8]) -> Option<(&[u8], &[u8; DIGEST_BYTES])> {
    data.strip_prefix(&MAGIC)?.split_last_chunk().filter(|(message, _)| !message.is_empty())
}

/// The records of a page in order, in batches that are never empty.
///
/// Until it is delivered, a user record uses 16 bytes, however many of them an aggregate claims to
/// contain.
#[must_use = "the records are in the batches"]
pub struct Batches {
    records: std::vec::IntoIter<Record>,
    plans: std::vec::IntoIter<Plan>,
    index: Index,
    batch_records_max: usize,
    /// The number of records not returned yet.
    remaining: u64,
    counts: Counts,
}

impl Batches {
    /// What happened to the page, including batches not returned yet.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Shows the number of records, never their contents.
impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("batch_records_max", &self.batch_records_max)
            .field("remaining", &self.remaining)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Iterator for Batches {
    type Item = Vec<KinesisClientRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let size = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(self.batch_records_max);
        let mut batch = Vec::with_capacity(size);
        while batch.len() < size {
            let (Some(record), Some(plan)) =
                (self.records.as_slice().first(), self.plans.as_mut_slice().first_mut())
            else {
                break;
            };
            if let Fate::Aggregate(parts) = &plan.fate {
                let end = parts.entries.len().min(plan.skip + (size - batch.len()));
                self.index.hand_on(record, parts, plan.skip..end, &mut batch);
                plan.skip = end;
                if end < parts.entries.len() {
                    continue;
                }
            }
            let whole = !matches!(plan.fate, Fate::Drop | Fate::Aggregate(_));
            batch.extend(self.records.next().filter(|_| whole).map(KinesisClientRecord::from));
            self.plans.next();
        }
        self.remaining -= batch.len() as u64;
        (!batch.is_empty()).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregation::{Added, Aggregator};
    use crate::types::SequenceNumber;

    const BATCH: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

    /// A Kinesis record with user records of these payloads, alternating between two keys.
    fn aggregate(number: u128, payloads: &[&[u8]]) -> Record {
        let mut aggregator = Aggregator::new();
        for (payload, key) in payloads.iter().zip(["short", &"long".repeat(20)].iter().cycle()) {
            assert_eq!(aggregator.add(key, None, payload), Added::Yes);
        }
        let aggregate = aggregator.finish().expect("records were added");
        Record::new(SequenceNumber::from(number), aggregate.partition_key, aggregate.data)
    }

    #[test]
    fn payloads_and_long_keys_are_slices_of_the_record() {
        let record = aggregate(1, &[b"one", b"two"]);
        let buffer = record.data.as_ptr_range();
        let batches = Deaggregator::new(None).deaggregate(vec![record], None, BATCH);
        let user_records: Vec<_> = batches.flatten().collect();
        assert_eq!(user_records.len(), 2);
        for user_record in &user_records {
            assert!(buffer.contains(&user_record.record.data.as_ptr()));
        }
        assert!(buffer.contains(&user_records[1].record.partition_key.as_ptr()));
    }

    #[test]
    fn user_records_inherit_what_the_aggregate_was_stored_with() {
        let mut record = aggregate(1, &[b"one"]);
        record.approximate_arrival_timestamp = Some(std::time::SystemTime::UNIX_EPOCH);
        record.encryption_type = crate::types::EncryptionType::Kms;
        let mut batches = Deaggregator::new(None).deaggregate(vec![record.clone()], None, BATCH);
        let user_record = &batches.next().expect("one batch")[0];
        assert_eq!(user_record.record.sequence_number, record.sequence_number);
        assert_eq!(user_record.record.approximate_arrival_timestamp, record.approximate_arrival_timestamp);
        assert_eq!(user_record.record.encryption_type, record.encryption_type);
    }

    #[test]
    fn a_page_resumes_within_an_aggregate() {
        let page = vec![
            aggregate(1, &[b"gone"]),
            aggregate(2, &[b"gone", b"gone", b"c", b"d"]),
            Record::new(3_u128.into(), "key", b"plain".as_slice()),
        ];
        let after = ExtendedSequenceNumber::new(2_u128.into(), 1);
        let batches = Deaggregator::new(None).deaggregate(page, Some(&after), BATCH);
        assert_eq!(batches.counts().already_processed, 3);
        let seen: Vec<_> = batches
            .flatten()
            .map(|record| (record.record.data.to_bytes(), record.sub_sequence_number))
            .collect();
        assert_eq!(seen, [("c".into(), 2), ("d".into(), 3), ("plain".into(), 0)]);
    }

    #[test]
    fn no_records_make_no_batch() {
        let after = ExtendedSequenceNumber::new(9_u128.into(), 0);
        let page = vec![aggregate(8, &[b"gone"]), aggregate(9, &[b"gone"])];
        assert_eq!(Deaggregator::new(None).deaggregate(page, Some(&after), BATCH).count(), 0);
        assert_eq!(Deaggregator::new(None).deaggregate(Vec::new(), None, BATCH).count(), 0);
    }
}
