use std::ops::Range;

use super::Malformation;
use super::hash_key::{HashKey, parse_hash_key};
use super::md5::Hasher;
use super::wire::{Reader, Span, Tag};
use crate::types::HashKeyRange;

const PARTITION_KEY_TABLE: Tag = Tag::delimited(1);
const EXPLICIT_HASH_KEY_TABLE: Tag = Tag::delimited(2);
const RECORDS: Tag = Tag::delimited(3);

const PARTITION_KEY_INDEX: Tag = Tag::varint(1);
const EXPLICIT_HASH_KEY_INDEX: Tag = Tag::varint(2);
const DATA: Tag = Tag::delimited(3);
const TAGS: Tag = Tag::delimited(4);

const TAG_KEY: Tag = Tag::delimited(1);

/// The user records of a page's aggregates, as positions in their messages: what is kept of an
/// aggregate from the time it is read until its records are handed on.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) entries: Vec<Entry>,
    pub(super) partition_keys: Vec<Span>,
    pub(super) explicit_hash_keys: Vec<Span>,
}

/// Which part of an [`Index`] is one aggregate's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) entries: Range<usize>,
    pub(super) partition_keys: Range<usize>,
    pub(super) explicit_hash_keys: Range<usize>,
}

/// A user record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its partition key's place in the aggregate's table.
    pub(super) partition_key: u32,
    /// Its explicit hash key's place in the aggregate's table, or [`Entry::NONE`].
    pub(super) explicit_hash_key: u32,
    pub(super) data: Span,
}

impl Entry {
    /// No explicit hash key. Tables never grow this long, so as an index it is out of range.
    pub(super) const NONE: u32 = u32::MAX;
}

impl Index {
    /// Reads an aggregate's message; leaves nothing behind of one that is malformed.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<Parts, Malformation> {
        let (entries, partition_keys, explicit_hash_keys) =
            (self.entries.len(), self.partition_keys.len(), self.explicit_hash_keys.len());
        let outcome = self.read_message(message).and_then(|()| {
            let parts = Parts {
                entries: entries..self.entries.len(),
                partition_keys: partition_keys..self.partition_keys.len(),
                explicit_hash_keys: explicit_hash_keys..self.explicit_hash_keys.len(),
            };
            self.check_references(message, &parts).map(|()| parts)
        });
        if outcome.is_err() {
            self.entries.truncate(entries);
            self.partition_keys.truncate(partition_keys);
            self.explicit_hash_keys.truncate(explicit_hash_keys);
        }
        outcome
    }

    fn read_message(&mut self, message: &[u8]) -> Result<(), Malformation> {
        if u32::try_from(message.len()).is_err() {
            return Err(Malformation::Protobuf);
        }
        let mut reader = Reader::new(message);
        while let Some(tag) = reader.tag()? {
            match tag {
                RECORDS => self.entries.push(read_user_record(reader.message()?)?),
                PARTITION_KEY_TABLE => self.partition_keys.push(reader.delimited()?),
                EXPLICIT_HASH_KEY_TABLE => self.explicit_hash_keys.push(reader.delimited()?),
                other => reader.skip(other)?,
            }
        }
        Ok(())
    }

    /// Tables may stand behind the records that point into them, so this comes last.
    fn check_references(&self, message: &[u8], parts: &Parts) -> Result<(), Malformation> {
        let explicit_hash_keys = &self.explicit_hash_keys[parts.explicit_hash_keys.clone()];
        let mut is_number = vec![None; explicit_hash_keys.len()];
        for entry in &self.entries[parts.entries.clone()] {
            if entry.partition_key as usize >= parts.partition_keys.len() {
                return Err(Malformation::TableIndex);
            }
            if entry.explicit_hash_key == Entry::NONE {
                continue;
            }
            let at = entry.explicit_hash_key as usize;
            let slot = is_number.get_mut(at).ok_or(Malformation::TableIndex)?;
            let text = explicit_hash_keys[at].text(message);
            if !*slot.get_or_insert_with(|| parse_hash_key(&text).is_some()) {
                return Err(Malformation::HashKey);
            }
        }
        Ok(())
    }

    /// Where user record `entry` of the aggregate `parts` stands to a shard with `range`.
    pub(super) fn place(
        &self,
        message: &[u8],
        parts: &Parts,
        entry: &Entry,
        range: &HashKeyRange,
    ) -> Option<Place> {
        let hash_key = if entry.explicit_hash_key == Entry::NONE {
            let key = self.partition_keys.get(parts.partition_keys.start + entry.partition_key as usize)?;
            HashKey::Valid(u128::from_be_bytes(Hasher::digest(key.text(message).as_bytes())))
        } else {
            let key = self
                .explicit_hash_keys
                .get(parts.explicit_hash_keys.start + entry.explicit_hash_key as usize)?;
            parse_hash_key(&key.text(message))?
        };
        Some(match hash_key {
            HashKey::Valid(key) if range.contains(key) => Place::Inside,
            HashKey::Valid(_) => Place::Outside,
            HashKey::Unreachable => Place::Unreachable,
        })
    }
}

/// Where a user record stands to the shard's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Inside,
    Outside,
    /// No shard can hold it.
    Unreachable,
}

fn read_user_record(mut reader: Reader<'_>) -> Result<Entry, Malformation> {
    let (mut partition_key, mut explicit_hash_key, mut data) = (None, Entry::NONE, None);
    while let Some(tag) = reader.tag()? {
        match tag {
            PARTITION_KEY_INDEX => partition_key = Some(reader.varint()?),
            EXPLICIT_HASH_KEY_INDEX => explicit_hash_key = reader.varint()?.min(Entry::NONE - 1),
            DATA => data = Some(reader.delimited()?),
            TAGS => check_tag(reader.message()?)?,
            other => reader.skip(other)?,
        }
    }
    match (partition_key, data) {
        (Some(partition_key), Some(data)) => Ok(Entry { partition_key, explicit_hash_key, data }),
        _ => Err(Malformation::MissingField),
    }
}

fn check_tag(mut reader: Reader<'_>) -> Result<(), Malformation> {
    let mut has_key = false;
    while let Some(tag) = reader.tag()? {
        has_key |= tag == TAG_KEY;
        reader.skip(tag)?;
    }
    if has_key { Ok(()) } else { Err(Malformation::MissingField) }
}
