//! Where each lease goes in a seek, and in which order: a plan, which is fixed once it is made.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::SystemTime;

use super::status_table::Table;
use super::text::{arrival_of, utc};
use crate::kinesis::Shard;
use crate::lease::Lease;
use crate::types::{
    Checkpoint, ExtendedSequenceNumber, HashKeyRange, LeaseKey, SequenceNumber, ShardId, StreamId,
};

/// Where to go on reading.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeekTo {
    /// With the oldest record that the stream still has.
    Oldest,
    /// With what arrives from now on: everything before counts as processed.
    Now,
    /// With the first record that arrived at or after this time.
    Time(SystemTime),
    /// In one shard after this position: everything up to and including it counts as processed. Shards that come after
    /// it are read from their beginning.
    Position(ShardId, ExtendedSequenceNumber),
}

/// Which leases of an application are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Scope {
    /// All.
    #[default]
    All,
    /// Those of one stream, in an application that reads several.
    Stream(StreamId),
    /// Those of these shards. A seek takes the shards that came of them along, because their records come after.
    Shards(BTreeSet<ShardId>),
}

/// A seek, shard by shard, as [`Admin::plan_seek`](super::Admin::plan_seek) makes it.
///
/// [`Display`](fmt::Display) is the dry run. It does not change any more: positions are resolved, so it can be kept
/// (with the feature `serde`), carried out later, and resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub struct SeekPlan {
    /// What the rows that it wrote are known by (`seekId`).
    pub id: String,
    /// The application.
    pub application: String,
    /// Where to, in words.
    pub target: String,
    /// What is to be written, in order: steps of a lower [`wave`](SeekStep::wave) first.
    pub steps: Vec<SeekStep>,
    /// Leases that stay where they are, and why.
    pub left: Vec<LeftLease>,
    /// What somebody should know before it is carried out.
    pub warnings: Vec<String>,
    /// The streams, with the shards that they had.
    pub streams: Vec<SoughtStream>,
}

/// A stream of a seek.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub struct SoughtStream {
    /// The stream.
    pub stream: StreamId,
    /// Its shards when the plan was made. Leases of others are looked at when it has been carried out.
    pub shards: BTreeSet<ShardId>,
}

/// A lease that stays where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub struct LeftLease {
    /// The lease.
    pub lease: LeaseKey,
    /// Why.
    pub reason: String,
}

/// What becomes of one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub struct SeekStep {
    /// The lease.
    pub lease: LeaseKey,
    /// The attribute `streamName`, in an application that reads several streams.
    pub stream_name: Option<String>,
    /// The attribute `sourceStream`, in one that reads one.
    pub source_stream: Option<String>,
    /// The shard.
    pub shard: ShardId,
    /// Its checkpoint when the plan was made; `None`: it had no row.
    pub from: Option<Checkpoint>,
    /// Its checkpoint afterwards.
    pub to: Checkpoint,
    /// Why.
    pub reason: SeekReason,
    /// All steps of one wave may be taken at the same time, after those of the waves before.
    pub wave: u32,
    /// The parents of the shard, for a row that has to be created.
    pub parents: BTreeSet<ShardId>,
    /// Its hash keys.
    pub hash_key_range: HashKeyRange,
    /// Its first sequence number.
    pub starting_sequence_number: SequenceNumber,
}

/// Why a lease goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub enum SeekReason {
    /// The shard was open at the target: it goes on after the last record before.
    OpenThen,
    /// The shard had no record before the target: it begins with its first.
    NothingBefore,
    /// The shard began after the target: it is read from its beginning.
    BegunAfter,
    /// The shard ended before the target: nothing of it is wanted any more.
    EndedBefore,
    /// This position was asked for.
    AsAsked,
}

/// What a step does to a lease, by what it was when the plan was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SeekMove {
    Create,
    Rewind,
    Restart,
    Forward,
    End,
}

impl SeekStep {
    pub(crate) fn kind(&self) -> SeekMove {
        match &self.from {
            _ if self.to.is_shard_end() => SeekMove::End,
            None => SeekMove::Create,
            Some(from) if self.to < *from => SeekMove::Rewind,
            Some(from) if self.to == *from => SeekMove::Restart,
            Some(_) => SeekMove::Forward,
        }
    }

    /// The row, where there is none. Its counter begins at `epoch_millis`, so it never meets a write to an earlier row
    /// of the same lease.
    pub(crate) fn new_row(&self, epoch_millis: u64, seek_id: &str, under_way: Option<&str>) -> Lease {
        let mut row = Lease::new(self.lease.clone(), self.to.clone());
        row.shard_id = self.shard.clone();
        row.stream_name.clone_from(&self.stream_name);
        row.source_stream.clone_from(&self.source_stream);
        row.parents = self.parents.clone();
        row.hash_key_range = Some(self.hash_key_range);
        row.starting_sequence_number = Some(self.starting_sequence_number.clone());
        row.counter = epoch_millis;
        row.seek_id = Some(seek_id.to_owned());
        row.seek_under_way = under_way.map(ToOwned::to_owned);
        row
    }
}

