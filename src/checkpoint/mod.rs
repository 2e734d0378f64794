//! Checkpoints: what has been processed, as stored in the lease table.

mod checkpointer;
mod effects;
mod interruption;
mod tracker;
mod transaction;

pub(crate) use self::checkpointer::CheckpointerParts;
pub use self::checkpointer::{Checkpointer, PreparedCheckpoint};
pub use self::effects::Full;
pub use self::interruption::Interruption;
pub(crate) use self::interruption::StoppedReason;
pub(crate) use self::transaction::CommitError;
pub use self::transaction::{Committed, Transaction};
