//! Builds a consumer, starts it, and stops it. Decides nothing.

mod builder;
mod handle;
mod health;
mod signal;
mod start;

pub use self::builder::ConsumerBuilder;
#[cfg(feature = "internals")]
pub(crate) use self::builder::Environment;
pub use self::handle::{ConsumerHandle, Status};
pub use self::health::Health;

use std::sync::Arc;

use self::builder::{Code, ValidatedConfig};
use crate::delivery::{DeliveryFactory, Grace, ReadyList, RecordStream, ShardStreams, StreamOptions, Taking};
use crate::error::{Error, invalid};
use crate::events::Events;

/// A consumer whose settings are valid and that has not started yet.
///
/// ```no_run
/// use kinesis_consumer::{Consumer, LeaseConfig, ManagementConfig, StartStrategy};
/// # use kinesis_consumer::{Error, ShardRecordProcessorFactory};
/// # async fn example(factory: impl ShardRecordProcessorFactory + 'static) -> Result<(), Error> {
/// let consumer = Consumer::builder()
///     .stream("orders")
///     .application("order-notifications")
///     .processor_factory(factory)
///     .aws_config(&aws_config::load_from_env().await)
///     .management(ManagementConfig { leases_to_acquire: 2, max_leases: 20, start_strategy: StartStrategy::Latest })
///     .lease_config(LeaseConfig::PollingConfig { limit: 1000 })
///     .build()?;
/// let handle = consumer.start().await?;
/// // … until it is time to stop:
/// handle.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer(ValidatedConfig);

impl Consumer {
    /// The settings of a new consumer.
    pub fn builder() -> ConsumerBuilder {
        ConsumerBuilder::default()
    }

    /// The events of the consumer from its start on: nothing that happens during or right after
    /// [`start`](Self::start) is missed, as it may be by a listener of the handle.
    #[must_use]
    pub fn events(&self) -> Events {
        self.0.events.listen()
    }

    /// Makes the lease table ready, checks that the stream can be read, and starts the loops:
    /// coordination on a thread of its own, fetching and processing on the current runtime.
    ///
    /// With [`StartStrategy::Latest`](crate::StartStrategy::Latest), records count that arrive after
    /// this call.
    ///
    /// A lease table that is deleted while the consumer runs is reported
    /// ([`Event::LeaseTableMissing`](crate::Event::LeaseTableMissing), [`Health::Degraded`]) and, if permissions
    /// allow, created again as it was at the start. What the leases said of shards that no worker holds is
    /// lost: these are read from the start strategy.
    ///
    /// Methods of the handle and of checkpointers are to be awaited on a tokio runtime, too.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the builder was given no code for records, the stream does
    /// not exist, permissions are missing, the table is not a lease table, its leases are those of another stream's consumer, or of a
    /// consumer of several streams where this one reads a single one (or the other way round), or this is
    /// not called on a tokio runtime with timers ([`enable_time`](tokio::runtime::Builder::enable_time));
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if AWS does not answer, or the stream is
    /// still being created after 30 seconds (KCL tries 20 times, a second apart);
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) if an answer of AWS could not be understood.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing runs; the lease table may have been created.
    pub async fn start(self) -> Result<ConsumerHandle, Error> {
        check_timers()?;
        start::start(self.0).await
    }
}

impl Consumer {
    /// Starts, and returns the records of all shards as one stream, to be acknowledged one by one. The builder gets
    /// no code for records; its [error policy](ConsumerBuilder::on_error) and [filter](ConsumerBuilder::filter) apply.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the builder was given code for
    /// records, or an option is out of its range.
    ///
    /// # Cancel safety
    ///
    /// As [`start`](Self::start).
    pub async fn into_stream(self, options: StreamOptions) -> Result<(RecordStream, ConsumerHandle), Error> {
        let ready = Arc::new(ReadyList::default());
        let consumer = self.with_deliveries("into_stream", options, Taking::Merged(Arc::clone(&ready)))?;
        let handle = consumer.start().await?;
        Ok((RecordStream::new(ready, handle.stopping()), handle))
    }

    /// Starts, and returns each shard as a stream of its own when its lease is acquired. Otherwise like
    /// [`into_stream`](Self::into_stream).
    ///
    /// # Errors
    ///
    /// As [`into_stream`](Self::into_stream).
    ///
    /// # Cancel safety
    ///
    /// As [`start`](Self::start).
    pub async fn into_shards(self, options: StreamOptions) -> Result<(ShardStreams, ConsumerHandle), Error> {
        let ready = Arc::new(ReadyList::default());
        let consumer = self.with_deliveries("into_shards", options, Taking::Separate(Arc::clone(&ready)))?;
        let handle = consumer.start().await?;
        Ok((ShardStreams::new(ready, handle.stopping()), handle))
    }

    fn with_deliveries(
        mut self,
        call: &'static str,
        options: StreamOptions,
        taking: Taking,
    ) -> Result<Self, Error> {
        options.validate()?;
        let handler = match self.0.code {
            Code::Streams(handler) => handler,
            Code::Processors { call: code, .. } => {
                return Err(invalid(format!(
                    "{call} was called on a consumer whose builder got code for records by {code}; records are given to \
                     one of them"
                )));
            }
        };
        let shutdown = self.0.lifecycle.shutdown_timeout;
        let grace = Grace::within(shutdown, self.0.coordination.leader.graceful_handoff_timeout);
        let factory = Arc::new(DeliveryFactory::new(options, handler, grace, taking));
        self.0.code = Code::Processors { factory, call };
        Ok(self)
    }

    /// Starts, waits for `stop`, and shuts down gracefully: [`start`](Self::start) and
    /// [`ConsumerHandle::shutdown_on`].
    ///
    /// Returns earlier if the consumer stops by itself. To stop when the process is asked to end, use
    /// [`ConsumerHandle::shutdown_on_signal`].
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start) and [`ConsumerHandle::shutdown_on`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the consumer is dropped: its leases run out.
    pub async fn run_until(self, stop: impl Future<Output = ()> + Send) -> Result<(), Error> {
        self.start().await?.shutdown_on(stop).await
    }
}

/// Refuses a runtime without timers, on which every shard would fail. Whether there is a runtime at all,
/// [`start::start`] checks.
fn check_timers() -> Result<(), Error> {
    #[expect(clippy::disallowed_methods, reason = "it is not waited for; tokio has no other way to ask")]
    let has_timers = || drop(tokio::time::sleep(std::time::Duration::ZERO));
    if tokio::runtime::Handle::try_current().is_ok() && std::panic::catch_unwind(has_timers).is_err() {
        return Err(invalid(
            "start() was called on a tokio runtime without timers; build it with enable_all() or enable_time()",
        ));
    }
    Ok(())
}
