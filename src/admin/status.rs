//! What a lease table says about the fleet that works by it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::text::{arrival_of, span};
use crate::coordination::election::lock::LockRow;
use crate::coordination::worker_metrics::{CPU, FRESH, WorkerStats};
use crate::kinesis::Shard;
use crate::lease::{Lease, LeaseScan, Paused};
use crate::types::{Checkpoint, LeaseKey, ShardId, StreamId, WorkerId};

/// This many changes of owner without any progress are no accident.
const SWITCHES_MAX: u64 = 3;
/// The most items that one problem lists by name.
const NAMED_MAX: usize = 5;

/// A whole fleet, as its lease table shows it: workers of this crate, of Java KCL, or both.
///
/// [`Display`](std::fmt::Display) is a table for people. With the feature `serde` it can be serialized; times are
/// milliseconds since 1970, durations are milliseconds.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub struct FleetStatus {
    /// The application.
    pub application: String,
    /// When the table was read, by the clock of the reader.
    #[cfg_attr(feature = "serde", serde(rename = "atMillis", serialize_with = "wire::time"))]
    pub at: SystemTime,
    /// The streams that the rows name, and those that were given.
    pub streams: Vec<String>,
    /// The worker that leads, in a fleet that has a leader.
    pub leader: Option<WorkerId>,
    /// Every worker that owns a lease or reports metrics, in the order of their names.
    pub workers: Vec<WorkerSummary>,
    /// Every lease whose shard has not ended, in the order of lease keys.
    pub leases: Vec<LeaseSummary>,
    /// How many leases are of shards that have ended, and wait to be deleted.
    pub ended: usize,
    /// Shards that nobody will read as things are.
    pub unread: Vec<UnreadShard>,
    /// The most that any owner is behind; `None` if no owner says so.
    #[cfg_attr(feature = "serde", serde(rename = "behindLatestMaxMillis", serialize_with = "wire::millis"))]
    pub behind_latest_max: Option<Duration>,
    /// What is wrong, in words for people, and what to do about it. Empty in a fleet that is healthy. May change in
    /// any release.
    pub problems: Vec<String>,
}

/// One worker of a fleet.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub struct WorkerSummary {
    /// Its name.
    pub worker: WorkerId,
    /// How many leases it works on; those of ended shards are not counted.
    pub leases: usize,
    /// What it reads, in KiB per second, by its leases.
    pub kib_per_second: f64,
    /// Its CPU utilisation in percent, if it reports it.
    pub cpu_percent: Option<f64>,
    /// How long ago it reported metrics, which workers of fleets with a leader do; by its own clock and the reader's.
    #[cfg_attr(feature = "serde", serde(rename = "reportedAgoMillis", serialize_with = "wire::millis"))]
    pub reported_ago: Option<Duration>,
    /// Whether it has written what only workers of this crate write. `None`: nothing shows it.
    pub is_of_this_crate: Option<bool>,
}

/// What becomes of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub enum LeaseState {
    /// A worker owns it.
    Held,
    /// A worker gives it to another.
    HandingOver,
    /// A worker owns it, and its records come after those of a parent shard that has not ended.
    WaitingOnParents,
    /// It is paused.
    Paused,
    /// Nobody owns it.
    Free,
}

/// One lease of a fleet.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub struct LeaseSummary {
    /// The key of its row.
    pub lease: LeaseKey,
    /// Its stream, if the row names it.
    pub stream: Option<String>,
    /// Its shard.
    pub shard: ShardId,
    /// What becomes of it.
    pub state: LeaseState,
    /// The worker that works on it.
    pub owner: Option<WorkerId>,
    /// In a handoff: the worker that gets it.
    pub next_owner: Option<WorkerId>,
    /// Its counter.
    pub counter: u64,
    /// The attribute `checkpoint`.
    pub checkpoint: String,
    /// The attribute `checkpointSubSequenceNumber`.
    pub sub_sequence_number: u64,
    /// When the record at the checkpoint arrived, to the second, as its sequence number shows.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "checkpointArrivedMillis", serialize_with = "wire::opt_time")
    )]
    pub checkpoint_arrived: Option<SystemTime>,
    /// How far its owner is behind the newest record, as it wrote with its last renewal or checkpoint. Workers of Java
    /// KCL do not write it.
    #[cfg_attr(feature = "serde", serde(rename = "behindLatestMillis", serialize_with = "wire::millis"))]
    pub behind_latest: Option<Duration>,
    /// What its owner reads, in KiB per second.
    pub kib_per_second: Option<f64>,
    /// How often it changed its owner since the last checkpoint.
    pub owner_switches: u64,
    /// The parents of the shard.
    pub parents: BTreeSet<ShardId>,
    /// Since when, by whom and why it is paused.
    pub paused: Option<Paused>,
    /// For how long its counter was seen to stand still, by a reader that looks more than once.
    #[cfg_attr(feature = "serde", serde(rename = "stillMillis", serialize_with = "wire::millis"))]
    pub still: Option<Duration>,
}

