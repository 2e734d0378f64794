//! The coordinator as a value: it is fed what happened, and returns what is to be done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::command::{Command, Note, PlannedWrite, Step, WriteReason};
use super::duplicate_worker::DuplicateWorkerDetector;
use super::leader_state::LeaderState;
use super::migration::leads;
use super::roles::{Role, Run};
use super::view::View;
use crate::config::{CoordinationConfig, ManagementConfig};
use crate::events::Event;
use crate::lease::origin::foreign_stream;
use crate::lease::{Lease, WriteOutcome};
use crate::shard_sync::{StreamSync, plan_cleanup};
use crate::types::{LeaseKey, Moment, StreamId, WorkerId};

/// The least time between two rounds, whatever wakes the coordinator.
const ROUND_MIN: Duration = Duration::from_millis(20);
/// The least time between two plans, for each row of the table: several times what a plan takes, which
/// leaves the thread to renewals however often there is a reason to plan again.
const PAUSE_PER_LEASE: Duration = Duration::from_micros(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a worker knows of its lease table, and when it looks again.
///
/// It decides and does nothing: what is to be done is returned as [`Command`]s, and what became of them is fed
/// back in the next calls.
#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) id: WorkerId,
    pub(super) management: ManagementConfig,
    pub(super) coordination: CoordinationConfig,
    pub(super) is_multi: bool,
    pub(super) rng: fastrand::Rng,
    pub(super) view: View,
    /// The streams this worker reads, by the `streamName` of their leases.
    pub(super) streams: BTreeMap<Option<String>, KnownStream>,
    /// The leases for which this worker runs consumers.
    pub(super) held: BTreeSet<LeaseKey>,
    /// When the last scan that was answered was sent.
    pub(super) scanned: Moment,
    /// The workers that were alive in the last plan.
    pub(super) workers: usize,
    pub(super) leading: LeaderState,
    pub(super) run: Run,
    pub(super) duplicate_worker: DuplicateWorkerDetector,
    /// Leases of this worker's whose shards have ended and whose rows are still there.
    pub(super) ended: BTreeSet<LeaseKey>,
    /// The role in the round or plan that is under way, or was last.
    role: Role,
    is_in_round: bool,
    next_round: Moment,
    /// There may be something to take.
    is_something_free: bool,
    /// Until then, news is not acted on.
    next_plan: Moment,
    next_cleanup: Moment,
    /// Not before then is a missing table created again.
    next_table: Moment,
    pub(super) reported: Reported,
    /// Rows that were learned since this was last asked, each with whether its shard has not ended.
    learned: Vec<(LeaseKey, bool)>,
}

/// A stream that this worker reads, and what is known of its leases.
#[derive(Debug)]
pub(super) struct KnownStream {
    /// Differs for a stream that was removed and added again.
    pub(super) generation: u64,
    pub(super) id: StreamId,
    /// What `LATEST` means for leases that do not say it, in milliseconds of the epoch.
    pub(super) latest_since: u64,
    pub(super) sync: StreamSync,
}

/// What was reported once, and is not reported again.
#[derive(Debug, Default)]
pub(super) struct Reported {
    pub(super) unreadable: BTreeSet<String>,
    pub(super) has_other_mode: bool,
}

/// What became of a write.
#[derive(Debug, PartialEq)]
pub(super) enum Written {
    /// The row is this now, by a request that was sent at `sent`.
    Applied { lease: Box<Lease>, sent: Moment },
    /// The row has changed since the write was planned; as it is now, if it is there and can be read.
    Refused(Option<Box<Lease>>),
    /// It was not sent: another worker may lead by now, and plans.
    NotLeader,
    /// It was not answered, or with an error; it may have happened. That was logged and emitted.
    Failed,
}

impl Coordinator {
    pub(super) fn new(
        id: WorkerId,
        management: ManagementConfig,
        coordination: CoordinationConfig,
        is_multi: bool,
        rng: fastrand::Rng,
        now: Moment,
    ) -> Self {
        Self {
            id,
            management,
            is_multi,
            rng,
            view: View::default(),
            streams: BTreeMap::new(),
            held: BTreeSet::new(),
            scanned: now,
            workers: 1,
            leading: LeaderState::default(),
            run: Run::default(),
            duplicate_worker: DuplicateWorkerDetector::default(),
            ended: BTreeSet::new(),
            role: Role::default(),
            is_in_round: false,
            next_round: now,
            is_something_free: false,
            next_plan: now,
            next_cleanup: now + coordination.lease_cleanup_interval,
            next_table: now,
            reported: Reported::default(),
            learned: Vec::new(),
            coordination,
        }
    }

