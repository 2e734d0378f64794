use std::fmt;
use std::sync::Arc;

use super::Checkpointer;
use super::effects::{Effects, Full};
use crate::error::Error;
use crate::lease::{Effect, Item, ItemKey, Number, StoreErrorKind};
use crate::types::{Checkpoint, ExtendedSequenceNumber};

/// Effects of records on users' DynamoDB tables, to be written together with the checkpoint that covers these records,
/// in one transaction (`TransactWriteItems`). Made by [`Checkpointer::transaction`].
///
/// What it **does not** do: effects elsewhere (other databases, other regions, mails), and duplicates that producers
/// write, are not covered. Nor are records that a Java worker of the same application processes: its checkpoints cover
/// them without effects.
///
/// # Guarantees
///
/// - The effects and the checkpoint are visible together or not at all.
/// - The commits of a shard form a chain: each begins where the one before ended, whichever worker wrote it. So the
///   effects of each record are in exactly one of them, whatever crashes, also across splits and merges.
/// - A worker that has lost the lease commits nothing.
/// - A commit whose response is lost is not counted twice: its attempts have one client token, and a commit of other
///   records over the same ones is refused ([`Committed::Moved`]).
///
/// It has at most 99 items and 4 MB. Effects on the same item become one. Each item costs two write units per KB, where a
/// plain write costs one, so collect many records: 500 orders onto 22 items take 0.09 units a record. Two transactions
/// that write the same item at the same time conflict, and one of them is retried: give items that all shards write to a
/// bucket (`TOTAL#<shard>`, summed when read).
///
/// The tables are in the account and region of the lease table; the worker needs `dynamodb:PutItem`, `UpdateItem`,
/// `DeleteItem` or `ConditionCheckItem` on them, as its effects do.
///
/// Most code is simpler with [`for_each_transaction`](crate::ConsumerBuilder::for_each_transaction), which makes,
/// splits, repeats and commits transactions by itself.
#[must_use = "effects are written by commit()"]
pub struct Transaction {
    checkpointer: Checkpointer,
    from: Checkpoint,
    effects: Effects,
    has_overflowed: bool,
}

/// What became of a [`Transaction`].
#[derive(Debug, Clone, PartialEq)]
#[must_use = "nothing is written if it is Moved or Refused"]
#[non_exhaustive]
pub enum Committed {
    /// The effects and the checkpoint are written.
    Now,
    /// They were written before: by an attempt whose response was lost.
    Earlier,
    /// Nothing was written: the checkpoint is not [`from`](Transaction::from) any more, because an earlier commit of
    /// other records, whose response was lost, had landed. Go on after `stored`, with a new transaction.
    Moved {
        /// The checkpoint that is stored.
        stored: Checkpoint,
    },
    /// Nothing was written: an effect's requirement is not met.
    Refused {
        /// The index of the effect, in the order in which items were first written to.
        effect: usize,
        /// The item as it is; `None` if there is none.
        item: Option<Item>,
    },
}

/// Why a transaction was not committed.
#[derive(Debug)]
pub(crate) struct CommitError {
    pub(crate) error: Error,
    /// What the table said, if that is the reason.
    pub(crate) store: Option<StoreErrorKind>,
}

impl Transaction {
    pub(super) fn new(checkpointer: Checkpointer, from: Checkpoint) -> Self {
        Self { checkpointer, from, effects: Effects::default(), has_overflowed: false }
    }

    /// The checkpoint it goes on from: its effects must be of records after this one.
    #[must_use]
    pub fn from(&self) -> &Checkpoint {
        &self.from
    }

    /// How many items it writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.effects.len()
    }

    /// Whether it has no effects.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// Adds to a number of an item; a missing attribute or item counts as 0.
    ///
    /// # Errors
    ///
    /// [`Full`] if it does not fit; the transaction is as before.
    pub fn add(&mut self, item: &ItemKey, attribute: &str, amount: Number) -> Result<(), Full> {
        self.write(Effect::update(item.clone()).add(attribute, amount))
    }

    /// Puts an item, in the place of one with the same key. Where other effects may be of the same item, use
    /// [`Effect::put_at`], which says which attributes are its key.
    ///
    /// # Errors
    ///
    /// [`Full`] if it does not fit; the transaction is as before.
    pub fn put(&mut self, table: &str, item: Item) -> Result<(), Full> {
        self.write(Effect::put(table, item))
    }

    /// Writes an effect, after those that are there.
    ///
    /// # Errors
    ///
    /// [`Full`] if it does not fit; the transaction is as before.
    pub fn write(&mut self, effect: Effect) -> Result<(), Full> {
        let written = self.effects.push(effect);
        self.has_overflowed |= written.is_err();
        written
    }

    /// Writes the effects and stores that everything up to and including `up_to` is processed, all or nothing. Without
    /// effects it is a [`checkpoint`](Checkpointer::checkpoint).
    ///
    /// While the response does not come, or other transactions conflict, it is tried again, for the failover time and
    /// nine minutes at most.
    ///
    /// # Errors
    ///
    /// See [`Checkpointer`]. [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable): it may or may not be written; make
    /// the effects again in a new transaction, which is committed as [`Moved`](Committed::Moved) or
    /// [`Earlier`](Committed::Earlier) if it was. [`ErrorKind::Data`](crate::ErrorKind::Data) also if DynamoDB refuses an
    /// effect: an item larger than 400 KB, a key with other attributes than the table's, a number added to a text, or
    /// one item under two keys.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, it may or may not be written; go on as after `Unavailable`.
    pub async fn commit(self, up_to: impl Into<ExtendedSequenceNumber>) -> Result<Committed, Error> {
        self.commit_up_to(up_to.into()).await.map_err(|failed| failed.error)
    }

    pub(crate) async fn commit_up_to(self, up_to: ExtendedSequenceNumber) -> Result<Committed, CommitError> {
        let effects: Arc<[Effect]> = self.effects.to_shared();
        self.checkpointer.commit(&self.from, up_to, effects).await
    }

    /// From here on, effects can be taken back.
    pub(crate) fn mark(&mut self) {
        self.has_overflowed = false;
        self.effects.mark();
    }

    /// Takes back the effects since [`mark`](Self::mark).
    pub(crate) fn roll_back(&mut self) {
        self.effects.roll_back();
    }

    /// Whether an effect since [`mark`](Self::mark) did not fit.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.has_overflowed
    }
}

/// Shows no effects: they may hold record data.
impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("lease", self.checkpointer.lease_key())
            .field("from", &self.from)
            .field("effects", &self.effects.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "transaction_test.rs"]
mod tests;
