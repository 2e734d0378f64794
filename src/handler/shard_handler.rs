use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use parking_lot::Mutex;

use super::concurrency::Concurrency;
use super::dead_letter::{DeadLetter, DeadLetters, Place};
use super::failure::IsFirst;
use super::handle::Handle;
use super::policy::{ErrorPolicy, Failed, FailureKind, GiveUp, Next, Then};
use super::suspicion::{Mark, Suspicion};
use super::{Attempt, Failure};
use crate::checkpoint::{Checkpointer, CheckpointerParts};
use crate::error::with_causes;
use crate::events::Event;
use crate::metrics::{Metric, Operation, names};
use crate::types::{ExtendedSequenceNumber, KinesisClientRecord};

/// How long a destination for dead letters may take. Then they are sent again.
const SEND_MAX: Duration = Duration::from_secs(30);
/// While a batch takes long, what is done of it is stored this often.
pub(super) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// The most letters that a destination gets at once.
const LETTERS_MAX: usize = 100;

/// What handlers go by.
#[derive(Default)]
pub(crate) struct HandlerOptions {
    pub(crate) policy: ErrorPolicy,
    pub(crate) concurrency: Concurrency,
    pub(crate) filter: Option<Filter>,
}

/// Which records are handled.
pub(crate) type Filter = Box<dyn Fn(&KinesisClientRecord) -> bool + Send + Sync>;

/// Calls a handler for the records of one shard, and does as the policy says when it fails.
pub(crate) struct ShardHandler<H> {
    handler: Arc<H>,
    options: Arc<HandlerOptions>,
    checkpointer: Checkpointer,
    rng: Mutex<fastrand::Rng>,
}

impl<H> ShardHandler<H> {
    pub(crate) fn new(handler: Arc<H>, options: Arc<HandlerOptions>, checkpointer: Checkpointer) -> Self {
        let seed = checkpointer.parts().seed;
        Self { handler, options, checkpointer, rng: Mutex::new(fastrand::Rng::with_seed(seed)) }
    }
}

/// Records to be handled, and the position of the last one that was delivered with them.
pub(super) struct Batch {
    pub(super) records: Vec<KinesisClientRecord>,
    pub(super) end: ExtendedSequenceNumber,
}

impl Batch {
    /// What may be stored when this many of the records are done.
    pub(super) fn position_after(&self, done: usize) -> Option<ExtendedSequenceNumber> {
        if done == self.records.len() {
            return Some(self.end.clone());
        }
        Some(self.records.get(done.checked_sub(1)?)?.extended_sequence_number())
    }
}

/// The processor is to stop what it is doing: the lease is lost, or to be given back.
pub(crate) struct Interrupted;

/// What a call of a handler came to.
pub(crate) enum Called {
    Done,
    /// How many records are done, and why others are not.
    Failed(usize, Failure, IsFirst),
}

/// Calls the handler. A panic is a failure.
pub(crate) async fn call<H: Handle>(
    handler: &H,
    records: &[KinesisClientRecord],
    attempt: &Attempt,
) -> Called {
    // Also what the handler does before it returns a future.
    let call = AssertUnwindSafe(async { handler.call(records, attempt).await });
    match call.catch_unwind().await {
        Ok(Ok(())) => Called::Done,
        // An index beyond the records means the last one.
        Ok(Err((done, failure, is_first))) => {
            Called::Failed(done.min(records.len().saturating_sub(1)), failure, is_first)
        }
        // What it panicked with was printed by the panic hook; it may hold record data.
        Err(_) => {
            Called::Failed(0, Failure::Failed("the handler panicked".into()), IsFirst(records.len() == 1))
        }
    }
}

impl<H: Handle> ShardHandler<H> {
    /// Calls the handler.
    pub(super) async fn call(&self, records: &[KinesisClientRecord], attempt: Attempt) -> Called {
        call(&*self.handler, records, &attempt).await
    }
}

impl<H> ShardHandler<H> {
    /// Stores that the whole shard is done.
    pub(crate) async fn end(&self) {
        if let Err(error) = self.checkpointer.end().await {
            tracing::debug!(%error, "the end of the shard is not stored yet; trying again");
        }
    }

    /// Those of `records` that are handled.
    pub(crate) fn filtered(&self, mut records: Vec<KinesisClientRecord>) -> Vec<KinesisClientRecord> {
        let Some(filter) = &self.options.filter else { return records };
        let delivered = records.len();
        records.retain(|record| filter(record));
        self.count(names::RECORDS_FILTERED, delivered - records.len());
        records
    }

    pub(super) fn longest_pause(&self) -> Duration {
        self.options.policy.pause.max
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.checkpointer.is_interrupted()
    }

