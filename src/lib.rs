//! A KCL-compatible Kinesis consumer library: a fleet of workers shares the shards of a stream through a
//! DynamoDB table.
//!
//! ```no_run
//! use kinesis_consumer::{BoxError, Consumer};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), BoxError> {
//!     let consumer = Consumer::builder()
//!         .stream("orders")
//!         .application("order-printer")
//!         .aws_config(&aws_config::load_from_env().await)
//!         .for_each(|record| async move {
//!             println!("{}: {} bytes", record.record.partition_key, record.record.data.len());
//!             Ok::<_, BoxError>(()) // on an error the record is tried again
//!         })
//!         .build()?;
//!     consumer.start().await?.shutdown_on_signal().await?; // SIGTERM or Ctrl-C
//!     Ok(())
//! }
//! ```
//!
//! Run the same program on as many machines as you like. The workers of an application find each other
//! through the lease table, which the first one creates. Each worker reads the shards it holds leases of,
//! de-aggregates KPL records, passes records in order to your code, and stores checkpoints, so that every record is processed at least once across crashes, deploys and resharding. Workers of Java
//! KCL 2.x and 3.x can share the lease table.
//!
//! - [`Consumer::builder`] takes the settings, [`ConsumerHandle`] controls a running consumer.
//! - [`RecordHandler`] and [`BatchHandler`] document what a handler can rely on, [`ErrorPolicy`] what happens when it
//!   fails.
//! - [`ShardRecordProcessor`] is the lower layer, with KCL's callbacks; its [`Checkpointer`] stores how far it has got.
//! - [`ConsumerHandle::status`] and [`Events`] report what goes on, [`MetricsConfig`] the metrics.
//! - [`Error::kind`] says what to do about an error.
//!
//! # Tests without AWS
//!
//! The module `testing` (feature `test-util`) has a simulated stream; leases are kept in memory:
//!
//! ```
//! # use async_trait::async_trait;
//! # use kinesis_consumer::{Checkpointer, KinesisClientRecord, ShardRecordProcessor};
//! # struct Printer { checkpointer: Checkpointer }
//! # #[async_trait]
//! # impl ShardRecordProcessor for Printer {
//! #     async fn process_records(&self, _: Vec<KinesisClientRecord>, _: i64) {
//! #         self.checkpointer.checkpoint_delivered().await.expect("stored");
//! #     }
//! #     async fn shard_ended(&self) {}
//! # }
//! # #[cfg(feature = "test-util")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kinesis_consumer::lease::MemoryLeaseStore;
//! use kinesis_consumer::testing::SimulatedKinesis;
//! use kinesis_consumer::{Consumer, Event, ManagementConfig, StartStrategy};
//!
//! let kinesis = SimulatedKinesis::new();
//! kinesis.create_stream("orders", 2)?;
//! kinesis.put("orders", "customer-1", "a payload")?;
//! let consumer = Consumer::builder()
//!     .stream("orders")
//!     .application("my-test")
//!     .processor_factory(|checkpointer| Printer { checkpointer })
//!     .stream_api(kinesis)
//!     .lease_store(MemoryLeaseStore::default())
//!     .management(ManagementConfig::default().with_start_strategy(StartStrategy::Oldest))
//!     .build()?;
//! let mut events = consumer.events();
//! let handle = consumer.start().await?;
//! while !matches!(events.next().await, Some(Event::Checkpointed { .. })) {}
//! handle.shutdown().await?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "test-util"))]
//! # fn main() {}
//! ```
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `metrics` | every metric through the [`metrics`](https://docs.rs/metrics) facade, see [`MetricsConfig`] |
//! | `serde` | `Serialize` for identifiers, positions, [`Status`] and [`Event`], `Deserialize` for all but [`Event`] |
//! | `cli` | the command line `kinesis-consumer` |
//! | `http` | the module `http`: a page, metrics for Prometheus and probes |
//! | `test-util` | the module `testing`: a simulated stream, record makers, a metrics recorder |
//! | `local` | `test-util`, and `testing::LocalAws`: Kinesis, DynamoDB and CloudWatch endpoints on loopback |
//! | `internals` | private parts for this crate's own tests and benches; outside semver |
//!
//! # Runtime
//!
//! A consumer runs on the tokio runtime it is started on; only lease renewal and coordination have a thread of
//! their own, so that processors that block do not lose their leases. A panic of a processor restarts its shard
//! from the last checkpoint. In a program built with `panic = "abort"` it ends the process instead, and other
//! workers take its leases over after the failover time.
//!
//! # Data flow
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

#![cfg_attr(docsrs, feature(doc_cfg))]
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

mod handler;

mod delivery;

mod consumer;

pub mod admin;

#[cfg(feature = "http")]
pub mod http;

mod config;
mod connections;
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

pub use crate::checkpoint::{Checkpointer, Committed, Full, Interruption, PreparedCheckpoint, Transaction};
pub use crate::config::{
    AssignmentStrategy, CoordinationConfig, CoordinationMode, FanOutConsumer, LeaderConfig, LeaseConfig,
    LifecycleConfig, ManagementConfig, OnRecreatedStream, ProcessorConfig, Settings, StreamConfig,
};
pub use crate::consumer::{Consumer, ConsumerBuilder, ConsumerHandle, Health, Status};
pub use crate::delivery::{Delivery, RecordStream, ShardStream, ShardStreams, StreamOptions};
pub use crate::error::{Error, ErrorKind};
pub use crate::events::{Event, Events, StopReason};
pub use crate::handler::{
    Attempt, BatchFailure, BatchHandler, BoxError, Concurrency, DeadLetter, DeadLetters, DynamoDbDeadLetters,
    ErrorPolicy, Failure, Isolate, KinesisDeadLetters, Order, Pause, RecordHandler, Then,
};
pub use crate::kinesis::KinesisProtocol;
pub use crate::lease::{Effect, ItemKey, Number, Requirement};
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
    is_shared_freely::<(Delivery, RecordStream, ShardStreams, ShardStream)>();
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
    is_shared_freely::<(admin::Admin, admin::FleetStatus)>();
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
