//! Checkpoints: what has been processed, as stored in the lease table.

mod checkpointer;
mod interruption;
mod tracker;

pub(crate) use self::checkpointer::CheckpointerParts;
pub use self::checkpointer::{Checkpointer, PreparedCheckpoint};
pub use self::interruption::Interruption;
pub(crate) use self::interruption::StoppedReason;
