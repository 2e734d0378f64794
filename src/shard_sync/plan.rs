//! Which leases are missing (KCL's `HierarchicalShardSyncer`).

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::kinesis::{Shard, ShardFilter};
use crate::lease::Lease;
use crate::lease::origin::lease_of;
use crate::types::{Checkpoint, HashKeyRange, ShardId, StartStrategy, StreamId};

/// The leases to create, in an order in which a crash half-way leaves no descendant without its
/// ancestors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardSyncPlan {
    pub(crate) new_leases: Vec<NewLease>,
}

impl ShardSyncPlan {
    /// Adds leases whose rows somebody deleted before their shards had ended, at the checkpoints last known:
    /// of open shards, and of closed ones that a child still waits for. Other rows were deleted because they
    /// had ended since they were last seen.
    pub(crate) fn put_back<'a>(
        &mut self,
        vanished: impl Iterator<Item = &'a Lease>,
        leases: &[impl Borrow<Lease>],
        shards: &[Shard],
    ) {
        let mut vanished = vanished.peekable();
        if vanished.peek().is_none() {
            return;
        }
        let shards: BTreeMap<&ShardId, &Shard> = shards.iter().map(|shard| (&shard.id, shard)).collect();
        let leases: Vec<&Lease> = leases.iter().map(Borrow::borrow).collect();
        let ended = ended_before(&leases, &shards);
        for lease in vanished {
            let is_needed = shards
                .get(&lease.shard_id)
                .is_some_and(|shard| shard.is_open() || !ended.contains(&shard.id));
            if is_needed {
                self.new_leases.retain(|new| new.lease.key != lease.key);
                let lease = lease.clone().unowned_again();
                self.new_leases.insert(0, NewLease { lease, reason: CreateReason::Vanished });
            }
        }
    }

    /// The same plan with rows of `stream`, where `LATEST` means since `latest_since` (in milliseconds of
    /// the epoch) unless other leases of the application say otherwise.
    pub(crate) fn in_stream(self, stream: &StreamId, latest_since: u64) -> Self {
        let in_stream = |new: NewLease| {
            let mut lease = new.lease.in_stream(stream);
            if lease.checkpoint == Checkpoint::Latest {
                lease.latest_since.get_or_insert(latest_since);
            }
            NewLease { lease, ..new }
        };
        Self { new_leases: self.new_leases.into_iter().map(in_stream).collect() }
    }
}

/// A lease to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewLease {
    pub(crate) lease: Lease,
    pub(crate) reason: CreateReason,
}

/// Why a lease is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CreateReason {
    /// The table is empty, and this is one of the shards to start with.
    EmptyTable,
    /// The shard is open and cannot be traced to a shard with a lease.
    Open,
    /// This shard has none, but a shard that follows it cannot start before it ended.
    ParentOf(ShardId),
    /// Somebody deleted its row.
    Vanished,
    /// It should have got a lease when its parent ended, and nobody is left to create it.
    ChildOf(ShardId),
}

/// Why no plan can be made from a list of shards. A later list may do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SyncError {
    #[error("the listed shards do not cover every hash key")]
    Incomplete,
    #[error("shard {child} is listed although its parent {parent} is still open")]
    OpenParent { child: ShardId, parent: ShardId },
}

/// Plans the leases that are missing. A table without leases gets one for each listed shard, open or
/// closed, so `shards` must then be listed with the filter of the start strategy; else `shards` must
/// be all there are.
pub(crate) fn plan_shard_sync(
    shards: &[Shard],
    leases: &[impl Borrow<Lease>],
    strategy: StartStrategy,
    ignore_unexpected_child_shards: bool,
) -> Result<ShardSyncPlan, SyncError> {
    let leases: Vec<&Lease> = leases.iter().map(Borrow::borrow).collect();
    let leases = leases.as_slice();
    let start = start_of_missing(leases, strategy);
    let mut new_leases = if leases.is_empty() {
        plan_empty_table(shards, &start.checkpoint)?
    } else {
        plan_missing(shards, leases, &start.checkpoint, ignore_unexpected_child_shards)?
    };
    new_leases.sort_by(|(a, ..), (b, ..)| {
        (&a.starting_sequence_number, &a.id).cmp(&(&b.starting_sequence_number, &b.id))
    });
    let new_leases = new_leases
        .into_iter()
        .map(|(shard, checkpoint, reason)| {
            let mut lease = lease_of(shard, checkpoint);
            lease.latest_since = start.latest_since.filter(|_| lease.checkpoint == Checkpoint::Latest);
            NewLease { lease, reason }
        })
        .collect();
    Ok(ShardSyncPlan { new_leases })
}

