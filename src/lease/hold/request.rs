use std::time::Duration;

use super::{LeaseHold, NextWrite};
use crate::lease::{Lease, LeaseWrite, PendingCheckpoint, Throughput};
use crate::planted::{Bug, planted};
use crate::types::{Checkpoint, Moment, WorkerId};

/// Retries of a write that was not answered and that user code waits for, before its failure is reported.
const RETRIES: usize = 3;
/// How long a commit is tried: within the time for which DynamoDB remembers its token.
const COMMIT_MAX: Duration = Duration::from_secs(9 * 60);

/// Something to be written to a lease that is held. Made by [`LeaseHold`], which says how to serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteRequest {
    goal: Goal,
    /// How long it may wait for a table that throttles.
    until: Moment,
    retries_left: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Goal {
    Renew {
        throughput: Option<Throughput>,
        asked: Moment,
    },
    Checkpoint {
        checkpoint: Checkpoint,
        /// What was stored when it was asked for.
        before: Checkpoint,
    },
    /// A checkpoint with effects of the records between.
    Commit {
        from: Checkpoint,
        up_to: Checkpoint,
    },
    Prepare(PendingCheckpoint),
    Release {
        worker: WorkerId,
        /// Who was to follow when it was asked for, in a handoff.
        next: Option<WorkerId>,
    },
    Reset(Box<Lease>),
}

impl WriteRequest {
    fn new(hold: &LeaseHold, goal: Goal, now: Moment) -> Self {
        // The next renewal is not far, and settles what became of this one.
        let retries_left = match goal {
            Goal::Renew { .. } => 1,
            // The time it may take is bounded instead: what becomes of it must be known before others are asked for.
            Goal::Commit { .. } => usize::MAX,
            _ => RETRIES,
        };
        Self { goal, until: now + hold.failover_time, retries_left }
    }

    pub(super) fn renew(hold: &LeaseHold, throughput: Option<Throughput>, now: Moment) -> Self {
        Self::new(hold, Goal::Renew { throughput, asked: now }, now)
    }

    pub(super) fn checkpoint(hold: &LeaseHold, checkpoint: &Checkpoint, now: Moment) -> Self {
        let before = hold.lease.checkpoint.clone();
        Self::new(hold, Goal::Checkpoint { checkpoint: checkpoint.clone(), before }, now)
    }

    pub(super) fn commit(hold: &LeaseHold, from: &Checkpoint, up_to: &Checkpoint, now: Moment) -> Self {
        let commit = Self::new(hold, Goal::Commit { from: from.clone(), up_to: up_to.clone() }, now);
        // DynamoDB forgets tokens after ten minutes.
        Self { until: commit.until.min(now + COMMIT_MAX), ..commit }
    }

    pub(super) fn prepare(hold: &LeaseHold, pending: &PendingCheckpoint, now: Moment) -> Self {
        Self::new(hold, Goal::Prepare(pending.clone()), now)
    }

    pub(super) fn release(hold: &LeaseHold, now: Moment) -> Self {
        let next = hold.lease.checkpoint_owner.as_ref().and(hold.lease.owner.clone());
        Self::new(hold, Goal::Release { worker: hold.worker.clone(), next }, now)
    }

    pub(super) fn reset(hold: &LeaseHold, fresh: &Lease, now: Moment) -> Self {
        Self::new(hold, Goal::Reset(Box::new(fresh.clone())), now)
    }

