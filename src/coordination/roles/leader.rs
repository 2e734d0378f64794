use std::time::{Duration, SystemTime};

use crate::coordination::assign::leader::{LeaderRules, LeaseAssignment};
use crate::coordination::command::{Command, PlanReport, PlannedWrite};
use crate::coordination::leader_state::{LeaderState, WorkerRows};
use crate::coordination::state::Coordinator;
use crate::coordination::view::View;
use crate::lease::{Item, Lease};
use crate::types::{Moment, WorkerId};

/// Rows of workers long gone that are deleted in one round: there is no hurry.
const DELETED_AT_ONCE: usize = 8;

/// What has become of the assignments of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::coordination) struct Run {
    pub(in crate::coordination) planned: usize,
    pub(in crate::coordination) failed: usize,
}

impl Run {
    /// Whether the table could be written to.
    fn is_successful(self) -> bool {
        self.planned == 0 || self.failed < self.planned
    }
}

impl Coordinator {
    /// A round of a leader begins.
    pub(in crate::coordination) fn lead(&mut self) {
        if !self.leading.is_leader() {
            // What was seen before may be long ago.
            self.view = View::default();
            self.leading = LeaderState::begin();
        }
    }

    /// Notes which workers can be assigned leases, and deletes rows of workers that are long gone.
    pub(in crate::coordination) fn handle_workers(
        &mut self,
        rows: &[Item],
        wall: SystemTime,
        now: Moment,
    ) -> (WorkerRows, Vec<Command>) {
        let mut found = self.leading.note_workers(rows, wall, now);
        let abandoned = std::mem::take(&mut found.abandoned).into_iter().take(DELETED_AT_ONCE);
        let commands = abandoned.map(|stats| Command::DeleteWorkerRow(Box::new(stats))).collect();
        (found, commands)
    }

    /// Plans by what is known who should hold what.
    pub(in crate::coordination) fn plan_for_all(&mut self, now: Moment) -> Vec<Command> {
        let handoff_time = self.handoff_time();
        self.leading.note_handoffs(&self.view, now + handoff_time);
        let rules = LeaderRules::new(&self.coordination, self.management.max_leases);
        let (us, seen) = (self.id.clone(), self.scanned);
        let plan = self.leading.plan(&mut self.view, &us, &rules, seen, now, &mut self.rng);
        self.run = Run { planned: plan.moves.len(), failed: 0 };
        let mut commands = vec![Command::Report(PlanReport::Assignments(plan.clone()))];
        commands.extend(plan.moves.iter().map(|assignment| self.assign(assignment)));
        commands
    }

    fn assign(&self, assignment: &LeaseAssignment) -> Command {
        let planned = PlannedWrite::assign(assignment, self.latest_since(&assignment.lease));
        self.write(planned)
    }

    /// A lease was assigned, or a handoff begun.
    pub(in crate::coordination) fn assigned(
        &mut self,
        lease: Lease,
        previous_owner: Option<WorkerId>,
        is_graceful: bool,
        sent: Moment,
        now: Moment,
    ) -> Vec<Command> {
        // However long the request took: the row is as it was when it landed, and the old owner can only
        // know of a handoff since.
        if is_graceful {
            let until = now + self.handoff_time();
            self.leading.handoff_began(lease.key.clone(), until);
        }
        self.learn(lease.clone(), now);
        let is_ours = lease.owner.as_ref() == Some(&self.id) && !lease.checkpoint.is_shard_end();
        if is_graceful || !is_ours || self.held.contains(&lease.key) {
            return Vec::new();
        }
        // The write that assigned it is as good as one that takes it.
        self.view.acknowledge(&lease.key);
        self.start(lease, previous_owner, sent)
    }

    fn handoff_time(&self) -> Duration {
        self.coordination.leader.graceful_handoff_timeout + self.coordination.failover_time
    }

    /// A run ended. After some failures in a row another worker should try.
    pub(in crate::coordination) fn end_run(&mut self, is_read: bool) -> Vec<Command> {
        self.leading.note_run(is_read && self.run.is_successful());
        if !self.leading.must_resign() {
            return Vec::new();
        }
        self.leading = LeaderState::default();
        vec![Command::Resign]
    }
}
