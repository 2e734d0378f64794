use std::fmt;

/// What happened to a page of Kinesis records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Kinesis records read.
    pub records: u64,
    /// Those of them that were KPL aggregates and were de-aggregated.
    pub aggregates: u64,
    /// Records delivered: user records and plain ones.
    pub user_records: u64,
    /// Payload bytes delivered.
    pub bytes: u64,
    /// Records not delivered because they are at or before the position to resume after. An aggregate
    /// entirely before it counts as one.
    pub already_processed: u64,
    /// User records not delivered because their hash key is outside the range of the shard: the producer
    /// has sent them again to the shard they belong to.
    pub out_of_range: u64,
    /// Those of the records out of range that no shard can hold, because their explicit hash key is
    /// negative or not below 2^128. Their producer is faulty.
    pub unreachable: u64,
    malformed: [u64; Malformation::ALL.len()],
}

impl Counts {
    /// The number of Kinesis records that start like an aggregate and were delivered whole because of
    /// `kind`.
    #[must_use]
    pub fn malformed(&self, kind: Malformation) -> u64 {
        self.malformed[kind as usize]
    }

    /// The number of Kinesis records that start like an aggregate and were delivered whole.
    #[must_use]
    pub fn malformed_total(&self) -> u64 {
        self.malformed.iter().sum()
    }

    /// The counts of a page of this many Kinesis records before they are processed.
    pub(super) fn of_page(records: usize) -> Self {
        Self { records: records as u64, ..Self::default() }
    }

    pub(super) fn add_malformed(&mut self, kind: Malformation) {
        self.malformed[kind as usize] += 1;
    }
}

/// Why a record that starts like an aggregate is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Malformation {
    /// Too short to hold a message and its digest.
    Truncated,
    /// The digest at its end is not that of the message.
    Digest,
    /// The message is not valid protobuf.
    Protobuf,
    /// A required field is missing.
    MissingField,
    /// A user record refers to a key outside the tables.
    TableIndex,
    /// The explicit hash key of a user record is not a number.
    HashKey,
}

impl Malformation {
    /// Every kind.
    pub const ALL: &[Self] =
        &[Self::Truncated, Self::Digest, Self::Protobuf, Self::MissingField, Self::TableIndex, Self::HashKey];
}

impl fmt::Display for Malformation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Truncated => "too short to be an aggregate",
            Self::Digest => "digest mismatch",
            Self::Protobuf => "invalid protobuf",
            Self::MissingField => "missing required field",
            Self::TableIndex => "table index out of range",
            Self::HashKey => "explicit hash key is not a number",
        })
    }
}
