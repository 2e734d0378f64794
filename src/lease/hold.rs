#![cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]

mod request;

use std::collections::BTreeSet;
use std::time::Duration;

pub use self::request::WriteRequest;
use super::{Lease, LeaseWrite, PendingCheckpoint, StoreError, StoreErrorKind, Throughput, WriteOutcome};
use crate::planted::{Bug, planted};
use crate::types::{Checkpoint, Moment, ShardId, WorkerId};

/// All that a worker knows of a lease it holds: which write to send next, and what the answers mean.
/// `HeldLease` sends the writes.
///
/// Each write goes through four calls: [`next_write`](Self::next_write) says what to send,
/// [`send`](Self::send) notes that it is on its way, [`on_outcome`](Self::on_outcome) takes the answer
/// and says whether to go on. A write that gets no further than `send` stays indeterminate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHold {
    /// The row as this worker last wrote it or, once lost, as it was last seen.
    pub lease: Lease,
    /// The start of the last write that is known to have landed.
    pub renewed: Moment,
    /// The start of the last write whose answer showed the row: that to a transaction does not.
    pub seen: Moment,
    /// When the first write was sent that is conditional on the present counter and may have landed.
    pub indeterminate_since: Option<Moment>,
    worker: WorkerId,
    failover_time: Duration,
    loss: Option<LeaseLoss>,
    handoff_since: Option<Moment>,
    /// The checkpoint that the next write carries, while somebody waits for it.
    wanted: Option<Checkpoint>,
    /// To be stored with the next checkpoint.
    children: BTreeSet<ShardId>,
    /// Goes along with every renewal and checkpoint, in milliseconds.
    behind_latest: Option<u64>,
}

/// Why a lease is no longer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseLoss {
    /// It was not renewed within the failover time.
    Expired,
    /// The row is somebody else's, or gone.
    ToAnother,
    /// Somebody else has written to the row under this worker's name.
    ToNamesake,
    /// This worker has given it up.
    GivenUp,
}

/// What to do next for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum NextWrite {
    /// Send this write.
    Send(LeaseWrite),
    /// Nothing: what was asked for is done.
    Done,
    /// Nothing: a later checkpoint is stored already.
    Backwards {
        /// The checkpoint that was asked for.
        asked: Checkpoint,
        /// The one that is stored.
        stored: Checkpoint,
    },
    /// Nothing: effects were to go on from another checkpoint than this, which is stored.
    Moved(Checkpoint),
    /// Nothing: the lease is no longer held.
    Lost(LeaseLoss),
}

/// A write that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlightWrite {
    at: Moment,
    /// What was indeterminate before.
    indeterminate_since: Option<Moment>,
}

/// What to do after the table answered a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum AfterWrite {
    /// Nothing: what was asked for is done, by this write or by an earlier one whose answer was lost.
    Done,
    /// Look again. The write was refused because an earlier one, whose answer was lost, had landed. The row
    /// is as that one left it, and still held.
    EarlierWritten,
    /// Look again. The write was refused because the leader has begun to hand the lease over. It is still
    /// held.
    HandoffBegan,
    /// Nothing: the lease is lost.
    Lost(LeaseLoss),
}

/// What to do after a write that was not answered as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum AfterFailure {
    /// Look again when the table takes writes again: it throttled this one.
    WaitForTurn,
    /// Look again after a pause.
    Pause,
    /// Report the error.
    Report,
}

impl LeaseHold {
    /// The lease as the take of `worker` that was sent at `taken` left it. It is held for `failover_time`
    /// from the start of the last write that landed.
    #[must_use]
    pub fn new(lease: Lease, worker: WorkerId, failover_time: Duration, taken: Moment) -> Self {
        Self {
            lease,
            renewed: taken,
            seen: taken,
            indeterminate_since: None,
            worker,
            failover_time,
            loss: None,
            handoff_since: None,
            wanted: None,
            children: BTreeSet::new(),
            behind_latest: None,
        }
    }

    /// When it runs out, unless a write lands before.
    #[must_use]
    pub fn expires(&self) -> Moment {
        self.renewed + self.failover_time
    }

