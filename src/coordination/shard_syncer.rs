//! The rounds' care for what is missing: leases are created.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::Worker;
use super::coordinator::{CONCURRENT_WRITES, LeaseCoordinator};
use super::origins::OriginTracker;
use crate::config::CoordinationConfig;
use crate::error::with_causes;
use crate::events::Event;
use crate::kinesis::list::list_shards;
use crate::kinesis::{Shard, StreamError, StreamErrorKind};
use crate::lease::{Created, Lease, LeaseWrite, WriteOutcome};
use crate::metrics::{Operation, names};
use crate::planted::{Bug, planted};
use crate::shard_sync::{
    Audit, CreateReason, HoleTracker, NewLease, ShardSyncPlan, initial_filter, plan_shard_sync,
};
use crate::stream_tracker::TrackedStream;
use crate::types::{HashKeyRange, LeaseKey, Moment, ShardId, StartStrategy};

/// When to try again after shards could not be listed or leases not be created.
const RETRY: Duration = Duration::from_secs(1);
/// The most that pause grows to for one of several streams.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The least time that a listing of one of several streams may take.
const LISTING_MIN: Duration = Duration::from_secs(2);
/// Hash key ranges that are filled in at a time.
const RANGES_AT_ONCE: usize = 100;
/// Streams whose shards are listed at once.
const CONCURRENT_LISTINGS: usize = 8;

/// The care for the leases of one stream.
pub(super) struct StreamSync {
    pub(super) stream: Arc<TrackedStream>,
    /// The shards as listed when the stream was found, used if it turns out to have no leases.
    listed: Option<Vec<Shard>>,
    holes: HoleTracker,
    pub(super) origins: OriginTracker,
    /// When the leases are to be held against the shards of the stream.
    pub(super) next_origin_check: Option<Moment>,
    /// Whether the table has leases of an earlier stream of the same name (multi-stream mode).
    pub(super) has_earlier: bool,
    /// Leases whose hash key ranges were asked for.
    ranges_looked_up: BTreeSet<LeaseKey>,
    next_audit: Moment,
    /// Leases that could not be created, and how old the scan is by which they were planned.
    rest: Option<(Vec<NewLease>, Moment)>,
    /// How often in a row its shards could not be listed or its leases not be created.
    failures: u32,
    /// Until then, it does not hold up the other streams with another try.
    not_before: Moment,
}

/// What the leases of one stream lack.
struct SyncRequest {
    stream: Arc<TrackedStream>,
    since: Moment,
    lack: MissingLeases,
    /// The shards, if they are known already.
    listed: Option<Vec<Shard>>,
    /// Where shards without a checkpoint start.
    strategy: StartStrategy,
}

enum MissingLeases {
    /// The stream has no leases at all.
    Everything,
    /// Some hash keys have not been covered for a while.
    SomeLeases,
    /// These leases, which could not be created a moment ago.
    Rest(Vec<NewLease>),
    /// These leases do not say which hash keys they cover.
    Ranges(Vec<Lease>),
    /// It is to be seen whether the leases are of the stream.
    Origins { is_older: bool },
    /// The table is empty, but had these leases before.
    Vanished(Vec<Lease>),
}

impl StreamSync {
    pub(super) fn new(stream: Arc<TrackedStream>, coordination: &CoordinationConfig, now: Moment) -> Self {
        Self {
            listed: stream.take_listed(),
            stream,
            holes: HoleTracker::new(coordination.audit_confidence_threshold),
            origins: OriginTracker::new(coordination.audit_confidence_threshold),
            next_origin_check: None,
            has_earlier: false,
            ranges_looked_up: BTreeSet::new(),
            next_audit: now + coordination.audit_interval,
            rest: None,
            failures: 0,
            not_before: now,
        }
    }
}

impl LeaseCoordinator {
    /// Creates leases for streams that have none, and for hash keys that have not been covered for a
    /// while.
    ///
    /// Any worker may do so at any time: a row is put only where there is none, and all workers plan
    /// the same rows.
    pub(super) async fn create_missing_leases(&mut self) {
        let worker = Arc::clone(&self.worker);
        let mut listings = stream::iter(self.find_needs(worker.context.clock.now()))
            .map(|mut need| async {
                let shards = list(&worker, &mut need).await;
                (need, shards)
            })
            .buffer_unordered(CONCURRENT_LISTINGS);
        while let Some((need, shards)) = listings.next().await {
            match (need.lack, shards) {
                (MissingLeases::Ranges(leases), Ok(shards)) => self.fill_in_ranges(leases, &shards).await,
                (MissingLeases::Origins { is_older }, Ok(shards)) => {
                    self.check_origins(&need.stream, &shards, is_older).await;
                }
                (MissingLeases::Ranges(_) | MissingLeases::Origins { .. }, Err(error)) => {
                    worker.context.coordination_failed("ListShards", &error);
                }
                (MissingLeases::Vanished(leases), _) => self.put_back(leases).await,
                (MissingLeases::Rest(leases), _) => {
                    let plan = ShardSyncPlan { new_leases: leases };
                    self.carry_out(&need.stream, false, Ok(plan), need.since).await;
                }
                (lack, shards) => {
                    let is_empty = matches!(lack, MissingLeases::Everything);
                    if let Ok(shards) = &shards
                        && !is_empty
                    {
                        self.check_origins(&need.stream, shards, false).await;
                    }
                    self.sync_shards(&need.stream, is_empty, need.strategy, shards, need.since).await;
                }
            }
        }
    }

