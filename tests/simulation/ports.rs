//! Instruments one worker's ports: the writes to the lease table with their outcomes, and the payload
//! bytes of the stream held in memory.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use kinesis_consumer::kinesis::{
    IteratorPosition, RecordsPage, ShardIterator, ShardPage, ShardPageRequest, StreamApi,
    StreamConsumerDescription, StreamDescription, StreamError, Subscription, SubscriptionEvent,
};
use kinesis_consumer::lease::{
    Condition, Created, EntityKind, EntityOutcome, FaultyLeaseStore, Item, Lease, LeaseScan, LeaseStore,
    LeaseWrite, StoreError, TableSpec, WriteOutcome,
};
use kinesis_consumer::testing::SimulatedKinesis;
use kinesis_consumer::{ConsumerArn, LeaseKey, Record, ShardId, StreamId, WorkerId};

use crate::faults::FaultSchedule;
use crate::history::{By, EventKind, Incarnation, Log};

/// The request that the lease table is processing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer(Arc<Mutex<Option<By>>>);

impl Writer {
    pub(crate) fn now(&self) -> Option<By> {
        self.0.lock().expect("not poisoned").clone()
    }

    fn set(&self, by: Option<By>) {
        *self.0.lock().expect("not poisoned") = by;
    }
}

/// Sets the writer of each request; records when the worker has seen the whole table, and when it learns
/// that a lease it wrote to belongs to another worker.
#[derive(Debug)]
pub(crate) struct WatchedTable {
    pub(crate) table: FaultyLeaseStore,
    pub(crate) incarnation: Incarnation,
    pub(crate) log: Log,
    pub(crate) writer: Writer,
}

impl WatchedTable {
    /// Sends a request on behalf of this worker.
    async fn send<T>(&self, operation: &'static str, request: impl Future<Output = T>) -> T {
        let by = By { incarnation: self.incarnation.clone(), operation, sent: self.log.now() };
        let mut request = pin!(request);
        poll_fn(|context| {
            self.writer.set(Some(by.clone()));
            let polled = request.as_mut().poll(context);
            self.writer.set(None);
            polled
        })
        .await
    }
}

#[async_trait]
impl LeaseStore for WatchedTable {
    async fn ensure_table(&self, spec: &TableSpec) -> Result<(), StoreError> {
        self.table.ensure_table(spec).await
    }

    async fn scan(&self) -> Result<LeaseScan, StoreError> {
        let scan = self.table.scan().await;
        if scan.is_ok() {
            self.log.record(EventKind::Scanned { incarnation: self.incarnation.clone() });
        }
        scan
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        self.table.lease(key).await
    }

    async fn keys_owned_by(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        self.table.keys_owned_by(worker).await
    }

    async fn create(&self, lease: &Lease) -> Result<Created, StoreError> {
        self.send("CreateLease", self.table.create(lease)).await
    }

    async fn apply(&self, write: &LeaseWrite) -> Result<WriteOutcome, StoreError> {
        let outcome = self.send(write.operation, self.table.apply(write)).await;
        let is_owners = matches!(write.operation, "RenewLease" | "UpdateLease");
        if is_owners
            && let Ok(WriteOutcome::Refused(row)) = &outcome
            && row
                .as_ref()
                .and_then(|row| row.actual_owner())
                .is_none_or(|owner| *owner != *self.incarnation.worker)
        {
            self.log
                .record(EventKind::Refused { incarnation: self.incarnation.clone(), key: write.key.clone() });
        }
        outcome
    }

    async fn delete_ended(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.send("DeleteLease", self.table.delete_ended(key)).await
    }

    async fn ensure_owner_index(&self) -> Result<bool, StoreError> {
        self.table.ensure_owner_index().await
    }

    async fn entity(&self, kind: EntityKind, key: &LeaseKey) -> Result<Option<Item>, StoreError> {
        self.table.entity(kind, key).await
    }

    async fn apply_to_entity(
        &self,
        kind: EntityKind,
        write: &LeaseWrite,
    ) -> Result<EntityOutcome, StoreError> {
        self.send(write.operation, self.table.apply_to_entity(kind, write)).await
    }

