use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::error::{ErrorCode, ServiceError};
use super::faults::{Call, Fault, FaultHook};
use super::limits::Limits;
use super::live::SimulatedSubscription;
use super::service::{Service, stream_arn};
use super::write::{NewRecord, Placement};
use crate::kinesis::{IteratorPosition, Shard};
use crate::runtime::Clock;
use crate::types::{PartitionKey, Record, ShardId};

/// A Kinesis service inside the process: streams that can be written, resharded and read by the rules of
/// the service, without AWS, sockets or waiting.
///
/// Cheap to clone; all clones are the same service. It implements
/// [`StreamApi`](crate::kinesis::StreamApi), so everything that reads a stream through that trait can read
/// this one. The methods here are for producers and operators; they take effect at once.
///
/// By default, streams are created `ACTIVE`, nothing is throttled and nothing fails: see
/// [`set_control_delay`](Self::set_control_delay), [`set_limits`](Self::set_limits) and
/// [`set_faults`](Self::set_faults). Nothing is random, so tests are repeatable. Records stay in memory
/// until their retention has passed (24 hours by default).
///
/// ```
/// use kinesis_consumer::testing::SimulatedKinesis;
///
/// let kinesis = SimulatedKinesis::new();
/// kinesis.create_stream("orders", 2)?;
/// let placed = kinesis.put("orders", "customer-17", "a payload")?;
/// let (left, right) = kinesis.split("orders", &placed.shard)?;
/// assert_eq!(kinesis.open_shards("orders")?.len(), 3);
/// assert!(left != right);
/// # Ok::<(), kinesis_consumer::testing::ServiceError>(())
/// ```
#[derive(Clone)]
pub struct SimulatedKinesis {
    shared: Arc<Shared>,
    faults: Arc<Mutex<Option<FaultHook>>>,
}

struct Shared {
    service: Mutex<Service>,
    clock: Clock,
    /// Wakes subscriptions that wait for records.
    written: Notify,
}

