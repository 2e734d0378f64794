use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use tokio_util::sync::CancellationToken;

use super::interruption::{Interruption, StoppedReason};
use super::tracker::{Decision, Refusal, Tracker};
use super::transaction::{CommitError, Committed, Transaction};
use crate::error::{Error, ErrorKind, with_causes};
use crate::events::{Event, EventSink};
use crate::lease::{Effect, HeldError, HeldLease, PendingCheckpoint, Written};
use crate::metrics::{Metrics, Operation, names};
use crate::runtime::Clock;
use crate::types::{Checkpoint, ExtendedSequenceNumber, LeaseKey, ShardId, StreamId, WorkerId};

/// Stores how far a processor has got with its shard. Valid for one lease acquisition: from
/// [`initialize`](crate::ShardRecordProcessorFactory::initialize) until the lease is lost, given up,
/// or the processor is replaced after a panic.
///
/// Cheap to clone, and usable from any task, also while a callback runs.
///
/// # Guarantees
///
/// - A checkpoint is stored only while this worker holds the lease, enforced by a conditional write.
/// - Stored checkpoints never move backwards, and never beyond what was delivered.
/// - When a call returns `Ok`, the checkpoint, or a later one of the same shard, is durable. It also renews
///   the lease.
///
/// While the lease table throttles writes, a checkpoint waits until those of leases that would run out
/// sooner are written. If a later one is asked for meanwhile, that one is written instead, and both calls
/// succeed: a checkpoint covers everything before it.
///
/// # Errors
///
/// Every call fails with
/// - [`ErrorKind::Invalid`] if the position is behind the stored checkpoint or was not delivered
///   (KCL's `IllegalArgumentException`); also if the lease table is gone or permissions are missing, as at
///   the [start](crate::Consumer::start),
/// - [`ErrorKind::LeaseLost`] if another worker has the lease or it expired
///   (`ShutdownException`): stop working on this shard,
/// - [`ErrorKind::Closed`] if the processor was replaced after a panic,
/// - [`ErrorKind::Unavailable`] if DynamoDB did not answer after a few attempts, or throttled for the
///   failover time (`ThrottlingException`, `KinesisClientLibDependencyException`): it may or may not be
///   stored; call again, or go on and checkpoint later,
/// - [`ErrorKind::Data`] if DynamoDB refused the request as wrong or its answer could not be understood: it
///   may or may not be stored, as before.
///
/// # Cancel safety
///
/// A call may be dropped; the checkpoint may then be stored or not, and the next one settles it.
#[derive(Clone)]
pub struct Checkpointer(Arc<Shared>);

struct Shared {
    parts: CheckpointerParts,
    initial: Checkpoint,
    initial_pending: Option<PendingCheckpoint>,
    tracker: Mutex<Tracker>,
    closed: AtomicBool,
    /// Held while a checkpoint is written, so that they are decided and stored in one order.
    storing: tokio::sync::Mutex<()>,
}

/// What a checkpointer works with.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointerParts {
    pub(crate) held: Arc<HeldLease>,
    pub(crate) stream: StreamId,
    pub(crate) application: Arc<str>,
    pub(crate) events: EventSink,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) worker: WorkerId,
    /// Cancelled when the worker, or this stream on it, is to stop.
    pub(crate) stopping: CancellationToken,
    pub(crate) stopped: StoppedReason,
    /// The seed of the pauses between attempts.
    pub(crate) seed: u64,
}

impl Checkpointer {
    pub(crate) fn new(parts: CheckpointerParts) -> Self {
        let lease = parts.held.lease();
        Self(Arc::new(Shared {
            parts,
            tracker: Mutex::new(Tracker::new(lease.checkpoint.clone())),
            initial: lease.checkpoint,
            initial_pending: lease.pending_checkpoint,
            closed: AtomicBool::new(false),
            storing: tokio::sync::Mutex::new(()),
        }))
    }