    /// Whether the worker may still act on the lease.
    #[must_use]
    pub fn is_held(&self, now: Moment) -> bool {
        self.loss.is_none() && (now < self.expires() || planted(Bug::NeverExpires))
    }

    /// Whether the worker may still act on the lease; from the first no on it may not, whatever the clock
    /// shows.
    pub fn check_held(&mut self, now: Moment) -> bool {
        let is_held = self.is_held(now);
        if !is_held {
            self.loss.get_or_insert(LeaseLoss::Expired);
        }
        is_held
    }

    /// Why it is no longer held, once that is known.
    #[must_use]
    pub fn loss(&self) -> Option<LeaseLoss> {
        self.loss
    }

    /// When it became known that the leader asks for the lease on behalf of another worker.
    #[must_use]
    pub fn handoff_since(&self) -> Option<Moment> {
        self.handoff_since
    }

    /// The worker no longer acts on the lease.
    pub fn give_up(&mut self) {
        self.loss.get_or_insert(LeaseLoss::GivenUp);
    }

    /// If a checkpoint is waiting to be written, this newer one is written instead.
    pub fn want(&mut self, newer: &Checkpoint) {
        if let Some(wanted) = self.wanted.as_mut().filter(|wanted| **wanted < *newer) {
            *wanted = newer.clone();
        }
    }

    /// Nobody waits for a checkpoint any more.
    pub fn want_nothing(&mut self) {
        self.wanted = None;
    }

    /// Which shards follow this one; stored with the next checkpoint.
    pub fn note_children(&mut self, children: BTreeSet<ShardId>) {
        self.children = children;
    }

    /// Notes how far the worker is behind the newest record; stored along with renewals and checkpoints.
    pub fn note_behind_latest(&mut self, behind: Duration) {
        // As much as Java's `long` holds.
        let millis = i64::try_from(behind.as_millis()).unwrap_or(i64::MAX);
        self.behind_latest = Some(millis.unsigned_abs());
    }

    /// Asks for a write that shows that this worker is alive. One that began since `now`, or a checkpoint
    /// that waits, does the same.
    #[must_use]
    pub fn ask_to_renew(&self, throughput: Option<Throughput>, now: Moment) -> WriteRequest {
        WriteRequest::renew(self, throughput, now)
    }

    /// Asks for a checkpoint. Until [nobody waits](Self::want_nothing) for it, every write takes it along.
    #[must_use]
    pub fn ask_for_checkpoint(&mut self, checkpoint: &Checkpoint, now: Moment) -> WriteRequest {
        self.wanted = Some(checkpoint.clone());
        WriteRequest::checkpoint(self, checkpoint, now)
    }

    /// Asks for a checkpoint with effects of the records between `from` and `up_to`, which differ.
    #[must_use]
    pub fn ask_to_commit(&self, from: &Checkpoint, up_to: &Checkpoint, now: Moment) -> WriteRequest {
        WriteRequest::commit(self, from, up_to, now)
    }

    /// Asks for a pending checkpoint beside the present one.
    #[must_use]
    pub fn ask_to_prepare(&self, pending: &PendingCheckpoint, now: Moment) -> WriteRequest {
        WriteRequest::prepare(self, pending, now)
    }

    /// Asks to give the lease back or, in a handoff, to the worker it is for.
    #[must_use]
    pub fn ask_to_release(&self, now: Moment) -> WriteRequest {
        WriteRequest::release(self, now)
    }

    /// Asks to give the lease back as `fresh` says.
    #[must_use]
    pub fn ask_to_reset(&self, fresh: &Lease, now: Moment) -> WriteRequest {
        WriteRequest::reset(self, fresh, now)
    }

    /// What to send for `request`. To be asked again after every wait, as other requests may have been
    /// served, or something newer may be wanted.
    pub fn next_write(&mut self, request: &WriteRequest, now: Moment) -> NextWrite {
        if self.check_held(now) {
            return request.next_write(self);
        }
        match self.loss {
            Some(loss) if !request.has_given_back(&self.lease) => NextWrite::Lost(loss),
            _ => NextWrite::Done,
        }
    }

    /// A write is sent. Until its [outcome](Self::on_outcome) is known, nobody knows whether it landed.
    #[must_use]
    pub fn send(&mut self, now: Moment) -> InFlightWrite {
        let sent = InFlightWrite { at: now, indeterminate_since: self.indeterminate_since };
        self.indeterminate_since = sent.indeterminate_since.or(Some(now));
        sent
    }

