//! Stage 3 of the data flow: who owns what. Loops that read the lease table, plan, and carry the
//! plan out with conditional writes; a lost race just means that the next round plans again.

pub(crate) mod assign;
mod command;
mod consumers;
mod coordinator;
mod duplicate_worker;
pub(crate) mod election;
mod executor;
mod health;
pub(crate) mod leader_state;
mod lease_cleanup;
pub(crate) mod migration;
mod origin_check;
mod owned;
pub(crate) mod renewer;
mod reports;
pub(crate) mod roles;
mod scan;
mod shard_syncer;
mod state;
mod table;
mod tracked;
pub(crate) mod view;
mod worker;
pub(crate) mod worker_metrics;

#[cfg(test)]
#[path = "growth_test.rs"]
mod growth_tests;

pub(crate) use self::coordinator::LeaseCoordinator;
pub(crate) use self::health::{CoordinationHealth, Measure, Purpose};
pub(crate) use self::worker::Worker;
