//! Settings: plain data with KCL's names, defaults and units, checked before anything runs.

mod coordination;
mod environment;
mod lease;
mod processing;
mod range;
mod stream;
pub(crate) mod with;

pub use self::coordination::{
    AssignmentStrategy, CoordinationConfig, CoordinationMode, LeaderConfig, OnRecreatedStream,
};
pub use self::environment::Settings;
pub use self::lease::{FanOutConsumer, LeaseConfig, ManagementConfig};
pub use self::processing::{LifecycleConfig, ProcessorConfig};
pub(crate) use self::range::{check, check_duration};
pub use self::stream::StreamConfig;
pub(crate) use self::stream::StreamSpec;
pub(crate) use self::with::with_settings;
