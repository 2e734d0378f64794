//! Stop 8 on the data's way: what has been processed, written to the lease table.

mod checkpointer;
mod tracker;

pub(crate) use self::checkpointer::CheckpointerParts;
pub use self::checkpointer::{Checkpointer, PreparedCheckpoint};
