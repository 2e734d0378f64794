//! Carries out what shard sync asks for: lists shards and creates leases.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::Worker;
use super::command::PlannedWrite;
use super::coordinator::{CONCURRENT_WRITES, LeaseCoordinator};
use super::executor::write;
use super::state::{Coordinator, KnownStream, Written};
use crate::context::Context;
use crate::error::with_causes;
use crate::kinesis::list::list_shards;
use crate::kinesis::{Shard, StreamError, StreamErrorKind};
use crate::lease::{Created, Lease};
use crate::metrics::{Operation, names};
use crate::shard_sync::{
    Audit, CreateReason, NewLease, ShardSyncPlan, SyncRequest, create_lease, initial_filter, plan_shard_sync,
};
use crate::stream_tracker::TrackedStream;
use crate::types::{HashKeyRange, Moment, ShardId, StartStrategy};

/// The least time that a listing of one of several streams may take.
const LISTING_MIN: Duration = Duration::from_secs(2);
/// Streams whose shards are listed at once.
const CONCURRENT_LISTINGS: usize = 8;

impl LeaseCoordinator {
    /// Creates leases for streams that have none, and for hash keys that have not been covered for a
    /// while.
    ///
    /// Any worker may do so at any time: a row is put only where there is none, and all workers plan
    /// the same rows.
    pub(super) async fn create_missing_leases(&mut self) {
        let worker = Arc::clone(&self.worker);
        let now = worker.context.clock.now();
        let requests = self.find_requests(now);
        let worker = &worker;
        let mut listings = stream::iter(requests)
            .map(|(generation, stream, mut request)| async move {
                let listed = request.take_listed();
                let is_older = listed.is_some();
                let shards = match listed {
                    Some(shards) => Ok(shards),
                    None => list(worker, &stream, &request).await,
                };
                (generation, stream, request, shards, is_older)
            })
            .buffer_unordered(CONCURRENT_LISTINGS);
        while let Some((generation, stream, request, shards, is_older)) = listings.next().await {
            self.catch_up_with_streams();
            if !self.state.is_read(generation) {
                continue;
            }
            self.carry_out_request(&stream, request, shards, is_older, now).await;
        }
    }

    /// Carries out a request, whose listing was sent at `since` unless the list is older than the scan.
    async fn carry_out_request(
        &mut self,
        stream: &Arc<TrackedStream>,
        request: SyncRequest,
        shards: Result<Vec<Shard>, StreamError>,
        is_older: bool,
        since: Moment,
    ) {
        match (request, shards) {
            (SyncRequest::FillRanges(leases), Ok(shards)) => self.fill_in_ranges(leases, &shards).await,
            (SyncRequest::CheckOrigins { .. }, Ok(shards)) => {
                self.check_origins(stream, &shards, is_older).await;
            }
            (SyncRequest::FillRanges(_) | SyncRequest::CheckOrigins { .. }, Err(error)) => {
                self.worker.context.coordination_failed("ListShards", &error);
            }
            (SyncRequest::PutBack(leases), _) => self.put_back(leases).await,
            (SyncRequest::Retry(leases), _) => {
                self.create_planned(stream, false, Ok(ShardSyncPlan { new_leases: leases }), since).await;
            }
            (SyncRequest::CreateFirst { strategy, .. }, shards) => {
                self.sync_shards(stream, true, strategy, shards, since).await;
            }
            (SyncRequest::CreateMissing { strategy }, shards) => {
                if let Ok(shards) = &shards {
                    self.check_origins(stream, shards, false).await;
                }
                self.sync_shards(stream, false, strategy, shards, since).await;
            }
        }
    }

    /// Looks through the leases, stream by stream.
    fn find_requests(&mut self, now: Moment) -> Vec<(u64, Arc<TrackedStream>, SyncRequest)> {
        let Self { worker, state, tracked, .. } = self;
        let Coordinator { view, streams, .. } = state;
        let by_stream = view.by_stream();
        let mut requests = Vec::new();
        let mut audits = Vec::new();
        for (name, KnownStream { generation, sync, .. }) in &mut *streams {
            let Some(stream) = tracked.get(name.as_deref()) else { continue };
            let leases = by_stream.get(&name.as_deref()).map_or(&[][..], Vec::as_slice);
            let vanished = view.vanished().filter(|lease| stream.has(lease));
            let steps = sync.handle_scan(leases, vanished, stream.shares_table(), now);
            requests.extend(
                steps.requests.into_iter().map(|request| (*generation, Arc::clone(&stream), request)),
            );
            audits.extend(steps.audit);
            if steps.audit.is_some_and(Audit::is_without_hole) {
                stream.set_problem(None);
            }
        }
        let Context { metrics, .. } = &*worker.context;
        if !audits.is_empty() {
            let count = |which: &[Audit]| audits.iter().filter(|audit| which.contains(audit)).count();
            metrics
                .operation(Operation::PeriodicShardSyncManager)
                .add(names::STREAMS_WITH_PARTIAL_LEASES, count(&[Audit::Suspected, Audit::SyncNow]))
                .add(names::STREAMS_TO_SYNC, count(&[Audit::SyncNow]));
        }
        if worker.streams.is_multi() {
            metrics.operation(Operation::MultiStreamTracker).add(names::ACTIVE_STREAMS, streams.len());
        }
        requests
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
        self.create_planned(stream, is_empty, planned, since).await;
    }