    /// Looks through the leases, stream by stream.
    fn find_needs(&mut self, now: Moment) -> Vec<SyncRequest> {
        let Self { worker, view, streams, .. } = self;
        let by_stream = view.by_stream();
        let mut needs = Vec::new();
        let mut audits = Vec::new();
        for (name, care) in &mut *streams {
            let listed = care.listed.take();
            // All of a stream that was created again is new to the application.
            let strategy = if care.has_earlier { StartStrategy::Oldest } else { care.stream.start_strategy };
            let mut need = |lack, listed| {
                let stream = Arc::clone(&care.stream);
                needs.push(SyncRequest { stream, since: now, lack, listed, strategy });
            };
            let Some(leases) = by_stream.get(&name.as_deref()) else {
                let vanished: Vec<Lease> =
                    view.vanished().filter(|lease| care.stream.has(lease)).cloned().collect();
                if !vanished.is_empty() {
                    need(MissingLeases::Vanished(vanished), None);
                } else if now >= care.not_before && !care.stream.shares_table() {
                    need(MissingLeases::Everything, listed.filter(|_| !care.has_earlier));
                }
                continue;
            };
            if listed.is_some() {
                need(MissingLeases::Origins { is_older: true }, listed);
            } else if care.next_origin_check.is_some_and(|at| now >= at) {
                care.next_origin_check = None;
                need(MissingLeases::Origins { is_older: false }, None);
            }
            let rest = care.rest.take_if(|_| now >= care.next_audit);
            if view.vanished().any(|lease| care.stream.has(lease)) {
                need(MissingLeases::SomeLeases, None);
            } else if let Some((rest, scanned)) = rest {
                let is_fresh = now.since(scanned) < worker.context.coordination.failover_time;
                need(if is_fresh { MissingLeases::Rest(rest) } else { MissingLeases::SomeLeases }, None);
            } else if now >= care.next_audit && !planted(Bug::NeverAudits) {
                care.next_audit = now + worker.context.coordination.audit_interval;
                let audit = care.holes.check(leases);
                audits.push(audit);
                match audit {
                    Audit::SyncNow => need(MissingLeases::SomeLeases, None),
                    Audit::RangesMissing => {
                        let lacking = leases.iter().filter(|lease| {
                            lease.hash_key_range.is_none()
                                && !lease.checkpoint.is_shard_end()
                                && !care.ranges_looked_up.contains(&lease.key)
                        });
                        // As many as do not hold the round up; the next audit finds the others lacking.
                        let lacking: Vec<Lease> = lacking.take(RANGES_AT_ONCE).copied().cloned().collect();
                        if !lacking.is_empty() {
                            need(MissingLeases::Ranges(lacking), None);
                        }
                    }
                    Audit::Covered | Audit::Suspected => {}
                }
                if matches!(audit, Audit::Covered | Audit::RangesMissing) {
                    // Whatever this worker could not do, another may have done.
                    care.stream.set_problem(None);
                    care.failures = 0;
                }
            }
        }
        if !audits.is_empty() {
            let count = |which: &[Audit]| audits.iter().filter(|audit| which.contains(audit)).count();
            worker
                .context
                .metrics
                .operation(Operation::PeriodicShardSyncManager)
                .add(names::STREAMS_WITH_PARTIAL_LEASES, count(&[Audit::Suspected, Audit::SyncNow]))
                .add(names::STREAMS_TO_SYNC, count(&[Audit::SyncNow]));
        }
        if worker.streams.is_multi() {
            let mut report = worker.context.metrics.operation(Operation::MultiStreamTracker);
            report.add(names::ACTIVE_STREAMS, streams.len());
        }
        needs
    }

