use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use async_trait::async_trait;

use super::policy::{Failed, FailureKind, Next};
use super::shard_handler::{Batch, HandlerOptions, Interrupted, ShardHandler, kind_and_text};
use super::{BoxError, Failure};
use crate::checkpoint::{Checkpointer, CommitError, Committed, Transaction};
use crate::error::{ErrorKind, with_causes};
use crate::lease::StoreErrorKind;
use crate::processor::{ShardRecordProcessor, ShardRecordProcessorFactory};
use crate::types::{Checkpoint, KinesisClientRecord};

/// Works out the effects of one record.
pub(crate) struct RecordEffects(Box<RecordEffectsFn>);

type RecordEffectsFn = dyn Fn(&KinesisClientRecord, &mut Transaction) -> Result<(), Failure> + Send + Sync;

impl RecordEffects {
    pub(crate) fn new<E: Into<BoxError>>(
        effects: impl Fn(&KinesisClientRecord, &mut Transaction) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(move |record, transaction| effects(record, transaction).map_err(Failure::of)))
    }

    fn of(&self, record: &KinesisClientRecord, transaction: &mut Transaction) -> Result<(), Failure> {
        transaction.mark();
        let worked_out = catch_unwind(AssertUnwindSafe(|| (self.0)(record, transaction)));
        // What it panicked with was printed by the panic hook; it may hold record data.
        let worked_out = worked_out.unwrap_or_else(|_| Err(Failure::Failed("the handler panicked".into())));
        if worked_out.is_err() || transaction.has_overflowed() {
            transaction.roll_back();
        }
        worked_out
    }
}

/// Makes a processor that writes the effects of records and their checkpoint in transactions, for every lease.
pub(crate) struct TransactionFactory {
    effects: Arc<RecordEffects>,
    options: Arc<HandlerOptions>,
}

impl TransactionFactory {
    pub(crate) fn new(effects: RecordEffects, options: HandlerOptions) -> Self {
        Self { effects: Arc::new(effects), options: Arc::new(options) }
    }
}

#[async_trait]
impl ShardRecordProcessorFactory for TransactionFactory {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        checkpointer.parts().stopped.set(None);
        let (effects, options) = (Arc::clone(&self.effects), Arc::clone(&self.options));
        Box::new(TransactionProcessor(ShardHandler::new(effects, options, checkpointer)))
    }
}

/// Writes the effects of the records of one shard.
struct TransactionProcessor(ShardHandler<RecordEffects>);

#[async_trait]
impl ShardRecordProcessor for TransactionProcessor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        let Some(end) = records.last().map(KinesisClientRecord::extended_sequence_number) else { return };
        let batch = Batch { records: self.0.filtered(records), end };
        let work = Work { shard: &self.0, batch, done: 0, at_most: usize::MAX, failures: 0, transient: 0 };
        // What is committed counts; the rest waits for the next owner of the lease.
        let _ = work.run().await;
    }

    async fn shard_ended(&self) {
        self.0.end().await;
    }
}

/// A batch on its way into transactions.
struct Work<'a> {
    shard: &'a ShardHandler<RecordEffects>,
    batch: Batch,
    /// How many records are done with: their effects are committed, or they have none.
    done: usize,
    /// The most records of the next transaction: fewer after one was refused.
    at_most: usize,
    /// Failures of the next record, or of the next transaction.
    failures: u32,
    transient: u32,
}

impl Work<'_> {
    async fn run(mut self) -> Result<(), Interrupted> {
        let end = Checkpoint::from(self.batch.end.clone());
        loop {
            if self.shard.is_interrupted() {
                return Err(Interrupted);
            }
            let mut transaction = self.shard.checkpointer().transaction();
            if *transaction.from() >= end {
                return Ok(());
            }
            self.pass_over(transaction.from());
            let (count, failure) = self.collect(&mut transaction);
            if let Some(failure) = failure.filter(|_| count == 0) {
                let (kind, error) = kind_and_text(failure);
                self.failed(kind, &error).await?;
                continue;
            }
            let Some(up_to) = self.batch.position_after(self.done + count) else { return Ok(()) };
            match transaction.commit_up_to(up_to).await {
                Ok(Committed::Now | Committed::Earlier) => self.advance(count),
                // The next transaction begins after what is stored.
                Ok(Committed::Moved { .. }) => {}
                Ok(Committed::Refused { effect, .. }) if count <= 1 => {
                    let error = format!("a requirement of effect {effect} is not met");
                    self.failed(FailureKind::Failed, &error).await?;
                }
                Ok(Committed::Refused { .. }) => self.at_most = count / 2,
                Err(error) => self.not_committed(count, &error).await?,
            }
        }
    }

    /// Records up to `stored` were committed by a transaction whose response was lost.
    fn pass_over(&mut self, stored: &Checkpoint) {
        let records = self.batch.records[self.done..].iter();
        let committed = records
            .take_while(|record| Checkpoint::from(record.extended_sequence_number()) <= *stored)
            .count();
        if committed > 0 {
            self.advance(committed);
        }
    }

    /// Works out the effects of as many records as fit, and how many these are. With a failure, the next one failed.
    fn collect(&self, transaction: &mut Transaction) -> (usize, Option<Failure>) {
        let mut count = 0;
        for record in self.batch.records[self.done..].iter().take(self.at_most) {
            let worked_out = self.shard.handler().of(record, transaction);
            if transaction.has_overflowed() {
                let too_large = "the effects of the record do not fit into one transaction of 99 items and 4 MB, or \
                     write one item twice in a way that cannot be combined";
                return (count, Some(Failure::poison(too_large)));
            }
            match worked_out {
                Ok(()) => count += 1,
                Err(failure) => return (count, Some(failure)),
            }
        }
        (count, None)
    }

    fn advance(&mut self, count: usize) {
        self.done += count;
        (self.at_most, self.failures, self.transient) = (usize::MAX, 0, 0);
    }

    /// A transaction of the next `count` records was not committed, or is not known to be.
    async fn not_committed(&mut self, count: usize, failed: &CommitError) -> Result<(), Interrupted> {
        if matches!(failed.error.kind(), ErrorKind::LeaseLost | ErrorKind::Closed) {
            return Err(Interrupted);
        }
        let error = with_causes(&failed.error);
        match failed.store {
            // It is an effect that DynamoDB refuses, if anything can be done about it here.
            Some(StoreErrorKind::Malformed) if count > 1 => self.at_most = count / 2,
            Some(StoreErrorKind::Malformed) if count == 1 => self.failed(FailureKind::Failed, &error).await?,
            _ => self.failed(FailureKind::Transient, &error).await?,
        }
        Ok(())
    }

    /// The next record has failed.
    async fn failed(&mut self, kind: FailureKind, error: &str) -> Result<(), Interrupted> {
        match kind {
            FailureKind::Transient => self.transient = self.transient.saturating_add(1),
            FailureKind::Failed | FailureKind::Poison => self.failures = self.failures.saturating_add(1),
        }
        let failed = Failed { kind, failures: self.failures, transient: self.transient };
        let shard = self.shard;
        // Without a record, the checkpoint after the last one could not be stored.
        let records = &self.batch.records[self.done..(self.done + 1).min(self.batch.records.len())];
        match shard.decide(records, failed, error) {
            Next::Retry(pause) => shard.pause(pause).await?,
            Next::GiveUp(reason) => {
                shard.give_up(records, failed, reason, error).await?;
                self.advance(1);
            }
            // Of several records only.
            Next::Split | Next::OneByOne => shard.pause(shard.longest_pause()).await?,
        }
        Ok(())
    }
}
