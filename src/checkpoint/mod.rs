//! Stop 8 on the data's way: what has been processed, written to the lease table.

/// Records how far a shard has been processed.
#[derive(Debug, Clone)]
pub struct Checkpointer {}