    async fn delete_entity(
        &self,
        kind: EntityKind,
        key: &LeaseKey,
        conditions: &[Condition],
    ) -> Result<(), StoreError> {
        self.send("DeleteEntity", self.table.delete_entity(kind, key, conditions)).await
    }
}

/// Counts the payload bytes that were fetched and not yet dropped.
#[derive(Debug)]
pub(crate) struct MeteredStream {
    pub(crate) stream: SimulatedKinesis,
    pub(crate) incarnation: Incarnation,
    pub(crate) log: Log,
    pub(crate) in_hand: Arc<AtomicU64>,
    pub(crate) faults: FaultSchedule,
}

/// A payload that counts until its last part is dropped.
struct Counted {
    data: Bytes,
    in_hand: Arc<AtomicU64>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.in_hand.fetch_sub(self.data.len() as u64, Ordering::Relaxed);
    }
}

#[async_trait]
impl StreamApi for MeteredStream {
    async fn describe_stream(&self, stream: &StreamId) -> Result<StreamDescription, StreamError> {
        self.stream.describe_stream(stream).await
    }

    async fn list_shards(
        &self,
        stream: &StreamId,
        request: &ShardPageRequest,
    ) -> Result<ShardPage, StreamError> {
        self.stream.list_shards(stream, request).await
    }

    async fn shard_iterator(
        &self,
        stream: &StreamId,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, StreamError> {
        self.stream.shard_iterator(stream, shard, position).await
    }

    async fn records(
        &self,
        stream: &StreamId,
        iterator: &ShardIterator,
        limit: u32,
    ) -> Result<RecordsPage, StreamError> {
        let mut page = self.stream.records(stream, iterator, limit).await?;
        // A page that turns out to be too large is dropped again; the records kept are counted when the
        // processor is called.
        count(&mut page.records, &self.in_hand);
        Ok(page)
    }

    async fn describe_consumer(
        &self,
        arn: &str,
        name: &str,
    ) -> Result<StreamConsumerDescription, StreamError> {
        StreamApi::describe_consumer(&self.stream, arn, name).await
    }

    async fn register_consumer(
        &self,
        arn: &str,
        name: &str,
    ) -> Result<StreamConsumerDescription, StreamError> {
        StreamApi::register_consumer(&self.stream, arn, name).await
    }

    async fn subscribe(
        &self,
        stream: &StreamId,
        consumer: &ConsumerArn,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<Box<dyn Subscription>, StreamError> {
        let subscription = StreamApi::subscribe(&self.stream, stream, consumer, shard, position).await?;
        let (in_hand, faults) = (Arc::clone(&self.in_hand), self.faults.clone());
        Ok(Box::new(MeteredSubscription { subscription, in_hand, faults }))
    }
}

/// Counts the payload bytes of events, and makes some of them inconsistent.
#[derive(Debug)]
struct MeteredSubscription {
    subscription: Box<dyn Subscription>,
    in_hand: Arc<AtomicU64>,
    faults: FaultSchedule,
}

#[async_trait]
impl Subscription for MeteredSubscription {
    async fn next(&mut self) -> Option<Result<SubscriptionEvent, StreamError>> {
        let mut event = self.subscription.next().await?;
        if let Ok(event) = &mut event {
            if event.records.is_empty() && self.faults.contradicts() {
                (event.continuation, event.child_shards) = (None, Vec::new());
            }
            count(&mut event.records, &self.in_hand);
        }
        Some(event)
    }
}

fn count(records: &mut [Record], in_hand: &Arc<AtomicU64>) {
    for record in records {
        in_hand.fetch_add(record.data.len() as u64, Ordering::Relaxed);
        let counted = Counted { data: record.data.to_bytes(), in_hand: Arc::clone(in_hand) };
        record.data = Bytes::from_owner(counted).into();
    }
}

impl MeteredStream {
    /// Records how many payload bytes the worker holds.
    pub(crate) fn note(log: &Log, incarnation: &Incarnation, in_hand: &AtomicU64) {
        let bytes = in_hand.load(Ordering::Relaxed);
        log.change(|history| {
            let peak = history.memory_peaks.entry(incarnation.clone()).or_default();
            *peak = bytes.max(*peak);
        });
    }
}
