use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Condition, EntityKind, EntityOutcome, Item, Lease, LeaseTransaction, LeaseWrite, StoreError,
    StoreErrorKind, TransactOutcome, UnreadableRow,
};
use crate::config::{check, check_duration, with_settings};
use crate::error::Error;
use crate::types::{LeaseKey, WorkerId};

/// A lease table. Implemented over DynamoDB and in memory; one conformance suite holds both to the
/// same behaviour.
///
/// # Guarantees an implementation gives
///
/// - Each write is atomic and isolated per row, and durable once it is reported as applied.
/// - Each write makes one attempt and returns within the request timeout. The caller decides about
///   retries, because only it knows what a write that may or may not have landed means. Reads may
///   take several requests, each bounded by that timeout, to page and to get over a throttled one.
/// - Rows that cannot be read are reported by [`scan`](Self::scan), never changed or deleted. Rows of
///   other kinds (an `entityType` other than `LEASE`) are not leases, whatever else is in them.
/// - Attributes this crate does not know survive every write.
///
/// # Assumptions it may make
///
/// Reads may be stale ([`scan`](Self::scan), [`keys_owned_by`](Self::keys_owned_by)); nothing above
/// relies on them for safety, only the conditions of writes count.
///
/// # Cancel safety
///
/// Every method may be dropped at any await point; a dropped write may have happened.
#[async_trait]
pub trait LeaseStore: Send + Sync + fmt::Debug {
    /// Makes sure that the table is there and ready, creating it if need be; bounded by the wait in
    /// `spec`. Safe to call from many workers at once.
    async fn ensure_table(&self, spec: &TableSpec) -> Result<(), StoreError>;

    /// Identifies the table, once [`ensure_table`](Self::ensure_table) has returned: workers of
    /// one process with the same answer notify each other of changes at once. `None`, the default, if that
    /// is not known.
    fn identity(&self) -> Option<String> {
        None
    }

    /// Every lease in the table in the order of keys, perhaps a moment old.
    async fn scan(&self) -> Result<LeaseScan, StoreError>;

    /// One row as it is now (a consistent read); `None` if it is not there or is not a lease. A row
    /// that cannot be read is an error, with the [`UnreadableRow`] as its source.
    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError>;

    /// The keys of the rows that name `worker` as `leaseOwner`, from the index
    /// `LeaseOwnerToLeaseKeyIndex`, perhaps a moment old.
    async fn keys_owned_by(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError>;

    /// Puts a new row, unless one with that key exists.
    async fn create(&self, lease: &Lease) -> Result<Created, StoreError>;

    /// Carries out one conditional write.
    async fn apply(&self, write: &LeaseWrite) -> Result<WriteOutcome, StoreError>;

    /// Carries out a conditional write and effects on users' tables, all or nothing (`TransactWriteItems`).
    ///
    /// By default an error: the store has no transactions.
    async fn transact(&self, transaction: &LeaseTransaction) -> Result<TransactOutcome, StoreError> {
        let row = format!("(row {})", transaction.write.key);
        Err(StoreError::new(StoreErrorKind::Malformed, transaction.write.operation, row)
            .with_detail("this lease store has no transactions; use the one in DynamoDB or in memory"))
    }

    /// Deletes a row if it is still at `SHARD_END`, and leaves any other alone; a row that is gone
    /// already counts as deleted.
    async fn delete_ended(&self, key: &LeaseKey) -> Result<(), StoreError>;

    /// Makes sure that the index `LeaseOwnerToLeaseKeyIndex` is there or being made. Whether
    /// [`keys_owned_by`](Self::keys_owned_by) can be asked already.
    async fn ensure_owner_index(&self) -> Result<bool, StoreError>;

    /// A row that is no lease, as it is now (a consistent read).
    async fn entity(&self, kind: EntityKind, key: &LeaseKey) -> Result<Option<Item>, StoreError>;

    /// Carries out one conditional write of a row that is no lease.
    async fn apply_to_entity(
        &self,
        kind: EntityKind,
        write: &LeaseWrite,
    ) -> Result<EntityOutcome, StoreError>;

    /// Deletes a row that is no lease if all of `conditions` hold, and leaves it alone otherwise.
    async fn delete_entity(
        &self,
        kind: EntityKind,
        key: &LeaseKey,
        conditions: &[Condition],
    ) -> Result<(), StoreError>;
}

// Each method must be passed on: one inherited from the trait would hide what is shared.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: LeaseStore + ?Sized> LeaseStore for Arc<T> {
    async fn ensure_table(&self, spec: &TableSpec) -> Result<(), StoreError> {
        (**self).ensure_table(spec).await
    }

