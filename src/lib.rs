//! Reads Amazon Kinesis streams as a fleet: what the Kinesis Client Library (KCL) does for Java.
//!
//! Any number of workers share the shards of a stream through leases in a DynamoDB table. Each worker
//! reads the shards it holds, takes KPL aggregates apart, hands records in order to a
//! [`ShardRecordProcessor`], and stores checkpoints, so that every record is processed at least once
//! across crashes, deploys and resharding. Workers of Java KCL 2.x can share the same lease table at
//! the same time.
//!
//! # The data's way
//!
//! ```text
//!  1 kinesis      which shards exist ──────────────┐
//!  2 lease        the table: who reads what        │
//!  3 coordination scans, plans, takes, renews ◄────┘
//!                   │ a lease taken
//!                   ▼
//!  4 shard        one shard's life: parents first, then records, then its end
//!  5 retrieval      │ GetRecords, ahead of the processor and within its memory
//!  6 aggregation    │ KPL aggregates → user records
//!  7 processor      │ your code
//!  8 checkpoint     ▼ conditional writes to the lease row
//! ```
//!
//! [`Consumer::builder`] is where to start; the module `testing` (feature `test-util`) has a stream to
//! test against.

#![warn(clippy::disallowed_methods)]

mod types;

pub mod kinesis;

pub mod lease;

mod coordination;

mod shard_sync;

mod shard;

mod retrieval;

pub mod aggregation;

mod processor;

mod checkpoint;

mod consumer;

mod config;
mod context;
mod error;
mod events;
mod metrics;
mod runtime;
mod stream_tracker;

mod planted;

#[cfg(feature = "test-util")]
pub mod testing;

#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;

pub use crate::checkpoint::{Checkpointer, PreparedCheckpoint};
pub use crate::config::{
    AssignmentStrategy, CoordinationConfig, CoordinationMode, FanOutConsumer, LeaderConfig, LeaseConfig,
    LifecycleConfig, ManagementConfig, OnRecreatedStream, ProcessorConfig, Settings, StreamConfig,
};
pub use crate::consumer::{Consumer, ConsumerBuilder, ConsumerHandle, Health, Status, StopReason};
pub use crate::error::{Error, ErrorKind};
pub use crate::events::{Event, Events};
pub use crate::kinesis::KinesisProtocol;
pub use crate::metrics::{
    MetricValue, MetricsConfig, MetricsDimension, MetricsLevel, MetricsReport, MetricsSink,
    Unit as MetricUnit,
};
pub use crate::processor::{ShardRecordProcessor, ShardRecordProcessorFactory};
pub use crate::retrieval::{OnRefusedCheckpoint, OutOfRangeRecords, RetrievalConfig};
pub use crate::shard::{ShardState, ShardStatus};
pub use crate::stream_tracker::StreamStatus;
pub use crate::types::{
    Checkpoint, ConsumerArn, EncryptionType, ExplicitHashKey, ExtendedSequenceNumber, HashKeyRange,
    KinesisClientRecord, LeaseKey, Moment, ParseCheckpointError, ParseHashKeyError, ParsePositionError,
    ParseSequenceNumberError, ParseStreamError, PartitionKey, Payload, Record, SequenceNumber, ShardId,
    StartStrategy, StreamId, WorkerId,
};

/// Everything public can be sent to, shared with and kept by other threads.
const _: () = {
    const fn is_shared_freely<T: Send + Sync + 'static>() {}
    is_shared_freely::<(Consumer, ConsumerBuilder, ConsumerHandle, Checkpointer, PreparedCheckpoint)>();
    is_shared_freely::<(Error, Event, Events, Status, ShardStatus, StreamStatus)>();
    is_shared_freely::<(CoordinationConfig, LeaderConfig, LifecycleConfig, ProcessorConfig, ManagementConfig)>(
    );
    is_shared_freely::<(RetrievalConfig, LeaseConfig, MetricsConfig, Settings, StreamConfig, lease::TableSpec)>(
    );
    is_shared_freely::<(
        KinesisClientRecord,
        Payload,
        PartitionKey,
        ExtendedSequenceNumber,
        Checkpoint,
        StreamId,
    )>();
    is_shared_freely::<(lease::MemoryLeaseStore, lease::StoreError, lease::LeaseWrite, kinesis::StreamError)>(
    );
    is_shared_freely::<(aggregation::Aggregator, Box<dyn ShardRecordProcessor>)>();
    is_shared_freely::<(Box<dyn lease::LeaseStore>, Box<dyn kinesis::StreamApi>)>();
    #[cfg(feature = "test-util")]
    is_shared_freely::<(testing::SimulatedKinesis, testing::MetricsRecorder, lease::FaultyLeaseStore)>();
    #[cfg(feature = "local")]
    is_shared_freely::<(testing::LocalAws, testing::LocalAwsBuilder, testing::LocalAwsError)>();
};

/// The code in the README compiles and runs.
#[cfg(all(doctest, feature = "test-util"))]
#[doc = include_str!("../README.md")]
struct Readme;
