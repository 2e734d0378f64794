use std::fmt;

use super::codec::{paused, shard_ids};
use super::{Attribute, Item, Lease, Paused, PendingCheckpoint, Throughput, names};
use crate::planted::{Bug, planted};
use crate::types::{Checkpoint, HashKeyRange, LeaseKey, WorkerId};

/// One conditional change of one row, as data: every store carries it out with the same meaning,
/// and tests and the exhaustive model can look at it.
///
/// All conditions must hold for any update to happen, and then all updates happen at once. Updates
/// leave attributes they do not name alone, so what other implementations wrote survives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LeaseWrite {
    /// What the write is for, as in KCL's metrics: `RenewLease`, `TakeLease`, `UpdateLease` …
    pub operation: &'static str,
    /// The row.
    pub key: LeaseKey,
    /// What must be true of the row.
    pub conditions: Vec<Condition>,
    /// What becomes of it.
    pub updates: Vec<Update>,
}

/// Something that must be true of a row for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// The attribute has exactly this value.
    Equals(&'static str, Attribute),
    /// The attribute is there, whatever its value.
    Exists(&'static str),
    /// The attribute has this value or, in a row that another implementation wrote, is not there.
    EqualsOrAbsent(&'static str, Attribute),
    /// The attribute, or the whole row, is not there.
    Absent(&'static str),
}

/// A change of one attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Update {
    /// Gives the attribute this value.
    Set(&'static str, Attribute),
    /// Adds to a number; a missing attribute counts as 0.
    Add(&'static str, u64),
    /// Removes the attribute, if it is there.
    Remove(&'static str),
}

/// KCL's conditional writes, attribute by attribute (`DynamoDBLeaseRefresher`,
/// `DynamoDBLeaseSerializer`). Each takes the lease as it was last seen.
///
/// Two rules make them safe together, also beside Java workers. Who changes the owner also
/// changes the counter (except for [`start_handoff`](Self::start_handoff), which is not to interrupt
/// the old owner), so the old owner's next write fails. And every write has a condition only an
/// existing row meets, because DynamoDB would otherwise create one.
///
/// None of them touches `entityType`: rows that KCL 2.x wrote have none and stay that way.
impl LeaseWrite {
    /// Shows that the owner is alive (`renewLease`): `RenewLease`.
    ///
    /// Refused: the lease is lost, unless the row that comes back says otherwise: it names this
    /// worker as `checkpointOwner` (a handoff began: renew again with that row), or its owner is this
    /// worker and its counter the one this write would have set (an earlier attempt has landed).
    #[must_use]
    pub fn renew(lease: &Lease, throughput: Option<Throughput>) -> Self {
        let mut write = Self::by_counter("RenewLease", lease);
        if planted(Bug::RenewIgnoresCounter) {
            write.conditions = vec![Condition::Exists(names::LEASE_KEY)];
        }
        if lease.checkpoint_owner.is_none() {
            write.conditions.push(Condition::Absent(names::CHECKPOINT_OWNER));
        }
        if let Some(throughput) = throughput {
            write.set(names::THROUGHPUT, Attribute::N(throughput.to_string()));
        }
        write
    }

    /// Makes `worker` the owner of a lease that is free, expired or stolen (`takeLease`): `TakeLease`. Other
    /// than Java's, it is refused too if a handoff was announced meanwhile, and a lease that names `worker` already counts as
    /// a switch of its owner: a process of that name has ended without giving it back.
    ///
    /// Refused: another worker was faster, or the owner is alive after all.
    #[must_use]
    pub fn take(lease: &Lease, worker: &WorkerId) -> Self {
        let mut write = Self::by_counter("TakeLease", lease).owned_by(worker, lease);
        if lease.owner.as_ref() == Some(worker) && lease.checkpoint_owner.is_none() {
            write.updates.push(Update::Add(names::OWNER_SWITCHES, 1));
        }
        // A leader announces a handoff without counting.
        write
            .conditions
            .push(Condition::same_owner(names::CHECKPOINT_OWNER, lease.checkpoint_owner.as_ref()));
        // Another application may have been faster to create the row, for another stream.
        if let Some(stream) = &lease.source_stream {
            write.conditions.push(Condition::Equals(names::SOURCE_STREAM, Attribute::S(stream.clone())));
        }
        if planted(Bug::TakeIgnoresCounter) {
            write.conditions = vec![Condition::Exists(names::LEASE_KEY)];
        }
        if planted(Bug::TakeKeepsCounter) {
            write.updates.retain(|update| update.attribute() != names::LEASE_COUNTER);
        }
        write
    }

    /// Gives a lease up so that others can take it at once: `ReleaseLease`. For the owner, at
    /// graceful shutdown, after everything it processed is checkpointed.
    ///
    /// Java has no such write of its own, but understands the row, which looks as after its
    /// `evictLease`: it has no owner, so every Java taker and leader treats it as free; the index of
    /// owners no longer lists it; and the changed counter makes any late write of this worker fail. A
    /// KCL 2.x taker that already knew the lease sees the counter change and waits one failover
    /// time, as it does after a crash.
    ///
    /// Refused: the lease is no longer this worker's to give up; nothing is left to do. (During a
    /// handoff, [`finish_handoff`](Self::finish_handoff) gives it up.)
    #[must_use]
    pub fn release(lease: &Lease, owner: &WorkerId) -> Self {
        let mut write = Self::by_counter("ReleaseLease", lease);
        write.conditions.push(Condition::Equals(names::LEASE_OWNER, worker(owner)));
        write.conditions.push(Condition::Absent(names::CHECKPOINT_OWNER));
        if planted(Bug::ReleaseIgnoresOwner) {
            write.conditions = vec![Condition::Exists(names::LEASE_KEY)];
        }
        write.updates.push(Update::Remove(names::LEASE_OWNER));
        write
    }

    /// Stores how far the shard has been processed and drops a pending checkpoint (`updateLease`,
    /// from `DynamoDBLeaseCheckpointer.setCheckpoint`): `UpdateLease`. With `SHARD_END` it ends the
    /// lease; what `lease` knows of children, hash range and stream is written along.
    ///
    /// Refused: the lease is lost, and the processor must not go on. See
    /// [`renew`](Self::renew) for an earlier attempt that has landed.
    #[must_use]
    pub fn checkpoint(lease: &Lease, checkpoint: &Checkpoint) -> Self {
        let mut write = Self::by_counter("UpdateLease", lease);
        if planted(Bug::CheckpointIgnoresCounter) {
            write.conditions = vec![Condition::Exists(names::LEASE_KEY)];
        }
        if checkpoint.is_shard_end() && planted(Bug::EndIgnoresCounter) {
            write.conditions = vec![Condition::Exists(names::LEASE_KEY)];
            write.updates = vec![Update::Add(names::LEASE_COUNTER, 1)];
        }
        write.set(names::CHECKPOINT, Attribute::S(checkpoint.text()));
        write.set(names::CHECKPOINT_SUB_SEQUENCE, Attribute::number(checkpoint.sub_sequence_number()));
        write.set(names::OWNER_SWITCHES, Attribute::number(0));
        write.updates.extend(
            [
                names::PENDING_CHECKPOINT,
                names::PENDING_CHECKPOINT_SUB_SEQUENCE,
                names::PENDING_CHECKPOINT_STATE,
            ]
            .map(Update::Remove),
        );
        if lease.latest_since.is_some() {
            write.updates.push(Update::Remove(names::LATEST_SINCE));
        }
        write.set_details(lease);
        write
    }

    /// Stores a checkpoint together with effects of the records after `from`: as [`checkpoint`](Self::checkpoint), and
    /// besides `from` must be what is stored, so that effects of the same records are never written twice. KCL has no
    /// such write, but reads the row as after a checkpoint.
    ///
    /// Refused: the lease is lost, or an earlier commit of other records has landed.
    #[must_use]
    pub fn commit(lease: &Lease, from: &Checkpoint, up_to: &Checkpoint) -> Self {
        let mut write = Self::checkpoint(lease, up_to);
        if planted(Bug::CommitIgnoresCounter) {
            write.conditions = vec![Condition::Exists(names::LEASE_KEY)];
        }
        // The answer to a transaction shows no row: a handoff has to be refused to be noticed.
        if lease.checkpoint_owner.is_none() {
            write.conditions.push(Condition::Absent(names::CHECKPOINT_OWNER));
        }
        if !planted(Bug::CommitForgetsBase) {
            write.conditions.push(Condition::Equals(names::CHECKPOINT, Attribute::S(from.text())));
            let sub_sequence = Attribute::number(from.sub_sequence_number());
            write.conditions.push(if from.sub_sequence_number() == 0 {
                Condition::EqualsOrAbsent(names::CHECKPOINT_SUB_SEQUENCE, sub_sequence)
            } else {
                Condition::Equals(names::CHECKPOINT_SUB_SEQUENCE, sub_sequence)
            });
        }
        write
    }

    /// Stores the first phase of a two-phase checkpoint (`updateLease`, from
    /// `DynamoDBLeaseCheckpointer.prepareCheckpoint`): `UpdateLease`.
    ///
    /// Refused: as for [`checkpoint`](Self::checkpoint).
    #[must_use]
    pub fn prepare(lease: &Lease, pending: &PendingCheckpoint) -> Self {
        let position = &pending.checkpoint;
        let mut write = Self::by_counter("UpdateLease", lease);
        write.set(names::PENDING_CHECKPOINT, Attribute::S(position.text()));
        write.set(names::PENDING_CHECKPOINT_SUB_SEQUENCE, Attribute::number(position.sub_sequence_number()));
        write.updates.push(match &pending.state {
            Some(state) => Update::Set(names::PENDING_CHECKPOINT_STATE, Attribute::B(state.clone())),
            None => Update::Remove(names::PENDING_CHECKPOINT_STATE),
        });
        write.set_details(lease);
        write
    }

    /// Stores a hash key range the row lacked (`updateLeaseWithMetaInfo`, from
    /// `PeriodicShardSyncManager`): `UpdateLease`. Leaves owner and counter alone, so anybody may
    /// write it.
    ///
    /// Refused: the lease is gone.
    #[must_use]
    pub fn update_hash_range(key: &LeaseKey, range: HashKeyRange) -> Self {
        let mut write = Self::by_key("UpdateLease", key);
        write.set_hash_range(range);
        write
    }

    /// Stores which shard of which stream the lease is of, as `origin` says, in a row that does not say it
    /// yet: `UpdateLease`. Leaves owner and counter alone, so anybody may write it. KCL has no such write.
    ///
    /// Refused: the lease is gone, or somebody else has stored it.
    #[must_use]
    pub fn update_origin(key: &LeaseKey, origin: &Lease) -> Self {
        let mut write = Self::by_key("UpdateLease", key);
        write.conditions.push(Condition::Absent(names::STARTING_SEQUENCE_NUMBER));
        write.set_origin(origin);
        write
    }

    /// Starts the shard over as `fresh` says, a lease that nobody has owned yet: `ResetLease`. Takes it
    /// from its owner, and discards its checkpoint and what belongs to that. KCL has no such write, but
    /// reads the row as one of a shard that was never processed.
    ///
    /// Refused: the row has changed since; look again.
    #[must_use]
    pub fn reset(lease: &Lease, fresh: &Lease) -> Self {
        let mut write = Self::by_counter("ResetLease", lease).freed_at(&fresh.checkpoint);
        write.updates.push(match shard_ids(&fresh.parents) {
            Some(parents) => Update::Set(names::PARENT_SHARDS, parents),
            None => Update::Remove(names::PARENT_SHARDS),
        });
        write.updates.push(match fresh.latest_since {
            Some(since) => Update::Set(names::LATEST_SINCE, Attribute::number(since)),
            None => Update::Remove(names::LATEST_SINCE),
        });
        if let Some(range) = fresh.hash_key_range {
            write.set_hash_range(range);
        }
        write.set_origin(fresh);
        write
    }

    /// Moves the lease to `to` on behalf of the seek `seek_id`, even if a worker holds it: `SeekLease`. The lease is free
    /// afterwards; what belonged to the old checkpoint is discarded, and the counter makes every late write of the
    /// old owner fail. KCL has no such write; its workers read the row as that of a lease that was given back.
    /// `under_way` is set in the first row of a seek, for [`finish_seek`](Self::finish_seek) to remove.
    ///
    /// Refused: the checkpoint has moved, or the row is gone. Look again.
    #[must_use]
    pub fn seek(lease: &Lease, to: &Checkpoint, seek_id: &str, under_way: Option<&str>) -> Self {
        let mut write = Self::by_key("SeekLease", &lease.key);
        write.conditions.push(Condition::Equals(names::CHECKPOINT, Attribute::S(lease.checkpoint.text())));
        write.updates.push(Update::Add(names::LEASE_COUNTER, 1));
        let mut write = write.freed_at(to);
        write.set(names::SEEK_ID, Attribute::S(seek_id.to_owned()));
        write.updates.push(match under_way {
            Some(text) => Update::Set(names::SEEK_UNDER_WAY, Attribute::S(text.to_owned())),
            None => Update::Remove(names::SEEK_UNDER_WAY),
        });
        write.updates.extend(
            [
                names::LATEST_SINCE,
                names::MILLIS_BEHIND_LATEST,
                names::MILLIS_BEHIND_LATEST_AT,
                names::COMPLETED_BEYOND_CHECKPOINT,
                names::PROCESSOR_STATE,
            ]
            .map(Update::Remove),
        );
        write
    }

    /// The seek that was begun with this row is finished: `FinishSeek`.
    ///
    /// Refused: another seek has begun meanwhile, or the row is gone.
    #[must_use]
    pub fn finish_seek(key: &LeaseKey, seek_id: &str) -> Self {
        let mut write = Self::by_key("FinishSeek", key);
        write.conditions.push(Condition::Equals(names::SEEK_ID, Attribute::S(seek_id.to_owned())));
        write.updates.push(Update::Remove(names::SEEK_UNDER_WAY));
        write
    }

    /// Says that the shard is not to be read for now: `PauseLease`. Leaves owner and counter alone, so the owner keeps
    /// the lease, and sees it in the answer to its next write.
    ///
    /// Refused: the lease is gone.
    #[must_use]
    pub fn pause(key: &LeaseKey, why: &Paused) -> Self {
        let mut write = Self::by_key("PauseLease", key);
        write.set(names::PAUSED, paused(why));
        write
    }

    /// Says that the shard may be read again: `ResumeLease`.
    ///
    /// Refused: the lease is gone.
    #[must_use]
    pub fn resume(key: &LeaseKey) -> Self {
        let mut write = Self::by_key("ResumeLease", key);
        write.updates.push(Update::Remove(names::PAUSED));
        write
    }

    /// Takes the lease from its owner (`evictLease`), as somebody outside of the fleet: `EvictLease`. It is free
    /// afterwards, and the next owner goes on at the last checkpoint.
    ///
    /// Refused: the owners have changed since, or the row is gone.
    #[must_use]
    pub fn evict(lease: &Lease) -> Self {
        let mut write = Self::by_owners("EvictLease", lease);
        write.updates.push(Update::Add(names::LEASE_COUNTER, 1));
        write.updates.extend([names::LEASE_OWNER, names::CHECKPOINT_OWNER].map(Update::Remove));
        write
    }

    /// The same write of a worker to a lease that it holds, which also stores how far the worker is behind the newest
    /// record, if it knows.
    #[must_use]
    pub fn with_behind_latest(mut self, lease: &Lease, millis: Option<u64>) -> Self {
        if let Some(millis) = millis {
            self.set(names::MILLIS_BEHIND_LATEST, Attribute::number(millis));
            let counter = lease.counter.saturating_add(1);
            self.set(names::MILLIS_BEHIND_LATEST_AT, Attribute::number(counter));
        }
        self
    }

    /// The same write, which also stores the instant from which on records are read (in milliseconds
    /// since 1970) if `lease` is at `LATEST` and has none yet: an owner that goes on without a checkpoint starts
    /// there too.
    #[must_use]
    pub fn with_latest_since(mut self, lease: &Lease, millis: u64) -> Self {
        if lease.checkpoint == Checkpoint::Latest && lease.latest_since.is_none() {
            self.set(names::LATEST_SINCE, Attribute::number(millis));
        }
        self
    }

    /// Gives a lease to `new`, whichever worker works on it now (`assignLease`, from the leader's
    /// `LeaseAssignmentManager`): `AssignLease`.
    ///
    /// Refused: the owners have changed since; plan again.
    #[must_use]
    pub fn assign(lease: &Lease, new: &WorkerId) -> Self {
        let mut write = Self::by_owners("AssignLease", lease).owned_by(new, lease);
        write.updates.push(Update::Add(names::LEASE_COUNTER, 1));
        write
    }

    /// Gives a lease whose owner seems to be dead to `new`: as [`assign`](Self::assign), and besides the
    /// owner must not have renewed since, which Java's leader does not ask for.
    ///
    /// Refused: the owner lives, or the owners have changed since; plan again.
    #[must_use]
    pub fn assign_expired(lease: &Lease, new: &WorkerId) -> Self {
        let mut write = Self::assign(lease, new);
        write.conditions.push(Condition::Equals(names::LEASE_COUNTER, Attribute::number(lease.counter)));
        write
    }

    /// Announces that `to` is to follow `from` (`initiateGracefulLeaseHandoff`, from the leader's
    /// `LeaseAssignmentManager`): `StartHandoff`. `from` goes on as `checkpointOwner`; the counter
    /// stays, so the renewal that shows it is refused by the new attribute and by nothing else.
    ///
    /// Refused: the owners have changed since; plan again.
    #[must_use]
    pub fn start_handoff(key: &LeaseKey, from: &WorkerId, to: &WorkerId) -> Self {
        let mut write = Self::by_key("StartHandoff", key);
        write.conditions.push(Condition::Equals(names::LEASE_OWNER, worker(from)));
        write.conditions.push(Condition::Absent(names::CHECKPOINT_OWNER));
        write.set(names::LEASE_OWNER, worker(to));
        write.set(names::CHECKPOINT_OWNER, worker(from));
        write
    }

    /// Completes the handoff that `lease` is in (`assignLease`, from the old owner's
    /// `LeaseGracefulShutdownHandler`): `FinishHandoff`. `None` if it is in none.
    ///
    /// Refused: the leader has given the lease to somebody else meanwhile; it is gone either way.
    #[must_use]
    pub fn finish_handoff(lease: &Lease) -> Option<Self> {
        lease.checkpoint_owner.as_ref()?;
        let write = Self::assign(lease, lease.owner.as_ref()?);
        Some(Self { operation: "FinishHandoff", ..write })
    }

    /// A write that depends on nothing having happened since `lease` was seen, and counts as a sign
    /// of life.
    fn by_counter(operation: &'static str, lease: &Lease) -> Self {
        let [seen, next] = [lease.counter, lease.counter.saturating_add(1)].map(Attribute::number);
        Self {
            operation,
            key: lease.key.clone(),
            conditions: vec![Condition::Equals(names::LEASE_COUNTER, seen)],
            updates: vec![Update::Set(names::LEASE_COUNTER, next)],
        }
    }

    /// A write that only depends on the row being there.
    fn by_key(operation: &'static str, key: &LeaseKey) -> Self {
        let own_key = Condition::Equals(names::LEASE_KEY, Attribute::S(key.as_str().to_owned()));
        Self { operation, key: key.clone(), conditions: vec![own_key], updates: Vec::new() }
    }

    /// A write that depends on both owners being who they were, however often they renewed.
    fn by_owners(operation: &'static str, lease: &Lease) -> Self {
        let mut write = Self::by_key(operation, &lease.key);
        let owners = [(names::LEASE_OWNER, &lease.owner), (names::CHECKPOINT_OWNER, &lease.checkpoint_owner)];
        write.conditions.extend(owners.map(|(name, owner)| Condition::same_owner(name, owner.as_ref())));
        write
    }

    /// Takes the lease from its owner, and moves it to `checkpoint`, without what belonged to the old one.
    fn freed_at(mut self, checkpoint: &Checkpoint) -> Self {
        self.set(names::CHECKPOINT, Attribute::S(checkpoint.text()));
        self.set(names::CHECKPOINT_SUB_SEQUENCE, Attribute::number(checkpoint.sub_sequence_number()));
        self.set(names::OWNER_SWITCHES, Attribute::number(0));
        self.updates.extend(
            [
                names::LEASE_OWNER,
                names::CHECKPOINT_OWNER,
                names::PENDING_CHECKPOINT,
                names::PENDING_CHECKPOINT_SUB_SEQUENCE,
                names::PENDING_CHECKPOINT_STATE,
                names::CHILD_SHARDS,
            ]
            .map(Update::Remove),
        );
        self
    }

    /// Changes the owner and counts the switch, unless `new` was to be the owner anyway (a handoff
    /// that ends as planned) or nobody was.
    fn owned_by(mut self, new: &WorkerId, lease: &Lease) -> Self {
        self.set(names::LEASE_OWNER, worker(new));
        self.updates.push(Update::Remove(names::CHECKPOINT_OWNER));
        let from_another = lease.owner.as_ref().is_some_and(|old| old != new);
        if from_another || lease.checkpoint_owner.as_ref() == Some(new) {
            self.updates.push(Update::Add(names::OWNER_SWITCHES, 1));
        }
        self
    }

    /// What KCL writes again with every checkpoint if the owner knows it, healing rows that lack it.
    fn set_details(&mut self, lease: &Lease) {
        self.updates.extend(shard_ids(&lease.children).map(|ids| Update::Set(names::CHILD_SHARDS, ids)));
        if let Some(range) = lease.hash_key_range {
            self.set_hash_range(range);
        }
        if let Some(stream) = lease.stream_name.as_ref().filter(|stream| !stream.is_empty()) {
            self.set(names::STREAM_NAME, Attribute::S(stream.clone()));
            self.set(names::SHARD_ID, Attribute::S(lease.shard_id.as_str().to_owned()));
        }
    }

    fn set_origin(&mut self, origin: &Lease) {
        if let Some(number) = &origin.starting_sequence_number {
            self.set(names::STARTING_SEQUENCE_NUMBER, Attribute::S(number.to_string()));
        }
        if let Some(stream) = &origin.source_stream {
            self.set(names::SOURCE_STREAM, Attribute::S(stream.clone()));
        }
    }

    fn set_hash_range(&mut self, range: HashKeyRange) {
        self.set(names::STARTING_HASH_KEY, Attribute::S(range.start().to_string()));
        self.set(names::ENDING_HASH_KEY, Attribute::S(range.end().to_string()));
    }

    fn set(&mut self, name: &'static str, value: Attribute) {
        self.updates.push(Update::Set(name, value));
    }
}

fn worker(id: &WorkerId) -> Attribute {
    Attribute::S(id.as_str().to_owned())
}

impl Condition {
    fn same_owner(name: &'static str, owner: Option<&WorkerId>) -> Self {
        owner.map_or(Self::Absent(name), |owner| Self::Equals(name, worker(owner)))
    }

    /// The shard is finished: the lease may be deleted.
    pub(super) fn ended() -> Self {
        Self::Equals(names::CHECKPOINT, Attribute::S(Checkpoint::ShardEnd.text()))
    }

    /// Whether it is true of `row`; of no row at all, pass an empty one.
    #[must_use]
    pub fn holds(&self, row: &Item) -> bool {
        match self {
            Self::Equals(name, value) => row.get(*name).is_some_and(|current| current.equals(value)),
            Self::EqualsOrAbsent(name, value) => row.get(*name).is_none_or(|current| current.equals(value)),
            Self::Exists(name) => row.contains_key(*name),
            Self::Absent(name) => !row.contains_key(*name),
        }
    }
}

impl Update {
    /// The attribute it changes.
    #[must_use]
    pub fn attribute(&self) -> &'static str {
        match self {
            Self::Set(name, _) | Self::Add(name, _) | Self::Remove(name) => name,
        }
    }
}

impl fmt::Display for LeaseWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.key)?;
        for (index, condition) in self.conditions.iter().enumerate() {
            f.write_str(if index == 0 { " if " } else { " and " })?;
            match condition {
                Condition::Equals(name, value) => write!(f, "{name} = {value:?}")?,
                Condition::EqualsOrAbsent(name, value) => write!(f, "{name} = {value:?} or absent")?,
                Condition::Exists(name) => write!(f, "{name} exists")?,
                Condition::Absent(name) => write!(f, "{name} is absent")?,
            }
        }
        for (index, update) in self.updates.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { ", " })?;
            match update {
                Update::Set(name, value) => write!(f, "set {name} to {value:?}")?,
                Update::Add(name, amount) => write!(f, "add {amount} to {name}")?,
                Update::Remove(name) => write!(f, "remove {name}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::arbitrary;
    use super::*;

    fn lease(owner: Option<&str>, checkpoint_owner: Option<&str>) -> Lease {
        let mut lease = Lease::new("shardId-0", Checkpoint::TrimHorizon);
        lease.counter = 5;
        lease.owner = owner.map(Into::into);
        lease.checkpoint_owner = checkpoint_owner.map(Into::into);
        lease
    }

    fn counts_a_switch(write: &LeaseWrite) -> bool {
        write.updates.contains(&Update::Add(names::OWNER_SWITCHES, 1))
    }

    #[test]
    fn a_switch_is_counted_when_the_owner_changes_unplanned() {
        let restarted = lease(Some("a"), None);
        assert!(counts_a_switch(&LeaseWrite::take(&restarted, &"a".into())), "a process ended");
        assert!(!counts_a_switch(&LeaseWrite::assign(&restarted, &"a".into())));
        for (owner, checkpoint_owner, new, counted) in [
            (None, None, "b", false),
            (Some("a"), None, "b", true),
            (Some("b"), Some("a"), "b", false),
            (Some("b"), Some("a"), "a", true),
            (Some("b"), Some("a"), "c", true),
            (None, Some("a"), "b", false),
            (None, Some("a"), "a", true),
        ] {
            let lease = lease(owner, checkpoint_owner);
            for write in [LeaseWrite::take(&lease, &new.into()), LeaseWrite::assign(&lease, &new.into())] {
                assert_eq!(counts_a_switch(&write), counted, "{owner:?} {checkpoint_owner:?} {write}");
            }
        }
    }

    #[test]
    fn writes_read_as_sentences() {
        let held = lease(Some("a"), None);
        assert_eq!(
            LeaseWrite::renew(&held, None).to_string(),
            r#"RenewLease shardId-0 if leaseCounter = N("5") and checkpointOwner is absent: set leaseCounter to N("6")"#
        );
        assert_eq!(
            LeaseWrite::start_handoff(&held.key, &"a".into(), &"b".into()).to_string(),
            r#"StartHandoff shardId-0 if leaseKey = S("shardId-0") and leaseOwner = S("a") and checkpointOwner is absent: set leaseOwner to S("b"), set checkpointOwner to S("a")"#
        );
        let handoff = LeaseWrite::finish_handoff(&lease(Some("b"), Some("a"))).unwrap();
        assert_eq!(
            handoff.to_string(),
            r#"FinishHandoff shardId-0 if leaseKey = S("shardId-0") and leaseOwner = S("b") and checkpointOwner = S("a"): set leaseOwner to S("b"), remove checkpointOwner, add 1 to leaseCounter"#
        );
        assert_eq!(LeaseWrite::finish_handoff(&held), None);
    }

    #[test]
    fn a_renewal_that_knows_of_the_handoff_no_longer_minds_it() {
        let write = LeaseWrite::renew(&lease(Some("b"), Some("a")), None);
        assert_eq!(write.conditions, [Condition::Equals(names::LEASE_COUNTER, Attribute::number(5))]);
    }

    proptest! {
        /// DynamoDB creates a row that is not there if the conditions do not forbid it, and refuses
        /// an expression that names an attribute twice.
        #[test]
        fn every_write_needs_its_row_and_changes_each_attribute_once(write in arbitrary::write()) {
            let no_row = Item::new();
            prop_assert!(write.conditions.iter().any(|condition| !condition.holds(&no_row)), "{}", write);
            let changed: Vec<_> = write.updates.iter().map(Update::attribute).collect();
            let distinct: BTreeSet<_> = changed.iter().collect();
            prop_assert_eq!(changed.len(), distinct.len(), "{}", &write);
            prop_assert!(!distinct.contains(&names::ENTITY_TYPE) && !distinct.contains(&names::LEASE_KEY));
        }
    }
}