type Planned<'a> = (&'a Shard, Checkpoint, CreateReason);

/// Where shards start that follow no lease.
struct Start {
    checkpoint: Checkpoint,
    /// What `LATEST` means, if the application has settled it already.
    latest_since: Option<u64>,
}

/// Where the start strategy says, as long as the application is still getting its first leases: then all of
/// them start at the same instant. Once a lease has moved on, the application is not new to the stream, and
/// what it cannot trace to a lease is read from the oldest record. (KCL goes by the strategy all the same,
/// and so skips what was written while `LATEST` applications were down.)
fn start_of_missing(leases: &[&Lease], strategy: StartStrategy) -> Start {
    let checkpoint = initial_checkpoint(strategy);
    let latest_since = leases.iter().filter_map(|lease| lease.latest_since).min();
    let is_new = leases.iter().all(|lease| lease.checkpoint == checkpoint);
    let is_settled = checkpoint != Checkpoint::Latest || leases.is_empty() || latest_since.is_some();
    if is_new && is_settled {
        Start { checkpoint, latest_since }
    } else {
        Start { checkpoint: Checkpoint::TrimHorizon, latest_since: None }
    }
}

fn plan_empty_table<'a>(shards: &'a [Shard], start: &Checkpoint) -> Result<Vec<Planned<'a>>, SyncError> {
    if !HashKeyRange::FULL.is_covered_by(shards.iter().map(|shard| shard.hash_key_range)) {
        return Err(SyncError::Incomplete);
    }
    Ok(shards.iter().map(|shard| (shard, start.clone(), CreateReason::EmptyTable)).collect())
}

fn plan_missing<'a>(
    shards: &'a [Shard],
    leases: &[&Lease],
    start: &Checkpoint,
    ignore_unexpected: bool,
) -> Result<Vec<Planned<'a>>, SyncError> {
    let leased: BTreeSet<&ShardId> = leases.iter().map(|lease| &lease.shard_id).collect();
    let listed: BTreeMap<&ShardId, &Shard> = shards.iter().map(|shard| (&shard.id, shard)).collect();
    // What had ended before is not read again, though a shard without a lease descends from it.
    let ended = ended_before(leases, &listed);
    let unread: BTreeMap<&ShardId, &Shard> =
        listed.iter().filter(|(id, _)| !ended.contains(*id)).map(|(id, shard)| (*id, *shard)).collect();
    let mut unleased_open = Vec::new();
    for shard in shards {
        let open_parent =
            shard.parents.iter().find(|parent| listed.get(parent).is_some_and(|parent| parent.is_open()));
        match open_parent {
            Some(_) if ignore_unexpected => {}
            Some(parent) => {
                return Err(SyncError::OpenParent { child: shard.id.clone(), parent: parent.clone() });
            }
            None if shard.is_open() && !leased.contains(&shard.id) => unleased_open.push(shard),
            None => {}
        }
    }

    let mut planned: BTreeMap<&ShardId, Planned<'a>> = BTreeMap::new();
    let mut descendants: BTreeSet<&ShardId> = leased.clone();
    let mut oldest: BTreeSet<&ShardId> = BTreeSet::new();
    // Parents come before their children in the order of sequence numbers.
    for shard in lineage(&unleased_open, &unread, &leased) {
        let parents: Vec<&Shard> =
            shard.parents.iter().filter_map(|parent| unread.get(parent).copied()).collect();
        let qualifies = |parent: &Shard| descendants.contains(&parent.id) || oldest.contains(&parent.id);
        if !parents.iter().any(|parent| qualifies(parent)) {
            oldest.insert(&shard.id);
            if shard.is_open() {
                planned.insert(&shard.id, (shard, start.clone(), CreateReason::Open));
            }
            continue;
        }
        // It starts when its parents have ended, so each parent needs a lease, unless that comes from
        // the end of its own parents.
        for parent in parents {
            if leased.contains(&parent.id)
                || (descendants.contains(&parent.id) && !oldest.contains(&parent.id))
            {
                continue;
            }
            planned.insert(&parent.id, (parent, start.clone(), CreateReason::ParentOf(shard.id.clone())));
        }
        descendants.insert(&shard.id);
    }
    let by_shard: BTreeMap<&ShardId, &Lease> = leases.iter().map(|lease| (&lease.shard_id, *lease)).collect();
    for shard in shards {
        if let Some(parent) =
            finished_parent(shard, &by_shard, &listed).filter(|_| !leased.contains(&shard.id))
        {
            let planned_child = (shard, Checkpoint::TrimHorizon, CreateReason::ChildOf(parent.clone()));
            planned.insert(&shard.id, planned_child);
        }
    }
    Ok(planned.into_values().collect())
}