    /// Stores that everything is processed that was handed to the processor so far (KCL's `checkpoint`
    /// without arguments). That includes the batch whose
    /// [`process_records`](crate::ShardRecordProcessor::process_records) is running: call it when that batch
    /// is done.
    ///
    /// In [`shard_ended`](crate::ShardRecordProcessor::shard_ended) it stores the end of the shard, as
    /// [`end`](Self::end) does. If nothing was delivered since the last checkpoint, it succeeds without a
    /// write.
    ///
    /// Called from another task, it stores what had been delivered at the time of the call, whether the
    /// processor has finished with it or not. A processor that hands work to other tasks checkpoints the
    /// positions that these have finished, with [`checkpoint`](Self::checkpoint).
    ///
    /// # Errors
    ///
    /// See [`Checkpointer`].
    pub async fn checkpoint_delivered(&self) -> Result<(), Error> {
        let delivered = self.0.tracker.lock().delivered();
        self.store(|tracker| Ok(tracker.decide_delivered(&delivered))).await
    }

    /// Stores that everything up to and including `position` is processed: that of a record
    /// (`checkpoint(&record)`), or any other that was delivered.
    ///
    /// At the end of the shard, the position of its last record means the whole shard, as
    /// [`end`](Self::end) does. A position that is stored already succeeds without a write.
    ///
    /// # Errors
    ///
    /// See [`Checkpointer`].
    pub async fn checkpoint(&self, position: impl Into<ExtendedSequenceNumber>) -> Result<(), Error> {
        let position = position.into();
        self.store(|tracker| tracker.decide(position.clone())).await
    }

    /// Stores that the whole shard is processed (`SHARD_END`), which lets its children start. Call it
    /// from [`shard_ended`](crate::ShardRecordProcessor::shard_ended).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the shard has not ended; else see [`Checkpointer`].
    pub async fn end(&self) -> Result<(), Error> {
        self.store(Tracker::decide_end).await
    }

    /// The first half of a two-phase checkpoint: stores `position`, and `state` with it, as pending.
    /// Do what must happen between, then [`commit`](PreparedCheckpoint::commit). Should the worker
    /// die between the two, the next processor of the shard finds it in
    /// [`pending_checkpoint`](Self::pending_checkpoint).
    ///
    /// A position that is stored already is not written.
    ///
    /// # Errors
    ///
    /// See [`Checkpointer`].
    pub async fn prepare(
        &self,
        position: impl Into<ExtendedSequenceNumber>,
        state: Option<Bytes>,
    ) -> Result<PreparedCheckpoint, Error> {
        let position = position.into();
        let _storing = self.0.storing.lock().await;
        self.check_open()?;
        let decision =
            self.0.tracker.lock().decide(position.clone()).map_err(|refusal| self.refused(refusal))?;
        if let Decision::Store(checkpoint) = decision {
            let pending = PendingCheckpoint::new(checkpoint, state);
            self.timed(self.0.parts.held.prepare(&pending)).await?;
        }
        Ok(PreparedCheckpoint { checkpointer: self.clone(), position })
    }