    /// A stream is read from now on.
    pub(super) fn handle_stream_added(&mut self, stream: KnownStream, now: Moment) {
        // Its leases were not looked at before.
        self.next_round = now;
        self.streams.insert(stream.id.serialized().map(ToOwned::to_owned), stream);
    }

    /// The stream of this generation is not read any more. Answers to what was asked for it are ignored from
    /// here on.
    pub(super) fn handle_stream_removed(&mut self, generation: u64) -> Vec<Command> {
        let before = self.streams.len();
        self.streams.retain(|_, stream| stream.generation != generation);
        if self.streams.len() == before {
            return Vec::new();
        }
        let Self { streams, view, .. } = self;
        view.retain(|lease| streams.contains_key(&lease.stream_name));
        vec![Command::CloseStream(generation)]
    }

    /// Rows as workers of this process say that they have become. `has_missed` says that there were more.
    pub(super) fn handle_notice(&mut self, rows: Vec<Lease>, has_missed: bool, now: Moment) -> Vec<Command> {
        if has_missed {
            // A scan shows them all.
            self.next_round = self.next_round.min(self.next_plan.max(now));
        }
        let mut commands = Vec::new();
        for lease in rows {
            // A round may have gone past what was published in it.
            let is_old = self.view.get(&lease.key).is_some_and(|known| lease.counter < known.lease.counter);
            if is_old || !self.reads(&lease) {
                continue;
            }
            let is_ours = lease.owner.as_ref() == Some(&self.id);
            self.is_something_free |= lease.owner.is_none()
                || lease.checkpoint.is_shard_end()
                || is_ours && !self.held.contains(&lease.key);
            if lease.actual_owner().is_some_and(|owner| *owner != self.id) && self.held.contains(&lease.key) {
                commands.push(Command::StopConsumer(Box::new(lease.clone())));
            }
            self.learn(lease, now);
        }
        commands
    }

