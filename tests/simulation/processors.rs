//! Processors that log their callbacks, panic, stall and checkpoint badly.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kinesis_consumer::{
    Checkpointer, ErrorKind, ExtendedSequenceNumber, KinesisClientRecord, ShardRecordProcessor,
    ShardRecordProcessorFactory,
};

use crate::faults::FaultSchedule;
use crate::history::{EventKind, Incarnation, Log, ProcessorId};
use crate::ports::MeteredStream;

/// The probability of each fault of a processor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessorFaults {
    pub(crate) panics: f64,
    pub(crate) stalls: f64,
    pub(crate) stall_max: Duration,
    /// Does not checkpoint a batch, or only the first part of it.
    pub(crate) skipped_checkpoints: f64,
    /// Requests checkpoints that must be refused.
    pub(crate) invalid_checkpoints: f64,
}

impl ProcessorFaults {
    pub(crate) fn draw(rng: &mut fastrand::Rng, failover: Duration) -> Self {
        Self {
            panics: [0.0, 0.0, 0.01, 0.05][rng.usize(..4)],
            stalls: [0.0, 0.0, 0.02, 0.1][rng.usize(..4)],
            stall_max: failover.mul_f64([0.1, 0.5, 2.0][rng.usize(..3)]),
            skipped_checkpoints: [0.0, 0.3, 0.6, 1.0][rng.usize(..4)],
            invalid_checkpoints: 0.05,
        }
    }

    /// Processors that are slower than the records arrive.
    pub(crate) fn slow(self, failover: Duration) -> Self {
        Self { stalls: 0.2, stall_max: failover * 3, ..self }
    }
}

/// Creates the processors of one worker; they share this state.
#[derive(Clone)]
pub(crate) struct ProcessorFactory {
    pub(crate) incarnation: Incarnation,
    pub(crate) log: Log,
    pub(crate) faults: FaultSchedule,
    pub(crate) processor_faults: ProcessorFaults,
    pub(crate) rng: Arc<Mutex<fastrand::Rng>>,
    pub(crate) next_processor: Arc<AtomicU32>,
    /// Set when all faults stop.
    pub(crate) faults_stopped: Arc<AtomicBool>,
    pub(crate) in_hand: Arc<AtomicU64>,
}

impl ProcessorFactory {
    fn chance(&self, probability: f64) -> bool {
        !self.faults_stopped.load(Ordering::Relaxed)
            && self.rng.lock().expect("not poisoned").f64() < probability
    }

    fn below(&self, bound: usize) -> usize {
        self.rng.lock().expect("not poisoned").usize(..bound)
    }

    /// Waits while the worker is suspended, and sometimes stalls.
    async fn stall(&self) {
        tokio::time::sleep_until(self.faults.suspended_until()).await;
        if self.chance(self.processor_faults.stalls) {
            let stall = self.processor_faults.stall_max.mul_f64(self.rng.lock().expect("not poisoned").f64());
            tokio::time::sleep(stall).await;
        }
    }
}

#[async_trait]
impl ShardRecordProcessorFactory for ProcessorFactory {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        if self.chance(self.processor_faults.panics / 4.0) {
            panic_quietly();
        }
        let id = self.next_processor.fetch_add(1, Ordering::Relaxed);
        self.log.record(EventKind::Initialized {
            processor: id,
            incarnation: self.incarnation.clone(),
            shard: checkpointer.shard_id().clone(),
            from: checkpointer.initial_checkpoint().clone(),
        });
        Box::new(Processor { id, factory: self.clone(), checkpointer, earlier: Mutex::default() })
    }
}

struct Processor {
    id: ProcessorId,
    factory: ProcessorFactory,
    checkpointer: Checkpointer,
    /// A position before the stored checkpoint.
    earlier: Mutex<Option<ExtendedSequenceNumber>>,
}

/// Records that a callback returned, also if it panicked.
struct Callback<'a>(&'a Processor);

