use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Lease, LeaseStore, LeaseWrite, PendingCheckpoint, Settled, StoreError, Tenure, Throughput};
use crate::planted::{Bug, planted};
use crate::runtime::{Backoff, Clock};
use crate::types::{Checkpoint, LeaseKey, Moment, ShardId, WorkerId};

/// Retries of a write that user code waits for, before its failure is reported.
const RETRIES: usize = 3;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// One acquisition of a lease by this worker, and the only way it writes to that row.
///
/// # Guarantees
///
/// - Writes go one at a time, each conditional on the counter of the one before.
/// - The lease counts as held only until `failover_time` after the start of the last write that is
///   known to have landed. Other workers count from when they see that write, which is later, so
///   they take over only after this worker has stopped.
/// - A write whose answer was lost is settled by the next one: that is refused and shows the row, and if
///   the row is ours and one ahead, the lost write had landed. Only then is a refusal not a loss.
/// - Once [`lost`](Self::lost) is cancelled, nothing is written any more.
#[derive(Debug)]
pub(crate) struct HeldLease {
    store: Arc<dyn LeaseStore>,
    clock: Clock,
    worker: WorkerId,
    failover_time: Duration,
    key: LeaseKey,
    shard_id: ShardId,
    /// Held by who writes: the seed of the pauses between its attempts.
    writing: tokio::sync::Mutex<u64>,
    tenure: Mutex<Tenure>,
    /// To be stored with the next checkpoint.
    children: Mutex<BTreeSet<ShardId>>,
    /// When the handoff became known, if there is one.
    handoff_since: Mutex<Option<Moment>>,
    handoff: CancellationToken,
    lost: CancellationToken,
}