    /// Begins a transaction: effects of the records after the stored checkpoint on users' DynamoDB tables, to be written
    /// together with the next checkpoint.
    ///
    /// ```no_run
    /// use kinesis_consumer::{Checkpointer, Committed, ErrorKind, ItemKey, KinesisClientRecord, Number};
    ///
    /// async fn count(records: &[KinesisClientRecord], checkpointer: &Checkpointer) -> Result<(), kinesis_consumer::Error> {
    ///     let Some(last) = records.last() else { return Ok(()) };
    ///     let mut transaction = checkpointer.transaction();
    ///     for record in records {
    ///         let customer = ItemKey::new("Totals").with("customer", record.record.partition_key.as_str());
    ///         if transaction.add(&customer, "orders", Number::from(1)).is_err() {
    ///             break; // more than 99 customers: commit up to the record before; left out here
    ///         }
    ///     }
    ///     match transaction.commit(last).await? {
    ///         Committed::Now | Committed::Earlier => Ok(()),
    ///         // Leave out the records up to `stored`, and commit the others.
    ///         other => panic!("{other:?}"),
    ///     }
    /// }
    /// ```
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.clone(), self.stored_checkpoint())
    }

    /// Stores `position` and `effects` of the records between it and `from`.
    pub(super) async fn commit(
        &self,
        from: &Checkpoint,
        position: ExtendedSequenceNumber,
        effects: Arc<[Effect]>,
    ) -> Result<Committed, CommitError> {
        let local = |error| CommitError { error, store: None };
        let _storing = self.0.storing.lock().await;
        self.check_open().map_err(local)?;
        let (stored, decision) = {
            let tracker = self.0.tracker.lock();
            (tracker.stored().clone(), tracker.decide(position.clone()))
        };
        if stored != *from {
            return Ok(Committed::Moved { stored });
        }
        let checkpoint = match decision.map_err(|refusal| local(self.refused(refusal)))? {
            Decision::Store(checkpoint) => checkpoint,
            Decision::AlreadyStored if effects.is_empty() => return Ok(Committed::Earlier),
            Decision::AlreadyStored => {
                let problem = format!(
                    "a transaction on {} has effects of no record: {position} is stored already; commit it up to the \
                     last record that its effects are of",
                    self.place()
                );
                return Err(local(self.report(Error::new(ErrorKind::Invalid, problem))));
            }
        };
        let held = &self.0.parts.held;
        let written = if effects.is_empty() {
            self.measured(async { held.checkpoint(&checkpoint).await.map(|()| Written::Now) }).await
        } else {
            self.measured(held.commit(from, &checkpoint, effects)).await
        };
        let written = written.map_err(|error| {
            let store = match &error {
                HeldError::Store(error) => Some(error.kind()),
                HeldError::Lost | HeldError::Backwards { .. } => None,
            };
            CommitError { error: self.failed(error), store }
        })?;
        Ok(match written {
            Written::Now => {
                self.stored(checkpoint);
                Committed::Now
            }
            Written::Earlier => {
                self.stored(checkpoint);
                Committed::Earlier
            }
            Written::Moved(stored) => {
                self.0.tracker.lock().store(stored.clone());
                Committed::Moved { stored }
            }
            Written::EffectRefused { effect, item } => Committed::Refused { effect, item },
        })
    }

    fn stored(&self, checkpoint: Checkpoint) {
        self.0.tracker.lock().store(checkpoint.clone());
        self.0.parts.events.emit(Event::Checkpointed {
            stream: self.stream().clone(),
            shard: self.shard_id().clone(),
            checkpoint,
        });
    }

    /// Waits until the processor is to stop what it is doing, and returns why. Code that waits for something in
    /// [`process_records`](crate::ShardRecordProcessor::process_records) waits for this as well, and returns: a call
    /// that runs is never interrupted, and a shutdown or a handoff waits for it.
    ///
    /// Once it has returned, it returns at once when called again; a lost lease is returned before other reasons.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn interrupted(&self) -> Interruption {
        let CheckpointerParts { held, stopping, .. } = &self.0.parts;
        tokio::select! {
            biased;
            () = held.lost().cancelled() => Interruption::LeaseLost,
            () = held.handoff().cancelled() => Interruption::HandoffRequested,
            () = stopping.cancelled() => Interruption::ShutdownRequested,
        }
    }

    /// Whether [`interrupted`](Self::interrupted) would return at once.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        let CheckpointerParts { held, stopping, .. } = &self.0.parts;
        held.lost().is_cancelled() || held.handoff().is_cancelled() || stopping.is_cancelled()
    }

    pub(crate) fn parts(&self) -> &CheckpointerParts {
        &self.0.parts
    }

    /// The shard.
    #[must_use]
    pub fn shard_id(&self) -> &ShardId {
        self.0.parts.held.shard_id()
    }

    /// The row of the lease table this checkpointer writes to.
    #[must_use]
    pub fn lease_key(&self) -> &LeaseKey {
        self.0.parts.held.key()
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &StreamId {
        &self.0.parts.stream
    }

    /// The application: the name its lease table, metrics and fan-out consumer go by.
    #[must_use]
    pub fn application(&self) -> &str {
        &self.0.parts.application
    }

    /// Where this lease started: records up to here were processed before.
    #[must_use]
    pub fn initial_checkpoint(&self) -> &Checkpoint {
        &self.0.initial
    }

    /// The checkpoint that was prepared but not committed before this lease started.
    #[must_use]
    pub fn pending_checkpoint(&self) -> Option<&PendingCheckpoint> {
        self.0.initial_pending.as_ref()
    }

    /// What is stored now, as far as this processor knows.
    #[must_use]
    pub fn stored_checkpoint(&self) -> Checkpoint {
        self.0.tracker.lock().stored().clone()
    }

    pub(crate) fn deliver(&self, position: ExtendedSequenceNumber) {
        self.0.tracker.lock().deliver(position);
    }

    pub(crate) fn reach_end(&self) {
        self.0.tracker.lock().reach_end();
    }

    /// Refuses every further checkpoint and waits for the one being written.
    pub(crate) async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        drop(self.0.storing.lock().await);
        // A renewal may be about to store a checkpoint of a call that was dropped.
        self.0.parts.held.settle().await;
    }

    async fn store(&self, decide: impl Fn(&Tracker) -> Result<Decision, Refusal>) -> Result<(), Error> {
        let wanted = match decide(&self.0.tracker.lock()) {
            Ok(Decision::Store(checkpoint)) => Some(checkpoint),
            Ok(Decision::AlreadyStored) | Err(_) => None,
        };
        if let Some(wanted) = wanted.as_ref().filter(|_| !self.0.closed.load(Ordering::Acquire)) {
            // One that is being written may be replaced by this one.
            self.0.parts.held.want(wanted);
        }
        let _storing = self.0.storing.lock().await;
        self.check_open()?;
        if wanted.is_some_and(|wanted| wanted <= *self.0.tracker.lock().stored()) {
            return Ok(());
        }
        let decision = decide(&self.0.tracker.lock()).map_err(|refusal| self.refused(refusal))?;
        let Decision::Store(checkpoint) = decision else { return Ok(()) };
        self.timed(self.0.parts.held.checkpoint(&checkpoint)).await?;
        // Or a later one.
        let checkpoint = checkpoint.max(self.0.parts.held.lease().checkpoint);
        self.stored(checkpoint);
        Ok(())
    }

    async fn timed(&self, write: impl Future<Output = Result<(), HeldError>>) -> Result<(), Error> {
        self.measured(write).await.map_err(|error| self.failed(error))
    }

    async fn measured<T>(&self, write: impl Future<Output = Result<T, HeldError>>) -> Result<T, HeldError> {
        let CheckpointerParts { clock, metrics, .. } = &self.0.parts;
        let since = clock.now();
        let outcome = write.await;
        let mut report =
            metrics.operation(Operation::ProcessTask).shard(self.shard_id()).stream(self.stream());
        report.outcome(names::UPDATE_LEASE, outcome.is_ok(), clock.now().since(since));
        outcome
    }

    fn check_open(&self) -> Result<(), Error> {
        // A checkpointer is closed before `lease_lost` is called, where the lease is what matters.
        if !self.0.parts.held.is_valid() {
            return Err(self.failed(HeldError::Lost));
        }
        if self.0.closed.load(Ordering::Acquire) {
            return Err(Error::new(
                ErrorKind::Closed,
                format!("{}: its processor was replaced; this checkpointer no longer counts", self.place()),
            ));
        }
        Ok(())
    }

    fn refused(&self, refusal: Refusal) -> Error {
        self.report(
            Error::new(ErrorKind::Invalid, format!("checkpoint on {} refused", self.place()))
                .with_source(refusal),
        )
    }

    fn failed(&self, error: HeldError) -> Error {
        let kind = ErrorKind::from(&error);
        self.report(Error::new(kind, format!("checkpoint on {} failed", self.place())).with_source(error))
    }

    fn report(&self, error: Error) -> Error {
        let reason = with_causes(&error).into();
        self.0.parts.events.emit(Event::CheckpointFailed {
            stream: self.stream().clone(),
            shard: self.shard_id().clone(),
            kind: error.kind(),
            reason,
        });
        error
    }

    fn place(&self) -> String {
        format!("shard {} of stream {} (application {})", self.shard_id(), self.stream(), self.application())
    }
}

impl fmt::Debug for Checkpointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpointer")
            .field("application", &self.application())
            .field("stream", &self.stream().name())
            .field("lease", &self.lease_key())
            .field("stored", &self.stored_checkpoint())
            .finish_non_exhaustive()
    }
}

/// A checkpoint that was prepared and waits to be committed. Dropping it leaves it pending.
#[derive(Debug)]
#[must_use = "a prepared checkpoint counts only once it is committed"]
pub struct PreparedCheckpoint {
    checkpointer: Checkpointer,
    position: ExtendedSequenceNumber,
}

impl PreparedCheckpoint {
    /// The position that was prepared.
    #[must_use]
    pub fn position(&self) -> &ExtendedSequenceNumber {
        &self.position
    }

    /// The second half: makes the pending checkpoint the stored one, under the same rules as
    /// [`Checkpointer::checkpoint`].
    ///
    /// # Errors
    ///
    /// See [`Checkpointer`].
    pub async fn commit(self) -> Result<(), Error> {
        self.checkpointer.checkpoint(self.position).await
    }
}

#[cfg(test)]
#[path = "checkpointer_test.rs"]
mod tests;