/// What is known of one stream.
#[derive(Debug)]
pub(crate) struct StreamFacts<'a> {
    pub(crate) stream: &'a StreamId,
    /// All shards that the stream lists.
    pub(crate) shards: &'a [Shard],
    /// Of these, the ones whose position is given, and where they go on.
    pub(crate) positions: &'a BTreeMap<ShardId, Checkpoint>,
    /// Those that began after the target.
    pub(crate) begun_after: &'a BTreeSet<ShardId>,
    /// Whether shards in neither ended before the target; else they are not touched.
    pub(crate) others_ended: bool,
    pub(crate) leases: &'a [Lease],
    /// Which shards are meant; `None`: all.
    pub(crate) scope: Option<&'a BTreeSet<ShardId>>,
    /// The reason of positions.
    pub(crate) reason: SeekReason,
}

/// The steps for one stream, and the leases that stay.
///
/// What was open at the target or began later goes parents first: a child that began again before its parent has a row
/// would run ahead of it. What ended before goes last, and children first: its end lets them start, so they must be where
/// they belong by then.
pub(crate) fn plan_stream(facts: &StreamFacts<'_>) -> (Vec<SeekStep>, Vec<LeftLease>) {
    let rows: BTreeMap<&ShardId, &Lease> = facts
        .leases
        .iter()
        .filter(|lease| lease.stream_name.as_deref() == facts.stream.serialized())
        .map(|lease| (&lease.shard_id, lease))
        .collect();
    let depths = depths(facts.shards);
    let selected = facts.scope.map(|scope| with_descendants(facts.shards, scope));
    let deepest = depths.values().max().copied().unwrap_or(0);
    let mut steps = Vec::new();
    let mut left = Vec::new();
    for shard in facts.shards {
        let row = rows.get(&shard.id).copied();
        let depth = depths.get(&shard.id).copied().unwrap_or(0);
        let mut leave = |reason: &str| {
            if let Some(row) = row {
                left.push(LeftLease { lease: row.key.clone(), reason: reason.to_owned() });
            }
        };
        if selected.as_ref().is_some_and(|selected| !selected.contains(&shard.id)) {
            leave("not asked for");
            continue;
        }
        let (to, reason, wave) = match facts.positions.get(&shard.id) {
            Some(Checkpoint::TrimHorizon) => (Checkpoint::TrimHorizon, SeekReason::NothingBefore, depth),
            Some(position) => (position.clone(), facts.reason, depth),
            None if facts.begun_after.contains(&shard.id) => {
                (Checkpoint::TrimHorizon, SeekReason::BegunAfter, depth)
            }
            None if !facts.others_ended => {
                leave("not asked for");
                continue;
            }
            None => match row {
                Some(row) if !row.checkpoint.is_shard_end() => {
                    (Checkpoint::ShardEnd, SeekReason::EndedBefore, 2 * deepest + 1 - depth)
                }
                _ => {
                    leave("it ended before, and is read to its end");
                    continue;
                }
            },
        };
        let lease = facts.stream.lease_key(&shard.id);
        steps.push(SeekStep {
            lease,
            stream_name: facts.stream.serialized().map(ToOwned::to_owned),
            source_stream: facts.stream.serialized().is_none().then(|| facts.stream.name().to_owned()),
            shard: shard.id.clone(),
            from: row.map(|row| row.checkpoint.clone()),
            to,
            reason,
            wave,
            parents: shard.parents.clone(),
            hash_key_range: shard.hash_key_range,
            starting_sequence_number: shard.starting_sequence_number.clone(),
        });
    }
    let listed: BTreeSet<&ShardId> = facts.shards.iter().map(|shard| &shard.id).collect();
    let expired = rows.iter().filter(|(shard, _)| !listed.contains(*shard));
    left.extend(expired.map(|(_, row)| LeftLease {
        lease: row.key.clone(),
        reason: "the stream no longer lists its shard".to_owned(),
    }));
    steps.sort_by(|a, b| (a.wave, &a.lease).cmp(&(b.wave, &b.lease)));
    (steps, left)
}

/// How many generations of listed parents each shard has.
fn depths(shards: &[Shard]) -> BTreeMap<ShardId, u32> {
    let by_id: BTreeMap<&ShardId, &Shard> = shards.iter().map(|shard| (&shard.id, shard)).collect();
    let mut depths: BTreeMap<ShardId, u32> = BTreeMap::new();
    for shard in shards {
        // A shard is looked at again when its parents are known. A list in which parents go round in circles ends here
        // all the same, because each is pushed once.
        let mut waiting = vec![&shard.id];
        let mut pushed: BTreeSet<&ShardId> = waiting.iter().copied().collect();
        while let Some(id) = waiting.last().copied() {
            let parents = by_id.get(id).map(|shard| &shard.parents);
            let listed = parents.into_iter().flatten().filter(|parent| by_id.contains_key(parent));
            let unknown: Vec<&ShardId> = listed
                .clone()
                .filter(|parent| !depths.contains_key(*parent) && pushed.insert(parent))
                .collect();
            if unknown.is_empty() {
                let depth = listed.filter_map(|parent| depths.get(parent)).max().map_or(0, |depth| depth + 1);
                depths.insert(id.clone(), depth);
                waiting.pop();
            }
            waiting.extend(unknown);
        }
    }
    depths
}