    /// Creates the leases that one stream lacks.
    async fn sync_shards(
        &mut self,
        stream: &TrackedStream,
        is_empty: bool,
        strategy: StartStrategy,
        shards: Result<Vec<Shard>, StreamError>,
        since: Moment,
    ) {
        let worker = Arc::clone(&self.worker);
        let planned = match shards {
            Ok(shards) => self.plan_sync(stream, strategy, &shards),
            Err(error) => {
                tracing::warn!(stream = %stream.id, %error, "cannot list the shards; trying again");
                worker.context.coordination_failed("ListShards", &error);
                Err(with_causes(&error))
            }
        };
        self.carry_out(stream, is_empty, planned, since).await;
    }

    /// Creates the leases that were planned for one stream.
    async fn carry_out(
        &mut self,
        stream: &TrackedStream,
        is_empty: bool,
        planned: Result<ShardSyncPlan, String>,
        since: Moment,
    ) {
        let worker = Arc::clone(&self.worker);
        // If this worker was held up since the scan, rows may have been created, finished and deleted
        // meanwhile, and would be created again.
        let is_fresh =
            worker.context.clock.now().since(self.scanned) < worker.context.coordination.failover_time;
        let (rest, problem) = match planned {
            Ok(plan) if is_fresh => {
                let rest = self.create(plan, is_empty).await;
                if rest.is_empty() {
                    self.view.forget_vanished(|lease| stream.has(lease));
                }
                let problem = (!rest.is_empty()).then(|| "its leases could not be created".to_owned());
                (rest, problem)
            }
            Ok(_) => (Vec::new(), Some("its leases could not be created".to_owned())),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        let now = worker.context.clock.now();
        worker
            .context
            .metrics
            .operation(Operation::ShardSyncTask)
            .add(names::SYNC_SHARDS_SUCCESS, u64::from(problem.is_none()))
            .outcome(names::RUN, problem.is_none(), now.since(since));
        if let Some(care) = self.streams.get_mut(&stream.id.serialized().map(ToOwned::to_owned)) {
            care.rest = (!rest.is_empty()).then_some((rest, self.scanned));
            match &problem {
                None => care.failures = 0,
                Some(_) => {
                    care.next_audit = now + RETRY;
                    if worker.streams.is_multi() {
                        care.next_audit = now + (RETRY * (1 << care.failures.min(6))).min(RETRY_MAX);
                        care.not_before = care.next_audit;
                    }
                    care.failures = care.failures.saturating_add(1);
                    self.next_round = self.next_round.min(care.next_audit);
                }
            }
        }
        stream.set_problem(problem);
    }

    /// Writes the hash key ranges that older rows lack, once for each of them.
    async fn fill_in_ranges(&mut self, lacking: Vec<Lease>, shards: &[Shard]) {
        let worker = Arc::clone(&self.worker);
        let wanted: BTreeSet<&ShardId> = lacking.iter().map(|lease| &lease.shard_id).collect();
        let ranges: BTreeMap<&ShardId, HashKeyRange> = shards
            .iter()
            .filter(|shard| wanted.contains(&shard.id))
            .map(|shard| (&shard.id, shard.hash_key_range))
            .collect();
        for lease in &lacking {
            if let Some(care) = self.streams.get_mut(&lease.stream_name) {
                care.ranges_looked_up.insert(lease.key.clone());
            }
            let Some(range) = ranges.get(&lease.shard_id) else { continue };
            let write = LeaseWrite::update_hash_range(&lease.key, *range);
            match worker.context.store.apply(&write).await {
                Ok(WriteOutcome::Applied(lease)) => self.learn(*lease, worker.context.clock.now()),
                Ok(WriteOutcome::Refused(_)) => {}
                Err(error) => {
                    worker.context.coordination_failed("UpdateHashRange", &error);
                    break;
                }
            }
        }
    }

    fn plan_sync(
        &self,
        stream: &TrackedStream,
        strategy: StartStrategy,
        shards: &[Shard],
    ) -> Result<ShardSyncPlan, String> {
        let leases: Vec<&Lease> = self.view.leases().filter(|lease| stream.has(lease)).collect();
        let ignore = self.worker.context.coordination.ignore_unexpected_child_shards;
        plan_shard_sync(shards, &leases, strategy, ignore)
            .map(|plan| plan.in_stream(&stream.id, stream.latest_since()))
            .map(|mut plan| {
                let vanished = self.view.vanished().filter(|lease| stream.has(lease));
                plan.put_back(vanished, &leases, shards);
                plan
            })
            .map_err(|error| {
                tracing::warn!(stream = %stream.id, %error, "the list of shards is not consistent; trying again");
                self.worker.context.coordination_failed("SyncShards", &error);
                error.to_string()
            })
    }

    /// Creates leases again that were all deleted, at the checkpoints last known.
    async fn put_back(&mut self, leases: Vec<Lease>) {
        let again = |lease: Lease| NewLease { lease: lease.unowned_again(), reason: CreateReason::Vanished };
        let plan = ShardSyncPlan { new_leases: leases.into_iter().map(again).collect() };
        self.create(plan, true).await;
    }

    /// Returns those that are not there yet.
    async fn create(&mut self, plan: ShardSyncPlan, is_empty: bool) -> Vec<NewLease> {
        let worker = Arc::clone(&self.worker);
        // The first leases of a stream do not depend on each other. Else a crash half-way must not
        // leave descendants without their ancestors.
        let concurrent = if is_empty { CONCURRENT_WRITES } else { 1 };
        let mut rest = VecDeque::from(plan.new_leases);
        let mut outcomes = stream::iter(rest.clone())
            .map(|new| {
                tracing::debug!(%new, "creating a lease");
                let is_again = new.reason == CreateReason::Vanished;
                // What this worker holds goes on under the same counter, as if nothing had happened.
                let held = if is_again { worker.held_leases.row(&new.lease.key) } else { None };
                create(&worker, held.unwrap_or(new.lease), is_again)
            })
            .buffered(concurrent);
        let mut failed = Vec::new();
        while let Some(outcome) = outcomes.next().await {
            let new = rest.pop_front();
            match outcome {
                Some(lease) => self.learn(lease, self.worker.context.clock.now()),
                None => failed.extend(new),
            }
            if !failed.is_empty() && concurrent == 1 {
                break;
            }
        }
        drop(outcomes);
        failed.extend(rest);
        failed
    }
}

/// Lists the shards of a stream, unless they are known already. What is listed too long after the scan
/// is of no use; and while it is waited for, other streams wait.
async fn list(worker: &Worker, need: &mut SyncRequest) -> Result<Vec<Shard>, StreamError> {
    let stream = &need.stream;
    let filter = match need.lack {
        MissingLeases::Everything => match need.listed.take() {
            Some(shards) => return Ok(shards),
            None => Some(initial_filter(need.strategy, Some(stream.started))),
        },
        MissingLeases::Origins { .. } => match need.listed.take() {
            Some(shards) => return Ok(shards),
            None => None,
        },
        MissingLeases::Vanished(_) | MissingLeases::Rest(_) => return Ok(Vec::new()),
        MissingLeases::SomeLeases | MissingLeases::Ranges(_) => None,
    };
    let failover_time = worker.context.coordination.failover_time;
    let patience = if worker.streams.is_multi() {
        (failover_time / 4).max(LISTING_MIN).min(failover_time)
    } else {
        failover_time
    };
    let listing = list_shards(
        &*worker.context.api,
        &worker.context.clock,
        &stream.id,
        filter,
        worker.context.seeds.seed(),
    );
    worker.context.clock.timeout(patience, listing).await.unwrap_or_else(|elapsed| {
        let error = StreamError::new(StreamErrorKind::Unavailable, "ListShards", stream.id.to_string());
        Err(error.with_source(elapsed))
    })
}

/// Puts a lease; the row if it is there now, whoever put it.
async fn create(worker: &Worker, lease: Lease, is_again: bool) -> Option<Lease> {
    let since = worker.context.clock.now();
    let created = worker.context.store.create(&lease).await;
    let took = worker.context.clock.now().since(since);
    let mut report = worker.context.metrics.operation(Operation::ShardSyncTask);
    report
        .outcome(names::CREATE_LEASE, created.is_ok(), took)
        .add(names::create_lease_success(&lease.checkpoint), u32::from(created.is_ok()));
    match created {
        Ok(Created::Now) => {
            let (key, checkpoint) = (lease.key.clone(), lease.checkpoint.clone());
            if is_again {
                tracing::warn!(lease = %key, %checkpoint, "the row of a lease was deleted; it is created again");
                worker.context.events.emit(Event::LeaseRecreated { lease: key, checkpoint });
            } else {
                tracing::info!(lease = %key, %checkpoint, "lease created");
                worker.context.events.emit(Event::LeaseCreated { lease: key, checkpoint });
            }
            Some(lease)
        }
        // A scan may have been too old to show it: it is as it was, and perhaps held.
        Ok(Created::Already) if is_again => {
            worker.context.store.lease(&lease.key).await.unwrap_or_else(|error| {
                tracing::warn!(lease = %lease.key, %error, "cannot read a lease; trying again");
                worker.context.coordination_failed("GetLease", &error);
                None
            })
        }
        // As new as it gets; should it be owned already, taking it fails and shows by whom.
        Ok(Created::Already) => Some(lease),
        Err(error) => {
            tracing::warn!(lease = %lease.key, %error, "cannot create a lease; trying again");
            worker.context.coordination_failed("CreateLease", &error);
            None
        }
    }
}