    fn identity(&self) -> Option<String> {
        (**self).identity()
    }

    async fn scan(&self) -> Result<LeaseScan, StoreError> {
        (**self).scan().await
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        (**self).lease(key).await
    }

    async fn keys_owned_by(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        (**self).keys_owned_by(worker).await
    }

    async fn create(&self, lease: &Lease) -> Result<Created, StoreError> {
        (**self).create(lease).await
    }

    async fn apply(&self, write: &LeaseWrite) -> Result<WriteOutcome, StoreError> {
        (**self).apply(write).await
    }

    async fn transact(&self, transaction: &LeaseTransaction) -> Result<TransactOutcome, StoreError> {
        (**self).transact(transaction).await
    }

    async fn delete_ended(&self, key: &LeaseKey) -> Result<(), StoreError> {
        (**self).delete_ended(key).await
    }

    async fn ensure_owner_index(&self) -> Result<bool, StoreError> {
        (**self).ensure_owner_index().await
    }

    async fn entity(&self, kind: EntityKind, key: &LeaseKey) -> Result<Option<Item>, StoreError> {
        (**self).entity(kind, key).await
    }

    async fn apply_to_entity(
        &self,
        kind: EntityKind,
        write: &LeaseWrite,
    ) -> Result<EntityOutcome, StoreError> {
        (**self).apply_to_entity(kind, write).await
    }

    async fn delete_entity(
        &self,
        kind: EntityKind,
        key: &LeaseKey,
        conditions: &[Condition],
    ) -> Result<(), StoreError> {
        (**self).delete_entity(kind, key, conditions).await
    }
}

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct LeaseScan {
    /// The leases.
    pub leases: Vec<Lease>,
    /// Rows that look like leases but cannot be read.
    pub unreadable: Vec<UnreadableRow>,
    /// Rows of other kinds: the leader's lock, the reports of workers.
    pub entities: Vec<Item>,
}

impl LeaseScan {
    /// A scan that found `leases` and rows it could not read.
    #[must_use]
    pub fn new(leases: Vec<Lease>, unreadable: Vec<UnreadableRow>) -> Self {
        Self { leases, unreadable, entities: Vec::new() }
    }

    /// Adds what another part of the same scan found.
    pub(super) fn extend(&mut self, other: Self) {
        self.leases.extend(other.leases);
        self.unreadable.extend(other.unreadable);
        self.entities.extend(other.entities);
    }

    /// Reads rows.
    pub(super) fn from_items<'a>(items: impl IntoIterator<Item = &'a Item>) -> Self {
        let mut scan = Self::default();
        for item in items {
            match Lease::from_item(item) {
                Ok(Some(lease)) => scan.leases.push(lease),
                Ok(None) => scan.entities.push(item.clone()),
                Err(unreadable) => scan.unreadable.push(unreadable),
            }
        }
        scan
    }
}

/// Whether a row was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It was.
    Now,
    /// Somebody had created it before; nothing changed.
    Already,
}

/// What became of a conditional write. Losing a race is an outcome, not an error.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum WriteOutcome {
    /// Every condition held; the row is now this.
    Applied(Box<Lease>),
    /// A condition did not hold; the row is this (`None`: gone, or unreadable).
    Refused(Option<Box<Lease>>),
}