    /// The consumer of a lease ended. `row` is the lease as it was last known; `is_stolen` says that it was lost to
    /// a worker of the same name.
    pub(super) fn handle_consumer_ended(
        &mut self,
        key: &LeaseKey,
        row: Option<Lease>,
        is_stolen: bool,
        now: Moment,
    ) -> Vec<Command> {
        self.held.remove(key);
        self.is_something_free = true;
        let Some(lease) = row else { return Vec::new() };
        let mut commands = Vec::new();
        if is_stolen {
            self.duplicate_worker.stolen(&lease, now);
            commands = self.report_duplicate(now);
        } else {
            self.duplicate_worker.note_indeterminate(&lease, now);
        }
        if self.reads(&lease) {
            self.learn(lease, now);
        }
        commands
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn next_deadline(&self) -> Moment {
        if self.is_something_free { self.next_round.min(self.next_plan) } else { self.next_round }
    }

    /// Has the next round begin at `now`.
    pub(super) fn wake(&mut self, now: Moment) {
        self.next_round = self.next_round.min(now);
    }

    /// Begins a round if one is due; else acts on news.
    pub(super) fn handle_timeout(&mut self, role: Role, now: Moment) -> Vec<Command> {
        if self.is_something_free && now >= self.next_plan {
            self.is_something_free = false;
            self.role = role;
            return match role {
                Role::Independent => vec![Command::Then(Step::Plan)],
                Role::Leader if self.leading.is_leader() => {
                    vec![Command::Then(Step::AcceptAssignments), Command::Then(Step::Plan)]
                }
                Role::Leader | Role::Follower => vec![Command::Then(Step::AcceptAssignments)],
            };
        }
        if now < self.next_round {
            return Vec::new();
        }
        self.role = role;
        self.next_round = self.due_after(role, now);
        self.is_in_round = true;
        match role {
            Role::Independent => vec![Command::Note(Note::Led), Command::Scan],
            Role::Leader => {
                self.lead();
                vec![Command::Note(Note::Led), Command::Scan]
            }
            Role::Follower => {
                self.leading.follow();
                // It sees no lease but its own.
                vec![Command::Note(Note::Unread { count: 0, example: None }), Command::ReadOwned]
            }
        }
    }

    /// All that was commanded since [`handle_timeout`](Self::handle_timeout) is answered.
    pub(super) fn handle_done(&mut self, now: Moment) {
        let leases = u32::try_from(self.view.len()).unwrap_or(u32::MAX);
        self.next_plan = now + PAUSE_PER_LEASE.saturating_mul(leases).min(PAUSE_MAX);
        if std::mem::take(&mut self.is_in_round) {
            self.next_round = self.next_round.max(self.next_plan).max(now + ROUND_MIN);
        }
    }

    /// All that was commanded before this step is answered. `room` returns how many more leases this worker can
    /// renew, given the number that it holds.
    pub(super) fn handle_step(
        &mut self,
        step: Step,
        room: impl FnOnce(usize) -> usize,
        now: Moment,
    ) -> Vec<Command> {
        match (step, self.role) {
            (Step::AcceptAssignments, _) => self.accept_known(now),
            (Step::Plan, Role::Independent) => self.plan_claims(room, now),
            (Step::Plan, Role::Leader) => self.plan_for_all(now),
            (Step::CleanUp, Role::Independent | Role::Leader) => self.clean_up(now),
            (Step::EndRun, Role::Leader) => self.end_run(true),
            // Carried out by the loop, or not of this role.
            (Step::SyncShards | Step::Plan | Step::CleanUp | Step::EndRun, _) => Vec::new(),
        }
    }

    /// A write to a lease of the stream of a generation was answered.
    pub(super) fn handle_written(
        &mut self,
        planned: PlannedWrite,
        generation: u64,
        written: Written,
        now: Moment,
    ) -> Vec<Command> {
        if generation != self.generation(&planned.row) {
            // Its stream was removed meanwhile, and perhaps added again.
            return Vec::new();
        }
        match (planned.why, written) {
            (WriteReason::Claim(attempts), Written::Applied { lease, sent }) => {
                self.claimed(attempts, WriteOutcome::Applied(lease), sent)
            }
            (WriteReason::Claim(attempts), Written::Refused(row)) => {
                self.claimed(attempts, WriteOutcome::Refused(row), now)
            }
            (WriteReason::Accept, Written::Applied { lease, sent }) => {
                self.learn(Lease::clone(&lease), sent);
                self.start(*lease, planned.row.owner, sent)
            }
            (WriteReason::Assign { is_graceful, .. }, Written::Applied { lease, sent }) => {
                self.assigned(*lease, planned.row.owner, is_graceful, sent, now)
            }
            (WriteReason::Assign { .. }, Written::Refused(Some(row))) => {
                self.learn(*row, now);
                Vec::new()
            }
            (WriteReason::Assign { .. }, Written::Failed) => {
                self.run.failed += 1;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// This worker holds a lease by a request that was sent at `sent`.
    pub(super) fn start(
        &mut self,
        lease: Lease,
        previous_owner: Option<WorkerId>,
        sent: Moment,
    ) -> Vec<Command> {
        if !self.held.insert(lease.key.clone()) {
            return Vec::new();
        }
        self.duplicate_worker.taken(&lease.key);
        let previous_owner = previous_owner.filter(|owner| *owner != self.id);
        vec![Command::StartConsumer { lease: Box::new(lease), previous_owner, sent }]
    }

    /// Deletes the rows of shards that are finished and no longer needed. One worker of the fleet
    /// does it: its leader or, in a fleet without, the one that leads by the rules of KCL 2.x.
    fn clean_up(&mut self, now: Moment) -> Vec<Command> {
        if !self.is_cleanup_due(now) {
            return Vec::new();
        }
        let live_owners = self.view.live_owners(self.coordination.failover_time, now);
        if self.role == Role::Independent && !leads(&self.id, live_owners) {
            return Vec::new();
        }
        let by_stream = self.view.by_stream();
        let leases = self.streams.keys().filter_map(|stream| by_stream.get(&stream.as_deref()));
        leases.flat_map(|leases| plan_cleanup(leases)).map(Command::DeleteRow).collect()
    }

    /// Whether rows are to be deleted now; not again before the next time.
    pub(super) fn is_cleanup_due(&mut self, now: Moment) -> bool {
        let is_due = self.coordination.cleanup_leases_upon_shard_completion && now >= self.next_cleanup;
        if is_due {
            self.next_cleanup = now + self.coordination.lease_cleanup_interval;
        }
        is_due
    }

    /// The row of a shard that has ended was deleted.
    pub(super) fn handle_deleted(&mut self, key: LeaseKey) -> Vec<Command> {
        self.view.forget(&key);
        self.ended.remove(&key);
        vec![Command::Emit(Event::LeaseDeleted { lease: key })]
    }

    /// Whether a table that is missing is created again now; not again before the next time.
    pub(super) fn is_table_due(&mut self, now: Moment) -> bool {
        let is_due = now >= self.next_table;
        if is_due {
            self.next_table = now + self.coordination.assignment_interval(self.workers);
        }
        is_due
    }

    /// Looks through rows as they were just read, of which these are all that name this worker.
    pub(super) fn look_for_duplicates(&mut self, leases: &[Lease], now: Moment) -> Vec<Command> {
        let Self { id, held, duplicate_worker, coordination, .. } = self;
        let ours = leases.iter().filter(|lease| {
            lease.actual_owner() == Some(&*id)
                && !lease.checkpoint.is_shard_end()
                && !held.contains(&lease.key)
        });
        let mut named = held.clone();
        for lease in ours {
            named.insert(lease.key.clone());
            duplicate_worker.observe(lease, coordination.failover_time, now);
        }
        duplicate_worker.retain(|key| named.contains(key));
        self.report_duplicate(now)
    }

    fn report_duplicate(&mut self, now: Moment) -> Vec<Command> {
        let failover_time = self.coordination.failover_time;
        let is_taken = self.duplicate_worker.is_suspected(failover_time, now);
        let mut commands = vec![Command::Note(Note::NameTaken(is_taken))];
        if self.duplicate_worker.is_report_due(failover_time, now) {
            commands.push(Command::Emit(Event::DuplicateWorkerId { worker: self.id.clone() }));
        }
        commands
    }

    /// When the next round is due after one that started now. Workers that were started together
    /// need not scan together.
    fn due_after(&mut self, role: Role, started: Moment) -> Moment {
        let interval = match role {
            Role::Independent => self.coordination.assignment_interval(self.workers),
            Role::Leader => self.coordination.leader_interval(self.view.len()),
            Role::Follower => self.coordination.discovery_interval(),
        };
        started + interval.mul_f64(0.9 + 0.2 * self.rng.f64())
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// Whether the row is a lease of a stream this worker reads.
    pub(super) fn reads(&self, lease: &Lease) -> bool {
        let stream = self.streams.get(&lease.stream_name);
        stream.is_some_and(|stream| foreign_stream(lease, &stream.id).is_none())
    }

    /// Whether the stream of this generation is still read.
    pub(super) fn is_read(&self, generation: u64) -> bool {
        self.streams.values().any(|stream| stream.generation == generation)
    }

    /// What `LATEST` means for `lease` unless its row says it.
    pub(super) fn latest_since(&self, lease: &Lease) -> u64 {
        self.streams.get(&lease.stream_name).map_or(0, |stream| stream.latest_since)
    }

    /// Takes in one row as it really was at `now`.
    pub(super) fn learn(&mut self, lease: Lease, now: Moment) {
        self.learned.push((lease.key.clone(), !lease.checkpoint.is_shard_end()));
        self.view.learn(lease, now);
    }

    /// The rows that were learned since this was last asked, each with whether its shard has not ended.
    pub(super) fn take_learned(&mut self) -> Vec<(LeaseKey, bool)> {
        std::mem::take(&mut self.learned)
    }

    /// The generation of the stream of a lease; 0 if this worker does not read it.
    fn generation(&self, lease: &Lease) -> u64 {
        self.streams.get(&lease.stream_name).map_or(0, |stream| stream.generation)
    }

    /// A write whose answer counts as long as the stream is read.
    pub(super) fn write(&self, planned: PlannedWrite) -> Command {
        let generation = self.generation(&planned.row);
        Command::Write(Box::new(planned), generation)
    }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;