    /// The table answered the write that was `sent` for `request`.
    pub fn on_outcome(
        &mut self,
        request: &WriteRequest,
        sent: InFlightWrite,
        outcome: WriteOutcome,
        now: Moment,
    ) -> AfterWrite {
        let after = match outcome {
            WriteOutcome::Applied(row) => {
                self.confirm(*row, sent.at);
                AfterWrite::Done
            }
            WriteOutcome::Refused(Some(row)) => self.refused(sent, *row),
            WriteOutcome::Refused(None) => self.lost(LeaseLoss::ToAnother),
        };
        if self.lease.checkpoint_owner.as_ref() == Some(&self.worker) {
            self.handoff_since.get_or_insert(now);
        }
        match after {
            AfterWrite::EarlierWritten if request.is_met(self) => AfterWrite::Done,
            AfterWrite::Lost(_) if request.has_given_back(&self.lease) => AfterWrite::Done,
            after => after,
        }
    }

    /// The transaction that was `sent` happened, and left the row like this as far as this worker knows: somebody else
    /// may have paused the shard.
    pub fn on_committed(&mut self, sent: InFlightWrite, row: Lease) {
        self.lease = row;
        self.renewed = self.renewed.max(sent.at);
        self.indeterminate_since = None;
    }

    /// Nothing was written by what was `sent`, though the row is as it was: an effect was refused.
    pub fn on_effect_refused(&mut self, sent: InFlightWrite) {
        self.not_written(sent);
    }

    /// The write that was `sent` for `request` failed; it may have landed all the same.
    pub fn on_failure(
        &mut self,
        request: &mut WriteRequest,
        sent: InFlightWrite,
        error: &StoreError,
    ) -> AfterFailure {
        if !error.is_indeterminate() {
            self.not_written(sent);
        }
        if error.kind() == StoreErrorKind::Throttled {
            AfterFailure::WaitForTurn
        } else if error.is_retryable() && request.use_retry() {
            AfterFailure::Pause
        } else {
            AfterFailure::Report
        }
    }

    fn refused(&mut self, sent: InFlightWrite, row: Lease) -> AfterWrite {
        match sent.indeterminate_since {
            Some(since) if self.is_our_lost_write(&row) => {
                // It was sent at that time at the earliest.
                self.confirm(row, since);
                AfterWrite::EarlierWritten
            }
            _ if self.is_handoff_of_ours(&row) => {
                self.lease = row;
                self.not_written(sent);
                AfterWrite::HandoffBegan
            }
            _ => {
                let is_namesake = row.actual_owner() == Some(&self.worker);
                self.lease = row;
                self.lost(if is_namesake { LeaseLoss::ToNamesake } else { LeaseLoss::ToAnother })
            }
        }
    }

    /// The row is ours and this is what it is, by a write that was sent at `sent` or later.
    fn confirm(&mut self, row: Lease, sent: Moment) {
        self.lease = row;
        self.renewed = self.renewed.max(sent);
        self.seen = self.seen.max(sent);
        self.indeterminate_since = None;
    }

    /// The write certainly did not happen.
    fn not_written(&mut self, sent: InFlightWrite) {
        self.indeterminate_since = sent.indeterminate_since;
    }

    /// The table says so, which counts for more than what was concluded before.
    fn lost(&mut self, loss: LeaseLoss) -> AfterWrite {
        self.loss = Some(loss);
        AfterWrite::Lost(loss)
    }

    fn is_our_lost_write(&self, row: &Lease) -> bool {
        let is_ours = row.actual_owner() == Some(&self.worker) && row.counter == self.lease.counter + 1;
        is_ours || planted(Bug::RefusalTakenForOurs)
    }

    /// Nobody has written to the row but the leader, who named the next owner.
    fn is_handoff_of_ours(&self, row: &Lease) -> bool {
        row.checkpoint_owner.as_ref() == Some(&self.worker)
            && self.lease.checkpoint_owner.is_none()
            && row.counter == self.lease.counter
    }
}

#[cfg(test)]
#[path = "hold_test.rs"]
mod tests;