    /// What comes next for `records`, which have failed with `error`; reports it.
    pub(crate) fn decide(&self, records: &[KinesisClientRecord], failed: Failed, error: &str) -> Next {
        let Some(first) = records.first() else { return Next::Split };
        let age = age(first, self.parts().clock.wall());
        let next = self.options.policy.next(failed, records.len(), age, self.jitter());
        self.report_failure(&first.extended_sequence_number(), failed, next, error);
        next
    }

    /// Does with `records` what the policy says of those that are not tried again.
    pub(crate) async fn give_up(
        &self,
        records: &[KinesisClientRecord],
        failed: Failed,
        reason: GiveUp,
        error: &str,
    ) -> Result<(), Interrupted> {
        match &self.options.policy.then {
            Then::DeadLetter(destination) => {
                let attempts = failed.failures.saturating_add(failed.transient);
                let place = self.place();
                let letters: Vec<DeadLetter> = records
                    .iter()
                    .map(|record| DeadLetter::new(record, &place, error, reason.to_string(), attempts))
                    .collect();
                // In parts, so that a call ends in time and what is durable is not sent again.
                for letters in letters.chunks(LETTERS_MAX) {
                    self.send(&**destination, letters).await?;
                }
                Ok(())
            }
            Then::Skip => {
                self.skipped(records, reason, error);
                Ok(())
            }
            // A policy that retries indefinitely gives up nothing.
            Then::StopShard | Then::RetryForever => {
                if let Some(first) = records.first() {
                    self.stop(first, reason, error).await;
                }
                Err(Interrupted)
            }
        }
    }

    /// What was found at the start of the lease about owners that died.
    pub(super) fn suspicion(&self) -> Suspicion {
        let ErrorPolicy { crash_attempts, then, .. } = &self.options.policy;
        let (Some(crash_attempts), false) = (*crash_attempts, matches!(then, Then::RetryForever)) else {
            return Suspicion::off();
        };
        let pending = self.checkpointer.pending_checkpoint();
        let found = pending.and_then(|pending| {
            let mark = Mark::parse(pending.state.as_ref()?)?;
            Some((pending.checkpoint.position()?.clone(), mark))
        });
        let switches = self.parts().held.lease().owner_switches;
        let suspicion = Suspicion::new(crash_attempts, switches, found);
        if !suspicion.is_off() {
            tracing::warn!(
                shard = %self.checkpointer.shard_id(),
                switches,
                "owners of the shard have died without a checkpoint; its records are handled with marks"
            );
        }
        suspicion
    }

    /// Stores a mark at a record that is handled next, or removes it. If that fails, an end of the process is not
    /// counted, and no more.
    pub(super) async fn mark(&self, position: &ExtendedSequenceNumber, mark: Option<Mark>) {
        let state = mark.map(|mark| mark.to_string().into());
        // It is never committed: a checkpoint removes it.
        if let Err(error) = self.checkpointer.prepare(position.clone(), state).await {
            tracing::debug!(%error, "a suspected record is not marked");
        }
    }

    /// Gives up a record in which the process has ended that often, without another attempt.
    pub(super) async fn give_up_crashed(&self, batch: Batch, times: u32) -> Result<(), Interrupted> {
        let failed = Failed { kind: FailureKind::Failed, failures: times, transient: 0 };
        let error = "the process ended while the record was handled";
        self.give_up(&batch.records, failed, GiveUp::Crashes(times), error).await?;
        self.checkpoint(batch.end).await;
        Ok(())
    }

