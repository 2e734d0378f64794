//! The lease table, where workers agree on who reads what and how far.

#[cfg(test)]
mod arbitrary;
mod codec;
mod decimal;
mod dynamodb;
mod effect;
mod entity;
mod error;
#[cfg(feature = "test-util")]
mod faulty;
mod held;
pub(crate) mod hold;
mod item;
mod local_notifier;
mod memory;
pub(crate) mod names;
mod number;
mod open_leases;
pub(crate) mod origin;
mod relay;
mod row;
mod store;
mod transaction;
mod user_tables;
mod write;
mod write_pacer;
mod write_pacing;

pub(crate) use self::dynamodb::DynamoDbLeaseStore;
pub use self::effect::{Action, Change, Effect, ItemKey, Requirement};
pub use self::entity::{EntityKind, EntityOutcome};
pub use self::error::{StoreError, StoreErrorKind};
#[cfg(feature = "test-util")]
pub use self::faulty::{Fault, FaultHook, FaultyLeaseStore};
pub(crate) use self::held::{HeldError, HeldLease, Written};
pub(crate) use self::hold::LeaseHold;
pub use self::item::{Attribute, Item};
pub(crate) use self::local_notifier::LocalLeaseNotifier;
pub use self::memory::MemoryLeaseStore;
#[cfg(any(test, feature = "internals"))]
pub(crate) use self::memory::row_after;
pub use self::number::{Number, ParseNumberError};
pub(crate) use self::open_leases::OpenLeases;
pub(crate) use self::relay::RuntimeBoundStore;
pub use self::row::{BehindLatest, Lease, Paused, PendingCheckpoint, Throughput, UnreadableRow};
pub use self::store::{BillingMode, Created, LeaseScan, LeaseStore, TableSpec, WriteOutcome};
pub use self::transaction::{LeaseTransaction, TransactOutcome};
pub use self::write::{Condition, LeaseWrite, Update};
pub(crate) use self::write_pacer::WritePacer;
