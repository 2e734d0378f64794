use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    Lease, LeaseHold, LeaseStore, LeaseWrite, PendingCheckpoint, StoreError, StoreErrorKind, Throughput,
    WriteOutcome, WritePacer, WriteResolution,
};
use crate::planted::{Bug, planted};
use crate::runtime::{Backoff, Clock};
use crate::types::{Checkpoint, LeaseKey, Moment, ShardId, WorkerId};

/// Retries of a write that was not answered and that user code waits for, before its failure is reported.
const RETRIES: usize = 3;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
const TOO_LITTLE_CAPACITY: &str = "it was not accepted within the failover time; raise the write capacity of \
     the table, or switch it to on-demand billing";

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
/// - While the table throttles writes, they wait for their [turn](WritePacer::turn), for the failover time
///   at most. A renewal takes along the checkpoint that waits, and a checkpoint the newest one that is
///   wanted.
#[derive(Debug)]
pub(crate) struct HeldLease {
    store: Arc<dyn LeaseStore>,
    pacer: Arc<WritePacer>,
    clock: Clock,
    worker: WorkerId,
    failover_time: Duration,
    key: LeaseKey,
    shard_id: ShardId,
    /// The checkpoint that the next write carries, while somebody waits for it.
    wanted: Mutex<Option<Checkpoint>>,
    /// Held by who writes: the seed of the pauses between its attempts.
    writing: tokio::sync::Mutex<u64>,
    tenure: Mutex<LeaseHold>,
    /// To be stored with the next checkpoint.
    children: Mutex<BTreeSet<ShardId>>,
    /// When the handoff became known, if there is one.
    handoff_since: Mutex<Option<Moment>>,
    handoff: CancellationToken,
    lost: CancellationToken,
    /// It was lost to a worker of the same name.
    lost_to_namesake: AtomicBool,
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
    #[expect(clippy::too_many_arguments, reason = "each is another part of what it works with")]
    pub(crate) fn new(
        store: Arc<dyn LeaseStore>,
        pacer: Arc<WritePacer>,
        clock: Clock,
        worker: WorkerId,
        failover_time: Duration,
        lease: Lease,
        taken: Moment,
        seed: u64,
    ) -> Self {
        Self {
            store,
            pacer,
            wanted: Mutex::default(),
            clock,
            worker,
            failover_time,
            key: lease.key.clone(),
            shard_id: lease.shard_id.clone(),
            writing: tokio::sync::Mutex::new(seed),
            tenure: Mutex::new(LeaseHold::new(lease, taken)),
            children: Mutex::default(),
            handoff_since: Mutex::default(),
            handoff: CancellationToken::new(),
            lost: CancellationToken::new(),
            lost_to_namesake: AtomicBool::new(false),
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

    /// Its counter.
    pub(crate) fn counter(&self) -> u64 {
        self.tenure().lease.counter
    }

    /// Its checkpoint in the table.
    pub(crate) fn checkpoint_stored(&self) -> Checkpoint {
        self.tenure().lease.checkpoint.clone()
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

    /// Whether it was lost because somebody else has written to the row under this worker's name.
    pub(crate) fn is_lost_to_namesake(&self) -> bool {
        self.lost_to_namesake.load(Ordering::Acquire)
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

    /// Bumps the counter, so that other workers see that this one is alive. A write that began since the
    /// call, or a checkpoint that waits, does the same.
    pub(crate) async fn renew(&self, throughput: Option<Throughput>) -> Result<(), HeldError> {
        let asked = self.clock.now();
        let build = |lease: &Lease| {
            if let Some(checkpoint) = lock(&self.wanted).as_ref()
                && lease.checkpoint < *checkpoint
            {
                return Ok(Some(self.checkpoint_write(lease, checkpoint)));
            }
            Ok((self.renewed() <= asked).then(|| LeaseWrite::renew(lease, throughput)))
        };
        // The next renewal is not far, and settles what became of this one. Any write that landed has
        // renewed.
        self.write("RenewLease", 1, build, |_| true).await
    }

    /// Stores a checkpoint, or a newer one that is [wanted](Self::want) meanwhile, and discards a pending
    /// one.
    pub(crate) async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), HeldError> {
        let before = self.lease();
        *lock(&self.wanted) = Some(checkpoint.clone());
        let _wish = Wish(&self.wanted);
        let newest = || lock(&self.wanted).clone().unwrap_or_else(|| checkpoint.clone());
        let is_stored = |row: &Lease| {
            (checkpoint..=&newest()).contains(&&row.checkpoint) && row.pending_checkpoint.is_none()
        };
        let build = |lease: &Lease| {
            not_behind(&before, checkpoint)?;
            if before.checkpoint < lease.checkpoint && is_stored(lease) {
                // By a renewal.
                return Ok(None);
            }
            let newest = newest();
            not_behind(lease, &newest)?;
            Ok(Some(self.checkpoint_write(lease, &newest)))
        };
        self.write("UpdateLease", RETRIES, build, is_stored).await
    }

    /// If a checkpoint is waiting to be written, this newer one is written instead.
    pub(crate) fn want(&self, newer: &Checkpoint) {
        if let Some(wanted) = &mut *lock(&self.wanted)
            && *wanted < *newer
        {
            *wanted = newer.clone();
        }
    }

    /// Waits for the write under way.
    pub(crate) async fn settle(&self) {
        drop(self.writing.lock().await);
    }

    fn checkpoint_write(&self, lease: &Lease, checkpoint: &Checkpoint) -> LeaseWrite {
        let mut lease = lease.clone();
        lease.children.extend(lock(&self.children).iter().cloned());
        LeaseWrite::checkpoint(&lease, checkpoint)
    }

    /// Stores a pending checkpoint beside the present one.
    pub(crate) async fn prepare(&self, pending: &PendingCheckpoint) -> Result<(), HeldError> {
        let build = |lease: &Lease| {
            not_behind(lease, &pending.checkpoint)?;
            Ok(Some(LeaseWrite::prepare(lease, pending)))
        };
        self.write("UpdateLease", RETRIES, build, |row| row.pending_checkpoint.as_ref() == Some(pending))
            .await
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
            Ok(Some(finish.unwrap_or_else(|| LeaseWrite::release(lease, &self.worker))))
        };
        let outcome = self.write("ReleaseLease", RETRIES, build, |_| false).await;
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

    /// Gives the lease back as `fresh` says, so that its next owner reads the shard anew. It counts as
    /// lost afterwards, whatever the outcome.
    pub(crate) async fn reset(&self, fresh: &Lease) -> Result<Lease, HeldError> {
        let build = |lease: &Lease| Ok(Some(LeaseWrite::reset(lease, fresh)));
        let outcome = self.write("ResetLease", RETRIES, build, |_| false).await;
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

    /// Writes what `build` makes of the row as it is when its turn has come; nothing if that is nothing.
    async fn write(
        &self,
        operation: &'static str,
        retries: usize,
        build: impl Fn(&Lease) -> Result<Option<LeaseWrite>, HeldError> + Send,
        is_done: impl Fn(&Lease) -> bool + Send,
    ) -> Result<(), HeldError> {
        let until = self.clock.now() + self.failover_time;
        let mut seed = self.writing.lock().await;
        let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX, retries, *seed);
        *seed = seed.wrapping_add(1);
        let mut refused = None;
        loop {
            if !self.is_valid() {
                return Err(HeldError::Lost);
            }
            if build(&self.lease())?.is_none() {
                return Ok(());
            }
            self.turn(operation, until, &mut refused).await?;
            // Others may have wanted something newer meanwhile.
            let Some(write) = build(&self.lease()).inspect_err(|_| self.pacer.not_sent())? else {
                self.pacer.not_sent();
                return Ok(());
            };
            // If this future is dropped during the write, that stays indeterminate.
            let sent = self.tenure().send(self.clock.now());
            match self.store.apply(&write).await {
                Ok(outcome) => {
                    self.pacer.accepted();
                    let names_us = matches!(
                        &outcome, WriteOutcome::Refused(Some(row)) if row.actual_owner() == Some(&self.worker)
                    );
                    let settled = self.tenure().resolve(sent, outcome, &self.worker);
                    self.notice_handoff();
                    match settled {
                        WriteResolution::Written => return Ok(()),
                        WriteResolution::EarlierWritten if is_done(&self.lease()) => return Ok(()),
                        WriteResolution::EarlierWritten | WriteResolution::HandoffBegan => {}
                        WriteResolution::Lost => {
                            self.lost_to_namesake.store(names_us, Ordering::Release);
                            self.lost.cancel();
                            return Err(HeldError::Lost);
                        }
                    }
                }
                Err(error) => {
                    if !error.is_indeterminate() {
                        self.tenure().not_written(sent);
                    }
                    if error.kind() == StoreErrorKind::Throttled {
                        self.pacer.refused(&error);
                        refused = Some(error);
                        continue;
                    }
                    match pauses.next() {
                        Some(pause) if error.is_retryable() => self.clock.sleep(pause).await,
                        _ => return Err(error.into()),
                    }
                }
            }
        }
    }

    /// Waits until the table may be written to, which is at once unless it throttles; until `until` at most,
    /// and while the lease is held. `refused` is how it last throttled this write.
    async fn turn(
        &self,
        operation: &'static str,
        until: Moment,
        refused: &mut Option<StoreError>,
    ) -> Result<(), HeldError> {
        let expires = self.renewed() + self.failover_time;
        tokio::select! {
            biased;
            () = self.lost.cancelled() => return Err(HeldError::Lost),
            () = self.pacer.turn(expires) => {
                if self.is_valid() {
                    return Ok(());
                }
                self.pacer.not_sent();
            }
            () = self.clock.sleep_until(expires.min(until)) => {}
        }
        if !self.is_valid() {
            return Err(HeldError::Lost);
        }
        let error = StoreError::new(StoreErrorKind::Throttled, operation, format!("(row {})", self.key))
            .with_detail(TOO_LITTLE_CAPACITY);
        Err(HeldError::Store(match refused.take() {
            Some(source) => error.with_source(source),
            None => error,
        }))
    }

    /// A write has shown the row.
    fn notice_handoff(&self) {
        if self.tenure().lease.checkpoint_owner.as_ref() == Some(&self.worker) && !self.handoff.is_cancelled()
        {
            *lock(&self.handoff_since) = Some(self.clock.now());
            self.handoff.cancel();
        }
    }

    fn tenure(&self) -> MutexGuard<'_, LeaseHold> {
        lock(&self.tenure)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a wish for a checkpoint when nobody waits for it any more.
struct Wish<'a>(&'a Mutex<Option<Checkpoint>>);

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        *lock(self.0) = None;
    }
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
