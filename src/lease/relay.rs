use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Condition, Created, EntityKind, EntityOutcome, Item, Lease, LeaseScan, LeaseStore, LeaseTransaction,
    LeaseWrite, StoreError, StoreErrorKind, TableSpec, TransactOutcome, WriteOutcome,
};
use crate::types::{LeaseKey, WorkerId};

/// A store whose requests all run on one runtime, wherever they are made: a pooled connection is driven by
/// the runtime that opened it, and must not be driven by one that user code may block.
pub(crate) struct RuntimeBoundStore {
    store: Arc<dyn LeaseStore>,
    runtime: Handle,
}

impl RuntimeBoundStore {
    pub(crate) fn new(store: Arc<dyn LeaseStore>, runtime: Handle) -> Self {
        Self { store, runtime }
    }

    async fn relay<T, F>(
        &self,
        operation: &'static str,
        request: impl FnOnce(Arc<dyn LeaseStore>) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let request = self.runtime.spawn(request(Arc::clone(&self.store)));
        AbortOnDropHandle::new(request).await.unwrap_or_else(|stopped| {
            Err(StoreError::new(StoreErrorKind::Unavailable, operation, "(the consumer has stopped)")
                .with_source(stopped))
        })
    }
}

impl fmt::Debug for RuntimeBoundStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RuntimeBoundStore").field(&self.store).finish()
    }
}

#[async_trait]
impl LeaseStore for RuntimeBoundStore {
    async fn ensure_table(&self, spec: &TableSpec) -> Result<(), StoreError> {
        let spec = spec.clone();
        self.relay("CreateTable", |store| async move { store.ensure_table(&spec).await }).await
    }

    fn identity(&self) -> Option<String> {
        self.store.identity()
    }

    async fn scan(&self) -> Result<LeaseScan, StoreError> {
        self.relay("Scan", |store| async move { store.scan().await }).await
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        let key = key.clone();
        self.relay("GetItem", |store| async move { store.lease(&key).await }).await
    }

    async fn keys_owned_by(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        let worker = worker.clone();
        self.relay("Query", |store| async move { store.keys_owned_by(&worker).await }).await
    }

    async fn create(&self, lease: &Lease) -> Result<Created, StoreError> {
        let lease = lease.clone();
        self.relay("PutItem", |store| async move { store.create(&lease).await }).await
    }

    async fn apply(&self, write: &LeaseWrite) -> Result<WriteOutcome, StoreError> {
        let write = write.clone();
        self.relay("UpdateItem", |store| async move { store.apply(&write).await }).await
    }

    async fn transact(&self, transaction: &LeaseTransaction) -> Result<TransactOutcome, StoreError> {
        let transaction = transaction.clone();
        self.relay("TransactWriteItems", |store| async move { store.transact(&transaction).await }).await
    }

    async fn delete_ended(&self, key: &LeaseKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.relay("DeleteItem", |store| async move { store.delete_ended(&key).await }).await
    }
    async fn ensure_owner_index(&self) -> Result<bool, StoreError> {
        self.relay("UpdateTable", |store| async move { store.ensure_owner_index().await }).await
    }

    async fn entity(&self, kind: EntityKind, key: &LeaseKey) -> Result<Option<Item>, StoreError> {
        let key = key.clone();
        self.relay("GetItem", |store| async move { store.entity(kind, &key).await }).await
    }

    async fn apply_to_entity(
        &self,
        kind: EntityKind,
        write: &LeaseWrite,
    ) -> Result<EntityOutcome, StoreError> {
        let write = write.clone();
        self.relay("UpdateItem", |store| async move { store.apply_to_entity(kind, &write).await }).await
    }

    async fn delete_entity(
        &self,
        kind: EntityKind,
        key: &LeaseKey,
        conditions: &[Condition],
    ) -> Result<(), StoreError> {
        let (key, conditions) = (key.clone(), conditions.to_vec());
        self.relay("DeleteItem", |store| async move { store.delete_entity(kind, &key, &conditions).await })
            .await
    }
}
