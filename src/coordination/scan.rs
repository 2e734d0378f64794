//! What the coordinator makes of a scan.

use std::collections::BTreeSet;

use super::command::{Command, Note, Step};
use super::roles::Role;
use super::state::Coordinator;
use crate::events::Event;
use crate::lease::Lease;
use crate::types::Moment;

impl Coordinator {
    /// A scan showed rows that are not leases of this worker's streams: `others`, and some that are not readable.
    pub(super) fn handle_other_rows(
        &mut self,
        others: Vec<Lease>,
        unreadable: BTreeSet<String>,
    ) -> Vec<Command> {
        let mut commands = self.note_earlier_streams(&others);
        commands.extend(self.report_other_mode(others));
        let new = unreadable.difference(&self.reported.unreadable);
        commands.extend(new.map(|row| Command::Emit(Event::LeaseUnreadable { row: row.as_str().into() })));
        self.reported.unreadable = unreadable;
        commands
    }

    /// The view shows what a scan has found that was sent at `sent`, and complete at `now`.
    pub(super) fn handle_scan(&mut self, sent: Moment, now: Moment) -> Vec<Command> {
        self.scanned = sent;
        let mut commands = vec![self.note_unread(now), Command::Then(Step::SyncShards)];
        commands.extend(match self.role() {
            Role::Leader => {
                [Step::AcceptAssignments, Step::Plan, Step::CleanUp, Step::EndRun].map(Command::Then).to_vec()
            }
            Role::Independent | Role::Follower => [Step::Plan, Step::CleanUp].map(Command::Then).to_vec(),
        });
        commands
    }

    /// Notes leases that nobody renews, though their shards have not ended.
    fn note_unread(&self, now: Moment) -> Command {
        let failover_time = self.coordination.failover_time;
        let mut unread = self.view.iter().filter(|observed| {
            !observed.lease.checkpoint.is_shard_end()
                && observed.is_stale(failover_time, now)
                && !self.held.contains(&observed.lease.key)
        });
        let example = unread.next().map(|observed| observed.lease.key.clone());
        let count = usize::from(example.is_some()) + unread.count();
        Command::Note(Note::Unread { count, example })
    }

    /// A stream that was created again has another name in the table, in multi-stream mode: the application is
    /// not new to it, and all that the new one holds was written since.
    fn note_earlier_streams(&mut self, others: &[Lease]) -> Vec<Command> {
        let others: BTreeSet<&str> = others.iter().filter_map(|lease| lease.stream_name.as_deref()).collect();
        let mut commands = Vec::new();
        for stream in self.streams.values_mut() {
            let earlier = stream.id.serialized().and_then(|ours| {
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
                && stream.sync.note_earlier_stream()
            {
                let reason = format!(
                    "the table has leases of {earlier}, an earlier stream of this name; shards of the new one that \
                     have no lease are read from the oldest record. Delete the rows of the earlier one when no \
                     worker reads it any more"
                );
                let stream = stream.id.clone();
                commands.push(Command::Emit(Event::StreamRecreated { stream, reason: reason.into() }));
            }
        }
        commands
    }

    /// Reports once leases that no stream of this consumer will ever have.
    fn report_other_mode(&mut self, others: Vec<Lease>) -> Option<Command> {
        let is_multi = self.is_multi;
        let mut others =
            others.into_iter().filter(|lease| lease.stream_name.is_some() != is_multi).peekable();
        let lease = others.peek().filter(|_| !self.reported.has_other_mode)?.key.clone();
        self.reported.has_other_mode = true;
        Some(Command::Emit(Event::LeasesOfOtherMode { lease, count: others.count() }))
    }
}
