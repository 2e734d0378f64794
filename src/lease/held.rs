use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::hold::{AfterFailure, AfterWrite, LeaseLoss, NextWrite, WriteRequest};
use super::memory::row_after;
use super::{
    Effect, Item, Lease, LeaseHold, LeaseStore, LeaseTransaction, LeaseWrite, Paused, PendingCheckpoint,
    StoreError, StoreErrorKind, Throughput, TransactOutcome, WriteOutcome, WritePacer,
};
use crate::planted::{Bug, planted};
use crate::runtime::{Backoff, Clock};
use crate::types::{Checkpoint, LeaseKey, Moment, ShardId, WorkerId};

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
///
/// What to write and what the answers mean is decided by [`LeaseHold`].
#[derive(Debug)]
pub(crate) struct HeldLease {
    store: Arc<dyn LeaseStore>,
    pacer: Arc<WritePacer>,
    clock: Clock,
    key: LeaseKey,
    shard_id: ShardId,
    /// Held by who writes: the seed of the pauses between its attempts.
    writing: tokio::sync::Mutex<u64>,
    hold: Mutex<LeaseHold>,
    /// Cancelled by the first change of `hold` after which there is a handoff.
    handoff: CancellationToken,
    /// Cancelled by the first change of `hold` after which it is lost.
    lost: CancellationToken,
    /// Whether the row says that the shard is paused, and why.
    paused: watch::Sender<Option<Paused>>,
}

