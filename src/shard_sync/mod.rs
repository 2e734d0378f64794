//! Which leases a stream needs and which it no longer needs, in pure files, and the one way to create a lease.
//! The loops that list shards are in `coordination` and `shard`.

mod auditor;
pub(crate) mod child_leases;
mod cleanup;
mod create;
mod origins;
mod plan;
mod stream_sync;

pub(crate) use self::auditor::Audit;
#[cfg(feature = "internals")]
pub(crate) use self::auditor::HoleTracker;
pub(crate) use self::child_leases::{ChildError, plan_child_leases};
pub(crate) use self::cleanup::plan_cleanup;
pub(crate) use self::create::create_lease;
pub(crate) use self::origins::{ForeignLease, Origins, describe};
pub(crate) use self::plan::{CreateReason, NewLease, ShardSyncPlan, initial_filter, plan_shard_sync};
pub(crate) use self::stream_sync::{StreamSync, SyncRequest, SyncRules};
