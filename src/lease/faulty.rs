use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::memory::keys_owned_by;
use super::{
    Condition, Created, EntityKind, EntityOutcome, Item, Lease, LeaseScan, LeaseStore, LeaseTransaction,
    LeaseWrite, MemoryLeaseStore, StoreError, StoreErrorKind, TableSpec, TransactOutcome, WriteOutcome,
};
use crate::runtime::Clock;
use crate::types::{LeaseKey, WorkerId};

const ENSURE_TABLE: &str = "EnsureTable";
const SCAN: &str = "ListLeases";
const LEASE: &str = "GetLease";
const KEYS_OWNED_BY: &str = "ListLeaseKeysForWorker";
const COMMIT: &str = "CommitTransaction";
const CREATE: &str = "CreateLease";
const DELETE_ENDED: &str = "DeleteLease";
const ENSURE_OWNER_INDEX: &str = "EnsureOwnerIndex";
const ENTITY: &str = "GetEntity";
const DELETE_ENTITY: &str = "DeleteEntity";

/// One worker's unreliable way to a lease table in memory. Before each request a hook is asked what
/// is to go wrong with it; with a hook that always answers the same, so does the table.
///
/// ```
/// use std::sync::Arc;
/// use kinesis_consumer::lease::{Fault, FaultyLeaseStore, LeaseStore, MemoryLeaseStore};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let table = MemoryLeaseStore::default();
/// let cut_off = FaultyLeaseStore::new(table, Arc::new(|_, _| Fault::never_sent()));
/// assert!(cut_off.scan().await.is_err());
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct FaultyLeaseStore {
    table: MemoryLeaseStore,
    hook: FaultHook,
}

/// Decides what goes wrong with a request, given its operation and its row, if it is about one. The
/// operations are those of [`LeaseWrite::operation`], and `EnsureTable`, `ListLeases`, `GetLease`,
/// `ListLeaseKeysForWorker`, `CommitTransaction`, `CreateLease`, `DeleteLease`, `EnsureOwnerIndex`, `GetEntity` and
/// `DeleteEntity`.
pub type FaultHook = Arc<dyn Fn(&'static str, Option<&LeaseKey>) -> Fault + Send + Sync>;

/// What goes wrong with one request; by default nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct Fault {
    delay: Duration,
    answer_delay: Duration,
    failure: Option<Failure>,
    writes_missed: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Before(StoreErrorKind),
    After(StoreErrorKind),
}

impl Fault {
    /// The request fails as `kind` and has no effect.
    pub fn refused(kind: StoreErrorKind) -> Self {
        Self { failure: Some(Failure::Before(kind)), ..Self::default() }
    }

    /// The request gets no answer, and had no effect.
    pub fn never_sent() -> Self {
        Self::refused(StoreErrorKind::Unavailable)
    }

    /// The request has its effect, but the answer is lost.
    pub fn answer_lost() -> Self {
        Self { failure: Some(Failure::After(StoreErrorKind::Unavailable)), ..Self::default() }
    }

    /// A scan or a look into the index sees the table as it was this many changes ago.
    pub fn stale(writes_missed: usize) -> Self {
        Self { writes_missed, ..Self::default() }
    }

    /// Besides, the request takes `there` to have its effect, and its answer takes `back`.
    pub fn delayed(self, there: Duration, back: Duration) -> Self {
        Self { delay: there, answer_delay: back, ..self }
    }
}

impl FaultyLeaseStore {
    /// A way to `table` on which goes wrong what `hook` says.
    #[must_use]
    pub fn new(table: MemoryLeaseStore, hook: FaultHook) -> Self {
        Self { table, hook }
    }

    fn fault(&self, operation: &'static str, key: Option<&LeaseKey>) -> Fault {
        (self.hook)(operation, key)
    }
}

