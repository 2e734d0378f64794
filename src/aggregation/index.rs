use std::collections::BTreeMap;
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

/// The number of partition keys hashed at a time: enough to fill the lanes, and few enough to use almost
/// no memory.
const HASHED_AT_ONCE: usize = 384;

/// The user records of a page's aggregates, as positions in the Kinesis records. This is what is kept of
/// an aggregate between reading it and delivering its records: 16 bytes per user record, 8 per partition
/// key, 12 per explicit hash key.
#[derive(Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
    partition_keys: Vec<PartitionKeySlot>,
    explicit_hash_keys: Vec<ExplicitHashKeySlot>,
    /// The number of partition keys that are not inline.
    unusual: usize,
    /// The partition keys that are neither valid UTF-8 nor short.
    kept: Vec<PartitionKey>,
}

/// The part of an [`Index`] that belongs to one aggregate.
pub(super) struct Parts {
    pub(super) entries: Range<usize>,
    partition_keys: Range<usize>,
    explicit_hash_keys: Range<usize>,
    /// Whether no user record has an explicit hash key or is dropped, and every partition key is inline.
    plain: bool,
}

/// An entry of a table of partition keys.
#[derive(Clone, Copy)]
struct PartitionKeySlot {
    /// Its meaning depends on the kind.
    at: u32,
    len: u8,
    kind: Kind,
    place: Place,
}

/// How a partition key is delivered, at a bounded cost for each user record that has it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is at `at`, and copied into user records.
    Inline,
    /// Longer text: user records have a slice of the record. Its length is at `at`.
    Slice,
    /// Not valid UTF-8, at `at`: it is converted for every batch that has it.
    Lossy,
    /// Not valid UTF-8, and long: it was converted once, and has the index `at` among those kept.
    Kept,
}

/// An entry of a table of explicit hash keys.
#[derive(Clone, Copy)]
struct ExplicitHashKeySlot {
    span: Span,
    place: Place,
}

/// The position of a hash key relative to the range of the shard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// No user record needs it.
    Unasked,
    /// A user record needs it; it is not computed yet.
    Asked,
    Inside,
    Outside,
    /// Outside the hash key space, so no shard can hold it.
    Unreachable,
}

/// What happened to the user records of an aggregate.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) delivered: u64,
    pub(super) bytes: u64,
    pub(super) out_of_range: u64,
    pub(super) unreachable: u64,
}

impl Index {
    /// Reads an aggregate; a malformed one leaves nothing in the index.
    pub(super) fn read(&mut self, data: &[u8], range: &HashKeyRange) -> Result<Parts, Malformation> {
        let before = [self.entries.len(), self.partition_keys.len(), self.explicit_hash_keys.len()];
        let (unusual, kept) = (self.unusual, self.kept.len());
        let outcome = self.read_message(data).and_then(|()| {
            let parts = Parts {
                entries: before[0]..self.entries.len(),
                partition_keys: before[1]..self.partition_keys.len(),
                explicit_hash_keys: before[2]..self.explicit_hash_keys.len(),
                plain: (before[2], unusual) == (self.explicit_hash_keys.len(), self.unusual),
            };
            self.resolve(data, &parts, range).map(|()| parts)
        });
        if outcome.is_err() {
            self.entries.truncate(before[0]);
            self.partition_keys.truncate(before[1]);
            self.explicit_hash_keys.truncate(before[2]);
            self.kept.truncate(kept);
        }
        outcome
    }

