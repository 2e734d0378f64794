//! Decides what it means that the service does not find a shard or refuses a position in it.

use std::fmt;

use super::position::Position;
use crate::kinesis::{ChildShard, Shard, StreamErrorKind};
use crate::lease::Lease;
use crate::lease::origin::{Mismatch, Shards, mismatch};
use crate::types::{Checkpoint, ExtendedSequenceNumber, SequenceNumber, ShardId, StreamId};

/// Why a shard was refused, as far as the lease and the list of shards show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The stream no longer has the shard, and all its records have expired.
    Expired,
    /// The position is the last one of a closed shard: all records were read.
    AtEnd { children: Vec<ChildShard> },
    /// The lease belongs to another stream.
    OtherStream(Mismatch),
    /// The shard exists, but the checkpoint of its lease is not one of its sequence numbers.
    RefusedPosition,
    /// The lease and the stream agree, or the stream could not be listed: the response was wrong.
    Unexplained,
}

/// Judges the refusal `kind` (`NotFound` or `InvalidArgument`) to open the shard of `lease` at
/// `position`, by all shards of `stream` as listed after it. An incomplete list decides nothing.
pub(super) fn judge(
    kind: StreamErrorKind,
    position: &Position,
    lease: &Lease,
    stream: &StreamId,
    shards: &[Shard],
) -> Verdict {
    let listed = Shards::new(shards);
    let reached = at_position(lease, position);
    let mismatch = mismatch(&reached, stream, &listed);
    let Some(shard) = listed.get(&lease.shard_id) else {
        return match mismatch {
            Some(mismatch) => Verdict::OtherStream(mismatch),
            None if listed.are_complete() && may_have_expired(&reached, shards) => Verdict::Expired,
            None => Verdict::Unexplained,
        };
    };
    match mismatch {
        // If the lease stores where its shard began and that matches, it belongs to this shard, whatever
        // its checkpoint.
        Some(Mismatch::CheckpointOutside) if lease.starting_sequence_number.is_some() => {}
        Some(mismatch) => return Verdict::OtherStream(mismatch),
        None => {}
    }
    let Some(number) = position.number() else { return Verdict::Unexplained };
    let is_invalid = kind == StreamErrorKind::InvalidArgument;
    if let Some(end) = &shard.ending_sequence_number
        && (position.is_fetched() && number >= end || is_invalid && number == end)
    {
        let children = children(&shard.id, shards);
        // Children exist before their parent is closed.
        return if children.is_empty() { Verdict::Unexplained } else { Verdict::AtEnd { children } };
    }
    if is_invalid && !position.is_fetched() { Verdict::RefusedPosition } else { Verdict::Unexplained }
}

/// Decides why a shard returned sequence numbers at or before those already reached: `Some` if it is a
/// different shard from the one of the lease. A lease that does not store where its shard began cannot
/// rule that out.
pub(super) fn judge_restart(
    position: &Position,
    lease: &Lease,
    stream: &StreamId,
    shards: &[Shard],
) -> Option<Mismatch> {
    let listed = Shards::new(shards);
    let shard = listed.get(&lease.shard_id)?;
    match (mismatch(&at_position(lease, position), stream, &listed), &lease.starting_sequence_number) {
        (Some(Mismatch::CheckpointOutside), Some(start)) if *start == shard.starting_sequence_number => None,
        (None, Some(_)) => None,
        (None, None) => Some(Mismatch::OtherStart),
        (mismatch, _) => mismatch,
    }
}

/// The lease as if everything up to `position` were stored.
fn at_position(lease: &Lease, position: &Position) -> Lease {
    let mut lease = lease.clone();
    if let Some(number) = position.number() {
        lease.checkpoint = ExtendedSequenceNumber::new(number.clone(), 0).into();
    }
    lease
}

