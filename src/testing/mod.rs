//! Kinesis without AWS, for your own tests (feature `test-util`).
//!
//! - [`SimulatedKinesis`] is a service inside the process: put records, split and merge shards, inject
//!   faults, and read it through [`StreamApi`](crate::kinesis::StreamApi) with the rules of the real
//!   service.
//! - [`record`] and [`aggregated_record`] make single records, for calling a processor directly.
//! - [`MetricsRecorder`] stores the metrics of a consumer.
//! - `LocalAws` (feature `local`) serves it over HTTP, together with DynamoDB and CloudWatch, for
//!   end-to-end tests with any AWS SDK.
//!
//! Time is tokio's, so a test with paused time does not wait.

#[cfg(feature = "local")]
mod local;
mod records;
mod stream;

#[cfg(feature = "local")]
pub use self::local::{HttpFault, LocalAws, LocalAwsBuilder, LocalAwsError, MetricPoint};

pub use self::records::{aggregated_record, record};
pub use self::stream::{
    Call, ErrorCode, Fault, FaultTable, Limits, NewRecord, Placement, ServiceError, SimulatedKinesis,
    SimulatedSubscription,
};
pub use crate::metrics::{MetricsRecorder, StatisticSet};