impl Drop for Callback<'_> {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        self.0.factory.log.record(EventKind::Returned { processor: self.0.id, panicked });
    }
}

/// Panics without a message from the panic hook.
fn panic_quietly() -> ! {
    std::panic::resume_unwind(Box::new("a processor's panic"))
}

impl Processor {
    fn enter(&self, kind: EventKind) -> Callback<'_> {
        self.factory.log.record(kind);
        MeteredStream::note(&self.factory.log, &self.factory.incarnation, &self.factory.in_hand);
        Callback(self)
    }

    /// Stores that everything up to `position` is processed, in one phase or two.
    async fn checkpoint(&self, position: ExtendedSequenceNumber) {
        let two_phases = self.factory.chance(0.2);
        let before = self.checkpointer.stored_checkpoint();
        // Refused if the lease was lost; `lease_lost` follows.
        let stored = match two_phases {
            true => match self.checkpointer.prepare(position, None).await {
                Ok(prepared) => prepared.commit().await,
                Err(error) => Err(error),
            },
            false => self.checkpointer.checkpoint(position).await,
        };
        if stored.is_ok() {
            *self.earlier.lock().expect("not poisoned") = before.position().cloned();
        }
    }

    /// Requests a checkpoint that must be refused.
    async fn request_invalid_checkpoint(&self, last: &ExtendedSequenceNumber) {
        let earlier = self.earlier.lock().expect("not poisoned").clone();
        let (requested, outcome) = match (self.factory.below(3), earlier) {
            (0, Some(earlier)) if self.checkpointer.stored_checkpoint().position() > Some(&earlier) => {
                (format!("{earlier}, which is behind"), self.checkpointer.checkpoint(earlier).await)
            }
            (1, _) => ("the end, too early".to_owned(), self.checkpointer.end().await),
            _ => {
                let beyond = ExtendedSequenceNumber::new(last.sequence_number.clone(), 1 << 20);
                (format!("{beyond}, which is beyond"), self.checkpointer.checkpoint(beyond).await)
            }
        };
        let accepted = !matches!(
            outcome.as_ref().map_err(kinesis_consumer::Error::kind),
            Err(ErrorKind::Invalid | ErrorKind::LeaseLost | ErrorKind::Closed)
        );
        self.factory.log.record(EventKind::InvalidCheckpoint { processor: self.id, requested, accepted });
    }
}

#[async_trait]
impl ShardRecordProcessor for Processor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        let positions: Vec<_> = records.iter().map(KinesisClientRecord::extended_sequence_number).collect();
        let Some(last) = positions.last().cloned() else { return };
        let _callback = self.enter(EventKind::Delivered { processor: self.id, positions: positions.clone() });
        let factory = &self.factory;
        factory.stall().await;
        if factory.chance(factory.processor_faults.panics) {
            panic_quietly();
        }
        if factory.chance(factory.processor_faults.invalid_checkpoints) {
            self.request_invalid_checkpoint(&last).await;
        }
        if !factory.chance(factory.processor_faults.skipped_checkpoints) {
            self.checkpoint(last).await;
        } else if factory.chance(0.5) {
            self.checkpoint(positions[factory.below(positions.len())].clone()).await;
        }
    }

    async fn lease_lost(&self) {
        let _callback = self.enter(EventKind::LeaseLost { processor: self.id });
        if self.factory.chance(self.factory.processor_faults.panics) {
            panic_quietly();
        }
    }

    async fn shard_ended(&self) {
        let _callback = self.enter(EventKind::ShardEnded { processor: self.id });
        self.factory.stall().await;
        if self.factory.chance(self.factory.processor_faults.panics) {
            panic_quietly();
        }
        // Called again until the end is stored.
        if !self.factory.chance(self.factory.processor_faults.skipped_checkpoints / 2.0) {
            let _ = self.checkpointer.end().await;
        }
    }

    async fn shutdown_requested(&self) {
        let _callback = self.enter(EventKind::ShutdownRequested { processor: self.id });
        self.factory.stall().await;
    }
}