/// A shard that nobody will read as things are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
#[non_exhaustive]
pub struct UnreadShard {
    /// The stream.
    pub stream: String,
    /// The shard.
    pub shard: ShardId,
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) application: String,
    pub(crate) scan: LeaseScan,
    pub(crate) leader: Option<LockRow>,
    /// The shards of each stream that could be listed.
    pub(crate) shards: Vec<(StreamId, Vec<Shard>)>,
    /// What could not be read, in words.
    pub(crate) failures: Vec<String>,
    /// For how long counters were seen to stand still.
    pub(crate) still: BTreeMap<LeaseKey, Duration>,
    /// How long an owner may leave its lease alone before it counts as gone.
    pub(crate) failover_time: Duration,
}

/// What `reading`, made at `at`, shows.
pub(crate) fn fleet_status(reading: Reading, at: SystemTime) -> FleetStatus {
    let Reading { application, scan, leader, shards, failures, still, failover_time } = reading;
    let open: Vec<&Lease> = scan.leases.iter().filter(|lease| !lease.checkpoint.is_shard_end()).collect();
    let open_shards: OpenShards<'_> =
        open.iter().map(|lease| (&lease.stream_name, &lease.shard_id)).collect();
    let leases: Vec<LeaseSummary> = open.iter().map(|lease| summary(lease, &open_shards, &still)).collect();
    let reports: Vec<WorkerStats> =
        scan.entities.iter().filter_map(|item| WorkerStats::from_item(item).ok().flatten()).collect();
    let workers = workers(&open, &leases, &reports, at);
    let unread: Vec<UnreadShard> =
        shards.iter().flat_map(|(stream, shards)| unread_shards(stream, shards, &scan.leases)).collect();
    let mut streams: BTreeSet<String> =
        scan.leases.iter().filter_map(Lease::stream).map(str::to_owned).collect();
    streams.extend(shards.iter().map(|(stream, _)| stream.to_string()));
    let leader = leader.map(|row| row.owner);

    let mut problems = failures;
    problems.extend(
        scan.unreadable.iter().map(|row| {
            format!("{row}; no worker can use it: put it right, or delete it while no worker runs")
        }),
    );
    problems.extend(problems_of_streams(&scan.leases));
    problems.extend(problems_of_leases(&leases, &workers, failover_time));
    problems.extend(problems_of_workers(&workers, leader.as_ref()));
    problems.extend(problems_of_seeks(&scan.leases));
    if !unread.is_empty() {
        let shards = named(unread.iter().map(|shard| format!("{}/{}", shard.stream, shard.shard)));
        problems.push(format!(
            "{} shard(s) have no lease, and neither has any of their parents, so nobody reads them: {shards}. A running \
             consumer creates missing leases within a minute; if none does, look at its log",
            unread.len()
        ));
    }
    FleetStatus {
        application,
        at,
        streams: streams.into_iter().collect(),
        leader,
        behind_latest_max: leases.iter().filter_map(|lease| lease.behind_latest).max(),
        ended: scan.leases.len() - open.len(),
        workers,
        leases,
        unread,
        problems,
    }
}

/// The shards that have not ended, by the stream that their leases name.
type OpenShards<'a> = BTreeSet<(&'a Option<String>, &'a ShardId)>;