    /// Stores that everything up to `position` is done. Whether that is stored: a failure is in an event already,
    /// and the next checkpoint covers this one.
    pub(crate) async fn checkpoint(&self, position: ExtendedSequenceNumber) -> bool {
        match self.checkpointer.checkpoint(position).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "not checkpointed; the next checkpoint covers it");
                false
            }
        }
    }

    pub(crate) fn parts(&self) -> &CheckpointerParts {
        self.checkpointer.parts()
    }

    pub(super) fn handler(&self) -> &H {
        &self.handler
    }

    pub(crate) fn checkpointer(&self) -> &Checkpointer {
        &self.checkpointer
    }

    /// Whether the shard stops at a record that is given up.
    pub(crate) fn stops_at_what_is_given_up(&self) -> bool {
        matches!(self.options.policy.then, Then::StopShard | Then::RetryForever)
    }

    fn place(&self) -> Place<'_> {
        Place {
            application: self.checkpointer.application(),
            worker: &self.parts().worker,
            stream: self.checkpointer.stream(),
            shard: self.checkpointer.shard_id(),
        }
    }

    fn jitter(&self) -> f64 {
        self.rng.lock().f64()
    }

    pub(super) async fn pause(&self, pause: Duration) -> Result<(), Interrupted> {
        tokio::select! {
            biased;
            _ = self.checkpointer.interrupted() => Err(Interrupted),
            () = self.parts().clock.sleep(pause) => Ok(()),
        }
    }

    /// Sends `letters` until the destination has them.
    async fn send(&self, destination: &dyn DeadLetters, letters: &[DeadLetter]) -> Result<(), Interrupted> {
        let mut failures = 0_u32;
        loop {
            let send = AssertUnwindSafe(destination.send(letters)).catch_unwind();
            let sent = tokio::select! {
                biased;
                _ = self.checkpointer.interrupted() => return Err(Interrupted),
                sent = self.parts().clock.timeout(SEND_MAX, send) => sent,
            };
            let error = match sent {
                Ok(Ok(Ok(()))) => break,
                Ok(Ok(Err(error))) => with_causes(&*error),
                Ok(Err(_)) => "the destination panicked".to_owned(),
                Err(_) => format!("no answer within {SEND_MAX:?}"),
            };
            failures = failures.saturating_add(1);
            let retry_in = self.options.policy.pause.after(failures, self.jitter());
            tracing::error!(shard = %self.checkpointer.shard_id(), error, "a dead letter cannot be sent; trying again");
            self.count(names::DEAD_LETTERS_FAILED, letters.len());
            self.parts().events.emit(Event::DeadLetterFailed {
                stream: self.checkpointer.stream().clone(),
                shard: self.checkpointer.shard_id().clone(),
                retry_in,
                reason: error.into(),
            });
            self.pause(retry_in).await?;
        }
        self.count(names::RECORDS_DEAD_LETTERED, letters.len());
        for letter in letters {
            tracing::warn!(letter = letter.id(), reason = letter.reason, "a record is a dead letter now");
            self.parts().events.emit(Event::DeadLettered {
                stream: letter.stream.clone(),
                shard: letter.shard.clone(),
                position: letter.position.clone(),
                reason: format!("{}: {}", letter.reason, letter.error).into(),
            });
        }
        Ok(())
    }

    fn skipped(&self, records: &[KinesisClientRecord], reason: GiveUp, error: &str) {
        self.count(names::RECORDS_SKIPPED, records.len());
        for record in records {
            let position = record.extended_sequence_number();
            tracing::warn!(shard = %self.checkpointer.shard_id(), %position, %reason, error, "a record is skipped");
            self.parts().events.emit(Event::RecordSkipped {
                stream: self.checkpointer.stream().clone(),
                shard: self.checkpointer.shard_id().clone(),
                position,
                reason: format!("{reason}: {error}").into(),
            });
        }
    }

    /// Stays before `record` until the lease is lost or given back.
    async fn stop(&self, record: &KinesisClientRecord, reason: GiveUp, error: &str) {
        let position = record.extended_sequence_number();
        let why: Arc<str> = format!(
            "the handler cannot handle the record at {position}: {reason}: {error}. Fix the handler or its policy, and \
             restart the worker"
        )
        .into();
        tracing::error!(shard = %self.checkpointer.shard_id(), reason = &*why, "the shard stops");
        self.parts().stopped.set(Some(Arc::clone(&why)));
        self.parts().events.emit(Event::ShardStopped {
            stream: self.checkpointer.stream().clone(),
            shard: self.checkpointer.shard_id().clone(),
            position,
            reason: why,
        });
        self.checkpointer.interrupted().await;
        self.parts().stopped.set(None);
    }

    fn report_failure(&self, position: &ExtendedSequenceNumber, failed: Failed, next: Next, error: &str) {
        let shard = self.checkpointer.shard_id();
        let attempt = failed.failures.saturating_add(failed.transient);
        tracing::warn!(%shard, %position, attempt, %next, error, "the handler failed");
        self.count(names::HANDLER_FAILURES, 1);
        self.parts().events.emit(Event::HandlerFailed {
            stream: self.checkpointer.stream().clone(),
            shard: shard.clone(),
            position: position.clone(),
            attempt,
            retry_in: match next {
                Next::Retry(pause) => Some(pause),
                Next::Split | Next::OneByOne | Next::GiveUp(_) => None,
            },
            reason: error.into(),
        });
    }

    fn count(&self, metric: Metric, count: usize) {
        self.parts()
            .metrics
            .operation(Operation::ProcessTask)
            .shard(self.checkpointer.shard_id())
            .stream(self.checkpointer.stream())
            .add(metric, count as u64);
    }
}

pub(crate) fn kind_and_text(failure: Failure) -> (FailureKind, String) {
    let (kind, error) = match failure {
        Failure::Failed(error) => (FailureKind::Failed, error),
        Failure::Transient(error) => (FailureKind::Transient, error),
        Failure::Poison(error) => (FailureKind::Poison, error),
    };
    (kind, with_causes(&*error))
}

/// How long ago a record arrived in the stream; zero if that is not known.
fn age(record: &KinesisClientRecord, now: SystemTime) -> Duration {
    let arrived = record.record.approximate_arrival_timestamp;
    arrived.and_then(|arrived| now.duration_since(arrived).ok()).unwrap_or_default()
}
