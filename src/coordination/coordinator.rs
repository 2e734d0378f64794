use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};
use tokio::task::{self, JoinSet};

use super::Worker;
use super::command::{Command, PlannedWrite, Step};
use super::election::resign;
use super::executor;
use super::health::Purpose;
use super::migration::Protocol;
use super::reports::{self, OpenReport};
use super::roles::Role;
use super::state::{Coordinator, Written};
use super::tracked::Tracked;
use super::view::Observed;
use super::worker_metrics::retract;
use crate::lease::{EntityKind, Item, Lease};
use crate::metrics::{Operation, names};
use crate::shard::{ShardEnvironment, ShardOutcome};
use crate::types::{LeaseKey, Moment};

/// Conditional writes under way at once.
pub(super) const CONCURRENT_WRITES: usize = 32;
/// Ends of consumers, or rows from the notifier, that are taken in at a time.
const NEWS_AT_ONCE: usize = 1024;
/// Rows of a scan that are taken in at a time.
const ROWS_AT_ONCE: usize = 2048;

/// Watches the lease table, takes leases, and runs a consumer for each one taken.
///
/// # Expected flow
///
/// What happens is fed to a [`Coordinator`], and what that commands is carried out. A round scans the table,
/// creates leases that are missing, takes what the plan says and deletes what is finished. News from the notifier
/// (a lease freed, ended or created in this process) or from a consumer that ended start the taking at once,
/// without a scan.
pub(crate) struct LeaseCoordinator {
    pub(super) worker: Arc<Worker>,
    pub(super) shards: Arc<ShardEnvironment>,
    pub(super) user_runtime: Handle,
    pub(super) state: Coordinator,
    pub(super) tracked: Tracked,
    news: broadcast::Receiver<Lease>,
    pub(super) consumers: JoinSet<ShardOutcome>,
    pub(super) consumer_keys: HashMap<task::Id, LeaseKey>,
    /// Whether the index from owners to leases can be read.
    pub(super) has_owner_index: bool,
}