/// Why a write on a held lease did not happen, or is not known to have happened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeldError {
    #[error("the lease is no longer held by this worker")]
    Lost,
    #[error("the stored checkpoint {stored} is ahead of {asked}")]
    Backwards { asked: Checkpoint, stored: Checkpoint },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HeldLease {
    /// The lease as the take that was sent at `taken` left it.
    pub(crate) fn new(
        store: Arc<dyn LeaseStore>,
        clock: Clock,
        worker: WorkerId,
        failover_time: Duration,
        lease: Lease,
        taken: Moment,
        seed: u64,
    ) -> Self {
        Self {
            store,
            clock,
            worker,
            failover_time,
            key: lease.key.clone(),
            shard_id: lease.shard_id.clone(),
            writing: tokio::sync::Mutex::new(seed),
            tenure: Mutex::new(Tenure::new(lease, taken)),
            children: Mutex::default(),
            handoff_since: Mutex::default(),
            handoff: CancellationToken::new(),
            lost: CancellationToken::new(),
        }
    }

    pub(crate) fn key(&self) -> &LeaseKey {
        &self.key
    }

    pub(crate) fn shard_id(&self) -> &ShardId {
        &self.shard_id
    }

    /// The row as this worker last wrote it or, once lost, as it was last seen.
    pub(crate) fn lease(&self) -> Lease {
        self.tenure().lease.clone()
    }

    /// The start of the last write that is known to have landed.
    pub(crate) fn renewed(&self) -> Moment {
        self.tenure().renewed
    }

    /// Cancelled when the lease is lost or given up.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Cancelled when the leader asks for the lease on behalf of another worker, which waits until
    /// this one gives it [back](Self::release).
    pub(crate) fn handoff(&self) -> &CancellationToken {
        &self.handoff
    }

    /// When that became known.
    pub(crate) fn handoff_since(&self) -> Option<Moment> {
        *lock(&self.handoff_since)
    }

    /// Whether this worker may still act on the lease. Notices expiry by itself, however long the
    /// process was suspended.
    pub(crate) fn is_valid(&self) -> bool {
        if self.lost.is_cancelled() {
            return false;
        }
        let valid = self.tenure().is_valid(self.failover_time, self.clock.now());
        if !valid {
            self.lost.cancel();
        }
        valid
    }

    /// Bumps the counter, so that other workers see that this one is alive.
    pub(crate) async fn renew(&self, throughput: Option<Throughput>) -> Result<(), HeldError> {
        // The next renewal is not far, and settles what became of this one. Any write that landed has
        // renewed.
        self.write(1, |lease| Ok(LeaseWrite::renew(lease, throughput)), |_| true).await
    }

    /// Stores a checkpoint and discards a pending one.
    pub(crate) async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), HeldError> {
        let build = |lease: &Lease| {
            not_behind(lease, checkpoint)?;
            let mut lease = lease.clone();
            lease.children.extend(lock(&self.children).iter().cloned());
            Ok(LeaseWrite::checkpoint(&lease, checkpoint))
        };
        let is_stored = |row: &Lease| row.checkpoint == *checkpoint && row.pending_checkpoint.is_none();
        self.write(RETRIES, build, is_stored).await
    }

    /// Stores a pending checkpoint beside the present one.
    pub(crate) async fn prepare(&self, pending: &PendingCheckpoint) -> Result<(), HeldError> {
        let build = |lease: &Lease| {
            not_behind(lease, &pending.checkpoint)?;
            Ok(LeaseWrite::prepare(lease, pending))
        };
        self.write(RETRIES, build, |row| row.pending_checkpoint.as_ref() == Some(pending)).await
    }

    /// Notes which shards follow this one; stored with the next checkpoint.
    pub(crate) fn note_children(&self, children: BTreeSet<ShardId>) {
        *lock(&self.children) = children;
    }

    /// Gives the lease back, so that any worker can take it at once or, in a handoff, the one it is
    /// for. It counts as lost afterwards, whatever the outcome.
    pub(crate) async fn release(&self) -> Result<Lease, HeldError> {
        let before = self.lease();
        let build = |lease: &Lease| {
            let finish = LeaseWrite::finish_handoff(lease);
            Ok(finish.unwrap_or_else(|| LeaseWrite::release(lease, &self.worker)))
        };
        let outcome = self.write(RETRIES, build, |_| false).await;
        self.lost.cancel();
        let lease = self.lease();
        let is_given =
            lease.owner.is_none() || before.checkpoint_owner.is_some() && lease.owner == before.owner;
        match outcome {
            // An attempt whose answer was lost had landed.
            Err(HeldError::Lost) if is_given && lease.checkpoint_owner.is_none() => Ok(lease),
            outcome => outcome.map(|()| lease),
        }
    }

    /// Gives the lease back as `fresh` says, so that whoever takes it reads the shard anew. It counts as
    /// lost afterwards, whatever the outcome.
    pub(crate) async fn reset(&self, fresh: &Lease) -> Result<Lease, HeldError> {
        let build = |lease: &Lease| Ok(LeaseWrite::reset(lease, fresh));
        let outcome = self.write(RETRIES, build, |_| false).await;
        self.lost.cancel();
        let lease = self.lease();
        match outcome {
            // An attempt whose answer was lost had landed.
            Err(HeldError::Lost) if lease.owner.is_none() && lease.checkpoint == fresh.checkpoint => {
                Ok(lease)
            }
            outcome => outcome.map(|()| lease),
        }
    }

    /// Stops every use of the lease without touching the row.
    pub(crate) fn abandon(&self) {
        self.lost.cancel();
    }

    async fn write(
        &self,
        retries: usize,
        build: impl Fn(&Lease) -> Result<LeaseWrite, HeldError> + Send,
        is_done: impl Fn(&Lease) -> bool + Send,
    ) -> Result<(), HeldError> {
        let mut seed = self.writing.lock().await;
        let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX, retries, *seed);
        *seed = seed.wrapping_add(1);
        loop {
            if !self.is_valid() {
                return Err(HeldError::Lost);
            }
            let write = build(&self.lease())?;
            // If this future is dropped during the write, that stays in doubt.
            let sent = self.tenure().send(self.clock.now());
            match self.store.apply(&write).await {
                Ok(outcome) => {
                    let settled = self.tenure().settle(sent, outcome, &self.worker);
                    self.notice_handoff();
                    match settled {
                        Settled::Written => return Ok(()),
                        Settled::EarlierWritten if is_done(&self.lease()) => return Ok(()),
                        Settled::EarlierWritten | Settled::HandoffBegan => {}
                        Settled::Lost => {
                            self.lost.cancel();
                            return Err(HeldError::Lost);
                        }
                    }
                }
                Err(error) => {
                    if !error.is_in_doubt() {
                        self.tenure().not_written(sent);
                    }
                    match pauses.next() {
                        Some(pause) if error.is_retryable() => self.clock.sleep(pause).await,
                        _ => return Err(error.into()),
                    }
                }
            }
        }
    }

    /// A write has shown the row.
    fn notice_handoff(&self) {
        if self.tenure().lease.checkpoint_owner.as_ref() == Some(&self.worker) && !self.handoff.is_cancelled()
        {
            *lock(&self.handoff_since) = Some(self.clock.now());
            self.handoff.cancel();
        }
    }

    fn tenure(&self) -> MutexGuard<'_, Tenure> {
        lock(&self.tenure)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_behind(lease: &Lease, asked: &Checkpoint) -> Result<(), HeldError> {
    if *asked < lease.checkpoint && !planted(Bug::AllowsBackwards) {
        return Err(HeldError::Backwards { asked: asked.clone(), stored: lease.checkpoint.clone() });
    }
    Ok(())
}

#[cfg(test)]
#[path = "held_test.rs"]
mod tests;