    fn read_message(&mut self, data: &[u8]) -> Result<(), Malformation> {
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
                    let length_at = reader.at();
                    self.add_partition_key(data, length_at, reader.delimited()?);
                }
                EXPLICIT_HASH_KEY_TABLE => self
                    .explicit_hash_keys
                    .push(ExplicitHashKeySlot { span: reader.delimited()?, place: Place::Unasked }),
                other => reader.skip(other)?,
            }
        }
    }

    /// Reads user records up to the first unusual one, or to the first other field.
    fn read_usual_records(&mut self, reader: &mut Reader<'_>) {
        let end = reader.end();
        let mut rest = reader.rest();
        while let Some((entry, after)) = Entry::read_usual(rest, end) {
            self.entries.push(entry);
            rest = after;
        }
        reader.skip_to(rest);
    }

    fn add_partition_key(&mut self, data: &[u8], length_at: u32, span: Span) {
        let text = &data[span.range()];
        let (kind, at, len) = match (is_utf8(text), u8::try_from(span.len)) {
            (true, Ok(len)) if len <= PartitionKey::INLINE_MAX => (Kind::Inline, span.start, len),
            (true, _) => (Kind::Slice, length_at, 0),
            (false, Ok(len)) => (Kind::Lossy, span.start, len),
            (false, Err(_)) => (Kind::Kept, keep(&mut self.kept, lossy(text)), 0),
        };
        self.unusual += usize::from(kind != Kind::Inline);
        self.partition_keys.push(PartitionKeySlot { at, len, kind, place: Place::Unasked });
    }

    /// Checks the user records' references into the tables, which may come after them.
    fn resolve(&mut self, data: &[u8], parts: &Parts, range: &HashKeyRange) -> Result<(), Malformation> {
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
                let text = std::str::from_utf8(&data[slot.span.range()]).ok();
                slot.place = match text.and_then(parse_hash_key).ok_or(Malformation::HashKey)? {
                    HashKey::Valid(key) => Place::of(key, range),
                    HashKey::Unreachable => Place::Unreachable,
                };
            }
        }
        Ok(())
    }

    /// Determines, once all aggregates are read, which of the partition keys that place user records are
    /// within `range`.
    pub(super) fn place_partition_keys<'a>(
        &mut self,
        aggregates: impl Iterator<Item = (&'a Payload, &'a Parts)>,
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
                let slot = &mut self.partition_keys[at];
                if slot.place != Place::Asked {
                    continue;
                }
                if matches!(slot.kind, Kind::Lossy | Kind::Kept) {
                    let digest = Hasher::digest(slot.key(data, &self.kept).as_bytes());
                    slot.place = Place::of(u128::from_be_bytes(digest), range);
                    continue;
                }
                asked.push(at);
                texts.push(&data[slot.range(data)]);
                if asked.len() == HASHED_AT_ONCE {
                    hash(&mut asked, &mut texts, &mut self.partition_keys);
                }
            }
        }
        hash(&mut asked, &mut texts, &mut self.partition_keys);
    }

    /// Drops the user records outside the range, and the first `skip` of the aggregate.
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
                    entry.partition_key = Entry::DROPPED;
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
        let data = &record.data;
        match record.sequence_number.words() {
            // The usual aggregate has its own loop: without branches per record, the compiler writes
            // records straight into the batch.
            Some(words) if parts.plain => batch.extend(entries.map(|(entry, number)| {
                let partition_key = slots[entry.partition_key as usize].inline(data);
                user_record(record, SequenceNumber::from_words(words), entry, number, partition_key, None)
            })),
            _ => {
                // Created once for all user records that share it.
                let mut made: BTreeMap<u32, PartitionKey> = BTreeMap::new();
                batch.extend(entries.filter(|(entry, _)| entry.partition_key != Entry::DROPPED).map(
                    |(entry, number)| {
                        let slot = &slots[entry.partition_key as usize];
                        let partition_key = match slot.kind {
                            Kind::Lossy => made
                                .entry(entry.partition_key)
                                .or_insert_with(|| slot.key(data, &self.kept))
                                .clone(),
                            _ => slot.key(data, &self.kept),
                        };
                        let explicit_hash_key = (entry.explicit_hash_key != Entry::NONE).then(|| {
                            let at = parts.explicit_hash_keys.start + entry.explicit_hash_key as usize;
                            ExplicitHashKey::slice(data, self.explicit_hash_keys[at].span.range())
                        });
                        let sequence_number = record.sequence_number.clone();
                        user_record(record, sequence_number, entry, number, partition_key, explicit_hash_key)
                    },
                ));
            }
        }
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
            // Written last, so that its parts stay in registers: nothing after it can fail.
            data: outer.data.part(entry.data.range()),
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
    fn key(&self, data: &Payload, kept: &[PartitionKey]) -> PartitionKey {
        match self.kind {
            Kind::Inline => self.inline(data),
            Kind::Slice => PartitionKey::slice(data, self.range(data)),
            Kind::Lossy => lossy(&data[self.range(data)]),
            Kind::Kept => kept[self.at as usize].clone(),
        }
    }

    #[inline]
    fn inline(&self, data: &[u8]) -> PartitionKey {
        PartitionKey::inline(data, self.at as usize, self.len)
    }

    /// The position of a key that is not kept.
    fn range(&self, data: &[u8]) -> Range<usize> {
        let at = self.at as usize;
        match self.kind {
            Kind::Slice => Reader::new(data, at).delimited().map_or(0..0, Span::range),
            _ => at..at + usize::from(self.len),
        }
    }
}

/// The key, with U+FFFD for invalid UTF-8.
fn lossy(text: &[u8]) -> PartitionKey {
    String::from_utf8_lossy(text).into_owned().into()
}

/// Adds `key` to `kept` and returns its index.
fn keep(kept: &mut Vec<PartitionKey>, key: PartitionKey) -> u32 {
    kept.push(key);
    u32::try_from(kept.len() - 1).expect("fewer keys than a page of records has bytes")
}

/// Most keys are ASCII, which is checked fast.
fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || std::str::from_utf8(text).is_ok()
}
