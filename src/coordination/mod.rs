//! Stop 3 on the data's way: who owns what. Loops that read the lease table, plan, and carry the
//! plan out with conditional writes; a lost race just means that the next round plans again.

pub(crate) mod assign;
pub(crate) mod audit;
pub(crate) mod cleanup;
mod finished;
mod health;
mod holdings;
mod hub;
pub(crate) mod leader;
pub(crate) mod migration;
mod origin_check;
mod origins;
pub(crate) mod renewer;
mod rounds;
pub(crate) mod shard_sync;
mod sync;
mod table;
mod taking;
mod twins;
mod unfinished;
pub(crate) mod view;
pub(crate) mod worker_metrics;

#[cfg(test)]
#[path = "growth_test.rs"]
mod growth_tests;

pub(crate) use self::health::{CoordinationHealth, Measure, Purpose};
pub(crate) use self::holdings::Holdings;
pub(crate) use self::hub::Hub;
pub(crate) use self::rounds::LeaseCoordinator;
pub(crate) use self::sync::initial_filter;
pub(crate) use self::unfinished::Unfinished;
