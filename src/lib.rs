//! Reads Kinesis streams as a fleet.

mod types;

pub mod stream;

pub mod lease;

mod retrieval;

pub mod aggregation;

mod processor;

mod checkpoint;

mod metrics;

mod runtime;

#[cfg(feature = "test-util")]
pub mod testing;

#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;

pub use crate::checkpoint::Checkpointer;
pub use crate::processor::{ShardRecordProcessor, ShardRecordProcessorFactory};
pub use crate::retrieval::RetrievalConfig;
pub use crate::types::{
    Checkpoint, EncryptionType, ExplicitHashKey, ExtendedSequenceNumber, HashKeyRange, KinesisClientRecord,
    LeaseKey, Moment, ParseCheckpointError, ParseHashKeyError, ParseSequenceNumberError, ParseStreamError,
    PartitionKey, Record, SequenceNumber, ShardId, StreamId, WorkerId,
};