/// What became of a write that did not fail.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Written {
    /// It happened.
    Now,
    /// It had happened: an earlier attempt, whose answer was lost, had landed.
    Earlier,
    /// Nothing happened: another checkpoint is stored than the one to go on from.
    Moved(Checkpoint),
    /// Nothing happened: a requirement of this effect is not met by the item.
    EffectRefused { effect: usize, item: Option<Item> },
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
            paused: watch::Sender::new(lease.paused.clone()),
            store,
            pacer,
            clock,
            key: lease.key.clone(),
            shard_id: lease.shard_id.clone(),
            writing: tokio::sync::Mutex::new(seed),
            hold: Mutex::new(LeaseHold::new(lease, worker, failover_time, taken)),
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
        self.hold.lock().lease.clone()
    }

    /// Its counter.
    pub(crate) fn counter(&self) -> u64 {
        self.hold.lock().lease.counter
    }

    /// Its checkpoint in the table.
    pub(crate) fn checkpoint_stored(&self) -> Checkpoint {
        self.hold.lock().lease.checkpoint.clone()
    }

    /// The start of the last write that is known to have landed.
    pub(crate) fn renewed(&self) -> Moment {
        self.hold.lock().renewed
    }

    /// The start of the last write whose answer showed the row, and so what others have written to it.
    pub(crate) fn seen(&self) -> Moment {
        self.hold.lock().seen
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
        self.hold.lock().handoff_since()
    }

    /// Whether the row says that the shard is paused, and why: as of the last write that was answered.
    pub(crate) fn paused(&self) -> watch::Receiver<Option<Paused>> {
        self.paused.subscribe()
    }

    /// Whether it was lost because somebody else has written to the row under this worker's name.
    pub(crate) fn is_lost_to_namesake(&self) -> bool {
        self.hold.lock().loss() == Some(LeaseLoss::ToNamesake)
    }

    /// Whether this worker may still act on the lease. Notices expiry by itself, however long the
    /// process was suspended.
    pub(crate) fn is_valid(&self) -> bool {
        self.change(|hold| hold.check_held(self.clock.now()))
    }

    /// Bumps the counter, so that other workers see that this one is alive. A write that began since the
    /// call, or a checkpoint that waits, does the same.
    pub(crate) async fn renew(&self, throughput: Option<Throughput>) -> Result<(), HeldError> {
        let request = self.hold.lock().ask_to_renew(throughput, self.clock.now());
        self.write(request, None).await.map(drop)
    }

    /// Stores a checkpoint, or a newer one that is [wanted](Self::want) meanwhile, and discards a pending
    /// one.
    pub(crate) async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), HeldError> {
        let request = self.hold.lock().ask_for_checkpoint(checkpoint, self.clock.now());
        let _wish = Wish(self);
        self.write(request, None).await.map(drop)
    }

    /// Stores the checkpoint `up_to` and `effects` of the records between it and `from`, all or nothing.
    ///
    /// Each attempt at one write has the same token, so that it happens once. It is tried until it is known what became
    /// of it, for the failover time at most.
    pub(crate) async fn commit(
        &self,
        from: &Checkpoint,
        up_to: &Checkpoint,
        effects: Arc<[Effect]>,
    ) -> Result<Written, HeldError> {
        let request = self.hold.lock().ask_to_commit(from, up_to, self.clock.now());
        self.write(request, Some(Attempts::new(effects))).await
    }

    /// If a checkpoint is waiting to be written, this newer one is written instead.
    pub(crate) fn want(&self, newer: &Checkpoint) {
        self.hold.lock().want(newer);
    }

    /// Waits for the write under way.
    pub(crate) async fn settle(&self) {
        drop(self.writing.lock().await);
    }

    /// Stores a pending checkpoint beside the present one.
    pub(crate) async fn prepare(&self, pending: &PendingCheckpoint) -> Result<(), HeldError> {
        let request = self.hold.lock().ask_to_prepare(pending, self.clock.now());
        self.write(request, None).await.map(drop)
    }

    /// Notes how far this worker is behind the newest record; stored along with renewals and checkpoints.
    pub(crate) fn note_behind_latest(&self, behind: Duration) {
        self.hold.lock().note_behind_latest(behind);
    }

    /// Notes which shards follow this one; stored with the next checkpoint.
    pub(crate) fn note_children(&self, children: BTreeSet<ShardId>) {
        self.hold.lock().note_children(children);
    }

    /// Gives the lease back, so that any worker can take it at once or, in a handoff, the one it is
    /// for. It counts as lost afterwards, whatever the outcome.
    pub(crate) async fn release(&self) -> Result<Lease, HeldError> {
        let request = self.hold.lock().ask_to_release(self.clock.now());
        self.give_back(request).await
    }

    /// Gives the lease back as `fresh` says, so that its next owner reads the shard anew. It counts as
    /// lost afterwards, whatever the outcome.
    pub(crate) async fn reset(&self, fresh: &Lease) -> Result<Lease, HeldError> {
        let request = self.hold.lock().ask_to_reset(fresh, self.clock.now());
        self.give_back(request).await
    }

    async fn give_back(&self, request: WriteRequest) -> Result<Lease, HeldError> {
        let outcome = self.write(request, None).await;
        self.abandon();
        outcome.map(|_| self.lease())
    }

    /// Stops every use of the lease without touching the row.
    pub(crate) fn abandon(&self) {
        self.change(LeaseHold::give_up);
    }

    /// Serves `request` when its turn has come, with the effects in `commit`.
    async fn write(
        &self,
        mut request: WriteRequest,
        mut commit: Option<Attempts>,
    ) -> Result<Written, HeldError> {
        let mut seed = self.writing.lock().await;
        let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX, request.retries_left(), *seed);
        let mut tokens = fastrand::Rng::with_seed(*seed);
        *seed = seed.wrapping_add(1);
        let mut throttled = None;
        loop {
            match self.next_write(&request)? {
                Next::Send(_) => {}
                Next::Nothing(written) => return Ok(written),
            }
            if !self.turn(request.until()).await {
                if self.is_valid() {
                    return Err(self.throttled_for_too_long(&request, throttled).into());
                }
                continue;
            }
            // Others may have wanted something newer meanwhile.
            let write = match self.next_write(&request).inspect_err(|_| self.pacer.not_sent())? {
                Next::Send(write) => write,
                Next::Nothing(written) => {
                    self.pacer.not_sent();
                    return Ok(written);
                }
            };
            // If this future is dropped during the write, that stays indeterminate.
            let sent = self.hold.lock().send(self.clock.now());
            let answer = match &mut commit {
                None => self.store.apply(&write).await,
                Some(attempts) => {
                    let transaction = attempts.next(write, &mut tokens);
                    match self.store.transact(&transaction).await {
                        Ok(TransactOutcome::Applied) => {
                            self.pacer.accepted();
                            let row = self.row_after(&transaction.write);
                            self.change(|hold| hold.on_committed(sent, row));
                            return Ok(Written::Now);
                        }
                        Ok(TransactOutcome::LeaseRefused(row)) => Ok(WriteOutcome::Refused(row)),
                        Ok(TransactOutcome::EffectRefused { effect, item }) => {
                            self.pacer.accepted();
                            self.change(|hold| hold.on_effect_refused(sent));
                            return Ok(Written::EffectRefused { effect, item });
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            match answer {
                Ok(outcome) => {
                    self.pacer.accepted();
                    let (now, is_applied) = (self.clock.now(), matches!(outcome, WriteOutcome::Applied(_)));
                    match self.change(|hold| hold.on_outcome(&request, sent, outcome, now)) {
                        AfterWrite::Done if is_applied => return Ok(Written::Now),
                        AfterWrite::Done => return Ok(Written::Earlier),
                        AfterWrite::EarlierWritten | AfterWrite::HandoffBegan => {}
                        AfterWrite::Lost(_) => return Err(HeldError::Lost),
                    }
                }
                Err(error) => match self.change(|hold| hold.on_failure(&mut request, sent, &error)) {
                    AfterFailure::WaitForTurn => {
                        self.pacer.refused(&error);
                        throttled = Some(error);
                    }
                    AfterFailure::Pause if self.clock.now() < request.until() => {
                        self.clock.sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
                    }
                    AfterFailure::Pause | AfterFailure::Report => return Err(error.into()),
                },
            }
        }
    }

    /// The row as `write`, which was applied, leaves it.
    fn row_after(&self, write: &LeaseWrite) -> Lease {
        let before = self.lease();
        let after = row_after(write, Some(&before.to_item())).ok().flatten();
        after.and_then(|row| Lease::from_item(&row).ok().flatten()).unwrap_or(before)
    }

    fn next_write(&self, request: &WriteRequest) -> Result<Next, HeldError> {
        match self.change(|hold| hold.next_write(request, self.clock.now())) {
            NextWrite::Send(write) => Ok(Next::Send(write)),
            NextWrite::Done => Ok(Next::Nothing(Written::Earlier)),
            NextWrite::Moved(stored) => Ok(Next::Nothing(Written::Moved(stored))),
            NextWrite::Backwards { asked, stored } => Err(HeldError::Backwards { asked, stored }),
            NextWrite::Lost(_) => Err(HeldError::Lost),
        }
    }

    /// Waits until the table may be written to, which is at once unless it throttles. Whether that came
    /// before `until`, and before the lease was lost or ran out.
    async fn turn(&self, until: Moment) -> bool {
        let expires = self.hold.lock().expires();
        tokio::select! {
            biased;
            () = self.lost.cancelled() => false,
            () = self.pacer.turn(expires) => true,
            () = self.clock.sleep_until(expires.min(until)) => false,
        }
    }

    /// `last` is how the table last throttled this request.
    fn throttled_for_too_long(&self, request: &WriteRequest, last: Option<StoreError>) -> StoreError {
        let row = format!("(row {})", self.key);
        let error = StoreError::new(StoreErrorKind::Throttled, request.operation(), row)
            .with_detail(TOO_LITTLE_CAPACITY);
        match last {
            Some(source) => error.with_source(source),
            None => error,
        }
    }

    /// Changes what is known, and notifies those who wait for a handoff or for the loss of the lease.
    fn change<R>(&self, change: impl FnOnce(&mut LeaseHold) -> R) -> R {
        let mut hold = self.hold.lock();
        let result = change(&mut hold);
        let (is_lost, is_handoff) = (hold.loss().is_some(), hold.handoff_since().is_some());
        self.paused.send_if_modified(|paused| {
            let is_changed = *paused != hold.lease.paused;
            if is_changed {
                paused.clone_from(&hold.lease.paused);
            }
            is_changed
        });
        drop(hold);
        if is_handoff && !self.handoff.is_cancelled() {
            self.handoff.cancel();
        }
        if is_lost && !self.lost.is_cancelled() {
            self.lost.cancel();
        }
        result
    }
}

/// What to do next about a request.
enum Next {
    Send(LeaseWrite),
    Nothing(Written),
}

/// The attempts at a commit. One with the same write has the same token: whether or not the last one landed, it
/// happens once.
struct Attempts {
    effects: Arc<[Effect]>,
    last: Option<LeaseTransaction>,
}

impl Attempts {
    fn new(effects: Arc<[Effect]>) -> Self {
        Self { effects, last: None }
    }

    fn next(&mut self, write: LeaseWrite, tokens: &mut fastrand::Rng) -> LeaseTransaction {
        if let Some(last) =
            self.last.as_ref().filter(|last| last.write == write && !planted(Bug::NewTokenPerAttempt))
        {
            return last.clone();
        }
        let token = format!("{:016x}{:016x}", tokens.u64(..), tokens.u64(..));
        let transaction = LeaseTransaction::new(write, Arc::clone(&self.effects), token);
        self.last = Some(transaction.clone());
        transaction
    }
}

/// Ends a wish for a checkpoint when nobody waits for it any more.
struct Wish<'a>(&'a HeldLease);

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.0.hold.lock().want_nothing();
    }
}

#[cfg(test)]
#[path = "held_test.rs"]
mod tests;
