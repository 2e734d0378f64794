//! Processors that log what they hear and behave as badly as processors do.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kinesis_consumer::{
    Checkpointer, ErrorKind, ExtendedSequenceNumber, KinesisClientRecord, ShardRecordProcessor,
    ShardRecordProcessorFactory,
};

use crate::faults::Weather;
use crate::history::{Life, Log, ProcessorId, What};
use crate::ports::MeteredStream;

/// How likely a processor of this fleet does what it should not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manners {
    pub(crate) panics: f64,
    pub(crate) stalls: f64,
    pub(crate) stall_max: Duration,
    /// Does not checkpoint a batch, or only the first part of it.
    pub(crate) neglects: f64,
    /// Asks for checkpoints that must be refused.
    pub(crate) errs: f64,
}

impl Manners {
    pub(crate) fn draw(rng: &mut fastrand::Rng, failover: Duration) -> Self {
        Self {
            panics: [0.0, 0.0, 0.01, 0.05][rng.usize(..4)],
            stalls: [0.0, 0.0, 0.02, 0.1][rng.usize(..4)],
            stall_max: failover.mul_f64([0.1, 0.5, 2.0][rng.usize(..3)]),
            neglects: [0.0, 0.3, 0.6, 1.0][rng.usize(..4)],
            errs: 0.05,
        }
    }

    /// Processors behind which records pile up.
    pub(crate) fn slow(self, failover: Duration) -> Self {
        Self { stalls: 0.2, stall_max: failover * 3, ..self }
    }
}

/// What all processors of one worker share.
#[derive(Clone)]
pub(crate) struct Maker {
    pub(crate) life: Life,
    pub(crate) log: Log,
    pub(crate) weather: Weather,
    pub(crate) manners: Manners,
    pub(crate) rng: Arc<Mutex<fastrand::Rng>>,
    pub(crate) next_processor: Arc<AtomicU32>,
    /// Set when all faults stop.
    pub(crate) is_calm: Arc<AtomicBool>,
    pub(crate) in_hand: Arc<AtomicU64>,
}

impl Maker {
    fn chance(&self, probability: f64) -> bool {
        !self.is_calm.load(Ordering::Relaxed) && self.rng.lock().expect("not poisoned").f64() < probability
    }

    fn below(&self, bound: usize) -> usize {
        self.rng.lock().expect("not poisoned").usize(..bound)
    }

    /// Waits while the worker is suspended, and a little while if it is the processor's way.
    async fn dawdle(&self) {
        tokio::time::sleep_until(self.weather.suspended_until()).await;
        if self.chance(self.manners.stalls) {
            let stall = self.manners.stall_max.mul_f64(self.rng.lock().expect("not poisoned").f64());
            tokio::time::sleep(stall).await;
        }
    }
}

#[async_trait]
impl ShardRecordProcessorFactory for Maker {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        if self.chance(self.manners.panics / 4.0) {
            panic_quietly();
        }
        let id = self.next_processor.fetch_add(1, Ordering::Relaxed);
        self.log.tell(What::Initialized {
            processor: id,
            life: self.life.clone(),
            shard: checkpointer.shard_id().clone(),
            from: checkpointer.initial_checkpoint().clone(),
        });
        Box::new(Processor { id, maker: self.clone(), checkpointer, earlier: Mutex::default() })
    }
}

struct Processor {
    id: ProcessorId,
    maker: Maker,
    checkpointer: Checkpointer,
    /// A position before the stored checkpoint.
    earlier: Mutex<Option<ExtendedSequenceNumber>>,
}

/// Tells the log that a callback is over, however it ends.
struct Callback<'a>(&'a Processor);

impl Drop for Callback<'_> {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        self.0.maker.log.tell(What::Returned { processor: self.0.id, panicked });
    }
}

/// A panic without a message from the panic hook.
fn panic_quietly() -> ! {
    std::panic::resume_unwind(Box::new("a processor's panic"))
}

impl Processor {
    fn enter(&self, what: What) -> Callback<'_> {
        self.maker.log.tell(what);
        MeteredStream::note(&self.maker.log, &self.maker.life, &self.maker.in_hand);
        Callback(self)
    }

    /// Stores that everything up to `position` is processed, in one phase or two.
    async fn checkpoint(&self, position: ExtendedSequenceNumber) {
        let two_phases = self.maker.chance(0.2);
        let before = self.checkpointer.stored_checkpoint();
        // Refused if the lease was lost, which `lease_lost` will tell.
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

    /// Asks for what must be refused.
    async fn err(&self, last: &ExtendedSequenceNumber) {
        let earlier = self.earlier.lock().expect("not poisoned").clone();
        let (asked, outcome) = match (self.maker.below(3), earlier) {
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
        self.maker.log.tell(What::WrongCheckpoint { processor: self.id, asked, accepted });
    }
}

#[async_trait]
impl ShardRecordProcessor for Processor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        let positions: Vec<_> = records.iter().map(KinesisClientRecord::extended_sequence_number).collect();
        let Some(last) = positions.last().cloned() else { return };
        let _callback = self.enter(What::Delivered { processor: self.id, positions: positions.clone() });
        let maker = &self.maker;
        maker.dawdle().await;
        if maker.chance(maker.manners.panics) {
            panic_quietly();
        }
        if maker.chance(maker.manners.errs) {
            self.err(&last).await;
        }
        if !maker.chance(maker.manners.neglects) {
            self.checkpoint(last).await;
        } else if maker.chance(0.5) {
            self.checkpoint(positions[maker.below(positions.len())].clone()).await;
        }
    }

    async fn lease_lost(&self) {
        let _callback = self.enter(What::LeaseLost { processor: self.id });
        if self.maker.chance(self.maker.manners.panics) {
            panic_quietly();
        }
    }

    async fn shard_ended(&self) {
        let _callback = self.enter(What::ShardEnded { processor: self.id });
        self.maker.dawdle().await;
        if self.maker.chance(self.maker.manners.panics) {
            panic_quietly();
        }
        // Told again until the end is stored.
        if !self.maker.chance(self.maker.manners.neglects / 2.0) {
            let _ = self.checkpointer.end().await;
        }
    }

    async fn shutdown_requested(&self) {
        let _callback = self.enter(What::ShutdownRequested { processor: self.id });
        self.maker.dawdle().await;
    }
}
