use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::ShardEnvironment;
use super::callbacks::{Callbacks, Panicked};
use super::fetching::{fetch, millis};
use super::out_of_range::OutOfRange;
use super::state::{Input, ShardState, lets_children_start};
use super::status::StatusCell;
use crate::aggregation::Deaggregator;
use crate::checkpoint::{Checkpointer, CheckpointerParts};
use crate::events::Event;
use crate::kinesis::ChildShard;
use crate::lease::{HeldLease, Lease};
use crate::metrics::{Operation, Report, names};
use crate::planted::{Bug, planted};
use crate::processor::ShardRecordProcessor;
use crate::retrieval::{Batch, Delivery, OutOfRangeRecords, Retrieval};
use crate::stream_tracker::TrackedStream;
use crate::types::{ExtendedSequenceNumber, KinesisClientRecord, LeaseKey};

/// The most user records one call of a processor gets; larger batches are handed on in parts. Each
/// part may cost its processor a checkpoint, and takes some 4 MiB.
const RECORDS_PER_CALL_MAX: NonZeroUsize = NonZeroUsize::new(1 << 15).expect("not zero");
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Reads one shard under one lease and runs its processor (KCL's `ShardConsumer`).
///
/// # Guarantees
///
/// - The processor's callbacks never overlap, and batches come in the order of sequence numbers.
/// - Nothing is delivered unless the lease is held at that moment.
/// - A processor that was made gets exactly one last call: `shard_ended` until it has stored the
///   end, or `lease_lost`; except one that panicked, which is dropped.
pub(crate) struct ShardConsumer {
    pub(super) environment: Arc<ShardEnvironment>,
    pub(super) stream: Arc<TrackedStream>,
    pub(super) held: Arc<HeldLease>,
    pub(super) status: Arc<StatusCell>,
    pub(super) callbacks: Callbacks,
    /// Whether the lease was given back.
    released: bool,
    pub(super) fetching: Option<Retrieval>,
    pub(super) running: Option<Running>,
    pub(super) children: Vec<ChildShard>,
    pub(super) failures: u32,
    out_of_range: OutOfRange,
}

/// A processor and its state.
pub(super) struct Running {
    pub(super) processor: Box<dyn ShardRecordProcessor>,
    pub(super) checkpointer: Checkpointer,
    deaggregator: Deaggregator,
    /// What was processed before it started.
    pub(super) after: Option<ExtendedSequenceNumber>,
    /// The last record that it was given.
    pub(super) delivered: Option<ExtendedSequenceNumber>,
}

/// How the life of a shard on this worker ended.
#[derive(Debug)]
pub(crate) enum ShardOutcome {
    /// Everything in the shard is processed.
    Ended,
    /// The lease was given back.
    Released,
    /// The lease is owned by another worker, or has no owner.
    Lost,
}

impl ShardConsumer {
    pub(crate) fn new(
        environment: Arc<ShardEnvironment>,
        stream: Arc<TrackedStream>,
        held: Arc<HeldLease>,
        status: Arc<StatusCell>,
    ) -> Self {
        let callbacks = Callbacks {
            stream: stream.id.clone(),
            shard: held.shard_id().clone(),
            clock: environment.context.clock.clone(),
            events: environment.context.events.clone(),
            metrics: environment.context.metrics.clone(),
            status: Arc::clone(&status),
        };
        Self {
            environment,
            stream,
            held,
            status,
            callbacks,
            released: false,
            fetching: None,
            running: None,
            children: Vec::new(),
            failures: 0,
            out_of_range: OutOfRange::default(),
        }
    }

    /// Runs until the shard ends, or the lease is released or lost.
    pub(crate) async fn run(mut self) -> ShardOutcome {
        let span = tracing::info_span!(
            "shard",
            worker = %self.environment.context.id,
            stream = %self.stream.id,
            shard = %self.held.shard_id()
        );
        self.live().instrument(span).await
    }

    async fn live(&mut self) -> ShardOutcome {
        let mut state = ShardState::WaitingOnParentShards;
        loop {
            self.status.update(|status| status.state = state);
            let input = match state {
                ShardState::WaitingOnParentShards => self.wait_for_parents().await,
                ShardState::Initializing => self.initialize().await,
                ShardState::Processing => self.process().await,
                ShardState::Failed => self.pause_after_panic().await,
                ShardState::ShutdownRequested => self.hand_back().await,
                ShardState::ShardEnding => self.end_shard().await,
                ShardState::ShuttingDown => self.notify_lease_lost().await,
                ShardState::Complete => break,
            };
            state = state.next(input);
        }
        if self.held.lease().checkpoint.is_shard_end() {
            ShardOutcome::Ended
        } else if self.released {
            ShardOutcome::Released
        } else {
            ShardOutcome::Lost
        }
    }

    /// A child's records come after its parents': waits until every parent row is gone or at
    /// `SHARD_END` (KCL's `BlockOnParentShardTask`).
    async fn wait_for_parents(&mut self) -> Input {
        let parents: Vec<_> =
            self.held.lease().parents.iter().map(|parent| self.stream.id.lease_key(parent)).collect();
        if parents.is_empty() {
            return Input::ParentsEnded;
        }
        let environment = Arc::clone(&self.environment);
        let waiter = environment.open_leases.wait_for(parents.clone());
        loop {
            let turn = tokio::select! {
                biased;
                input = interruption(&self.held, &self.stream.stopping) => return input,
                turn = environment.open_leases.may_look() => turn,
            };
            if self.have_ended(&parents).await {
                return Input::ParentsEnded;
            }
            drop(turn);
            let poll = self
                .environment
                .context
                .clock
                .sleep(self.environment.context.coordination.parent_shard_poll_interval);
            tokio::select! {
                biased;
                input = interruption(&self.held, &self.stream.stopping) => return input,
                () = waiter.may_have_ended() => {}
                () = poll => {}
            }
        }
    }

    async fn have_ended(&self, parents: &[LeaseKey]) -> bool {
        for parent in parents {
            match self.environment.context.store.lease(parent).await {
                Ok(lease) if lets_children_start(lease.as_ref()) => {}
                Ok(_) => return false,
                Err(error) => {
                    tracing::warn!(%parent, %error, "cannot see whether a parent shard has ended");
                    self.environment.context.coordination_failed("GetParentLease", &error);
                    return false;
                }
            }
        }
        true
    }

    /// Makes the processor; fetching starts meanwhile.
    async fn initialize(&mut self) -> Input {
        let lease = self.held.lease();
        self.fetching =
            lease.paused.is_none().then(|| fetch(&self.environment, &self.stream, &lease, &self.status));
        let checkpointer = Checkpointer::new(CheckpointerParts {
            held: Arc::clone(&self.held),
            stream: self.stream.id.clone(),
            application: Arc::clone(&self.environment.context.application),
            events: self.environment.context.events.clone(),
            metrics: self.environment.context.metrics.clone(),
            clock: self.environment.context.clock.clone(),
            worker: self.environment.context.id.clone(),
            stopping: self.stream.stopping.clone(),
            stopped: self.status.stopped(),
            seed: self.environment.context.seeds.seed(),
        });
        let since = self.environment.context.clock.now();
        let made =
            self.callbacks.run("initialize", self.environment.factory.initialize(checkpointer.clone())).await;
        let took = self.environment.context.clock.now().since(since);
        self.report(Operation::InitializeTask).add(names::INITIALIZE_TIME, took);
        let Ok(processor) = made else {
            checkpointer.close().await;
            return Input::Panicked;
        };
        tracing::info!(checkpoint = %lease.checkpoint, "processing starts");
        self.environment.context.events.emit(Event::ProcessingStarted {
            stream: self.stream.id.clone(),
            shard: self.held.shard_id().clone(),
            checkpoint: lease.checkpoint.clone(),
        });
        self.running = Some(Running {
            delivered: None,
            processor,
            checkpointer,
            deaggregator: Deaggregator::new(match self.environment.retrieval.out_of_range_records {
                OutOfRangeRecords::Drop => lease.hash_key_range,
                OutOfRangeRecords::Deliver => None,
            }),
            after: lease.checkpoint.position().filter(|_| !planted(Bug::RepeatsAggregate)).cloned(),
        });
        Input::Initialized
    }

    /// Hands on batches until something else is to be done.
    async fn process(&mut self) -> Input {
        let mut paused = self.held.paused();
        loop {
            let why = paused.borrow_and_update().clone();
            if let Some(why) = why {
                match self.wait_while_paused(why).await {
                    Some(input) => return input,
                    None => continue,
                }
            }
            if self.fetching.is_none() && self.running.is_some() && self.held.is_valid() {
                // It was paused before anything was fetched, and is no longer.
                let lease = self.held.lease();
                self.fetching = Some(fetch(&self.environment, &self.stream, &lease, &self.status));
            }
            let Some(fetching) = &mut self.fetching else { return Input::LeaseGone };
            let due = self.out_of_range.due();
            let delivery = tokio::select! {
                biased;
                input = interruption(&self.held, &self.stream.stopping) => return input,
                Ok(()) = paused.changed() => continue,
                () = self.environment.context.clock.sleep_until(due.unwrap_or_default()), if due.is_some() => {
                    self.report_out_of_range();
                    continue;
                }
                delivery = fetching.next() => delivery,
            };
            match delivery {
                Delivery::Batch(batch) => {
                    if let ControlFlow::Break(input) = self.process_batch(batch).await {
                        return input;
                    }
                }
                Delivery::ShardEnd { children } => {
                    self.children = children;
                    return Input::LastRecordDelivered;
                }
                Delivery::StartOver { fresh } => return self.start_over(&fresh).await,
                Delivery::FetchTaskFailed => return Input::Panicked,
            }
        }
    }

    async fn process_batch(&mut self, batch: Batch) -> ControlFlow<Input> {
        let Batch { records, millis_behind_latest, permit: _permit } = batch;
        let Some(running) = &mut self.running else { return ControlFlow::Break(Input::LeaseGone) };
        let was_empty = records.is_empty();
        let parts = running.deaggregator.deaggregate(records, running.after.as_ref(), RECORDS_PER_CALL_MAX);
        let malformed = parts.counts().malformed_total();
        if malformed > 0 {
            tracing::warn!(malformed, "damaged KPL aggregates are delivered as the plain records they are");
            self.report(Operation::ProcessTask).add(names::MALFORMED_AGGREGATES, malformed);
        }
        let out_of_range = parts.counts().out_of_range;
        if out_of_range > 0 {
            self.out_of_range.add(out_of_range);
            self.report(Operation::ProcessTask).add(names::RECORDS_OUT_OF_RANGE, out_of_range);
            self.report_out_of_range();
        }
        if was_empty && self.environment.processor.call_process_records_even_for_empty_record_list {
            self.deliver(Vec::new(), millis_behind_latest).await?;
        }
        for records in parts {
            self.deliver(records, millis_behind_latest).await?;
        }
        self.status.update(|status| status.behind_latest = Some(millis(millis_behind_latest)));
        ControlFlow::Continue(())
    }

    /// Reports what was left out, if it is time.
    fn report_out_of_range(&mut self) {
        let Some(count) = self.out_of_range.take(self.environment.context.clock.now()) else { return };
        tracing::warn!(
            count,
            "user records of KPL aggregates were left out: their hash keys lie outside the shard's"
        );
        self.environment.context.events.emit(Event::RecordsOutOfRange {
            stream: self.stream.id.clone(),
            shard: self.held.shard_id().clone(),
            count,
        });
    }

    async fn deliver(
        &mut self,
        records: Vec<KinesisClientRecord>,
        millis_behind_latest: i64,
    ) -> ControlFlow<Input> {
        let Some(running) = &mut self.running else { return ControlFlow::Break(Input::LeaseGone) };
        if !self.held.is_valid() && !planted(Bug::DeliversWithoutLease) {
            return ControlFlow::Break(Input::LeaseGone);
        }
        if self.stream.stopping.is_cancelled() || self.held.handoff().is_cancelled() {
            return ControlFlow::Break(Input::ShutdownRequested);
        }
        let count = records.len() as u64;
        let bytes: u64 = records.iter().map(|record| record.record.data.len() as u64).sum();
        if let Some(last) = records.last() {
            running.delivered = Some(last.extended_sequence_number());
            running.checkpointer.deliver(last.extended_sequence_number());
        }
        self.status.update(|status| {
            status.records_delivered += count;
            status.bytes_delivered += bytes;
        });
        let since = self.environment.context.clock.now();
        let outcome = {
            let mut call = pin!(
                self.callbacks
                    .run("process_records", running.processor.process_records(records, millis_behind_latest))
            );
            let lost = tokio::select! {
                biased;
                outcome = &mut call => Some(outcome),
                () = self.held.lost().cancelled() => None,
            };
            match lost {
                Some(outcome) => outcome,
                None => {
                    // The batch may take long; the connection and the memory are given back now.
                    self.fetching = None;
                    call.await
                }
            }
        };
        let took = self.environment.context.clock.now().since(since);
        let behind = millis(millis_behind_latest);
        self.report(Operation::ProcessTask)
            .add(names::RECORDS_PROCESSED, count)
            .add(names::DATA_BYTES_PROCESSED, bytes)
            .add(names::MILLIS_BEHIND_LATEST, behind)
            .add(names::PROCESS_RECORDS_TIME, took)
            .outcome(names::RUN, outcome.is_ok(), took);
        self.environment
            .context
            .metrics
            .operation(Operation::ApplicationTracker)
            .add(names::MILLIS_BEHIND_LATEST, behind);
        match outcome {
            Ok(()) => {
                self.failures = 0;
                ControlFlow::Continue(())
            }
            Err(Panicked) if planted(Bug::PanicSkipsBatch) => ControlFlow::Continue(()),
            Err(Panicked) => ControlFlow::Break(Input::Panicked),
        }
    }

    /// Drops what panicked and waits a little before starting again from the last checkpoint.
    async fn pause_after_panic(&mut self) -> Input {
        self.fetching = None;
        if let Some(running) = self.running.take() {
            running.checkpointer.close().await;
        }
        let pause = self.restart_pause();
        self.failures = self.failures.saturating_add(1);
        tokio::select! {
            biased;
            input = interruption(&self.held, &self.stream.stopping) => input,
            () = self.environment.context.clock.sleep(pause) => Input::PauseOver,
        }
    }

    /// Notifies the processor while the lease is still held, then gives the lease back.
    async fn hand_back(&mut self) -> Input {
        self.fetching = None;
        if let Some(running) = &self.running {
            // If it panics, the lease is given back all the same.
            let _ = self.callbacks.run("shutdown_requested", running.processor.shutdown_requested()).await;
        }
        match self.held.release().await {
            Ok(lease) => {
                tracing::info!("lease released");
                self.environment.context.events.emit(Event::LeaseReleased { lease: self.held.key().clone() });
                self.environment.context.notifier.publish(lease);
                self.released = true;
            }
            Err(error) => tracing::info!(%error, "lease not released; it will expire"),
        }
        Input::LeaseGone
    }

    /// Gives the lease back as one of a shard that nobody has read.
    async fn start_over(&mut self, fresh: &Lease) -> Input {
        self.fetching = None;
        let checkpoint = self.held.lease().checkpoint;
        match self.held.reset(fresh).await {
            Ok(lease) => {
                tracing::warn!(%checkpoint, "checkpoint discarded; the shard is read from its oldest record");
                self.environment
                    .context
                    .events
                    .emit(Event::LeaseReset { lease: self.held.key().clone(), checkpoint });
                self.environment.context.notifier.publish(lease);
                self.released = true;
            }
            Err(error) => tracing::warn!(%error, "checkpoint not discarded; the lease will expire"),
        }
        Input::LeaseGone
    }

    async fn notify_lease_lost(&mut self) -> Input {
        self.fetching = None;
        if let Some(running) = self.running.take() {
            running.checkpointer.close().await;
            // If it panics, there is nothing left to do for it.
            let since = self.environment.context.clock.now();
            let _ = self.callbacks.run("lease_lost", running.processor.lease_lost()).await;
            let took = self.environment.context.clock.now().since(since);
            self.report(Operation::ShutdownTask).add(names::SHUTDOWN_TIME, took);
        }
        if !self.released {
            self.environment.context.events.emit(Event::LeaseLost { lease: self.held.key().clone() });
        }
        self.held.abandon();
        Input::FinalCallbackReturned
    }

    pub(super) fn report(&self, operation: Operation) -> Report {
        self.environment
            .context
            .metrics
            .operation(operation)
            .shard(self.held.shard_id())
            .stream(&self.stream.id)
    }

    pub(super) fn restart_pause(&self) -> Duration {
        let first = self.environment.context.lifecycle.task_backoff_time;
        first.saturating_mul(1 << self.failures.min(16)).min(RESTART_PAUSE_MAX.max(first))
    }
}

/// Waits for what goes before any other work on a shard.
pub(super) async fn interruption(held: &HeldLease, stopping: &CancellationToken) -> Input {
    tokio::select! {
        biased;
        () = held.lost().cancelled() => Input::LeaseGone,
        () = stopping.cancelled() => Input::ShutdownRequested,
        () = held.handoff().cancelled() => Input::ShutdownRequested,
    }
}
