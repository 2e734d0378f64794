use super::Malformation;
use super::wire::{Reader, Span, Tag};

/// The tag of user records in an aggregate.
pub(super) const RECORDS: Tag = Tag::delimited(3);

const PARTITION_KEY_INDEX: Tag = Tag::varint(1);
const EXPLICIT_HASH_KEY_INDEX: Tag = Tag::varint(2);
const DATA: Tag = Tag::delimited(3);
const TAGS: Tag = Tag::delimited(4);

const TAG_KEY: Tag = Tag::delimited(1);

/// A user record, as positions in the Kinesis record that contains it.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// The index of its partition key in the table of the aggregate, or [`Entry::DROPPED`].
    pub(super) partition_key: u32,
    /// The index of its explicit hash key in the table of the aggregate, or [`Entry::NONE`].
    pub(super) explicit_hash_key: u32,
    pub(super) data: Span,
}

impl Entry {
    /// No explicit hash key. Tables never grow this long, so as an index it is out of range.
    pub(super) const NONE: u32 = u32::MAX;

    /// A user record that is not delivered.
    pub(super) const DROPPED: u32 = u32::MAX;

    /// Reads a user record, tag and length included, in the form most producers write: a partition key
    /// index and data of less than 16 KiB, in this order, and nothing else. Returns the record and the
    /// position after it, or `None` if `message`, which ends at `end`, continues with anything else.
    #[inline]
    pub(super) fn read_usual(message: &[u8], end: u32) -> Option<(Self, &[u8])> {
        let (record_len, record) = read_short_varint(message.strip_prefix(&RECORDS.short())?)?;
        // The next position is computed first, so that the CPU can start on it.
        let after = record.get(record_len as usize..)?;
        let (partition_key, rest) = read_short_varint(record.strip_prefix(&PARTITION_KEY_INDEX.short())?)?;
        let (len, data) = read_short_varint(rest.strip_prefix(&DATA.short())?)?;
        let is_all = data.len().checked_sub(after.len())? == len as usize;
        let start = end.checked_sub(u32::try_from(data.len()).ok()?)?;
        let entry = Self { partition_key, explicit_hash_key: Self::NONE, data: Span { start, len } };
        is_all.then_some((entry, after))
    }

    /// Reads any user record.
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, Malformation> {
        let (mut partition_key, mut explicit_hash_key, mut data) = (None, Self::NONE, None);
        while let Some(tag) = reader.tag()? {
            match tag {
                PARTITION_KEY_INDEX => partition_key = Some(reader.varint()?),
                EXPLICIT_HASH_KEY_INDEX => explicit_hash_key = reader.varint()?.min(Self::NONE - 1),
                DATA => data = Some(reader.delimited()?),
                TAGS => check_tag(reader.message()?)?,
                other => reader.skip(other)?,
            }
        }
        match (partition_key, data) {
            (Some(partition_key), Some(data)) => Ok(Self { partition_key, explicit_hash_key, data }),
            _ => Err(Malformation::MissingField),
        }
    }
}

/// A varint of one or two bytes, and the position after it.
#[inline]
fn read_short_varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    match *bytes {
        [low @ ..0x80, ref rest @ ..] => Some((low.into(), rest)),
        [low, high @ ..0x80, ref rest @ ..] => Some((u32::from(low & 0x7F) | u32::from(high) << 7, rest)),
        _ => None,
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