/// Whether the list was made after the shard of `lease`, which it does not contain, expired. Shards
/// expire after their parents, and the shards that now hold their hash keys began later.
fn may_have_expired(lease: &Lease, shards: &[Shard]) -> bool {
    let at = lease.checkpoint.position().map(|at| &at.sequence_number);
    let known: Option<&SequenceNumber> = at.max(lease.starting_sequence_number.as_ref());
    shards.iter().all(|shard| {
        let shares_hash_keys = lease.hash_key_range.is_some_and(|range| {
            range.start() <= shard.hash_key_range.end() && shard.hash_key_range.start() <= range.end()
        });
        let is_older = known.is_some_and(|number| shard.starting_sequence_number <= *number);
        !(lease.parents.contains(&shard.id) || shard.is_open() && shares_hash_keys && is_older)
    })
}

/// The child shards of `parent`.
fn children(parent: &ShardId, shards: &[Shard]) -> Vec<ChildShard> {
    let children = shards.iter().filter(|shard| shard.parents.contains(parent));
    children
        .map(|shard| ChildShard::new(shard.id.clone(), shard.parents.iter().cloned(), shard.hash_key_range))
        .collect()
}

/// Why a shard is not read with its lease. `Display` says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) cause: Cause,
    pub(super) stream: StreamId,
    pub(super) lease: Lease,
}

/// Why the lease does not match the shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The service refuses the checkpoint.
    Position,
    /// The lease belongs to another stream.
    OtherStream(Mismatch),
}

impl Refusal {
    pub(super) fn new(cause: Cause, position: &Position, lease: &Lease, stream: &StreamId) -> Self {
        Self { cause, stream: stream.clone(), lease: at_position(lease, position) }
    }