    /// What it is, as in KCL's metrics.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self.goal {
            Goal::Renew { .. } => "RenewLease",
            Goal::Checkpoint { .. } | Goal::Commit { .. } | Goal::Prepare(_) => "UpdateLease",
            Goal::Release { .. } => "ReleaseLease",
            Goal::Reset(_) => "ResetLease",
        }
    }

    /// How long it may wait for a table that throttles.
    #[must_use]
    pub fn until(&self) -> Moment {
        self.until
    }

    /// How often it may be tried again when it is not answered.
    #[must_use]
    pub fn retries_left(&self) -> usize {
        self.retries_left
    }

    /// Whether it may be tried again, which counts.
    pub(super) fn use_retry(&mut self) -> bool {
        let left = self.retries_left.checked_sub(1);
        self.retries_left = left.unwrap_or(0);
        left.is_some()
    }

    /// What to send while the lease is held.
    pub(super) fn next_write(&self, hold: &LeaseHold) -> NextWrite {
        let lease = &hold.lease;
        match &self.goal {
            Goal::Renew { throughput, asked } => match &hold.wanted {
                Some(wanted) if lease.checkpoint < *wanted => checkpoint_write(hold, wanted),
                _ if hold.seen <= *asked => {
                    let write = LeaseWrite::renew(lease, *throughput);
                    NextWrite::Send(write.with_behind_latest(lease, hold.behind_latest))
                }
                _ => NextWrite::Done,
            },
            Goal::Checkpoint { checkpoint, before } => unless_behind(before, checkpoint, || {
                if before < &lease.checkpoint && self.is_met(hold) {
                    // By a renewal.
                    return NextWrite::Done;
                }
                let newest = hold.wanted.as_ref().unwrap_or(checkpoint);
                unless_behind(&lease.checkpoint, newest, || checkpoint_write(hold, newest))
            }),
            Goal::Commit { from, up_to } => {
                if lease.checkpoint == *up_to {
                    NextWrite::Done
                } else if lease.checkpoint == *from || planted(Bug::CommitForgetsBase) {
                    let lease = with_children(hold);
                    let write = LeaseWrite::commit(&lease, from, up_to);
                    NextWrite::Send(write.with_behind_latest(&lease, hold.behind_latest))
                } else {
                    NextWrite::Moved(lease.checkpoint.clone())
                }
            }
            Goal::Prepare(pending) => unless_behind(&lease.checkpoint, &pending.checkpoint, || {
                NextWrite::Send(LeaseWrite::prepare(lease, pending))
            }),
            Goal::Release { worker, .. } => NextWrite::Send(
                LeaseWrite::finish_handoff(lease).unwrap_or_else(|| LeaseWrite::release(lease, worker)),
            ),
            Goal::Reset(fresh) => NextWrite::Send(LeaseWrite::reset(lease, fresh)),
        }
    }

    /// Whether the row, as a write of this worker left it, is what was asked for.
    pub(super) fn is_met(&self, hold: &LeaseHold) -> bool {
        let row = &hold.lease;
        match &self.goal {
            // Any write that landed has renewed.
            Goal::Renew { .. } => true,
            Goal::Checkpoint { checkpoint, .. } => {
                let newest = hold.wanted.as_ref().unwrap_or(checkpoint);
                (checkpoint..=newest).contains(&&row.checkpoint) && row.pending_checkpoint.is_none()
            }
            Goal::Commit { up_to, .. } => row.checkpoint == *up_to || planted(Bug::RenewalTakenForCommit),
            Goal::Prepare(pending) => row.pending_checkpoint.as_ref() == Some(pending),
            Goal::Release { .. } | Goal::Reset(_) => false,
        }
    }

    /// Whether a row that is this worker's no longer is so because an attempt whose answer was lost has
    /// given it back.
    pub(super) fn has_given_back(&self, row: &Lease) -> bool {
        match &self.goal {
            Goal::Release { next, .. } => {
                row.checkpoint_owner.is_none() && (row.owner.is_none() || row.owner == *next)
            }
            Goal::Reset(fresh) => row.owner.is_none() && row.checkpoint == fresh.checkpoint,
            Goal::Renew { .. } | Goal::Checkpoint { .. } | Goal::Commit { .. } | Goal::Prepare(_) => false,
        }
    }
}

/// The row, and the shards that follow this one as far as they are known.
fn with_children(hold: &LeaseHold) -> Lease {
    let mut lease = hold.lease.clone();
    lease.children.extend(hold.children.iter().cloned());
    lease
}

fn checkpoint_write(hold: &LeaseHold, checkpoint: &Checkpoint) -> NextWrite {
    let lease = with_children(hold);
    NextWrite::Send(LeaseWrite::checkpoint(&lease, checkpoint).with_behind_latest(&lease, hold.behind_latest))
}

/// Stored checkpoints never move backwards.
fn unless_behind(stored: &Checkpoint, asked: &Checkpoint, next: impl FnOnce() -> NextWrite) -> NextWrite {
    if asked < stored && !planted(Bug::AllowsBackwards) {
        return NextWrite::Backwards { asked: asked.clone(), stored: stored.clone() };
    }
    next()
}
