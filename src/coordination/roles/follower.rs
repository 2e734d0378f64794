use std::collections::BTreeSet;

use crate::coordination::command::{Command, Note, PlannedWrite, WriteReason};
use crate::coordination::state::Coordinator;
use crate::lease::Lease;
use crate::planted::{Bug, planted};
use crate::types::{LeaseKey, Moment, WorkerId};

impl Coordinator {
    /// Of the keys that the index has of this worker, those whose rows are read: the leases that it does not
    /// hold. Rows of shards that have ended may stay for long, and are not read each time.
    pub(in crate::coordination) fn unknown_of(
        &mut self,
        owned: impl IntoIterator<Item = LeaseKey>,
    ) -> Vec<LeaseKey> {
        let owned: BTreeSet<LeaseKey> = owned.into_iter().collect();
        self.ended.retain(|key| owned.contains(key));
        owned.into_iter().filter(|key| !self.held.contains(key) && !self.ended.contains(key)).collect()
    }

    /// The rows that name this worker and that it does not hold were read, and perhaps others. `is_scan` says
    /// that a scan found them.
    pub(in crate::coordination) fn handle_owned(
        &mut self,
        mut rows: Vec<Lease>,
        is_scan: bool,
        now: Moment,
    ) -> Vec<Command> {
        let mut commands = self.look_for_duplicates(&rows, now);
        if is_scan {
            rows.retain(|lease| !self.held.contains(&lease.key));
        } else {
            let ended = rows.iter().filter(|lease| lease.checkpoint.is_shard_end());
            self.ended.extend(ended.map(|lease| lease.key.clone()));
        }
        commands.extend(self.accept(rows, now));
        commands
    }

    /// Accepts what is known to be assigned to this worker.
    pub(in crate::coordination) fn accept_known(&mut self, now: Moment) -> Vec<Command> {
        let given = self.view.leases().filter(|lease| is_given_to(&self.id, lease));
        let rows = given.filter(|lease| !self.held.contains(&lease.key)).cloned().collect();
        self.accept(rows, now)
    }

    /// Renews each of `rows` that names this worker and that nobody else still works on: only a write shows that
    /// it is ours. What is of streams that this worker does not read, but the leader does, is given back. It is
    /// assigned nothing for a while then, and others go on.
    fn accept(&mut self, rows: Vec<Lease>, now: Moment) -> Vec<Command> {
        let (ours, others): (Vec<Lease>, Vec<Lease>) =
            self.given(rows, now).into_iter().partition(|lease| self.reads(lease));
        let mut commands = Vec::new();
        if ours.is_empty() && self.held.is_empty() {
            commands.push(Command::Note(Note::NothingToRenew));
        }
        for lease in &ours {
            self.duplicate_worker.note_indeterminate(lease, now);
            commands.push(self.write(PlannedWrite::accept(lease, self.latest_since(lease))));
        }
        for lease in others.iter().filter(|lease| lease.stream_name.is_some() == self.is_multi) {
            let planned = PlannedWrite::give_back(lease, &self.id, WriteReason::NotRead);
            commands.push(self.write(planned));
        }
        commands
    }

    /// Gives back, before this worker stops, what was assigned to it and it has not accepted: else it would have
    /// to run out.
    pub(in crate::coordination) fn give_back_unaccepted(
        &self,
        rows: Vec<Lease>,
        now: Moment,
    ) -> Vec<Command> {
        let unaccepted = self.given(rows, now).into_iter().filter(|lease| self.reads(lease));
        let give_back = |lease: Lease| PlannedWrite::give_back(&lease, &self.id, WriteReason::Stopping);
        unaccepted.map(|lease| self.write(give_back(lease))).collect()
    }

    fn given(&self, rows: Vec<Lease>, now: Moment) -> Vec<Lease> {
        let barred = self.duplicate_worker.barred(self.coordination.failover_time, now);
        let is_ours = |lease: &Lease| {
            is_given_to(&self.id, lease) && !barred.contains(&lease.key) && !self.held.contains(&lease.key)
        };
        rows.into_iter().filter(is_ours).collect()
    }
}

/// Whether a lease is `worker`'s, and nobody else's to work on any more.
pub(crate) fn is_given_to(worker: &WorkerId, lease: &Lease) -> bool {
    let is_free = lease.checkpoint_owner.is_none() || planted(Bug::TakesUpBeforeHandoff);
    lease.owner.as_ref() == Some(worker) && is_free && !lease.checkpoint.is_shard_end()
}
