//! Which leases a stream needs and which it no longer needs. Everything here is pure: the loops that list
//! shards and write rows are in `coordination` and `shard`.

mod auditor;
pub(crate) mod child_leases;
mod cleanup;
mod origins;
mod plan;
mod stream_sync;

pub(crate) use self::auditor::Audit;
#[cfg(feature = "internals")]
pub(crate) use self::auditor::HoleTracker;
pub(crate) use self::child_leases::{ChildError, plan_child_leases};
pub(crate) use self::cleanup::plan_cleanup;
pub(crate) use self::origins::{ForeignLease, Origins, describe};
pub(crate) use self::plan::{CreateReason, NewLease, ShardSyncPlan, initial_filter, plan_shard_sync};
pub(crate) use self::stream_sync::{StreamSync, SyncRequest, SyncRules};