impl SimulatedKinesis {
    /// A service without streams. Its time is the real one, even if a test pauses tokio's clock;
    /// otherwise see [`starting_at`](Self::starting_at).
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Clock::system())
    }

    /// A service without streams. Its time starts at `wall` and follows tokio's clock, so a test that
    /// pauses that clock controls the time.
    #[must_use]
    pub fn starting_at(wall: SystemTime) -> Self {
        Self::with_clock(Clock::simulated(wall, 1.0))
    }

    pub(crate) fn with_clock(clock: Clock) -> Self {
        let shared = Shared { service: Mutex::new(Service::new()), clock, written: Notify::new() };
        Self { shared: Arc::new(shared), faults: Arc::default() }
    }

    /// Creates a stream of `shards` shards with equal hash key ranges.
    ///
    /// # Errors
    ///
    /// If a stream of this name exists, or the name or the number is invalid.
    pub fn create_stream(&self, name: &str, shards: u32) -> Result<(), ServiceError> {
        self.change(|service, now| service.create_stream(now, name, Some(shards)))
    }

    /// Deletes a stream, with its registered consumers.
    ///
    /// # Errors
    ///
    /// If there is no such stream.
    pub fn delete_stream(&self, name: &str) -> Result<(), ServiceError> {
        self.change(|service, now| service.delete_stream(now, name, true))
    }

    /// The ARN of the stream `name`, whether or not it exists.
    #[must_use]
    pub fn stream_arn(&self, name: &str) -> String {
        stream_arn(name)
    }

    /// Puts one record.
    ///
    /// # Errors
    ///
    /// If there is no such stream, the record is too large, or the limit of the shard is reached.
    pub fn put(
        &self,
        stream: &str,
        partition_key: impl Into<PartitionKey>,
        data: impl Into<Bytes>,
    ) -> Result<Placement, ServiceError> {
        self.put_record(stream, NewRecord::new(partition_key, data))
    }

    /// Puts one record, which may have an explicit hash key.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put).
    pub fn put_record(&self, stream: &str, record: NewRecord) -> Result<Placement, ServiceError> {
        self.change(|service, now| service.put_record(now, stream, record))
    }

    /// Puts up to 500 records with at most 10 MiB in total; each succeeds or is throttled individually.
    ///
    /// # Errors
    ///
    /// If there is no such stream, or the request as a whole is invalid; then nothing is put.
    pub fn put_records(
        &self,
        stream: &str,
        records: impl IntoIterator<Item = NewRecord>,
    ) -> Result<Vec<Result<Placement, ServiceError>>, ServiceError> {
        let records = records.into_iter().collect();
        self.change(|service, now| service.put_records(now, stream, records))
    }

    /// All shards of the stream that have not expired, including closed ones, ordered by id.
    ///
    /// # Errors
    ///
    /// If there is no such stream.
    pub fn shards(&self, stream: &str) -> Result<Vec<Shard>, ServiceError> {
        self.look(|service, now| {
            Ok(service.stream(now, stream)?.shards().map(|shard| shard.describe()).collect())
        })
    }

    /// The open shards of the stream, ordered by hash key.
    ///
    /// # Errors
    ///
    /// If there is no such stream.
    pub fn open_shards(&self, stream: &str) -> Result<Vec<Shard>, ServiceError> {
        let mut shards = self.shards(stream)?;
        shards.retain(Shard::is_open);
        shards.sort_by_key(|shard| shard.hash_key_range);
        Ok(shards)
    }

    /// Every record the shard still has, in sequence order.
    ///
    /// # Errors
    ///
    /// If there is no such stream or shard.
    pub fn stored_records(&self, stream: &str, shard: &ShardId) -> Result<Vec<Record>, ServiceError> {
        let stored = self.look(|service, now| service.stored_records(now, stream, shard.as_str()))?;
        Ok(stored.iter().map(|stored| stored.record.clone()).collect())
    }

    /// Splits a shard in the middle of its hash keys and returns the ids of its children, lower hash
    /// keys first.
    ///
    /// # Errors
    ///
    /// If there is no such stream or shard, the shard is closed, or the stream is being changed. With a
    /// [control delay](Self::set_control_delay) the children do not exist yet, which is an error here:
    /// use [`split_at`](Self::split_at).
    pub fn split(&self, stream: &str, shard: &ShardId) -> Result<(ShardId, ShardId), ServiceError> {
        let shards = self.shards(stream)?;
        let parent = shards.iter().find(|candidate| candidate.id == *shard).ok_or_else(|| {
            ErrorCode::ResourceNotFound.error(format!("Shard {shard} in stream {stream} does not exist."))
        })?;
        let range = parent.hash_key_range;
        self.split_at(stream, shard, range.start() + (range.end() - range.start()) / 2 + 1)?;
        match &self.children(stream, shard)?[..] {
            [lower, upper] => Ok((lower.clone(), upper.clone())),
            _ => Err(not_yet(stream)),
        }
    }

    /// Splits a shard so that one child starts at `new_starting_hash_key`.
    ///
    /// # Errors
    ///
    /// If there is no such stream or shard, the shard is closed or does not hold that key, or the
    /// stream is being changed.
    pub fn split_at(
        &self,
        stream: &str,
        shard: &ShardId,
        new_starting_hash_key: u128,
    ) -> Result<(), ServiceError> {
        self.change(|service, now| service.split_shard(now, stream, shard.as_str(), new_starting_hash_key))
    }

    /// Merges two adjacent shards and returns the id of their child.
    ///
    /// # Errors
    ///
    /// If there is no such stream or shard, the shards are closed or not adjacent, or the stream is
    /// being changed. With a [control delay](Self::set_control_delay) the merge happens, but there is no
    /// child to return yet.
    pub fn merge(&self, stream: &str, one: &ShardId, other: &ShardId) -> Result<ShardId, ServiceError> {
        self.change(|service, now| service.merge_shards(now, stream, one.as_str(), other.as_str()))?;
        self.children(stream, one)?.pop().ok_or_else(|| not_yet(stream))
    }

    /// Splits and merges until the stream has `shards` open shards with equal hash key ranges: from half
    /// to twice the current number.
    ///
    /// # Errors
    ///
    /// If there is no such stream, it is being changed, or the number is invalid.
    pub fn update_shard_count(&self, stream: &str, shards: u32) -> Result<(), ServiceError> {
        self.change(|service, now| service.update_shard_count(now, stream, shards)).map(drop)
    }

    /// Sets how long the stream keeps records and closed shards. Any duration is accepted.
    ///
    /// # Errors
    ///
    /// If there is no such stream or it is being changed.
    pub fn set_retention(&self, stream: &str, retention: Duration) -> Result<(), ServiceError> {
        self.change(|service, now| service.set_retention(now, stream, retention))
    }

    /// Sets the rates at which the service throttles; by default there are none.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.service.lock().set_limits(limits);
    }

    /// Sets how long creating, resharding and registering take from now on; by default, no time.
    pub fn set_control_delay(&self, delay: Duration) {
        self.shared.service.lock().set_control_delay(delay);
    }

    /// Registers a consumer for enhanced fan-out and returns its ARN.
    ///
    /// # Errors
    ///
    /// If there is no such stream, or it has a consumer of this name or 20 others.
    pub fn register_consumer(&self, stream: &str, name: &str) -> Result<String, ServiceError> {
        self.change(|service, now| Ok(service.register_consumer(now, stream, name)?.arn))
    }

    /// The ARNs of the registered consumers of a stream.
    ///
    /// # Errors
    ///
    /// If there is no such stream.
    pub fn consumers(&self, stream: &str) -> Result<Vec<String>, ServiceError> {
        self.look(|service, now| {
            let consumers = service.stream(now, stream)?.consumers.values();
            Ok(consumers.map(|consumer| consumer.arn.clone()).collect())
        })
    }

    /// Deregisters a consumer; its subscriptions end.
    ///
    /// # Errors
    ///
    /// If there is no such consumer.
    pub fn deregister_consumer(&self, consumer_arn: &str) -> Result<(), ServiceError> {
        self.change(|service, now| service.deregister_consumer(now, consumer_arn))
    }

    /// Subscribes a registered consumer to a shard, replacing its earlier subscription.
    ///
    /// # Errors
    ///
    /// If there is no such consumer or shard, the position is not valid in it, or the consumer
    /// subscribed to it less than five seconds ago.
    pub fn subscribe(
        &self,
        consumer_arn: &str,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<SimulatedSubscription, ServiceError> {
        let id =
            self.change(|service, now| service.subscribe(now, consumer_arn, shard.as_str(), position))?;
        Ok(SimulatedSubscription::new(self.clone(), id))
    }

    /// Sets the hook that decides for each call through the [`StreamApi`](crate::kinesis::StreamApi) of
    /// this handle and its clones whether a fault is injected. The methods here are never affected. The
    /// hook may call them, but must not set or clear faults itself.
    pub fn set_faults(&self, hook: impl FnMut(&Call<'_>) -> Option<Fault> + Send + 'static) {
        *self.faults.lock() = Some(Box::new(hook));
    }

    /// Removes the hook: no more faults are injected.
    pub fn clear_faults(&self) {
        *self.faults.lock() = None;
    }

    /// Another handle to the same service with its own faults, initially none: for a worker that is cut
    /// off while others are not.
    #[must_use]
    pub fn with_own_faults(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), faults: Arc::default() }
    }

    pub(super) fn fault_for(&self, call: &Call<'_>) -> Option<Fault> {
        self.faults.lock().as_mut().and_then(|hook| hook(call))
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub(super) fn written(&self) -> &Notify {
        &self.shared.written
    }

    pub(super) fn service(&self) -> MutexGuard<'_, Service> {
        self.shared.service.lock()
    }

    /// Runs an operation that does not wake subscriptions.
    pub(crate) fn look<T>(
        &self,
        operation: impl FnOnce(&mut Service, SystemTime) -> Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        operation(&mut self.service(), self.shared.clock.wall())
    }

    /// Runs an operation and wakes the subscriptions.
    pub(crate) fn change<T>(
        &self,
        operation: impl FnOnce(&mut Service, SystemTime) -> Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        let result = self.look(operation);
        self.shared.written.notify_waiters();
        result
    }

    fn children(&self, stream: &str, parent: &ShardId) -> Result<Vec<ShardId>, ServiceError> {
        let mut children = self.shards(stream)?;
        children.retain(|shard| shard.parents.contains(parent));
        children.sort_by_key(|shard| shard.hash_key_range);
        Ok(children.into_iter().map(|shard| shard.id).collect())
    }
}

impl Default for SimulatedKinesis {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimulatedKinesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedKinesis").finish_non_exhaustive()
    }
}

fn not_yet(stream: &str) -> ServiceError {
    ErrorCode::ResourceInUse.error(format!("Stream {stream} is UPDATING: its new shards do not exist yet."))
}
