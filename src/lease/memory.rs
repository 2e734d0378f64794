/// A lease table in memory.
#[derive(Debug, Default)]
pub struct MemoryLeaseStore {}
