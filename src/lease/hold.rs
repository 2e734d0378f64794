#![cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]

use std::time::Duration;

use super::{Lease, WriteOutcome};
use crate::planted::{Bug, planted};
use crate::types::{Moment, WorkerId};

/// What a worker knows of a row it holds, and what the answers to its writes mean: still held, in
/// doubt, or lost. `HeldLease` carries the writes out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseHold {
    /// The row as this worker last wrote it or, once lost, as it was last seen.
    pub lease: Lease,
    /// The start of the last write that is known to have landed.
    pub renewed: Moment,
    /// When the first write was sent that is conditional on the present counter and may have landed.
    pub indeterminate_since: Option<Moment>,
}

/// A write that is under way.
#[derive(Debug, Clone, Copy)]
pub struct InFlightWrite {
    at: Moment,
    /// What was indeterminate before.
    indeterminate_since: Option<Moment>,
}

/// What the answer to a write means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteResolution {
    /// It is written.
    Written,
    /// It was refused because an earlier write, whose answer was lost, had landed. The row is as that
    /// one left it, and still held.
    EarlierWritten,
    /// It was refused because the leader has begun to hand the lease over. It is still held.
    HandoffBegan,
    /// The row is somebody else's now, or gone.
    Lost,
}

impl LeaseHold {
    /// The lease as the take that was sent at `taken` left it.
    #[must_use]
    pub fn new(lease: Lease, taken: Moment) -> Self {
        Self { lease, renewed: taken, indeterminate_since: None }
    }

    /// Whether it has been renewed recently enough to act on the lease.
    #[must_use]
    pub fn is_valid(&self, failover_time: Duration, now: Moment) -> bool {
        now < self.renewed + failover_time || planted(Bug::NeverExpires)
    }

    /// A write is sent. Until it is [resolved](Self::resolve) or [refuted](Self::not_written), nobody
    /// knows whether it landed.
    pub fn send(&mut self, now: Moment) -> InFlightWrite {
        let sent = InFlightWrite { at: now, indeterminate_since: self.indeterminate_since };
        self.indeterminate_since = sent.indeterminate_since.or(Some(now));
        sent
    }

    /// The table answered.
    pub fn resolve(
        &mut self,
        sent: InFlightWrite,
        outcome: WriteOutcome,
        worker: &WorkerId,
    ) -> WriteResolution {
        match outcome {
            WriteOutcome::Applied(row) => {
                self.confirm(*row, sent.at);
                WriteResolution::Written
            }
            WriteOutcome::Refused(Some(row)) => match sent.indeterminate_since {
                Some(since) if self.is_our_lost_write(&row, worker) => {
                    // It was sent at that time at the earliest.
                    self.confirm(*row, since);
                    WriteResolution::EarlierWritten
                }
                _ if self.is_handoff_of_ours(&row, worker) => {
                    self.lease = *row;
                    self.not_written(sent);
                    WriteResolution::HandoffBegan
                }
                _ => {
                    self.lease = *row;
                    WriteResolution::Lost
                }
            },
            WriteOutcome::Refused(None) => WriteResolution::Lost,
        }
    }

    /// The write certainly did not happen.
    pub fn not_written(&mut self, sent: InFlightWrite) {
        self.indeterminate_since = sent.indeterminate_since;
    }

    /// The row is ours and this is what it is, by a write that was sent at `sent` or later.
    fn confirm(&mut self, row: Lease, sent: Moment) {
        self.lease = row;
        self.renewed = self.renewed.max(sent);
        self.indeterminate_since = None;
    }

    fn is_our_lost_write(&self, row: &Lease, worker: &WorkerId) -> bool {
        let is_ours = row.actual_owner() == Some(worker) && row.counter == self.lease.counter + 1;
        is_ours || planted(Bug::RefusalTakenForOurs)
    }

    /// Nobody has written to the row but the leader, who named the next owner.
    fn is_handoff_of_ours(&self, row: &Lease, worker: &WorkerId) -> bool {
        row.checkpoint_owner.as_ref() == Some(worker)
            && self.lease.checkpoint_owner.is_none()
            && row.counter == self.lease.counter
    }
}