fn summary(lease: &Lease, open: &OpenShards<'_>, still: &BTreeMap<LeaseKey, Duration>) -> LeaseSummary {
    let owner = lease.actual_owner().cloned();
    let next_owner = lease.checkpoint_owner.as_ref().and(lease.owner.clone());
    let waits = lease.parents.iter().any(|parent| open.contains(&(&lease.stream_name, parent)));
    let state = match &owner {
        _ if lease.paused.is_some() => LeaseState::Paused,
        None => LeaseState::Free,
        Some(_) if next_owner.is_some() => LeaseState::HandingOver,
        Some(_) if waits => LeaseState::WaitingOnParents,
        Some(_) => LeaseState::Held,
    };
    LeaseSummary {
        lease: lease.key.clone(),
        stream: lease.stream().map(str::to_owned),
        shard: lease.shard_id.clone(),
        state,
        owner,
        next_owner,
        counter: lease.counter,
        checkpoint: lease.checkpoint.text(),
        sub_sequence_number: lease.checkpoint.sub_sequence_number(),
        checkpoint_arrived: match &lease.checkpoint {
            Checkpoint::Sequence(at) => arrival_of(&at.sequence_number),
            _ => None,
        },
        behind_latest: lease.behind_latest_now(),
        kib_per_second: lease.throughput.map(|throughput| throughput.kib_per_second()),
        owner_switches: lease.owner_switches,
        parents: lease.parents.clone(),
        paused: lease.paused.clone(),
        still: still.get(&lease.key).copied(),
    }
}

fn workers(
    open: &[&Lease],
    leases: &[LeaseSummary],
    reports: &[WorkerStats],
    at: SystemTime,
) -> Vec<WorkerSummary> {
    let mut workers: BTreeMap<WorkerId, WorkerSummary> = BTreeMap::new();
    let new = |worker: &WorkerId| WorkerSummary {
        worker: worker.clone(),
        leases: 0,
        kib_per_second: 0.0,
        cpu_percent: None,
        reported_ago: None,
        is_of_this_crate: None,
    };
    for (row, lease) in open.iter().zip(leases) {
        let Some(owner) = &lease.owner else { continue };
        let worker = workers.entry(owner.clone()).or_insert_with(|| new(owner));
        worker.leases += 1;
        worker.kib_per_second += lease.kib_per_second.unwrap_or(0.0);
        if row.behind_latest_now().is_some() {
            worker.is_of_this_crate = Some(true);
        }
    }
    for report in reports {
        let worker = workers.entry(report.worker.clone()).or_insert_with(|| new(&report.worker));
        let cpu = report.samples.get(CPU).and_then(|samples| samples.last().copied());
        worker.cpu_percent = cpu.filter(|percent| *percent >= 0.0);
        worker.reported_ago = Some(report.age(at));
        if report.withholds_cpu {
            worker.is_of_this_crate = Some(true);
        }
    }
    workers.into_values().collect()
}

/// Shards without a lease that no lease leads to either: leases of children are created when a parent ends.
fn unread_shards(stream: &StreamId, shards: &[Shard], leases: &[Lease]) -> Vec<UnreadShard> {
    let key = |shard: &ShardId| stream.lease_key(shard);
    let known: BTreeSet<&LeaseKey> = leases.iter().map(|lease| &lease.key).collect();
    let by_id: BTreeMap<&ShardId, &Shard> = shards.iter().map(|shard| (&shard.id, shard)).collect();
    let leads_here = |shard: &Shard| {
        let mut waiting: Vec<&ShardId> = vec![&shard.id];
        let mut seen = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if known.contains(&key(id)) {
                return true;
            }
            if seen.insert(id) {
                waiting.extend(by_id.get(id).into_iter().flat_map(|shard| &shard.parents));
            }
        }
        false
    };
    let unread = shards.iter().filter(|shard| shard.is_open() && !leads_here(shard));
    unread.map(|shard| UnreadShard { stream: stream.to_string(), shard: shard.id.clone() }).collect()
}

