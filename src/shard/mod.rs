//! One shard's life on this worker, from taking its lease to giving it up.

mod callbacks;
mod consumer;
mod ending;
pub(crate) mod ending_steps;
mod environment;
mod fetching;
mod held_leases;
mod out_of_range;
mod pause;
mod state;
mod status;

pub(crate) use self::consumer::{ShardConsumer, ShardOutcome};
pub(crate) use self::environment::ShardEnvironment;
pub(crate) use self::held_leases::{HeldLeaseEntry, HeldLeases};
pub use self::state::ShardState;
#[cfg(feature = "internals")]
pub(crate) use self::state::lets_children_start;
pub use self::status::ShardStatus;
pub(crate) use self::status::StatusCell;
