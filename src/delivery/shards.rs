use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio_util::sync::CancellationToken;

use super::ack::Delivery;
use super::ready::ReadyList;
use super::shard::ShardDeliveries;
use super::stream::Stopping;
use crate::types::{Checkpoint, ShardId, StreamId};

/// The shards of a worker, each as a stream of its own, as their leases are acquired. Made by
/// [`Consumer::into_shards`](crate::Consumer::into_shards).
///
/// ```
/// # #[cfg(feature = "test-util")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kinesis_consumer::lease::MemoryLeaseStore;
/// use kinesis_consumer::testing::SimulatedKinesis;
/// use kinesis_consumer::{Consumer, ManagementConfig, StartStrategy, StreamOptions};
/// use tokio::task::JoinSet;
///
/// let kinesis = SimulatedKinesis::new();
/// kinesis.create_stream("orders", 2)?;
/// kinesis.put("orders", "customer-1", "a payload")?;
/// let consumer = Consumer::builder()
///     .stream("orders")
///     .application("order-emails")
///     .stream_api(kinesis)
///     .lease_store(MemoryLeaseStore::default())
///     .management(ManagementConfig::default().with_start_strategy(StartStrategy::Oldest))
///     .build()?;
/// let (mut shards, handle) = consumer.into_shards(StreamOptions::default()).await?;
/// let mut tasks = JoinSet::new();
/// while let Some(mut shard) = shards.next().await {
///     # let stop = handle.clone();
///     tasks.spawn(async move {
///         while let Some(delivery) = shard.next().await {
///             println!("{}: {}", shard.shard_id(), delivery.record.partition_key);
///             delivery.ack();
///             # tokio::spawn(async move { stop.shutdown().await });
///             # break;
///         }
///     });
/// }
/// tasks.join_all().await;
/// handle.wait().await?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "test-util"))]
/// # fn main() {}
/// ```
///
/// Ends when a shutdown is requested. Dropping it shuts the consumer down gracefully.
#[must_use = "dropping the stream stops the consumer"]
pub struct ShardStreams {
    ready: Arc<ReadyList<Arc<ShardDeliveries>>>,
    stopping: Stopping,
}

/// The records of one shard, from the acquisition of its lease until it is lost or given back, the end of the shard
/// is stored, or a shutdown is requested. Otherwise like [`RecordStream`](crate::RecordStream).
///
/// The end of a shard is stored once all its records are acknowledged, which lets its children start. A shard that
/// was given back may come again later, as another stream. A stream that is dropped before its end comes again at
/// once, from [`ShardStreams`], with what was not taken from it or not acknowledged.
#[must_use = "the records of the shard wait until they are taken"]
pub struct ShardStream {
    shard: Arc<ShardDeliveries>,
    ready: Arc<ReadyList<Arc<ShardDeliveries>>>,
    is_over: bool,
}

impl ShardStreams {
    pub(crate) fn new(ready: Arc<ReadyList<Arc<ShardDeliveries>>>, stopping: CancellationToken) -> Self {
        Self { ready, stopping: Stopping::new(stopping) }
    }

    /// The next shard whose lease was acquired; `None` once a shutdown is requested, or the consumer has stopped.
    ///
    /// # Cancel safety
    ///
    /// No shard is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<ShardStream> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

/// Ends as [`next`](ShardStreams::next) does, and may be polled after that.
impl Stream for ShardStreams {
    type Item = ShardStream;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ShardStream>> {
        loop {
            if self.stopping.is_over() {
                return Poll::Ready(None);
            }
            match self.ready.poll_pop(context) {
                Poll::Ready(Some(shard)) if shard.is_over() => {}
                Poll::Ready(Some(shard)) => {
                    let ready = Arc::clone(&self.ready);
                    return Poll::Ready(Some(ShardStream { shard, ready, is_over: false }));
                }
                Poll::Ready(None) => self.stopping.note_end(),
                Poll::Pending => return self.stopping.poll(context).map(|()| None),
            }
        }
    }
}

impl ShardStream {
    /// The next record; `None` once the lease is lost or given back, the end of the shard is stored, or a shutdown is
    /// requested.
    ///
    /// # Cancel safety
    ///
    /// No record is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Delivery> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &StreamId {
        self.shard.checkpointer().stream()
    }

    /// The shard.
    #[must_use]
    pub fn shard_id(&self) -> &ShardId {
        self.shard.checkpointer().shard_id()
    }

    /// Records up to here were processed before the lease was acquired.
    #[must_use]
    pub fn initial_checkpoint(&self) -> &Checkpoint {
        self.shard.checkpointer().initial_checkpoint()
    }
}

/// Ends as [`next`](ShardStream::next) does, and may be polled after that.
impl Stream for ShardStream {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let taken = self.shard.poll_take(context);
        self.is_over = matches!(taken, Poll::Ready(None));
        taken
    }
}

/// Offers the shard again, unless it is at its end.
impl Drop for ShardStream {
    fn drop(&mut self) {
        if !self.is_over && !self.shard.is_over() {
            self.ready.push(Arc::clone(&self.shard));
        }
    }
}

impl fmt::Debug for ShardStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardStreams").finish_non_exhaustive()
    }
}

impl fmt::Debug for ShardStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardStream").field("shard", self.shard_id()).finish_non_exhaustive()
    }
}