/// In a table of one stream, rows of another.
fn problems_of_streams(leases: &[Lease]) -> Option<String> {
    let single: BTreeSet<&str> = leases
        .iter()
        .filter(|lease| lease.stream_name.is_none())
        .filter_map(|lease| lease.source_stream.as_deref())
        .collect();
    let is_mixed = leases.iter().any(|lease| lease.stream_name.is_some())
        && leases.iter().any(|lease| lease.stream_name.is_none());
    if single.len() > 1 {
        let streams = named(single.iter().map(ToString::to_string));
        return Some(format!(
            "the table has leases of several streams whose keys do not say which: {streams}. Two applications share \
             it; give one of them another table, or name"
        ));
    }
    is_mixed.then(|| {
        "the table has leases of a consumer of one stream and of a consumer of several; the workers of each kind do \
         not see the leases of the other. Delete those that are no longer used"
            .to_owned()
    })
}

fn problems_of_leases(
    leases: &[LeaseSummary],
    workers: &[WorkerSummary],
    failover_time: Duration,
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut report = |which: &dyn Fn(&LeaseSummary) -> bool, what: &str| {
        let which: Vec<&LeaseSummary> = leases.iter().filter(|lease| which(lease)).collect();
        if !which.is_empty() {
            let names = named(which.iter().map(|lease| lease.lease.to_string()));
            problems.push(format!("{} lease(s) {what}: {names}", which.len()));
        }
    };
    let is_still = |lease: &LeaseSummary| lease.still.is_some_and(|still| still > failover_time);
    let is_gone = |lease: &LeaseSummary| lease.owner.is_some() && is_still(lease);
    report(
        &|lease| {
            lease.owner.is_none()
                && lease.state == LeaseState::Free
                && (workers.is_empty() || is_still(lease))
        },
        "have no owner. Start workers of this application; if some run, look at their log and at max_leases",
    );
    report(
        &is_gone,
        "are not renewed: their owners are gone or cut off. Workers that run take them over after the failover time; \
         if none does, start some",
    );
    report(
        &|lease| lease.owner_switches >= SWITCHES_MAX,
        "changed owners several times without a checkpoint between. A record may crash its workers, or the processor \
         does not checkpoint; look at the log of the last owner",
    );
    problems
}

fn problems_of_workers(workers: &[WorkerSummary], leader: Option<&WorkerId>) -> Vec<String> {
    let mut problems = Vec::new();
    let is_silent = |worker: &&WorkerSummary| worker.reported_ago.is_some_and(|ago| ago > FRESH);
    for worker in workers.iter().filter(|worker| worker.leases > 0).filter(is_silent) {
        let ago = span(worker.reported_ago.unwrap_or_default());
        problems.push(format!(
            "worker {} owns {} lease(s) and last reported metrics {ago} ago; the leader gives it no more. Is it alive?",
            worker.worker, worker.leases
        ));
    }
    let reporting =
        workers.iter().filter(|worker| worker.reported_ago.is_some_and(|ago| ago <= FRESH)).count();
    let owning = workers.iter().filter(|worker| worker.leases > 0);
    let all_report = owning.clone().count() > 0 && owning.clone().all(|worker| worker.reported_ago.is_some());
    if leader.is_none() && reporting > 0 && all_report {
        problems.push(
            "no worker leads, so free leases are assigned by nobody. A worker that runs stands for leader within the \
             time that the lock was good for; if none does, look at their logs"
                .to_owned(),
        );
    }
    problems
}

fn problems_of_seeks(leases: &[Lease]) -> impl Iterator<Item = String> + '_ {
    leases.iter().filter_map(|lease| {
        let to = lease.seek_under_way.as_ref()?;
        let id = lease.seek_id.as_deref().unwrap_or("?");
        Some(format!(
            "seek {id} to {to} was begun and is not finished: some leases may be where they were before. If nobody is \
             carrying it out now, resume it with its plan, or make a new plan with the same target"
        ))
    })
}

/// Names, but not too many.
fn named(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let mut text = names.take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// How times and durations are written.
#[cfg(feature = "serde")]
mod wire {
    use std::time::{Duration, SystemTime};

    use serde::Serializer;

    use super::super::text::epoch_millis;

    pub(super) fn time<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(epoch_millis(*at))
    }

    pub(super) fn opt_time<S: Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(at.map(epoch_millis), serializer)
    }

    pub(super) fn millis<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)), serializer)
    }

    fn serialize<S: Serializer>(number: Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => serializer.serialize_some(&number),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