impl WriteOutcome {
    /// A condition did not hold of `row`.
    pub(super) fn refused_by(row: Option<&Item>) -> Self {
        let lease = row.and_then(|row| Lease::from_item(row).ok().flatten());
        Self::Refused(lease.map(Box::new))
    }
}

/// How DynamoDB charges for the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BillingMode {
    /// By request (`PAY_PER_REQUEST`).
    #[default]
    OnDemand,
    /// By capacity units, which limit the requests (`PROVISIONED`). The index of owners, if there is one, gets
    /// as many of its own.
    Provisioned {
        /// Read capacity units (1 or more).
        read: u32,
        /// Write capacity units (1 or more). Each lease needs at least one write per failover time.
        write: u32,
    },
}

/// How the table is created and kept (KCL's `LeaseManagementConfig`).
///
/// ```
/// use kinesis_consumer::lease::{BillingMode, TableSpec};
///
/// let table = TableSpec::default()
///     .with_billing(BillingMode::Provisioned { read: 10, write: 20 })
///     .with_tag("team", "orders")
///     .with_deletion_protection(true);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableSpec {
    /// How the table is charged for; applied at creation only.
    pub billing: BillingMode,
    /// Tags given at creation.
    pub tags: BTreeMap<String, String>,
    /// Whether the table is protected from deletion; applied at creation only.
    pub deletion_protection: bool,
    /// Whether point-in-time recovery is switched on, for an existing table too.
    pub point_in_time_recovery: bool,
    /// How long to wait for the table to become ready (1 ms to 24 h, default 600 s).
    pub wait_max: Duration,
    /// Whether a table that is created gets the index `LeaseOwnerToLeaseKeyIndex`, which fleets run by a
    /// leader need. In [`CoordinationMode::Leader`](crate::CoordinationMode::Leader) it always does; set this
    /// to prepare a table for that mode. A table that is there already is left as it is.
    pub owner_index: bool,
}

impl Default for TableSpec {
    fn default() -> Self {
        Self {
            billing: BillingMode::default(),
            tags: BTreeMap::new(),
            deletion_protection: false,
            point_in_time_recovery: false,
            wait_max: Duration::from_secs(600),
            owner_index: false,
        }
    }
}

with_settings!(TableSpec {
    with_billing = billing: BillingMode,
    with_tags = tags: BTreeMap<String, String>,
    with_deletion_protection = deletion_protection: bool,
    with_point_in_time_recovery = point_in_time_recovery: bool,
    with_wait_max = wait_max: Duration,
    with_owner_index = owner_index: bool,
});

impl TableSpec {
    /// The same settings with one more tag.
    #[must_use]
    pub fn with_tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(name.into(), value.into());
        self
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        if let BillingMode::Provisioned { read, write } = self.billing {
            check("lease_table.billing.read", read, 1..=u32::MAX)?;
            check("lease_table.billing.write", write, 1..=u32::MAX)?;
        }
        let day = Duration::from_secs(24 * 3600);
        check_duration("lease_table.wait_max", self.wait_max, Duration::from_millis(1)..=day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_range_is_named_with_its_range() {
        let default = TableSpec::default;
        assert!(default().validate().is_ok());
        let provisioned = |read, write| default().with_billing(BillingMode::Provisioned { read, write });
        assert!(provisioned(1, 1).validate().is_ok());
        for (spec, message) in [
            (provisioned(0, 1), "lease_table.billing.read is 0; it must be between 1 and 4294967295"),
            (provisioned(1, 0), "lease_table.billing.write is 0; it must be between 1 and 4294967295"),
            (
                default().with_wait_max(Duration::ZERO),
                "lease_table.wait_max is 0 ms; it must be between 1 and 86400000 ms",
            ),
        ] {
            assert_eq!(spec.validate().expect_err("out of range").to_string(), message);
        }
    }
}
