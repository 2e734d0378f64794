use std::ops::Range;

use super::entry::{Entry, RECORDS};
use super::hash_key::{HashKey, parse_hash_key};
use super::md5::{DIGEST_BYTES, Hasher};
use super::wire::{Reader, Span, Tag};
use super::{MAGIC, Malformation};
use crate::types::{
    ExplicitHashKey, HashKeyRange, KinesisClientRecord, PartitionKey, Payload, Record, SequenceNumber,
};

const PARTITION_KEY_TABLE: Tag = Tag::delimited(1);
const EXPLICIT_HASH_KEY_TABLE: Tag = Tag::delimited(2);

/// How many partition keys are hashed at a time: enough to fill the lanes, few enough to cost no
/// memory to speak of.
const HASHED_AT_ONCE: usize = 384;

/// The user records of a page's aggregates, as positions in the records: what is kept of an
/// aggregate from the time it is read until its records are handed on. 16 bytes for each user record,
/// 8 for each partition key.
#[derive(Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
    partition_keys: Vec<PartitionKeySlot>,
    explicit_hash_keys: Vec<ExplicitHashKeySlot>,
    /// The partition keys that are not simply copied out of the record.
    kept_partition_keys: Vec<PartitionKey>,
    /// The explicit hash keys that user records have.
    kept_explicit_hash_keys: Vec<ExplicitHashKey>,
}

/// Which part of an [`Index`] is one aggregate's.
pub(super) struct Parts {
    pub(super) entries: Range<usize>,
    partition_keys: Range<usize>,
    explicit_hash_keys: Range<usize>,
    /// Whether no user record has an explicit hash key or is left out, and no partition key is kept.
    plain: bool,
}

/// An entry of a table of partition keys.
#[derive(Clone, Copy)]
struct PartitionKeySlot {
    /// Where it starts in the record, or its place among those kept.
    at: u32,
    len: u8,
    kept: bool,
    place: Place,
}

/// An entry of a table of explicit hash keys.
#[derive(Clone, Copy)]
struct ExplicitHashKeySlot {
    span: Span,
    /// Its place among those kept, once [`place`](Self::place) is known.
    kept: u32,
    place: Place,
}

/// Where a hash key stands to the shard's range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// No user record needs to know.
    Unasked,
    /// A user record needs to know.
    Asked,
    Inside,
    Outside,
    /// It is not a hash key any shard can hold.
    Unreachable,
}

/// How the user records of an aggregate fared.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) delivered: u64,
    pub(super) bytes: u64,
    pub(super) out_of_range: u64,
    pub(super) unreachable: u64,
}

impl Index {
    /// Reads an aggregate; leaves nothing behind of one that is malformed.
    pub(super) fn read(&mut self, data: &Payload, range: &HashKeyRange) -> Result<Parts, Malformation> {
        let before = [
            self.entries.len(),
            self.partition_keys.len(),
            self.explicit_hash_keys.len(),
            self.kept_partition_keys.len(),
            self.kept_explicit_hash_keys.len(),
        ];
        let outcome = self.read_message(data).and_then(|()| {
            let parts = Parts {
                entries: before[0]..self.entries.len(),
                partition_keys: before[1]..self.partition_keys.len(),
                explicit_hash_keys: before[2]..self.explicit_hash_keys.len(),
                plain: before[2..4] == [self.explicit_hash_keys.len(), self.kept_partition_keys.len()],
            };
            self.resolve(data, &parts, range).map(|()| parts)
        });
        if outcome.is_err() {
            self.entries.truncate(before[0]);
            self.partition_keys.truncate(before[1]);
            self.explicit_hash_keys.truncate(before[2]);
            self.kept_partition_keys.truncate(before[3]);
            self.kept_explicit_hash_keys.truncate(before[4]);
        }
        outcome
    }

    fn read_message(&mut self, data: &Payload) -> Result<(), Malformation> {
        if u32::try_from(data.len()).is_err() {
            return Err(Malformation::Protobuf);
        }
        let end = data.len().saturating_sub(DIGEST_BYTES);
        let mut reader = Reader::new(&data[..end], MAGIC.len());
        loop {
            self.read_usual_records(&mut reader);
            let Some(tag) = reader.tag()? else { return Ok(()) };
            match tag {
                RECORDS => self.entries.push(Entry::read(reader.message()?)?),
                PARTITION_KEY_TABLE => {
                    let span = reader.delimited()?;
                    self.add_partition_key(data, span);
                }
                EXPLICIT_HASH_KEY_TABLE => self.explicit_hash_keys.push(ExplicitHashKeySlot {
                    span: reader.delimited()?,
                    kept: 0,
                    place: Place::Unasked,
                }),
                other => reader.skip(other)?,
            }
        }
    }