impl LeaseCoordinator {
    pub(crate) fn new(worker: Arc<Worker>, shards: Arc<ShardEnvironment>, user_runtime: Handle) -> Self {
        let context = &worker.context;
        let state = Coordinator::new(
            context.id.clone(),
            context.management.clone(),
            context.coordination.clone(),
            worker.streams.is_multi(),
            context.seeds.rng(),
            context.clock.now(),
        );
        let mut coordinator = Self {
            shards,
            user_runtime,
            state,
            tracked: Tracked::default(),
            news: context.notifier.listen(),
            consumers: JoinSet::new(),
            consumer_keys: HashMap::new(),
            has_owner_index: false,
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
        let clock = &worker.context.clock;
        while !worker.context.stopping.is_cancelled() {
            self.catch_up_with_streams();
            // First, so that no other input can keep a round waiting.
            let now = clock.now();
            let commands = self.state.handle_timeout(self.role(now), now);
            if !commands.is_empty() {
                self.carry_out(commands).await;
                self.state.handle_done(clock.now());
                continue;
            }
            tokio::select! {
                biased;
                () = worker.context.stopping.cancelled() => {}
                () = worker.streams.changed() => self.follow_streams(),
                Some(ended) = self.consumers.join_next_with_id() => {
                    self.consumer_ended(ended);
                    for _ in 1..NEWS_AT_ONCE {
                        let Some(ended) = self.consumers.try_join_next_with_id() else { break };
                        self.consumer_ended(ended);
                    }
                }
                news = self.news.recv() => self.take_news(news),
                () = worker.wake.notified() => self.state.wake(clock.now()),
                () = clock.sleep_until(self.state.next_deadline()) => {}
            }
        }
        // Another worker may lead, and assign what this one is about to give back.
        let ((), (), left_behind) = tokio::join!(resign(&worker, None), retract(&worker), self.drain());
        left_behind
    }

    /// Every consumer has seen the stop by itself; waits for them, within bounds.
    async fn drain(mut self) -> usize {
        let worker = Arc::clone(&self.worker);
        let given_back = worker
            .context
            .clock
            .timeout(worker.context.coordination.failover_time, self.give_back_unaccepted());
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

    async fn give_back_unaccepted(&mut self) {
        if self.worker.protocol.get() != Protocol::Led {
            return;
        }
        let Ok((rows, _)) = self.read_owned().await else { return };
        let commands = self.state.give_back_unaccepted(rows, self.worker.context.clock.now());
        self.carry_out(commands).await;
    }

    fn role(&self, now: Moment) -> Role {
        if self.worker.protocol.get() != Protocol::Led {
            Role::Independent
        } else if self.worker.election.leads(now) {
            Role::Leader
        } else {
            Role::Follower
        }
    }

    /// Before an answer is fed to the coordinator: it may be about a stream that was removed meanwhile.
    pub(super) fn catch_up_with_streams(&mut self) {
        let worker = Arc::clone(&self.worker);
        if worker.streams.changed().now_or_never().is_some() {
            self.follow_streams();
        }
    }

    /// Reports to the coordinator which streams were added and removed.
    fn follow_streams(&mut self) {
        let now = self.worker.context.clock.now();
        let (added, removed) = self.tracked.follow(&self.worker, now);
        for generation in removed {
            let commands = self.state.handle_stream_removed(generation);
            self.act_on_all(commands);
            self.tracked.forget(generation);
        }
        for stream in added {
            self.state.handle_stream_added(stream, now);
        }
    }

    /// Carries out commands, and what they lead to, until there is nothing left to do. Up to
    /// [`CONCURRENT_WRITES`] writes are under way at once; everything else happens one after another.
    pub(super) async fn carry_out(&mut self, commands: Vec<Command>) {
        let worker = Arc::clone(&self.worker);
        let mut waiting = VecDeque::from(commands);
        let mut writes = FuturesUnordered::new();
        let mut report: Option<OpenReport> = None;
        loop {
            let is_next = match waiting.front() {
                Some(Command::Write(..)) => writes.len() < CONCURRENT_WRITES,
                // What is known then depends on the answers.
                Some(Command::Then(_)) => writes.is_empty(),
                Some(_) => true,
                None => false,
            };
            let next = if is_next { waiting.pop_front() } else { None };
            if let Some(command) = next {
                match command {
                    Command::Write(planned, generation) => {
                        let worker = Arc::clone(&worker);
                        writes.push(async move {
                            let written = executor::write(&worker, &planned).await;
                            (planned, generation, written)
                        });
                    }
                    Command::Then(step) => {
                        if let Some(report) = report.take() {
                            report.finish(worker.context.clock.now());
                        }
                        self.let_others_run().await;
                        waiting_first(&mut waiting, self.take_step(step).await);
                    }
                    Command::Scan => waiting_first(&mut waiting, self.scan().await),
                    Command::ReadOwned => {
                        let (open, commands) = self.discover().await;
                        report = open;
                        waiting_first(&mut waiting, commands);
                    }
                    Command::Report(plan) => {
                        report = Some(OpenReport::new(&worker.context, plan));
                    }
                    Command::DeleteRow(key) => {
                        if !self.delete(key).await {
                            waiting.retain(|command| !matches!(command, Command::DeleteRow(_)));
                        }
                    }
                    Command::DeleteWorkerRow(stats) => {
                        let (kind, key) = (EntityKind::WorkerMetricStats, stats.worker.as_str().into());
                        let deleted =
                            worker.context.store.delete_entity(kind, &key, &[stats.unchanged()]).await;
                        if let Err(error) = deleted {
                            worker.context.coordination_failed("DeleteWorkerMetrics", &error);
                            waiting.retain(|command| !matches!(command, Command::DeleteWorkerRow(_)));
                        }
                    }
                    Command::Resign => self.resign().await,
                    other => self.act(other),
                }
                continue;
            }
            let Some((planned, generation, written)) = writes.next().await else {
                if let Some(report) = report {
                    report.finish(worker.context.clock.now());
                }
                return;
            };
            if let Some(report) = &mut report {
                report.note(&written);
            }
            for command in self.feed_written(*planned, generation, written) {
                match command {
                    Command::Write(..) => waiting.push_front(command),
                    other => self.act(other),
                }
            }
        }
    }

    fn feed_written(&mut self, planned: PlannedWrite, generation: u64, written: Written) -> Vec<Command> {
        self.catch_up_with_streams();
        let now = self.worker.context.clock.now();
        let commands = self.state.handle_written(planned, generation, written, now);
        self.note_learned();
        commands
    }

    /// Takes in one row as it is now.
    pub(super) fn learn_row(&mut self, lease: Lease) {
        self.state.learn(lease, self.worker.context.clock.now());
        self.note_learned();
    }

    pub(super) fn note_learned(&mut self) {
        for (key, is_running) in self.state.take_learned() {
            self.worker.open_leases.learn(&key, is_running);
        }
    }

    pub(super) fn act_on_all(&mut self, commands: Vec<Command>) {
        commands.into_iter().for_each(|command| self.act(command));
    }

    /// Carries out a command that sends no request.
    fn act(&mut self, command: Command) {
        match command {
            Command::StartConsumer { lease, previous_owner, sent } => {
                self.start_consumer(*lease, previous_owner, sent);
            }
            Command::StopConsumer(row) => self.worker.held_leases.lose(&row),
            Command::CloseStream(generation) => self.tracked.close(generation),
            Command::Note(note) => reports::note(&self.worker, note),
            Command::Emit(event) => reports::emit(&self.worker.context, event),
            other => {
                tracing::error!(command = %other, "a command that takes a request is not carried out here")
            }
        }
    }

    async fn take_step(&mut self, step: Step) -> Vec<Command> {
        let worker = Arc::clone(&self.worker);
        let is_stopping = worker.context.stopping.is_cancelled();
        match step {
            // What is taken now would be given back.
            Step::AcceptAssignments | Step::Plan if is_stopping => return Vec::new(),
            Step::SyncShards => self.create_missing_leases().await,
            Step::CleanUp if self.state.role() == Role::Follower => self.clean_up_after_itself().await,
            _ => {}
        }
        let room = |held| worker.context.write_pacer.takes(held);
        self.state.handle_step(step, room, worker.context.clock.now())
    }

    async fn scan(&mut self) -> Vec<Command> {
        let worker = Arc::clone(&self.worker);
        let sent = worker.context.clock.now();
        worker.health.sent(Purpose::Reading, sent);
        let scan = worker.context.store.scan().await;
        let now = worker.context.clock.now();
        let mut report = worker.context.metrics.operation(Operation::TakeLeases);
        report.outcome(names::LIST_LEASES, scan.is_ok(), now.since(sent));
        let scan = match scan {
            Ok(scan) => scan,
            Err(error) => {
                self.reading_failed("ListLeases", &error).await;
                let is_leader = self.state.role() == Role::Leader;
                return if is_leader { self.state.end_run(false) } else { Vec::new() };
            }
        };
        worker.health.answered(Purpose::Reading);
        report.add(names::UNREADABLE_LEASES, scan.unreadable.len() as u64);
        self.let_others_run().await;
        self.catch_up_with_streams();
        let (leases, others): (Vec<Lease>, Vec<Lease>) =
            scan.leases.into_iter().partition(|lease| self.state.reads(lease));
        self.report_shared_table(&others);
        let unreadable: BTreeSet<String> = scan.unreadable.iter().map(ToString::to_string).collect();
        let mut commands = self.state.handle_other_rows(others, unreadable);
        commands.extend(self.state.look_for_duplicates(&leases, now));
        self.observe(leases, now).await;
        if self.state.role() == Role::Leader {
            commands.extend(self.note_workers(&scan.entities));
        }
        commands.extend(self.state.handle_scan(sent, now));
        let is_running = |seen: &Observed| !seen.lease.checkpoint.is_shard_end();
        worker.open_leases.observe(|key| self.state.view.get(key).is_some_and(is_running));
        commands
    }

    /// Takes in what a scan has found, which takes time in proportion to the table; renewals go on in
    /// between.
    async fn observe(&mut self, mut leases: Vec<Lease>, now: Moment) {
        leases.sort_by(|a, b| a.key.cmp(&b.key));
        self.let_others_run().await;
        let mut scan = self.state.view.begin_scan(now);
        for (index, lease) in leases.into_iter().enumerate() {
            scan.observe(lease);
            if index % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 {
                task::yield_now().await;
            }
        }
        self.state.view.finish_scan(scan);
        self.let_others_run().await;
    }

    /// Between two steps that each take time in proportion to the table: renewals run on the same thread.
    async fn let_others_run(&self) {
        if self.state.view.len() >= ROWS_AT_ONCE {
            task::yield_now().await;
        }
    }

    fn note_workers(&mut self, entities: &[Item]) -> Vec<Command> {
        let worker = Arc::clone(&self.worker);
        let clock = &worker.context.clock;
        let (found, commands) = self.state.handle_workers(entities, clock.wall(), clock.now());
        for reason in &found.invalid {
            tracing::warn!(reason, "the metrics row of a worker cannot be read");
        }
        let mut report = worker.context.metrics.operation(Operation::LeaseAssignmentManager);
        report.add(names::WORKERS_WITH_INVALID_ENTRY, found.invalid.len() as u64);
        worker.seen_workers.publish(self.state.leading.workers());
        commands
    }

    async fn resign(&mut self) {
        let worker = Arc::clone(&self.worker);
        tracing::warn!("giving leadership up after several failed runs");
        let mut report = worker.context.metrics.operation(Operation::LeaseAssignmentManager);
        report.add(names::FORCE_LEADER_RELEASE, 1_u32);
        drop(report);
        let now = worker.context.clock.now();
        resign(&worker, Some(now + worker.context.coordination.leader_lease_duration())).await;
    }

    /// Takes in what workers of this process publish of rows, all such news at once.
    fn take_news(&mut self, first: Result<Lease, RecvError>) {
        let mut has_missed = first.is_err();
        let mut news: Vec<Lease> = first.into_iter().collect();
        while news.len() < NEWS_AT_ONCE {
            match self.news.try_recv() {
                Ok(lease) => news.push(lease),
                Err(TryRecvError::Lagged(_)) => has_missed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let commands = self.state.handle_notice(news, has_missed, self.worker.context.clock.now());
        self.note_learned();
        self.act_on_all(commands);
    }
}

/// What a command leads to comes before what was commanded after it.
fn waiting_first(waiting: &mut VecDeque<Command>, commands: Vec<Command>) {
    for command in commands.into_iter().rev() {
        waiting.push_front(command);
    }
}