/// These shards, and all that came of them.
pub(crate) fn with_descendants(shards: &[Shard], of: &BTreeSet<ShardId>) -> BTreeSet<ShardId> {
    let mut all = of.clone();
    loop {
        let is_child = |shard: &&Shard| !all.contains(&shard.id) && !all.is_disjoint(&shard.parents);
        let children: Vec<ShardId> = shards.iter().filter(is_child).map(|shard| shard.id.clone()).collect();
        if children.is_empty() {
            return all;
        }
        all.extend(children);
    }
}

/// Leases of shards that did not exist when the plan was made, and came of shards that were moved: their workers may
/// have begun before the move. Parents first.
pub(crate) fn plan_new_shards(
    stream: &SoughtStream,
    plan: &SeekPlan,
    shards: &[Shard],
    leases: &[Lease],
) -> Vec<SeekStep> {
    let moved: BTreeSet<ShardId> =
        plan.steps.iter().filter(|step| !step.to.is_shard_end()).map(|step| step.shard.clone()).collect();
    let came_of_them = with_descendants(shards, &moved);
    let new: BTreeSet<ShardId> = shards
        .iter()
        .map(|shard| &shard.id)
        .filter(|id| came_of_them.contains(*id) && !stream.shards.contains(*id))
        .cloned()
        .collect();
    let unmoved: Vec<Lease> =
        leases.iter().filter(|lease| lease.seek_id.as_deref() != Some(&plan.id)).cloned().collect();
    let facts = StreamFacts {
        stream: &stream.stream,
        shards,
        positions: &BTreeMap::new(),
        begun_after: &new,
        others_ended: false,
        leases: &unmoved,
        scope: None,
        reason: SeekReason::BegunAfter,
    };
    let (mut steps, _) = plan_stream(&facts);
    // Without a row it is created when its parents end.
    steps.retain(|step| step.from.is_some());
    steps
}

impl fmt::Display for SeekReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenThen => "after the last record before",
            Self::NothingBefore => "no record before",
            Self::BegunAfter => "began after it",
            Self::EndedBefore => "ended before it",
            Self::AsAsked => "as asked",
        })
    }
}

/// `rewind shardId-000000000001 from … to …`.
impl fmt::Display for SeekStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.as_ref().map(|from| format!(" from {}", short(from))).unwrap_or_default();
        write!(f, "{} {}{from} to {}: {}", self.kind(), self.lease, short(&self.to), self.reason)
    }
}

impl fmt::Display for SeekMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Create => "create",
            Self::Rewind => "rewind",
            Self::Restart => "restart",
            Self::Forward => "forward",
            Self::End => "end",
        })
    }
}

/// The dry run: a line for each lease, in the order in which they are written, and a sum.
impl fmt::Display for SeekPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seek {} of {} to {}\n", self.id, self.application, self.target)?;
        let mut table = Table::new(&["LEASE", "MOVE", "FROM", "TO", "WHY"]);
        for step in &self.steps {
            let from = step.from.as_ref().map_or("-".to_owned(), short);
            table.push([
                step.lease.to_string(),
                step.kind().to_string(),
                from,
                short(&step.to),
                step.reason.to_string(),
            ]);
        }
        if !self.steps.is_empty() {
            writeln!(f, "{table}")?;
        }
        writeln!(f, "{}", self.summary())?;
        for warning in &self.warnings {
            writeln!(f, "! {warning}")?;
        }
        Ok(())
    }
}

impl SeekPlan {
    /// The plan in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut counts: BTreeMap<SeekMove, usize> = BTreeMap::new();
        for step in &self.steps {
            *counts.entry(step.kind()).or_default() += 1;
        }
        let mut parts: Vec<String> =
            counts.iter().map(|(kind, count)| format!("{count} to {kind}")).collect();
        parts.push(format!("{} left as they are", self.left.len()));
        format!("{}; other applications are not touched", parts.join(", "))
    }
}

/// The end of a number differs from one to another; the time says where it is.
pub(crate) fn short(checkpoint: &Checkpoint) -> String {
    let Checkpoint::Sequence(at) = checkpoint else { return checkpoint.text() };
    let digits = at.sequence_number.to_string();
    let Some(end) = digits.get(digits.len().saturating_sub(6)..).filter(|_| digits.len() > 12) else {
        return at.to_string();
    };
    let time = arrival_of(&at.sequence_number).map(|at| format!(" {}", utc(at))).unwrap_or_default();
    format!("…{end}/{}{time}", at.sub_sequence_number)
}

#[cfg(test)]
#[path = "seek_plan_test.rs"]
mod tests;
