use std::fmt;
use std::sync::Arc;

use crate::config::ProcessorConfig;
use crate::context::Context;
use crate::lease::OpenLeases;
use crate::processor::ShardRecordProcessorFactory;
use crate::retrieval::{RetrievalConfig, WorkerBudget};

/// What all shard consumers of a worker share.
pub(crate) struct ShardEnvironment {
    pub(crate) context: Arc<Context>,
    pub(crate) factory: Arc<dyn ShardRecordProcessorFactory>,
    pub(crate) processor: ProcessorConfig,
    pub(crate) retrieval: RetrievalConfig,
    /// The memory that fetched records may take.
    pub(crate) budget: Arc<WorkerBudget>,
    pub(crate) open_leases: Arc<OpenLeases>,
}

impl fmt::Debug for ShardEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardEnvironment").field("context", &self.context).finish_non_exhaustive()
    }
}