/// A request and its way there and back.
async fn send<T>(
    fault: Fault,
    operation: &'static str,
    key: Option<&LeaseKey>,
    request: impl Future<Output = Result<T, StoreError>> + Send,
) -> Result<T, StoreError> {
    let failed = |kind| {
        let row = key.map_or("in memory".to_owned(), |key| format!("in memory (row {key})"));
        Err(StoreError::new(kind, operation, row).with_detail("an injected fault"))
    };
    wait(fault.delay).await;
    if let Some(Failure::Before(kind)) = fault.failure {
        return failed(kind);
    }
    let answer = request.await;
    wait(fault.answer_delay).await;
    match fault.failure {
        Some(Failure::After(kind)) => failed(kind),
        _ => answer,
    }
}

async fn wait(delay: Duration) {
    if !delay.is_zero() {
        Clock::system().sleep(delay).await;
    }
}

// Each method must have its faults: one inherited from the trait would have none.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl LeaseStore for FaultyLeaseStore {
    async fn ensure_table(&self, spec: &TableSpec) -> Result<(), StoreError> {
        let fault = self.fault(ENSURE_TABLE, None);
        send(fault, ENSURE_TABLE, None, self.table.ensure_table(spec)).await
    }

    fn identity(&self) -> Option<String> {
        self.table.identity()
    }

    async fn scan(&self) -> Result<LeaseScan, StoreError> {
        let fault = self.fault(SCAN, None);
        let seen = async { Ok(LeaseScan::from_items(self.table.items_before(fault.writes_missed).values())) };
        send(fault, SCAN, None, seen).await
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        let fault = self.fault(LEASE, Some(key));
        send(fault, LEASE, Some(key), self.table.lease(key)).await
    }

    async fn keys_owned_by(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        let fault = self.fault(KEYS_OWNED_BY, None);
        let seen = async { Ok(keys_owned_by(&self.table.items_before(fault.writes_missed), worker)) };
        send(fault, KEYS_OWNED_BY, None, seen).await
    }

    async fn create(&self, lease: &Lease) -> Result<Created, StoreError> {
        let fault = self.fault(CREATE, Some(&lease.key));
        send(fault, CREATE, Some(&lease.key), self.table.create(lease)).await
    }

    async fn apply(&self, write: &LeaseWrite) -> Result<WriteOutcome, StoreError> {
        let fault = self.fault(write.operation, Some(&write.key));
        send(fault, write.operation, Some(&write.key), self.table.apply(write)).await
    }

    async fn transact(&self, transaction: &LeaseTransaction) -> Result<TransactOutcome, StoreError> {
        let write = &transaction.write;
        let fault = self.fault(COMMIT, Some(&write.key));
        send(fault, COMMIT, Some(&write.key), self.table.transact(transaction)).await
    }

    async fn delete_ended(&self, key: &LeaseKey) -> Result<(), StoreError> {
        let fault = self.fault(DELETE_ENDED, Some(key));
        send(fault, DELETE_ENDED, Some(key), self.table.delete_ended(key)).await
    }

    async fn ensure_owner_index(&self) -> Result<bool, StoreError> {
        let fault = self.fault(ENSURE_OWNER_INDEX, None);
        send(fault, ENSURE_OWNER_INDEX, None, self.table.ensure_owner_index()).await
    }

    async fn entity(&self, kind: EntityKind, key: &LeaseKey) -> Result<Option<Item>, StoreError> {
        let fault = self.fault(ENTITY, Some(key));
        send(fault, ENTITY, Some(key), self.table.entity(kind, key)).await
    }

    async fn apply_to_entity(
        &self,
        kind: EntityKind,
        write: &LeaseWrite,
    ) -> Result<EntityOutcome, StoreError> {
        let fault = self.fault(write.operation, Some(&write.key));
        send(fault, write.operation, Some(&write.key), self.table.apply_to_entity(kind, write)).await
    }

    async fn delete_entity(
        &self,
        kind: EntityKind,
        key: &LeaseKey,
        conditions: &[Condition],
    ) -> Result<(), StoreError> {
        let fault = self.fault(DELETE_ENTITY, Some(key));
        send(fault, DELETE_ENTITY, Some(key), self.table.delete_entity(kind, key, conditions)).await
    }
}

impl fmt::Debug for FaultyLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyLeaseStore").field("table", &self.table).finish_non_exhaustive()
    }
}