    /// The checkpoint at which reading was to continue.
    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.lease.checkpoint
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, lease, .. } = self;
        let (key, shard, checkpoint) = (&lease.key, &lease.shard_id, &lease.checkpoint);
        match &self.cause {
            Cause::Position => write!(
                f,
                "stream {} refuses checkpoint {checkpoint} of lease {key}: shard {shard} is there, but has no \
                 such sequence number. Set the checkpoint of the lease to a sequence number of the shard or to \
                 TRIM_HORIZON while no worker runs, or set RetrievalConfig::on_refused_checkpoint to \
                 ReadFromOldest",
                stream.name(),
            ),
            Cause::OtherStream(mismatch) => write!(
                f,
                "lease {key} at checkpoint {checkpoint} does not belong to shard {shard} of stream {}: \
                 {mismatch}. If the stream was deleted and created again, set \
                 CoordinationConfig::on_recreated_stream to StartOver to read it from its oldest record, or \
                 delete the leases of the earlier stream while no worker runs; if another consumer reads with \
                 the same lease table, give each an application name of its own",
                stream.name(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use StreamErrorKind::{InvalidArgument, NotFound};

    use super::*;
    use crate::kinesis::IteratorPosition;
    use crate::types::HashKeyRange;

    fn shard(id: &str, range: (u128, u128), began: u128, ended: Option<u128>, parents: &[&str]) -> Shard {
        let mut shard = Shard::new(id, HashKeyRange::new(range.0, range.1).expect("a range"), began.into());
        shard.parents = parents.iter().map(|&parent| parent.into()).collect();
        shard.ending_sequence_number = ended.map(Into::into);
        shard
    }

    /// `0` and `1` began with the stream. `0` was split into `2` and `3`, which was merged with `1`.
    fn stream() -> Vec<Shard> {
        vec![
            shard("0", (0, 99), 1000, Some(1999), &[]),
            shard("1", (100, u128::MAX), 1001, Some(2999), &[]),
            shard("2", (0, 49), 2000, None, &["0"]),
            shard("3", (50, 99), 2001, Some(2999), &["0"]),
            shard("4", (50, u128::MAX), 3000, None, &["3", "1"]),
        ]
    }

    /// The lease of a listed shard, or of an expired one.
    fn lease(id: &str) -> Lease {
        let mut lease = Lease::new(id, Checkpoint::TrimHorizon);
        if let Some(shard) = stream().into_iter().find(|shard| shard.id == *id) {
            lease.parents = shard.parents;
            lease.hash_key_range = Some(shard.hash_key_range);
            lease.starting_sequence_number = Some(shard.starting_sequence_number);
        }
        lease
    }

    /// The same lease without the attributes that KCL does not store.
    fn of_kcl(id: &str) -> Lease {
        Lease { starting_sequence_number: None, ..lease(id) }
    }

    fn at(number: u128) -> Position {
        Position::Start(IteratorPosition::At(number.into()))
    }

    fn fetched(number: u128) -> Position {
        Position::Fetched(number.into())
    }

    fn oldest() -> Position {
        Position::Start(IteratorPosition::TrimHorizon)
    }

    fn verdict(kind: StreamErrorKind, position: &Position, lease: &Lease, shards: &[Shard]) -> Verdict {
        judge(kind, position, lease, &"orders".parse().expect("a name"), shards)
    }

    fn names(verdict: &Verdict) -> Vec<String> {
        match verdict {
            Verdict::AtEnd { children } => children.iter().map(|child| child.id.to_string()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_listed_shard_is_not_ended_by_a_refusal() {
        for position in [oldest(), at(2500), fetched(2500)] {
            for lease in [lease("2"), of_kcl("2"), Lease::new("2", Checkpoint::TrimHorizon)] {
                let found = verdict(NotFound, &position, &lease, &stream());
                assert_eq!(found, Verdict::Unexplained, "{position:?} {lease:?}");
            }
        }
        // Nor if it is closed.
        assert_eq!(verdict(NotFound, &at(1999), &lease("0"), &stream()), Verdict::Unexplained);
        assert_eq!(verdict(NotFound, &fetched(1998), &lease("0"), &stream()), Verdict::Unexplained);
    }

    #[test]
    fn a_shard_of_which_only_the_children_are_left_has_expired() {
        let left = &stream()[1..];
        for kind in [NotFound, InvalidArgument] {
            for (position, lease) in [
                (oldest(), lease("0")),
                (at(1500), lease("0")),
                (fetched(1999), lease("0")),
                (at(1500), of_kcl("0")),
                (at(1500), Lease::new("0", Checkpoint::TrimHorizon)),
            ] {
                assert_eq!(
                    verdict(kind, &position, &lease, left),
                    Verdict::Expired,
                    "{position:?} {lease:?}"
                );
            }
        }
    }

    #[test]
    fn a_list_with_gaps_or_older_than_the_shard_ends_nothing() {
        let open_parents =
            [shard("0", (0, 99), 1000, None, &["x"]), shard("1", (100, u128::MAX), 1001, None, &["y"])];
        let renamed = [shard("a", (0, u128::MAX), 1000, None, &["x"])];
        for (position, lease, shards) in [
            (at(1500), lease("0"), &stream()[..2]),
            (at(1500), lease("0"), &stream()[1..4]),
            (at(1500), lease("0"), &[]),
            // The parent is still listed as open, or just listed.
            (oldest(), of_kcl("2"), &open_parents[..]),
            (at(2500), lease("2"), &open_parents[..]),
            // The shard that holds its hash keys began before it.
            (at(2500), of_kcl("2"), &renamed[..]),
            (oldest(), lease("2"), &renamed[..]),
        ] {
            let found = verdict(NotFound, &position, &lease, shards);
            assert_eq!(found, Verdict::Unexplained, "{position:?} {lease:?} {shards:?}");
        }
        let mut without_2 = stream();
        without_2.remove(2);
        without_2.push(shard("5", (0, 49), 4000, None, &["2"]));
        assert_eq!(verdict(NotFound, &at(2500), &lease("2"), &without_2), Verdict::Unexplained);
    }

    #[test]
    fn the_last_number_of_a_closed_shard_is_its_end() {
        for lease in [lease("0"), of_kcl("0"), Lease::new("0", Checkpoint::TrimHorizon)] {
            for (kind, position) in
                [(InvalidArgument, fetched(1999)), (NotFound, fetched(1999)), (InvalidArgument, at(1999))]
            {
                let found = verdict(kind, &position, &lease, &stream());
                assert_eq!(names(&found), ["2", "3"], "{kind:?} {position:?} {lease:?}");
            }
        }
        assert_eq!(names(&verdict(InvalidArgument, &fetched(2005), &lease("0"), &stream())), ["2", "3"]);
        let Verdict::AtEnd { children } = verdict(InvalidArgument, &fetched(2999), &lease("3"), &stream())
        else {
            panic!("not at the end");
        };
        assert_eq!(children[0].parents, ["1".into(), "3".into()].into());
    }

    #[test]
    fn a_closed_shard_without_children_does_not_end() {
        let alone = [shard("0", (0, 99), 1000, Some(1999), &[]), stream().remove(1)];
        assert_eq!(verdict(InvalidArgument, &fetched(1999), &lease("0"), &alone), Verdict::Unexplained);
    }

    #[test]
    fn a_refused_number_within_the_range_is_not_one_of_the_shard() {
        for lease in [lease("2"), of_kcl("2"), Lease::new("2", Checkpoint::TrimHorizon)] {
            assert_eq!(verdict(InvalidArgument, &at(2500), &lease, &stream()), Verdict::RefusedPosition);
            // Unless the service returned it.
            assert_eq!(verdict(InvalidArgument, &fetched(2500), &lease, &stream()), Verdict::Unexplained);
            assert_eq!(verdict(InvalidArgument, &oldest(), &lease, &stream()), Verdict::Unexplained);
        }
        // The lease stores that it is of this shard.
        assert_eq!(verdict(InvalidArgument, &at(5), &lease("2"), &stream()), Verdict::RefusedPosition);
        assert_eq!(verdict(InvalidArgument, &at(2500), &lease("0"), &stream()), Verdict::RefusedPosition);
    }

    #[test]
    fn a_lease_of_another_stream_is_recognised() {
        use Mismatch::{CheckpointOutside, NeverThere, OtherHashKeys, OtherStart};
        let began = |number: u128| Lease { starting_sequence_number: Some(number.into()), ..lease("2") };
        let held = |id: &str| Lease { hash_key_range: HashKeyRange::new(40, 60), ..of_kcl(id) };
        let young = [shard("0", (0, u128::MAX), 9000, None, &[])];
        for (kind, position, lease, shards, expected) in [
            (InvalidArgument, at(900), of_kcl("2"), &stream()[..], CheckpointOutside),
            (InvalidArgument, fetched(900), of_kcl("2"), &stream()[..], CheckpointOutside),
            (InvalidArgument, at(2500), of_kcl("0"), &stream()[..], CheckpointOutside),
            (NotFound, fetched(900), began(900), &stream()[..], OtherStart),
            (NotFound, oldest(), began(900), &stream()[..], OtherStart),
            (NotFound, oldest(), held("2"), &stream()[..], OtherHashKeys),
            (NotFound, at(2500), lease("2"), &young[..], NeverThere),
            (NotFound, oldest(), held("7"), &young[..], NeverThere),
        ] {
            let found = verdict(kind, &position, &lease, shards);
            assert_eq!(found, Verdict::OtherStream(expected), "{kind:?} {position:?} {lease:?}");
        }
    }

    #[test]
    fn the_report_names_the_checkpoint_and_what_to_do() {
        let stream: StreamId = "orders".parse().expect("a name");
        for (cause, setting) in
            [(Cause::Position, "ReadFromOldest"), (Cause::OtherStream(Mismatch::OtherStart), "StartOver")]
        {
            let text = Refusal::new(cause, &at(2500), &lease("2"), &stream).to_string();
            for word in ["checkpoint 2500", "lease 2", "shard 2", "stream orders", setting] {
                assert!(text.contains(word), "{word} is not in {text}");
            }
        }
    }
}