    /// Reads user records up to the first that is unusual, or to the first other field.
    fn read_usual_records(&mut self, reader: &mut Reader<'_>) {
        let end = reader.end();
        let mut rest = reader.rest();
        while let Some((entry, after)) = Entry::read_usual(rest, end) {
            self.entries.push(entry);
            rest = after;
        }
        reader.skip_to(rest);
    }

    fn add_partition_key(&mut self, data: &Payload, span: Span) {
        let slot = match u8::try_from(span.len) {
            Ok(len) if len <= PartitionKey::INLINE_MAX && is_utf8(&data[span.range()]) => {
                PartitionKeySlot { at: span.start, len, kept: false, place: Place::Unasked }
            }
            _ => {
                let key = PartitionKey::from_utf8_lossy(data.slice(span.range()).into());
                let at = keep(&mut self.kept_partition_keys, key);
                PartitionKeySlot { at, len: 0, kept: true, place: Place::Unasked }
            }
        };
        self.partition_keys.push(slot);
    }

    /// Follows the user records' references into the tables, which may stand behind them.
    fn resolve(&mut self, data: &Payload, parts: &Parts, range: &HashKeyRange) -> Result<(), Malformation> {
        let partition_keys = &mut self.partition_keys[parts.partition_keys.clone()];
        let explicit_hash_keys = &mut self.explicit_hash_keys[parts.explicit_hash_keys.clone()];
        for entry in &self.entries[parts.entries.clone()] {
            let partition_key =
                partition_keys.get_mut(entry.partition_key as usize).ok_or(Malformation::TableIndex)?;
            if entry.explicit_hash_key == Entry::NONE {
                partition_key.place = Place::Asked;
                continue;
            }
            let slot = explicit_hash_keys
                .get_mut(entry.explicit_hash_key as usize)
                .ok_or(Malformation::TableIndex)?;
            if slot.place == Place::Unasked {
                let key = ExplicitHashKey::from_utf8_lossy(data.slice(slot.span.range()).into());
                slot.place = match parse_hash_key(&key).ok_or(Malformation::HashKey)? {
                    HashKey::Valid(key) => Place::of(key, range),
                    HashKey::Unreachable => Place::Unreachable,
                };
                slot.kept = keep(&mut self.kept_explicit_hash_keys, key);
            }
        }
        Ok(())
    }

