use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::ack::Delivery;
use super::ready::ReadyList;
use super::shard::ShardDeliveries;

/// The records of all shards of a worker. Made by [`Consumer::into_stream`](crate::Consumer::into_stream).
///
/// ```
/// # #[cfg(feature = "test-util")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # async fn send_mail(_: &[u8]) -> Result<(), std::io::Error> { Ok(()) }
/// use kinesis_consumer::lease::MemoryLeaseStore;
/// use kinesis_consumer::testing::SimulatedKinesis;
/// use kinesis_consumer::{Consumer, ManagementConfig, StartStrategy, StreamOptions};
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
/// let (mut records, handle) = consumer.into_stream(StreamOptions::default()).await?;
/// while let Some(delivery) = records.next().await {
///     match send_mail(&delivery.record.data).await {
///         Ok(()) => delivery.ack(),
///         Err(error) => delivery.nack(error), // delivered again, as the error policy says
///     }
///     # break;
/// }
/// # drop(records);
/// handle.wait().await?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "test-util"))]
/// # fn main() {}
/// ```
///
/// # Guarantees
///
/// - The records of a shard come in order, except for those that come again; shards take turns.
/// - Every record is delivered until it is acknowledged, or given up by the error policy. It may come again if this
///   worker, or another one, starts again from the last checkpoint.
/// - Nothing is delivered unless the lease is held at that moment.
/// - Items are no results: what fails in fetching is tried again, and reported by [`Event`](crate::Event)s.
/// - If the stream is not polled, fetching stops after a while, and nothing else: leases are kept.
/// - Once a shutdown is requested, the stream ends. What is out may be acknowledged until shortly before the shutdown timeout
///   ([`LifecycleConfig::shutdown_timeout`](crate::LifecycleConfig::shutdown_timeout)); a shard is given back as soon as all of
///   it is.
///
/// Dropping the stream shuts the consumer down gracefully, as [`ConsumerHandle::shutdown`](crate::ConsumerHandle::shutdown)
/// does: nobody would take its records.
#[must_use = "dropping the stream stops the consumer"]
pub struct RecordStream {
    ready: Arc<ReadyList<Arc<ShardDeliveries>>>,
    stopping: Stopping,
}

/// The shutdown of the consumer that a stream belongs to.
pub(super) struct Stopping {
    token: CancellationToken,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    is_over: bool,
}

impl Stopping {
    pub(super) fn new(token: CancellationToken) -> Self {
        Self { cancelled: Box::pin(token.clone().cancelled_owned()), token, is_over: false }
    }

    /// Whether the stream is at its end.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn note_end(&mut self) {
        self.is_over = true;
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Not polled again after it was ready.
        if !self.is_over {
            self.is_over = self.cancelled.as_mut().poll(context).is_ready();
        }
        if self.is_over { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Nobody takes records any more.
impl Drop for Stopping {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl RecordStream {
    pub(crate) fn new(ready: Arc<ReadyList<Arc<ShardDeliveries>>>, stopping: CancellationToken) -> Self {
        Self { ready, stopping: Stopping::new(stopping) }
    }

    /// The next record; `None` once a shutdown is requested, or the consumer has stopped.
    ///
    /// # Cancel safety
    ///
    /// No record is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Delivery> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

/// Ends as [`next`](RecordStream::next) does, and may be polled after that.
impl Stream for RecordStream {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        loop {
            if self.stopping.is_over() {
                return Poll::Ready(None);
            }
            match self.ready.poll_pop(context) {
                Poll::Ready(Some(shard)) => {
                    if let Poll::Ready(Some(delivery)) = shard.take() {
                        // The other shards come first.
                        self.ready.put_back(shard);
                        return Poll::Ready(Some(delivery));
                    }
                }
                Poll::Ready(None) => self.stopping.note_end(),
                Poll::Pending => return self.stopping.poll(context).map(|()| None),
            }
        }
    }
}

impl fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordStream").finish_non_exhaustive()
    }
}