/// The parent from whose end the lease of `shard` should have come, if all its parents with leases are
/// over: they ended, and the child's row was lost; or they expired before they were read to their end.
/// (KCL leaves such a shard unread, or starts it at the configured position.)
fn finished_parent<'a>(
    shard: &Shard,
    leases: &BTreeMap<&'a ShardId, &'a Lease>,
    listed: &BTreeMap<&ShardId, &Shard>,
) -> Option<&'a ShardId> {
    let mut parents = shard.parents.iter().filter_map(|parent| leases.get(parent).copied()).peekable();
    let parent = &parents.peek()?.shard_id;
    let is_over = |parent: &Lease| parent.checkpoint.is_shard_end() || !listed.contains_key(&parent.shard_id);
    parents.all(is_over).then_some(parent)
}

/// The given shards and their listed ancestors, up to and without those that have a lease, oldest
/// first.
fn lineage<'a>(
    open: &[&'a Shard],
    listed: &BTreeMap<&ShardId, &'a Shard>,
    leased: &BTreeSet<&ShardId>,
) -> Vec<&'a Shard> {
    let mut found: BTreeMap<&ShardId, &Shard> = BTreeMap::new();
    let mut todo: Vec<&Shard> = open.to_vec();
    while let Some(shard) = todo.pop() {
        if !leased.contains(&shard.id) && found.insert(&shard.id, shard).is_none() {
            todo.extend(shard.parents.iter().filter_map(|parent| listed.get(parent).copied()));
        }
    }
    let mut lineage: Vec<&Shard> = found.into_values().collect();
    lineage.sort_by_key(|shard| &shard.starting_sequence_number);
    lineage
}

/// Which shards an empty table gets leases for, if `LATEST` means since `latest_since`: those that were open
/// then, though they may have been split or merged since. If it means since now, those that are open.
pub(crate) fn initial_filter(strategy: StartStrategy, latest_since: Option<SystemTime>) -> ShardFilter {
    match strategy {
        StartStrategy::Latest => latest_since.map_or(ShardFilter::AtLatest, ShardFilter::AtTimestamp),
        StartStrategy::Oldest => ShardFilter::AtTrimHorizon,
        StartStrategy::Timestamp(millis) => {
            ShardFilter::AtTimestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
        }
    }
}

/// The checkpoint of a lease whose shard nobody has processed.
pub(crate) fn initial_checkpoint(strategy: StartStrategy) -> Checkpoint {
    match strategy {
        StartStrategy::Latest => Checkpoint::Latest,
        StartStrategy::Oldest => Checkpoint::TrimHorizon,
        StartStrategy::Timestamp(_) => Checkpoint::AtTimestamp,
    }
}

/// The shards that had ended before `leases` came to be what they are: the parents of a shard that is being
/// processed, and all that lie further back than the parent of a shard with a lease, because the lease of a
/// child is created at the end of its parent. (A merged shard gets its lease at the end of either parent.)
fn ended_before<'a>(leases: &[&Lease], shards: &BTreeMap<&ShardId, &'a Shard>) -> BTreeSet<&'a ShardId> {
    let parents = |shard: &ShardId| shards.get(shard).map(|shard| &shard.parents).into_iter().flatten();
    let mut ended = BTreeSet::new();
    let mut todo: Vec<&ShardId> = Vec::new();
    for lease in leases {
        let parents_of_lease: Vec<&ShardId> = parents(&lease.shard_id).collect();
        match parents_of_lease.as_slice() {
            known if lease.checkpoint > Checkpoint::Latest => todo.extend(known),
            [parent] => todo.extend(parents(parent)),
            _ => {}
        }
    }
    while let Some(shard) = todo.pop() {
        if ended.insert(shard) {
            todo.extend(parents(shard));
        }
    }
    ended
}

impl fmt::Display for NewLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "create {} at {} ({})", self.lease.key, self.lease.checkpoint, self.reason)
    }
}

impl fmt::Display for CreateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyTable => f.write_str("the table is empty"),
            Self::Open => f.write_str("open, and not traced to a shard with a lease"),
            Self::Vanished => f.write_str("its row was deleted"),
            Self::ParentOf(child) => write!(f, "{child} has to wait for it"),
            Self::ChildOf(parent) => write!(f, "{parent} has ended"),
        }
    }
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