    /// Creates the leases that were planned for one stream.
    async fn create_planned(
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
            worker.context.clock.now().since(self.state.scanned) < worker.context.coordination.failover_time;
        let not_created = || Some("its leases could not be created".to_owned());
        let (outcome, problem) = match planned {
            Ok(plan) if is_fresh => {
                let rest = self.create(plan, is_empty).await;
                if rest.is_empty() {
                    self.state.view.forget_vanished(|lease| stream.has(lease));
                    (Ok(()), None)
                } else {
                    (Err(rest), not_created())
                }
            }
            Ok(_) => (Err(Vec::new()), not_created()),
            Err(problem) => (Err(Vec::new()), Some(problem)),
        };
        let now = worker.context.clock.now();
        worker
            .context
            .metrics
            .operation(Operation::ShardSyncTask)
            .add(names::SYNC_SHARDS_SUCCESS, u64::from(problem.is_none()))
            .outcome(names::RUN, problem.is_none(), now.since(since));
        let scanned = self.state.scanned;
        if let Some(known) = self.state.streams.get_mut(&stream.lease_name())
            && let Some(retry) = known.sync.handle_created(outcome, scanned, now)
        {
            self.state.wake(retry);
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
            if let Some(known) = self.state.streams.get_mut(&lease.stream_name) {
                known.sync.note_range_lookup(&lease.key);
            }
            let Some(range) = ranges.get(&lease.shard_id) else { continue };
            match write(&worker, &PlannedWrite::fill_in_range(lease, *range)).await {
                Written::Applied { lease, .. } => self.learn_row(*lease),
                Written::Refused(_) | Written::NotLeader => {}
                Written::Failed => break,
            }
        }
    }

    fn plan_sync(
        &self,
        stream: &TrackedStream,
        strategy: StartStrategy,
        shards: &[Shard],
    ) -> Result<ShardSyncPlan, String> {
        let leases: Vec<&Lease> = self.state.view.leases().filter(|lease| stream.has(lease)).collect();
        let ignore = self.worker.context.coordination.ignore_unexpected_child_shards;
        plan_shard_sync(shards, &leases, strategy, ignore)
            .map(|plan| plan.in_stream(&stream.id, stream.latest_since()))
            .map(|mut plan| {
                let vanished = self.state.view.vanished().filter(|lease| stream.has(lease));
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
                let NewLease { lease, reason } = new;
                // What this worker holds goes on under the same counter, as if nothing had happened.
                let held = match reason {
                    CreateReason::Vanished => worker.held_leases.row(&lease.key),
                    _ => None,
                };
                create(&worker, held.unwrap_or(lease), reason)
            })
            .buffered(concurrent);
        let mut failed = Vec::new();
        while let Some(outcome) = outcomes.next().await {
            let new = rest.pop_front();
            match outcome {
                Some(lease) => self.learn_row(lease),
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

/// Lists the shards of a stream, if the request needs them. What is listed too long after the scan
/// is of no use; and while it is waited for, other streams wait.
async fn list(
    worker: &Worker,
    stream: &TrackedStream,
    request: &SyncRequest,
) -> Result<Vec<Shard>, StreamError> {
    let filter = match request {
        SyncRequest::CreateFirst { strategy, .. } => Some(initial_filter(*strategy, Some(stream.started))),
        SyncRequest::PutBack(_) | SyncRequest::Retry(_) => return Ok(Vec::new()),
        SyncRequest::CheckOrigins { .. } | SyncRequest::CreateMissing { .. } | SyncRequest::FillRanges(_) => {
            None
        }
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

/// Creates a lease. Returns the row if it is there now, even if another worker created it.
async fn create(worker: &Worker, lease: Lease, reason: CreateReason) -> Option<Lease> {
    let Context { store, metrics, .. } = &*worker.context;
    match create_lease(&worker.context, metrics.operation(Operation::ShardSyncTask), &lease, &reason).await {
        // A scan may have been too old to show it: it is as it was, and perhaps held.
        Ok(Created::Already) if reason == CreateReason::Vanished => {
            store.lease(&lease.key).await.unwrap_or_else(|error| {
                tracing::warn!(lease = %lease.key, %error, "cannot read a lease; trying again");
                worker.context.coordination_failed("GetLease", &error);
                None
            })
        }
        // As new as it gets; should it be owned already, taking it fails and shows by whom.
        Ok(Created::Now | Created::Already) => Some(lease),
        Err(error) => {
            tracing::warn!(lease = %lease.key, %error, "cannot create a lease; trying again");
            worker.context.coordination_failed("CreateLease", &error);
            None
        }
    }
}