    /// Finds out where the partition keys that user records are placed by stand to `range`, given all
    /// aggregates read.
    pub(super) fn place_partition_keys<'a>(
        &mut self,
        aggregates: impl Iterator<Item = (&'a [u8], &'a Parts)>,
        range: &HashKeyRange,
        hasher: Hasher,
    ) {
        let mut asked = Vec::with_capacity(HASHED_AT_ONCE);
        let mut texts = Vec::with_capacity(HASHED_AT_ONCE);
        let hash = |asked: &mut Vec<usize>, texts: &mut Vec<&[u8]>, slots: &mut [PartitionKeySlot]| {
            for (at, digest) in asked.drain(..).zip(hasher.digests(texts)) {
                slots[at].place = Place::of(u128::from_be_bytes(digest), range);
            }
            texts.clear();
        };
        for (data, parts) in aggregates {
            for at in parts.partition_keys.clone() {
                let slot = self.partition_keys[at];
                if slot.place == Place::Asked {
                    asked.push(at);
                    texts.push(slot.text(data, &self.kept_partition_keys));
                    if asked.len() == HASHED_AT_ONCE {
                        hash(&mut asked, &mut texts, &mut self.partition_keys);
                    }
                }
            }
        }
        hash(&mut asked, &mut texts, &mut self.partition_keys);
    }

    /// Leaves out the user records outside the range, and the first `skip` of the aggregate.
    pub(super) fn settle(&mut self, parts: &mut Parts, skip: usize) -> Settled {
        let partition_keys = &self.partition_keys[parts.partition_keys.clone()];
        let explicit_hash_keys = &self.explicit_hash_keys[parts.explicit_hash_keys.clone()];
        let mut settled = Settled::default();
        for entry in self.entries[parts.entries.clone()].iter_mut().skip(skip) {
            let place = if entry.explicit_hash_key == Entry::NONE {
                partition_keys[entry.partition_key as usize].place
            } else {
                explicit_hash_keys[entry.explicit_hash_key as usize].place
            };
            match place {
                Place::Inside | Place::Asked | Place::Unasked => {
                    settled.delivered += 1;
                    settled.bytes += u64::from(entry.data.len);
                }
                Place::Outside | Place::Unreachable => {
                    settled.out_of_range += 1;
                    settled.unreachable += u64::from(place == Place::Unreachable);
                    entry.partition_key = Entry::LEFT_OUT;
                    parts.plain = false;
                }
            }
        }
        settled
    }

    /// Appends the user records of an aggregate with these numbers to `batch`.
    pub(super) fn hand_on(
        &self,
        record: &Record,
        parts: &Parts,
        numbers: Range<usize>,
        batch: &mut Vec<KinesisClientRecord>,
    ) {
        let entries = self.entries[parts.entries.clone()][numbers.clone()].iter().zip(numbers.start as u64..);
        let slots = &self.partition_keys[parts.partition_keys.clone()];
        let data = &record.data[..];
        match record.sequence_number.words() {
            // The usual aggregate has a loop of its own: with nothing to choose for every record, the
            // compiler writes it straight into the batch.
            Some(words) if parts.plain => batch.extend(entries.map(|(entry, number)| {
                let partition_key = slots[entry.partition_key as usize].inline(data);
                user_record(record, SequenceNumber::from_words(words), entry, number, partition_key, None)
            })),
            _ => batch.extend(entries.filter(|(entry, _)| entry.partition_key != Entry::LEFT_OUT).map(
                |(entry, number)| {
                    let partition_key = self.partition_key(data, &slots[entry.partition_key as usize]);
                    let explicit_hash_key = self.explicit_hash_key(parts, entry);
                    let sequence_number = record.sequence_number.clone();
                    user_record(record, sequence_number, entry, number, partition_key, explicit_hash_key)
                },
            )),
        }
    }

    fn explicit_hash_key(&self, parts: &Parts, entry: &Entry) -> Option<ExplicitHashKey> {
        (entry.explicit_hash_key != Entry::NONE).then(|| {
            let at = parts.explicit_hash_keys.start + entry.explicit_hash_key as usize;
            self.kept_explicit_hash_keys[self.explicit_hash_keys[at].kept as usize].clone()
        })
    }

    fn partition_key(&self, data: &[u8], slot: &PartitionKeySlot) -> PartitionKey {
        if slot.kept { self.kept_partition_keys[slot.at as usize].clone() } else { slot.inline(data) }
    }
}

#[inline]
fn user_record(
    outer: &Record,
    sequence_number: SequenceNumber,
    entry: &Entry,
    number: u64,
    partition_key: PartitionKey,
    explicit_hash_key: Option<ExplicitHashKey>,
) -> KinesisClientRecord {
    KinesisClientRecord {
        record: Record {
            partition_key,
            sequence_number,
            approximate_arrival_timestamp: outer.approximate_arrival_timestamp,
            encryption_type: outer.encryption_type,
            // Last, so that what it is made of stays in registers: nothing that follows can fail.
            data: outer.data.slice(entry.data.range()),
        },
        sub_sequence_number: number,
        aggregated: true,
        explicit_hash_key,
    }
}

impl Place {
    fn of(hash_key: u128, range: &HashKeyRange) -> Self {
        if range.contains(hash_key) { Self::Inside } else { Self::Outside }
    }
}

impl PartitionKeySlot {
    /// The key, if it is not kept.
    #[inline]
    fn inline(&self, data: &[u8]) -> PartitionKey {
        PartitionKey::inline(data, self.at as usize, self.len)
    }

    fn text<'a>(&self, data: &'a [u8], kept: &'a [PartitionKey]) -> &'a [u8] {
        let at = self.at as usize;
        if self.kept { kept[at].as_bytes() } else { &data[at..at + usize::from(self.len)] }
    }
}

/// Most keys are ASCII, which is quickly seen.
fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || std::str::from_utf8(text).is_ok()
}

/// Adds `key` to `kept` and returns its place there.
fn keep<K>(kept: &mut Vec<K>, key: K) -> u32 {
    kept.push(key);
    u32::try_from(kept.len() - 1).expect("fewer keys than a page of records has bytes")
}
