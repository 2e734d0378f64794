use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};
use tokio::task::{self, JoinSet};

use super::Worker;
use super::duplicate_worker::DuplicateWorkerDetector;
use super::election::resign;
use super::health::Purpose;
use super::leader_state::LeaderState;
use super::migration::Protocol;
use super::shard_syncer::SyncedStream;
use super::view::{Observed, View};
use super::worker_metrics::retract;
use crate::events::Event;
use crate::lease::{HeldLease, Item, Lease, StoreError};
use crate::metrics::{Operation, names};
use crate::shard::{Ending, HeldLeaseEntry, ShardConsumer, ShardEnvironment, StatusCell};
use crate::stream_tracker::TrackedStream;
use crate::types::{LeaseKey, Moment};

/// Conditional writes under way at once.
pub(super) const CONCURRENT_WRITES: usize = 32;
/// The least time between two rounds, whatever wakes the coordinator.
const ROUND_MIN: Duration = Duration::from_millis(20);
/// The least time between two plans, for each row of the table: several times what a plan takes, which
/// leaves the thread to renewals however often there is a reason to plan again.
const PAUSE_PER_LEASE: Duration = Duration::from_micros(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Ends of consumers, or rows from the notifier, that are taken in at a time.
const NEWS_AT_ONCE: usize = 1024;
/// Rows of a scan that are taken in at a time.
const ROWS_AT_ONCE: usize = 2048;

/// Watches the lease table, takes leases, and runs a consumer for each one taken.
///
/// # Expected flow
///
/// A round scans the table, creates leases that are missing, takes what the plan says and deletes
/// what is finished. News from the notifier (a lease freed, ended or created in this process) or from a
/// consumer that ended start the taking at once, without a scan.
pub(crate) struct LeaseCoordinator {
    pub(super) worker: Arc<Worker>,
    shards: Arc<ShardEnvironment>,
    user_runtime: Handle,
    pub(super) rng: fastrand::Rng,
    pub(super) view: View,
    news: broadcast::Receiver<Lease>,
    consumers: JoinSet<Ending>,
    consumer_keys: HashMap<task::Id, LeaseKey>,
    /// The streams this worker reads, by the `streamName` of their leases.
    pub(super) streams: BTreeMap<Option<String>, SyncedStream>,
    reported_unreadable: BTreeSet<String>,
    has_reported_other_mode: bool,
    /// When the last scan that was answered was sent.
    pub(super) scanned: Moment,
    /// The workers that were alive in the last plan.
    pub(super) workers: usize,
    pub(super) leading: LeaderState,
    /// Whether the index from owners to leases can be read.
    pub(super) has_owner_index: bool,
    pub(super) next_round: Moment,
    /// There may be something to take.
    is_something_free: bool,
    /// Until then, news is not acted on.
    next_plan: Moment,
    pub(super) next_cleanup: Moment,
    /// Not before then is a missing table created again.
    pub(super) next_table: Moment,
    pub(super) duplicate_worker: DuplicateWorkerDetector,
    /// Leases of this worker's whose shards have ended and whose rows are still there.
    pub(super) ended: BTreeSet<LeaseKey>,
}

impl LeaseCoordinator {
    pub(crate) fn new(worker: Arc<Worker>, shards: Arc<ShardEnvironment>, user_runtime: Handle) -> Self {
        let now = worker.context.clock.now();
        let mut coordinator = Self {
            shards,
            user_runtime,
            rng: worker.context.seeds.rng(),
            view: View::default(),
            news: worker.context.notifier.listen(),
            consumers: JoinSet::new(),
            consumer_keys: HashMap::new(),
            streams: BTreeMap::new(),
            reported_unreadable: BTreeSet::new(),
            has_reported_other_mode: false,
            scanned: now,
            workers: 1,
            leading: LeaderState::default(),
            has_owner_index: false,
            next_round: now,
            is_something_free: false,
            next_plan: now,
            next_cleanup: now + worker.context.coordination.lease_cleanup_interval,
            next_table: now,
            duplicate_worker: DuplicateWorkerDetector::default(),
            ended: BTreeSet::new(),
            worker,
        };
        coordinator.follow_streams();
        coordinator
    }

    /// Runs until the worker is asked to stop, then waits for every consumer to end. Returns how many
    /// had to be left behind because their processors did not return in time.
    ///
    /// Dropping it ends every consumer at its next await point, leases and all left as they are.
    pub(crate) async fn run(mut self) -> usize {
        let worker = Arc::clone(&self.worker);
        loop {
            tokio::select! {
                biased;
                () = worker.context.stopping.cancelled() => break,
                // Before the ends of consumers, so that leases of a removed stream are not taken again.
                () = worker.streams.changed() => self.follow_streams(),
                () = due(&worker, self.next_plan), if self.is_something_free => {
                    self.is_something_free = false;
                    self.act_on_news().await;
                    self.next_plan = self.after_pause();
                }
                Some(ended) = self.consumers.join_next_with_id() => {
                    self.consumer_ended(ended);
                    for _ in 1..NEWS_AT_ONCE {
                        let Some(ended) = self.consumers.try_join_next_with_id() else { break };
                        self.consumer_ended(ended);
                    }
                    self.is_something_free = true;
                }
                news = self.news.recv() => self.is_something_free |= self.take_news(news),
                () = worker.wake.notified() => self.round().await,
                () = worker.context.clock.sleep_until(self.next_round) => self.round().await,
            }
        }
        // Another worker may lead, and assign what this one is about to give back.
        let ((), (), left_behind) = tokio::join!(resign(&worker, None), retract(&worker), self.drain());
        left_behind
    }

    /// Every consumer has seen the stop by itself; waits for them, within bounds.
    async fn drain(mut self) -> usize {
        let worker = Arc::clone(&self.worker);
        let given_back =
            worker.context.clock.timeout(worker.context.coordination.failover_time, self.give_back_unfound());
        if given_back.await.is_err() {
            tracing::info!("leases that were assigned to this worker meanwhile are left to the leader");
        }
        let all_ended = async {
            while let Some(ended) = self.consumers.join_next_with_id().await {
                self.consumer_ended(ended);
            }
        };
        let outcome =
            worker.context.clock.timeout(worker.context.lifecycle.shutdown_timeout, all_ended).await;
        if outcome.is_err() {
            tracing::warn!(
                left = self.consumers.len(),
                "processors did not return in time; their leases will expire"
            );
        }
        self.consumers.len()
    }

    async fn round(&mut self) {
        self.next_round = self.due_after(self.worker.context.clock.now());
        let (role, now) = (self.role(), self.worker.context.clock.now());
        match role {
            // It sees no lease but its own.
            Role::Follower => self.worker.health.scanned(0, None, now),
            Role::Independent | Role::Leader => self.worker.health.led(true, now),
        }
        match role {
            Role::Independent => self.independent_round().await,
            Role::Leader => self.leader_round().await,
            Role::Follower => self.follower_round().await,
        }
        self.next_plan = self.after_pause();
        self.next_round =
            self.next_round.max(self.next_plan).max(self.worker.context.clock.now() + ROUND_MIN);
    }

    /// When the next plan may be made after one that was made now.
    fn after_pause(&self) -> Moment {
        let leases = u32::try_from(self.view.len()).unwrap_or(u32::MAX);
        self.worker.context.clock.now() + PAUSE_PER_LEASE.saturating_mul(leases).min(PAUSE_MAX)
    }

    fn role(&self) -> Role {
        if self.worker.protocol.get() != Protocol::Led {
            Role::Independent
        } else if self.worker.election.leads(self.worker.context.clock.now()) {
            Role::Leader
        } else {
            Role::Follower
        }
    }

    /// When the next round is due after one that started now. Workers that were started together
    /// need not scan together.
    fn due_after(&mut self, started: Moment) -> Moment {
        let interval = match self.role() {
            Role::Independent => self.worker.context.coordination.assignment_interval(self.workers),
            Role::Leader => self.worker.context.coordination.leader_interval(self.view.len()),
            Role::Follower => self.worker.context.coordination.discovery_interval(),
        };
        started + interval.mul_f64(0.9 + 0.2 * self.rng.f64())
    }

    /// Takes up streams that were added and lets go of those that were removed.
    fn follow_streams(&mut self) {
        let now = self.worker.context.clock.now();
        let tracked = self.worker.streams.tracked();
        // One may have been removed and added again.
        let addresses: HashSet<*const TrackedStream> = tracked.iter().map(Arc::as_ptr).collect();
        let before = self.streams.len();
        self.streams.retain(|_, synced| {
            let is_tracked = addresses.contains(&Arc::as_ptr(&synced.stream));
            if !is_tracked {
                // From here on nothing of it is taken any more.
                synced.stream.consumers.close();
            }
            is_tracked
        });
        let Self { streams, view, .. } = self;
        if streams.len() < before {
            view.retain(|lease| streams.contains_key(&lease.stream_name));
        }
        let coordination = &self.worker.context.coordination;
        let is_multi = self.worker.streams.is_multi();
        for stream in tracked {
            let name = stream.lease_name();
            self.streams.entry(name).or_insert_with(|| {
                // Its leases were not looked at before.
                self.next_round = now;
                SyncedStream::new(stream, coordination, is_multi, now)
            });
        }
    }

    /// What `LATEST` means for `lease` unless its row says it.
    pub(super) fn latest_since(&self, lease: &Lease) -> u64 {
        self.streams.get(&lease.stream_name).map_or(0, |synced| synced.stream.latest_since())
    }

    /// A stream that was created again has another name in the table, in multi-stream mode: the application is
    /// not new to it, and all that the new one holds was written since.
    fn note_earlier_streams(&mut self, others: &[Lease]) {
        let others: BTreeSet<&str> = others.iter().filter_map(|lease| lease.stream_name.as_deref()).collect();
        for synced in self.streams.values_mut() {
            let earlier = synced.stream.id.serialized().and_then(|ours| {
                let (name, epoch) = ours.rsplit_once(':')?;
                let epoch: u64 = epoch.parse().ok()?;
                let is_earlier = |other: &&&str| {
                    other
                        .rsplit_once(':')
                        .is_some_and(|(of, at)| of == name && at.parse::<u64>().is_ok_and(|at| at < epoch))
                };
                others.iter().find(is_earlier).copied()
            });
            if let Some(earlier) = earlier
                && synced.sync.note_earlier_stream()
            {
                let reason = format!(
                    "the table has leases of {earlier}, an earlier stream of this name; shards of the new one that \
                     have no lease are read from the oldest record. Delete the rows of the earlier one when no \
                     worker reads it any more"
                );
                tracing::warn!(stream = %synced.stream.id, reason, "a stream was created again");
                let stream = synced.stream.id.clone();
                self.worker.context.events.emit(Event::StreamRecreated { stream, reason: reason.into() });
            }
        }
    }

    /// Reports once that there are leases that no stream of this consumer will ever have.
    fn report_other_mode(&mut self, others: Vec<Lease>) {
        let is_multi = self.worker.streams.is_multi();
        let mut others =
            others.into_iter().filter(|lease| lease.stream_name.is_some() != is_multi).peekable();
        let Some(lease) = others.peek().filter(|_| !self.has_reported_other_mode) else { return };
        let lease = lease.key.clone();
        self.has_reported_other_mode = true;
        let count = others.count();
        tracing::warn!(
            %lease, count,
            "the table has leases of {}; they are left alone, and what they say is not used",
            if is_multi { "a consumer of a single stream" } else { "a consumer of several streams" }
        );
        self.worker.context.events.emit(Event::LeasesOfOtherMode { lease, count });
    }

    /// Returns the rows that are no leases.
    pub(super) async fn scan(&mut self) -> Result<Vec<Item>, StoreError> {
        let since = self.worker.context.clock.now();
        self.worker.health.sent(Purpose::Reading, since);
        let scan = self.worker.context.store.scan().await;
        let now = self.worker.context.clock.now();
        let mut report = self.worker.context.metrics.operation(Operation::TakeLeases);
        report.outcome(names::LIST_LEASES, scan.is_ok(), now.since(since));
        let scan = scan?;
        self.worker.health.answered(Purpose::Reading);
        report.add(names::UNREADABLE_LEASES, scan.unreadable.len() as u64);
        self.let_others_run().await;
        // Leases of a stream that was removed meanwhile are not to be taken.
        self.follow_streams();
        let (leases, others): (Vec<Lease>, Vec<Lease>) =
            scan.leases.into_iter().partition(|lease| self.reads(lease));
        self.report_shared_table(&others);
        self.note_earlier_streams(&others);
        self.report_other_mode(others);
        self.look_for_duplicates(&leases);
        self.observe(leases, now).await;
        self.note_unread(now);
        self.scanned = since;
        let unreadable: BTreeSet<String> = scan.unreadable.iter().map(ToString::to_string).collect();
        for row in unreadable.difference(&self.reported_unreadable) {
            tracing::error!(row, "a row of the lease table cannot be read and is left alone");
            self.worker.context.events.emit(Event::LeaseUnreadable { row: row.as_str().into() });
        }
        self.reported_unreadable = unreadable;
        let is_running = |seen: &Observed| !seen.lease.checkpoint.is_shard_end();
        self.worker.open_leases.observe(|key| self.view.get(key).is_some_and(is_running));
        Ok(scan.entities)
    }

    /// Takes in what a scan has found, which takes time in proportion to the table; renewals go on in
    /// between.
    async fn observe(&mut self, mut leases: Vec<Lease>, now: Moment) {
        leases.sort_by(|a, b| a.key.cmp(&b.key));
        self.let_others_run().await;
        let mut scan = self.view.begin_scan(now);
        for (index, lease) in leases.into_iter().enumerate() {
            scan.observe(lease);
            if index % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 {
                task::yield_now().await;
            }
        }
        self.view.finish_scan(scan);
        self.let_others_run().await;
    }

    /// Between two steps that each take time in proportion to the table: renewals run on the same thread.
    pub(super) async fn let_others_run(&self) {
        if self.view.len() >= ROWS_AT_ONCE {
            task::yield_now().await;
        }
    }

    /// Notes leases that nobody renews, though their shards have not ended.
    fn note_unread(&self, now: Moment) {
        let failover_time = self.worker.context.coordination.failover_time;
        let mut unread = self.view.iter().filter(|observed| {
            !observed.lease.checkpoint.is_shard_end()
                && observed.is_stale(failover_time, now)
                && !self.worker.held_leases.contains(&observed.lease.key)
        });
        let example = unread.next().map(|observed| observed.lease.key.clone());
        let count = usize::from(example.is_some()) + unread.count();
        self.worker.health.scanned(count, example, now);
    }

    /// Looks through rows as they were just read, of which these are all that name this worker.
    pub(super) fn look_for_duplicates(&mut self, leases: &[Lease]) {
        let Self { worker, duplicate_worker, .. } = self;
        let (now, failover_time) = (worker.context.clock.now(), worker.context.coordination.failover_time);
        let held = worker.held_leases.keys();
        let ours = leases.iter().filter(|lease| {
            lease.actual_owner() == Some(&worker.context.id)
                && !lease.checkpoint.is_shard_end()
                && !held.contains(&lease.key)
        });
        let mut named = held.clone();
        for lease in ours {
            named.insert(lease.key.clone());
            duplicate_worker.observe(lease, failover_time, now);
        }
        duplicate_worker.retain(|key| named.contains(key));
        self.report_duplicate(now);
    }

    fn report_duplicate(&mut self, now: Moment) {
        let Self { worker, duplicate_worker, .. } = self;
        let failover_time = worker.context.coordination.failover_time;
        worker.health.set_name_taken(duplicate_worker.is_suspected(failover_time, now));
        if duplicate_worker.is_report_due(failover_time, now) {
            tracing::error!(
                worker_id = %worker.context.id,
                "another worker of this application has the same worker_id; give each worker an id of its own"
            );
            worker.context.events.emit(Event::DuplicateWorkerId { worker: worker.context.id.clone() });
        }
    }

    /// Processes what workers of this process have published about rows, all of it at once. Whether there may be
    /// something to take now.
    fn take_news(&mut self, first: Result<Lease, RecvError>) -> bool {
        let now = self.worker.context.clock.now();
        let mut is_something_free = false;
        let mut has_missed = first.is_err();
        let mut news: Vec<Lease> = first.into_iter().collect();
        while news.len() < NEWS_AT_ONCE {
            match self.news.try_recv() {
                Ok(lease) => news.push(lease),
                Err(TryRecvError::Lagged(_)) => has_missed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if has_missed {
            // A scan shows them all.
            self.next_round = self.next_round.min(self.next_plan.max(now));
        }
        // A round may have gone past what was published in it.
        let is_old = |lease: &Lease| {
            self.view.get(&lease.key).is_some_and(|known| lease.counter < known.lease.counter)
        };
        news.retain(|lease| self.reads(lease) && !is_old(lease));
        for lease in news {
            is_something_free |= lease.owner.is_none() || lease.checkpoint.is_shard_end();
            is_something_free |= lease.owner.as_ref() == Some(&self.worker.context.id)
                && !self.worker.held_leases.contains(&lease.key);
            if lease.actual_owner().is_some_and(|owner| *owner != self.worker.context.id) {
                self.worker.held_leases.lose(&lease);
            }
            self.learn(lease, now);
        }
        is_something_free
    }

    /// Takes in one row as it really was at `now`.
    pub(super) fn learn(&mut self, lease: Lease, now: Moment) {
        self.worker.open_leases.learn(&lease.key, !lease.checkpoint.is_shard_end());
        self.view.learn(lease, now);
    }

    fn consumer_ended(&mut self, ended: Result<(task::Id, Ending), task::JoinError>) {
        let id = ended.as_ref().map_or_else(task::JoinError::id, |(id, _)| *id);
        let Some(key) = self.consumer_keys.remove(&id) else { return };
        let held = self.worker.held_leases.remove(&key).map(|holding| Arc::clone(&holding.held));
        match ended {
            Ok((_, ending)) => tracing::debug!(lease = %key, ?ending, "shard consumer ended"),
            Err(error) => {
                // Calls of a processor cannot end a consumer like this, but dropping it can, and so does
                // the end of the user's runtime. Nobody renews the lease any more.
                tracing::error!(lease = %key, %error, "a shard consumer failed; its lease runs out");
                self.worker.context.coordination_failed("RunShardConsumer", &error);
                held.iter().for_each(|held| held.abandon());
            }
        }
        if let Some(held) = held {
            let (lease, now) = (held.lease(), self.worker.context.clock.now());
            if held.is_lost_to_namesake() {
                self.duplicate_worker.stolen(&lease, now);
                self.report_duplicate(now);
            } else {
                self.duplicate_worker.note_indeterminate(&lease, now);
            }
            if self.reads(&lease) {
                self.learn(lease, now);
            }
        }
    }

    /// Something may have become free, or this worker's.
    async fn act_on_news(&mut self) {
        if self.worker.context.stopping.is_cancelled() {
            return;
        }
        match self.role() {
            Role::Independent => self.assign().await,
            Role::Leader if self.leading.is_leader() => {
                self.accept_assignments_from_view().await;
                self.assign_to_all().await;
            }
            Role::Leader | Role::Follower => self.accept_assignments_from_view().await,
        }
    }

    pub(super) fn start_consumer(&mut self, lease: Lease, previous: Lease, taken: Moment) {
        // Only leases of these are taken, and it may be one that was removed a moment ago.
        let Some(synced) = self.streams.get(&lease.stream_name) else { return };
        let (worker, stream) = (Arc::clone(&self.worker), Arc::clone(&synced.stream));
        let key = lease.key.clone();
        worker.context.events.emit(Event::LeaseGained {
            lease: key.clone(),
            previous_owner: previous.owner.filter(|owner| *owner != worker.context.id),
            checkpoint: lease.checkpoint.clone(),
        });
        let status = Arc::new(StatusCell::new(stream.id.clone(), &lease));
        let held = Arc::new(HeldLease::new(
            Arc::clone(&worker.context.store),
            Arc::clone(&worker.context.write_pacer),
            worker.context.clock.clone(),
            worker.context.id.clone(),
            worker.context.coordination.failover_time,
            lease,
            taken,
            worker.context.seeds.seed(),
        ));
        self.duplicate_worker.taken(held.key());
        worker.held_leases.insert(HeldLeaseEntry {
            held: Arc::clone(&held),
            status: Arc::clone(&status),
            _of_stream: stream.consumers.token(),
        });
        let consumer = ShardConsumer::new(Arc::clone(&self.shards), stream, held, status);
        let task = self.consumers.spawn_on(consumer.run(), &self.user_runtime);
        self.consumer_keys.insert(task.id(), key);
    }
}

/// Waits until `moment`, if that is not over yet.
async fn due(worker: &Worker, moment: Moment) {
    if worker.context.clock.now() < moment {
        worker.context.clock.sleep_until(moment).await;
    }
}

/// What a coordinator does in its rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Takes for itself.
    Independent,
    /// Assigns to all.
    Leader,
    /// Takes up what it is assigned.
    Follower,
}
