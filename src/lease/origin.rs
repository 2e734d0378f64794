//! Whether a row of the lease table is of the stream that is read, or of another one: of a stream that
//! was deleted and created again under the same name, or of one that another consumer reads with the
//! same table. Rows of a single stream do not name it in KCL, and shard identifiers begin anew in each.

use std::collections::BTreeMap;
use std::fmt;

use super::Lease;
use crate::kinesis::Shard;
use crate::types::{Checkpoint, HashKeyRange, SequenceNumber, ShardId, StreamId};

/// The shards of a stream, as listed, to hold rows against.
#[derive(Debug)]
pub(crate) struct Shards<'a> {
    by_id: BTreeMap<&'a ShardId, &'a Shard>,
    /// Those that have been open since the stream was created, in the order of their hash keys, which do
    /// not overlap.
    original: Vec<&'a Shard>,
}

/// Why a row cannot be of the stream that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// It names another stream.
    OtherStream { name: String },
    /// The shard of that name began at another sequence number.
    OtherStart,
    /// The shard of that name has other hash keys.
    OtherHashKeys,
    /// The checkpoint lies before the first sequence number of the shard, or beyond its last.
    CheckpointOutside,
    /// The shard has ended for the row, but is open.
    EndedButOpen,
    /// There is no shard of that name, and others have held its hash keys ever since the stream exists.
    NeverThere,
}

impl Mismatch {
    /// Whether it proves nothing if the list of shards is older than the row.
    pub(crate) fn may_be_an_old_list(&self) -> bool {
        matches!(self, Self::EndedButOpen | Self::NeverThere)
    }
}

impl<'a> Shards<'a> {
    pub(crate) fn new(shards: &'a [Shard]) -> Self {
        let is_original = |shard: &&Shard| shard.parents.is_empty() && shard.is_open();
        let mut original: Vec<&Shard> = shards.iter().filter(is_original).collect();
        original.sort_by_key(|shard| shard.hash_key_range);
        Self { by_id: shards.iter().map(|shard| (&shard.id, shard)).collect(), original }
    }

    pub(crate) fn get(&self, id: &ShardId) -> Option<&'a Shard> {
        self.by_id.get(id).copied()
    }

    /// Whether these are all the shards that hold records: a list that was cut short has gaps.
    pub(crate) fn are_complete(&self) -> bool {
        HashKeyRange::FULL.is_covered_by(
            self.by_id.values().filter(|shard| shard.is_open()).map(|shard| shard.hash_key_range),
        )
    }

    /// Whether a shard has held some of `range` ever since the stream was created.
    fn have_always_held(&self, range: HashKeyRange) -> bool {
        let behind = self.original.partition_point(|shard| shard.hash_key_range.start() <= range.end());
        behind.checked_sub(1).is_some_and(|last| self.original[last].hash_key_range.end() >= range.start())
    }
}

/// The lease of `shard`, in a stream that is the only one, before anybody has owned it.
pub(crate) fn lease_of(shard: &Shard, checkpoint: Checkpoint) -> Lease {
    let mut lease = Lease::new(shard.id.as_str(), checkpoint);
    lease.parents = shard.parents.clone();
    lease.hash_key_range = Some(shard.hash_key_range);
    lease.starting_sequence_number = Some(shard.starting_sequence_number.clone());
    lease
}

/// Why `lease` cannot be of `stream`, as far as its name shows.
pub(crate) fn foreign_stream(lease: &Lease, stream: &StreamId) -> Option<Mismatch> {
    let name =
        lease.source_stream.as_deref().filter(|name| lease.stream_name.is_none() && *name != stream.name());
    name.map(|name| Mismatch::OtherStream { name: name.to_owned() })
}

