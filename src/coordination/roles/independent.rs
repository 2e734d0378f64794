use std::collections::BTreeMap;

use crate::coordination::assign::claim_attempts::{AfterClaim, ClaimAttempts};
use crate::coordination::assign::independent::{Rules, plan_assignment};
use crate::coordination::command::{Command, Note, PlanReport, PlannedWrite};
use crate::coordination::state::Coordinator;
use crate::lease::{Lease, WriteOutcome};
use crate::types::{LeaseKey, Moment};

impl Coordinator {
    /// Takes what the plan says. `room` gives how many leases this worker can renew beside those that it holds,
    /// and is asked only if some are to be taken.
    pub(in crate::coordination) fn plan_claims(
        &mut self,
        room: impl FnOnce(usize) -> usize,
        now: Moment,
    ) -> Vec<Command> {
        let failover_time = self.coordination.failover_time;
        let rules = Rules {
            worker: self.id.clone(),
            max_leases: self.management.max_leases,
            leases_to_acquire: self.management.leases_to_acquire,
            failover_time,
            priority_lease_assignment: self.coordination.priority_lease_assignment,
            barred: self.duplicate_worker.barred(failover_time, now),
        };
        let mut plan = plan_assignment(&self.view, &self.held, &rules, now, &mut self.rng);
        self.workers = plan.workers;
        if !plan.takes.is_empty() {
            // Leases that cannot be renewed would be lost again.
            let room = room(self.held.len());
            if room < plan.takes.len() {
                // Those that have waited longest first.
                let seen: BTreeMap<&LeaseKey, Option<Moment>> =
                    self.view.iter().map(|observed| (&observed.lease.key, observed.changed())).collect();
                plan.takes.sort_by_key(|take| seen.get(&take.lease.key).copied().flatten());
                plan.takes.truncate(room);
            }
        }
        let is_idle = plan.takes.is_empty() && self.held.is_empty();
        let mut commands = vec![Command::Report(PlanReport::Claims(plan.clone()))];
        // Others hold them all.
        commands.extend(is_idle.then_some(Command::Note(Note::NothingToRenew)));
        for claim in plan.takes {
            self.duplicate_worker.note_indeterminate(&claim.lease, now);
            commands.push(self.claim(&ClaimAttempts::new(claim)));
        }
        commands
    }

    /// The next attempt to take a lease.
    fn claim(&self, attempts: &ClaimAttempts) -> Command {
        self.write(PlannedWrite::claim(attempts, &self.id, self.latest_since(attempts.row())))
    }

    /// The table answered an attempt to take a lease, at `at` or, if it was applied, to a request sent then.
    pub(in crate::coordination) fn claimed(
        &mut self,
        mut attempts: ClaimAttempts,
        outcome: WriteOutcome,
        at: Moment,
    ) -> Vec<Command> {
        match attempts.on_outcome(outcome) {
            AfterClaim::Won(lease) => {
                self.learn(Lease::clone(&lease), at);
                self.start(*lease, attempts.row().owner.clone(), at)
            }
            AfterClaim::Again => vec![self.claim(&attempts)],
            AfterClaim::Lost(Some(lease)) if self.reads(&lease) => {
                self.learn(*lease, at);
                Vec::new()
            }
            // It is another stream's.
            AfterClaim::Lost(Some(lease)) => {
                self.view.forget(&lease.key);
                Vec::new()
            }
            AfterClaim::Lost(None) => Vec::new(),
        }
    }
}
