use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::shard::ShardDeliveries;
use crate::error::Error;
use crate::handler::{Attempt, BoxError, Failure};
use crate::types::{KinesisClientRecord, ShardId, StreamId};

/// A record that was taken from a stream and waits for its acknowledgement. Reads as the record.
///
/// # Guarantees
///
/// - Deliveries may be acknowledged in any order and from any task. The checkpoint of the shard is the last position before
///   which all are.
/// - One that is dropped was not acknowledged: the record is delivered again, as after [`nack`](Self::nack).
/// - When the lease of the shard is lost or given back, acknowledgements no longer count, and the next owner of the
///   lease delivers what was not stored.
#[must_use = "a record that is not acknowledged is delivered again"]
pub struct Delivery {
    shard: Arc<ShardDeliveries>,
    slot: u64,
    record: KinesisClientRecord,
    attempt: Attempt,
    is_settled: bool,
}

impl Delivery {
    pub(super) fn new(
        shard: Arc<ShardDeliveries>,
        slot: u64,
        record: KinesisClientRecord,
        attempt: Attempt,
    ) -> Self {
        Self { shard, slot, record, attempt, is_settled: false }
    }

    /// The record is done with. That is stored within
    /// [`checkpoint_every`](crate::StreamOptions::checkpoint_every), as soon as all records before it are done with, too.
    ///
    /// Nothing happens if the lease was lost or given back.
    pub fn ack(mut self) {
        self.settle();
    }

    /// Acknowledges the record, and waits until it is stored that it is done with, and so are all records before it. Waits as
    /// long as one of these is not acknowledged: do not wait in the task that has to do so.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost) if the lease was lost or given back before,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) if the shard was started again after a panic of a filter: the
    /// record is delivered again. While the lease table cannot be written to, it is tried again.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the record is acknowledged, also if the future is dropped. Dropped before that, it is not.
    pub async fn ack_durably(mut self) -> Result<(), Error> {
        self.settle();
        self.shard.stored(self.slot, &self.record.extended_sequence_number()).await
    }

    /// The record was not handled. What happens next follows from the
    /// [error policy](crate::ConsumerBuilder::on_error): by default it is delivered again after a pause. `error` may
    /// be a [`Failure`].
    ///
    /// After a shutdown was requested, or if the lease was lost, nothing happens: the next owner of the lease delivers it.
    pub fn nack(mut self, error: impl Into<BoxError>) {
        self.fail(Failure::of(error));
    }

    /// The handler has failed.
    pub(super) fn fail_with(mut self, failure: Failure) {
        self.fail(failure);
    }

    /// Which attempt at this record it is.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// The stream it came from.
    #[must_use]
    pub fn stream(&self) -> &StreamId {
        self.shard.checkpointer().stream()
    }

    /// The shard it came from.
    #[must_use]
    pub fn shard_id(&self) -> &ShardId {
        self.shard.checkpointer().shard_id()
    }

    fn settle(&mut self) {
        self.is_settled = true;
        self.shard.ack(self.slot);
    }

    fn fail(&mut self, failure: Failure) {
        self.is_settled = true;
        self.shard.nack(self.slot, self.record.clone(), failure);
    }
}

/// Not acknowledged.
impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.is_settled {
            self.fail(Failure::Failed("it was dropped without an acknowledgement".into()));
        }
    }
}

impl Deref for Delivery {
    type Target = KinesisClientRecord;

    fn deref(&self) -> &KinesisClientRecord {
        &self.record
    }
}

/// Shows sizes and positions; never the payload.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("shard", self.shard_id())
            .field("record", &self.record)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