/// Why `lease` cannot be of the stream with these shards, whether they are all or only those that a
/// filter keeps; `None` if it may be.
pub(crate) fn mismatch(lease: &Lease, stream: &StreamId, shards: &Shards<'_>) -> Option<Mismatch> {
    foreign_stream(lease, stream).or_else(|| {
        let Some(shard) = shards.get(&lease.shard_id) else {
            let range = lease.hash_key_range?;
            return shards.have_always_held(range).then_some(Mismatch::NeverThere);
        };
        let start = lease.starting_sequence_number.as_ref();
        if start.is_some_and(|start| *start != shard.starting_sequence_number) {
            return Some(Mismatch::OtherStart);
        }
        if lease.hash_key_range.is_some_and(|range| range != shard.hash_key_range) {
            return Some(Mismatch::OtherHashKeys);
        }
        match &lease.checkpoint {
            Checkpoint::Sequence(at) => {
                let is_beyond = |end: &SequenceNumber| at.sequence_number > *end;
                let is_outside = at.sequence_number < shard.starting_sequence_number
                    || shard.ending_sequence_number.as_ref().is_some_and(is_beyond);
                is_outside.then_some(Mismatch::CheckpointOutside)
            }
            // A row that says where its shard began is of this very shard, and the list is old.
            Checkpoint::ShardEnd => (shard.is_open() && start.is_none()).then_some(Mismatch::EndedButOpen),
            Checkpoint::AtTimestamp | Checkpoint::TrimHorizon | Checkpoint::Latest => None,
        }
    })
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherStream { name } => write!(f, "it belongs to stream {name}"),
            Self::OtherStart => f.write_str("its shard began at another sequence number"),
            Self::OtherHashKeys => f.write_str("its shard had other hash keys"),
            Self::CheckpointOutside => f.write_str("its checkpoint is no position in the shard"),
            Self::EndedButOpen => f.write_str("its shard had ended, and the shard is open"),
            Self::NeverThere => f.write_str("the stream has never had its shard"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ExtendedSequenceNumber;

    fn shard(
        id: &str,
        (start, end): (u128, u128),
        began: u128,
        ended: Option<u128>,
        parents: &[&str],
    ) -> Shard {
        let range = HashKeyRange::new(start, end).expect("a range");
        let mut shard = Shard::new(id, range, began.into());
        shard.parents = parents.iter().map(|&parent| parent.into()).collect();
        shard.ending_sequence_number = ended.map(Into::into);
        shard
    }

    /// `0` was split into `2` and `3`; `1` has the upper half.
    fn stream() -> [Shard; 4] {
        [
            shard("0", (0, 99), 1000, Some(1999), &[]),
            shard("1", (100, u128::MAX), 1001, None, &[]),
            shard("2", (0, 49), 2000, None, &["0"]),
            shard("3", (50, 99), 2001, None, &["0"]),
        ]
    }

    fn lease(id: &str, checkpoint: Checkpoint, range: Option<(u128, u128)>, began: Option<u128>) -> Lease {
        let mut lease = Lease::new(id, checkpoint);
        lease.hash_key_range = range.and_then(|(start, end)| HashKeyRange::new(start, end));
        lease.starting_sequence_number = began.map(Into::into);
        lease
    }

    fn at(number: u128) -> Checkpoint {
        ExtendedSequenceNumber::new(number.into(), 0).into()
    }

    fn mismatch_of(lease: &Lease, shards: &[Shard]) -> Option<Mismatch> {
        mismatch(lease, &"orders".parse().expect("a name"), &Shards::new(shards))
    }

    #[test]
    fn rows_of_the_stream_match() {
        use Checkpoint::{AtTimestamp, Latest, ShardEnd, TrimHorizon};
        for lease in [
            lease("0", at(1500), Some((0, 99)), Some(1000)),
            lease("0", at(1999), Some((0, 99)), None),
            lease("0", ShardEnd, None, None),
            lease("1", at(1001), None, None),
            lease("1", Latest, Some((100, u128::MAX)), Some(1001)),
            lease("2", TrimHorizon, Some((0, 49)), None),
            lease("3", AtTimestamp, None, None),
            // The list is older than the row.
            lease("2", ShardEnd, Some((0, 49)), Some(2000)),
            lease("5", TrimHorizon, Some((0, 9)), None),
            // Nothing is known of this one.
            lease("9", at(1), None, None),
        ] {
            assert_eq!(mismatch_of(&lease, &stream()), None, "{lease:?}");
        }
    }

    #[test]
    fn an_expired_shard_of_the_stream_matches() {
        let left = &stream()[1..];
        assert_eq!(mismatch_of(&lease("0", at(1500), Some((0, 99)), Some(1000)), left), None);
    }

    #[test]
    fn rows_of_an_earlier_stream_do_not() {
        for (lease, expected) in [
            (lease("1", at(1001), None, Some(900)), Mismatch::OtherStart),
            (lease("1", Checkpoint::ShardEnd, None, Some(900)), Mismatch::OtherStart),
            (lease("1", Checkpoint::Latest, Some((50, 99)), None), Mismatch::OtherHashKeys),
            (lease("1", at(900), None, None), Mismatch::CheckpointOutside),
            (lease("0", at(2000), None, None), Mismatch::CheckpointOutside),
            (lease("1", Checkpoint::ShardEnd, None, None), Mismatch::EndedButOpen),
            (lease("7", at(900), Some((200, 299)), Some(900)), Mismatch::NeverThere),
            (lease("7", at(900), Some((0, 150)), None), Mismatch::NeverThere),
            (lease("7", at(900), Some((0, 100)), None), Mismatch::NeverThere),
        ] {
            assert_eq!(mismatch_of(&lease, &stream()), Some(expected), "{lease:?}");
        }
    }

    #[test]
    fn a_row_that_names_another_stream_does_not_match_whatever_it_holds() {
        let mut lease = lease("1", Checkpoint::Latest, None, Some(1001));
        lease.source_stream = Some("payments".to_owned());
        let expected = Mismatch::OtherStream { name: "payments".to_owned() };
        assert_eq!(mismatch_of(&lease, &stream()), Some(expected));
        lease.source_stream = Some("orders".to_owned());
        assert_eq!(mismatch_of(&lease, &stream()), None);
    }

    #[test]
    fn a_list_with_gaps_is_not_complete() {
        assert!(Shards::new(&stream()).are_complete());
        assert!(!Shards::new(&stream()[..3]).are_complete());
        assert!(!Shards::new(&[]).are_complete());
    }
}
