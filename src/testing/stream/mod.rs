//! The simulated stream: a pure model of the service ([`service::Service`] and the files that add
//! operations to it), and a handle that adds a lock, a clock and faults.

mod consumers;
mod error;
mod faults;
mod iterator;
mod kinesis;
mod limits;
mod list;
mod live;
mod port;
mod read;
mod reshard;
mod sequence;
mod service;
#[cfg(feature = "local")]
mod settings;
mod shard;
mod state;
mod subscription;
mod write;

pub use self::error::{ErrorCode, ServiceError};
pub use self::faults::{Call, Fault, FaultTable};
pub use self::kinesis::SimulatedKinesis;
pub use self::limits::Limits;
pub use self::live::SimulatedSubscription;
pub use self::write::{NewRecord, Placement};

#[cfg(feature = "local")]
pub(crate) use self::{
    consumers::RegisteredConsumer,
    list::ListFilter,
    read::LIMIT_MAX,
    service::{ACCOUNT, REGION, stream_arn},
    settings::{Resource, shard_metrics},
    shard::{ShardState, StoredRecord},
    state::{StreamMode, StreamState},
    subscription::Event,
};
