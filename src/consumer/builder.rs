use std::fmt;
use std::future::Future;
use std::sync::Arc;

use aws_config::SdkConfig;
use serde_core::de::DeserializeOwned;

use crate::checkpoint::Transaction;
use crate::config::{
    CoordinationConfig, LeaseConfig, LifecycleConfig, ManagementConfig, ProcessorConfig, Settings,
    StreamConfig, StreamSpec,
};
use crate::consumer::Consumer;
use crate::delivery::KeyedFactory;
use crate::error::{Error, invalid};
use crate::events::EventSink;
use crate::handler::{
    BatchHandler, Batches, BoxError, Concurrency, ErrorPolicy, Filter, ForEach, ForEachBatch, ForEachJson,
    Handle, HandlerFactory, HandlerOptions, RecordEffects, RecordHandler, Records, TransactionFactory,
};
use crate::kinesis::StreamApi;
use crate::lease::{LeaseStore, LocalLeaseNotifier, TableSpec};
use crate::metrics::{MetricsConfig, MetricsSink};
use crate::processor::ShardRecordProcessorFactory;
use crate::retrieval::RetrievalConfig;
use crate::runtime::{Clock, Seeds};
use crate::types::{KinesisClientRecord, WorkerId};

/// The settings and components of a consumer. What must be given: stream, application, the code for records (one of
/// [`for_each`](Self::for_each), [`for_each_transaction`](Self::for_each_transaction), [`for_each_batch`](Self::for_each_batch), [`handler`](Self::handler),
/// [`batch_handler`](Self::batch_handler) and [`processor_factory`](Self::processor_factory); none for
/// [`Consumer::into_stream`] and [`Consumer::into_shards`]), and AWS clients (or an [`SdkConfig`] to make them from).
#[derive(Default)]
#[must_use = "a consumer does nothing until it is built and started"]
pub struct ConsumerBuilder {
    streams: Vec<StreamConfig>,
    /// Whether `streams` was called.
    is_multi: bool,
    application: Option<String>,
    table_name: Option<String>,
    worker_id: Option<String>,
    /// The calls that said what records are given to, and what makes processors of the last one.
    code: Vec<&'static str>,
    factory: Option<MakeFactory>,
    on_error: Option<ErrorPolicy>,
    concurrency: Option<Concurrency>,
    filter: Option<Filter>,
    management: ManagementConfig,
    lease_config: LeaseConfig,
    coordination: CoordinationConfig,
    lifecycle: LifecycleConfig,
    processor: ProcessorConfig,
    retrieval: RetrievalConfig,
    metrics: MetricsConfig,
    metrics_sinks: Vec<Arc<dyn MetricsSink>>,
    table: TableSpec,
    kinesis: Option<aws_sdk_kinesis::Client>,
    dynamodb: Option<aws_sdk_dynamodb::Client>,
    cloudwatch: Option<aws_sdk_cloudwatch::Client>,
    stream_api: Option<Arc<dyn StreamApi>>,
    lease_store: Option<Arc<dyn LeaseStore>>,
    world: Environment,
}

/// Makes what makes processors, from what handlers go by.
type MakeFactory = Box<dyn FnOnce(HandlerOptions) -> Arc<dyn ShardRecordProcessorFactory> + Send + Sync>;

/// What surrounds a worker: the real world, unless a simulation puts its own in.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) clock: Option<Clock>,
    pub(crate) seed: Option<u64>,
    pub(crate) notifier: Option<LocalLeaseNotifier>,
    /// Whether coordination shares the runtime of the caller.
    pub(crate) on_current_runtime: bool,
}

/// A builder's settings, checked and complete.
pub(crate) struct ValidatedConfig {
    pub(crate) streams: Vec<StreamSpec>,
    pub(crate) is_multi: bool,
    pub(crate) application: String,
    pub(crate) table_name: String,
    pub(crate) worker_id: WorkerId,
    pub(crate) code: Code,
    pub(crate) management: ManagementConfig,
    pub(crate) lease_config: LeaseConfig,
    pub(crate) coordination: CoordinationConfig,
    pub(crate) lifecycle: LifecycleConfig,
    pub(crate) processor: ProcessorConfig,
    pub(crate) retrieval: RetrievalConfig,
    pub(crate) metrics: MetricsConfig,
    pub(crate) metrics_sinks: Vec<Arc<dyn MetricsSink>>,
    pub(crate) table: TableSpec,
    pub(crate) stream_source: StreamSource,
    pub(crate) lease_source: LeaseSource,
    pub(crate) cloudwatch: Option<aws_sdk_cloudwatch::Client>,
    pub(crate) clock: Clock,
    pub(crate) seeds: Seeds,
    pub(crate) notifier: LocalLeaseNotifier,
    pub(crate) on_current_runtime: bool,
    pub(crate) events: EventSink,
}

/// What records are given to.
pub(crate) enum Code {
    /// Processors, as this call of the builder said.
    Processors { factory: Arc<dyn ShardRecordProcessorFactory>, call: &'static str },
    /// A stream that is asked for at the start.
    Streams(HandlerOptions),
}

/// Where records come from.
pub(crate) enum StreamSource {
    Kinesis(aws_sdk_kinesis::Client),
    Given(Arc<dyn StreamApi>),
}

/// Where leases are kept.
pub(crate) enum LeaseSource {
    DynamoDb(aws_sdk_dynamodb::Client),
    Given(Arc<dyn LeaseStore>),
}

impl ConsumerBuilder {
    /// The stream to read, by name or ARN, or with settings of its own. Required.
    ///
    /// Called more than once, or with a stream given by its creation epoch
    /// ([`StreamConfig::with_creation_epoch`], `<account>:<name>:<creation epoch>`), it makes a consumer of
    /// several streams: see [`streams`](Self::streams). Such a consumer has leases of its own, and does not
    /// start on the table of a consumer of a single stream, whose checkpoints it would not see.
    pub fn stream(mut self, stream: impl Into<StreamConfig>) -> Self {
        self.streams.push(stream.into());
        self
    }

    /// The streams to read, in multi-stream mode even if it is one or none: more may be added to the
    /// running consumer, and removed, with [`ConsumerHandle::add_stream`](crate::ConsumerHandle::add_stream)
    /// and [`remove_stream`](crate::ConsumerHandle::remove_stream). All workers of an application share
    /// the leases of all its streams, so give all of them the same.
    ///
    /// The keys of leases are `<account>:<stream>:<creation epoch>:<shard>` then, as in KCL's
    /// multi-stream mode. Leases of a consumer of a single stream are not used, nor are these by one:
    /// to change from one to the other is to start anew, with another application or table name. On a table that
    /// has leases of the other kind only, [`Consumer::start`] fails.
    pub fn streams<S: Into<StreamConfig>>(mut self, streams: impl IntoIterator<Item = S>) -> Self {
        self.is_multi = true;
        self.streams.extend(streams.into_iter().map(Into::into));
        self
    }

    /// The application: the name of its lease table and of its CloudWatch namespace, and what its
    /// workers have in common. Required.
    pub fn application(mut self, name: impl Into<String>) -> Self {
        self.application = Some(name.into());
        self
    }

    /// The lease table, if it is not named like the application.
    pub fn table_name(mut self, name: impl Into<String>) -> Self {
        self.table_name = Some(name.into());
        self
    }

    /// The name of this worker, which no other worker of the application may have at the same time
    /// (KCL's `workerIdentifier`). Default: a random name.
    ///
    /// A worker that restarts under the name of one that was killed takes its leases back at once
    /// rather than after the failover time.
    pub fn worker_id(mut self, id: impl Into<String>) -> Self {
        self.worker_id = Some(id.into());
        self
    }

    /// What makes the processors: the lowest layer, with KCL's callbacks. Required, unless there is a handler.
    pub fn processor_factory(self, factory: impl ShardRecordProcessorFactory + 'static) -> Self {
        self.code("processor_factory", move |_| Arc::new(factory))
    }

    /// Code for one record, which may fail: see [`RecordHandler`]. The closure may return any error, or a
    /// [`Failure`](crate::Failure) as one.
    ///
    /// ```no_run
    /// use kinesis_consumer::{BoxError, Consumer};
    ///
    /// # async fn example() -> Result<(), kinesis_consumer::Error> {
    /// Consumer::builder()
    ///     .stream("orders")
    ///     .application("order-emails")
    ///     .aws_config(&aws_config::load_from_env().await)
    ///     .for_each(|record| async move {
    ///         println!("{}", std::str::from_utf8(&record.record.data)?);
    ///         Ok::<_, BoxError>(())
    ///     })
    ///     .build()?
    ///     .run_until(async { drop(tokio::signal::ctrl_c().await) })
    ///     .await
    /// # }
    /// ```
    pub fn for_each<F, Fut, E>(self, handle: F) -> Self
    where
        F: Fn(KinesisClientRecord) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send,
        E: Into<BoxError> + 'static,
    {
        self.handlers("for_each", Records(ForEach(handle)))
    }

    /// As [`for_each`](Self::for_each), with what the record holds in JSON. A record that does not hold a `T` is
    /// [poison](crate::Failure::Poison): it is not tried again.
    ///
    /// ```
    /// use kinesis_consumer::{BoxError, Consumer};
    ///
    /// let builder = Consumer::builder().for_each_json(|order: serde_json::Value, record| async move {
    ///     println!("{}: {}", record.record.partition_key, order["total"]);
    ///     Ok::<_, BoxError>(())
    /// });
    /// ```
    pub fn for_each_json<T, F, Fut, E>(self, handle: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(T, KinesisClientRecord) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send,
        E: Into<BoxError> + 'static,
    {
        self.handlers("for_each_json", Records(ForEachJson::new(handle)))
    }

    /// Code for several records at once, which may fail: see [`BatchHandler`]. The closure may return any error, or
    /// a [`BatchFailure`](crate::BatchFailure) or [`Failure`](crate::Failure) as one.
    pub fn for_each_batch<F, Fut, E>(self, handle: F) -> Self
    where
        F: Fn(Vec<KinesisClientRecord>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send,
        E: Into<BoxError> + 'static,
    {
        self.handlers("for_each_batch", Batches(ForEachBatch(handle)))
    }

    /// Effects of records on DynamoDB tables, exactly once: the closure only works out what one record changes, and the
    /// crate collects the effects of many records, and writes them together with the checkpoint in one transaction. See
    /// [`Transaction`] for what that guarantees, **what it does not**, and what it costs.
    ///
    /// The closure may be called any number of times for a record, so it must do nothing but work out effects. An error is
    /// subject to the [error policy](Self::on_error), as in [`for_each`](Self::for_each); a record whose effects DynamoDB
    /// refuses counts as failed too. A record with more effects than fit into one transaction is
    /// [poison](crate::Failure::Poison).
    ///
    /// ```no_run
    /// use kinesis_consumer::{BoxError, Consumer, ItemKey, Number};
    ///
    /// # async fn example() -> Result<(), BoxError> {
    /// Consumer::builder()
    ///     .stream("orders")
    ///     .application("order-analytics")
    ///     .aws_config(&aws_config::load_from_env().await)
    ///     .for_each_transaction(|record, tx| {
    ///         let cents: Number = std::str::from_utf8(&record.record.data)?.parse()?;
    ///         let total = ItemKey::new("Analytics").with("PK", "REVENUE").with("SK", "TOTAL");
    ///         tx.add(&total, "Value", cents)?;
    ///         tx.add(&total, "Count", 1.into())?;
    ///         Ok::<_, BoxError>(())
    ///     })
    ///     .build()?
    ///     .run_until(async { drop(tokio::signal::ctrl_c().await) })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_each_transaction<F, E>(self, effects: F) -> Self
    where
        F: Fn(&KinesisClientRecord, &mut Transaction) -> Result<(), E> + Send + Sync + 'static,
        E: Into<BoxError> + 'static,
    {
        let effects = RecordEffects::new(effects);
        self.code("for_each_transaction", move |options| Arc::new(TransactionFactory::new(effects, options)))
    }

    /// Code for one record, as a type.
    pub fn handler(self, handler: impl RecordHandler) -> Self {
        self.handlers("handler", Records(handler))
    }

    /// Code for several records at once, as a type.
    pub fn batch_handler(self, handler: impl BatchHandler) -> Self {
        self.handlers("batch_handler", Batches(handler))
    }

    /// What to do when a handler fails, or a [`Delivery`](crate::Delivery) is not acknowledged. Default: retry indefinitely. Processors do not fail; they panic, and start
    /// again from the last checkpoint.
    pub fn on_error(mut self, policy: ErrorPolicy) -> Self {
        self.on_error = Some(policy);
        self
    }

    /// Which records are handled: those for which `keep` returns true. The others count as done (metric
    /// `RecordsFiltered`). Called for each user record, also of KPL aggregates; if it panics, the shard starts again from
    /// its last checkpoint.
    pub fn filter(mut self, keep: impl Fn(&KinesisClientRecord) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Box::new(keep));
        self
    }

    /// How many records of a shard a handler of records gets at the same time. Default: one.
    pub fn concurrency(mut self, concurrency: Concurrency) -> Self {
        self.concurrency = Some(concurrency);
        self
    }

    fn handlers<H: Handle>(self, call: &'static str, handler: H) -> Self {
        self.code(call, move |options| match H::STEP > 1 || options.concurrency.is_serial() {
            true => Arc::new(HandlerFactory::new(handler, options)),
            false => Arc::new(KeyedFactory::new(handler, options)),
        })
    }

    fn code(
        mut self,
        call: &'static str,
        make: impl FnOnce(HandlerOptions) -> Arc<dyn ShardRecordProcessorFactory> + Send + Sync + 'static,
    ) -> Self {
        self.code.push(call);
        self.factory = Some(Box::new(make));
        self
    }

    /// Makes all three clients from one AWS configuration.
    ///
    /// The DynamoDB client gets an HTTP client of its own unless `config` names one. Do not share
    /// that one with code that may block its threads: lease renewals go through it.
    pub fn aws_config(self, config: &SdkConfig) -> Self {
        self.kinesis_client(aws_sdk_kinesis::Client::new(config))
            .dynamodb_client(aws_sdk_dynamodb::Client::new(config))
            .cloudwatch_client(aws_sdk_cloudwatch::Client::new(config))
    }

    /// The client that records are read with.
    pub fn kinesis_client(mut self, client: aws_sdk_kinesis::Client) -> Self {
        self.kinesis = Some(client);
        self
    }

    /// The client that the lease table is kept with.
    pub fn dynamodb_client(mut self, client: aws_sdk_dynamodb::Client) -> Self {
        self.dynamodb = Some(client);
        self
    }

    /// The client that metrics are published with. Without one, there are none in CloudWatch.
    pub fn cloudwatch_client(mut self, client: aws_sdk_cloudwatch::Client) -> Self {
        self.cloudwatch = Some(client);
        self
    }

    /// Reads from something other than Kinesis, such as
    /// the `SimulatedKinesis` of the module `testing`.
    pub fn stream_api(mut self, api: impl StreamApi + 'static) -> Self {
        self.stream_api = Some(Arc::new(api));
        self
    }

    /// Keeps leases in something other than DynamoDB, such as
    /// [`MemoryLeaseStore`](crate::lease::MemoryLeaseStore).
    pub fn lease_store(mut self, store: impl LeaseStore + 'static) -> Self {
        self.lease_store = Some(Arc::new(store));
        self
    }

    /// How many leases to take, and where to start.
    pub fn management(mut self, management: ManagementConfig) -> Self {
        self.management = management;
        self
    }

    /// How records are fetched. Default: polling, 10,000 records a call.
    pub fn lease_config(mut self, lease_config: LeaseConfig) -> Self {
        self.lease_config = lease_config;
        self
    }

    /// Both [`management`](Self::management) and [`lease_config`](Self::lease_config).
    pub fn settings(self, settings: Settings) -> Self {
        self.management(settings.management).lease_config(settings.lease_config)
    }

    /// Timing and rules of lease coordination.
    pub fn coordination(mut self, coordination: CoordinationConfig) -> Self {
        self.coordination = coordination;
        self
    }

    /// How long processors may take to stop, and the pause after one that failed.
    pub fn lifecycle(mut self, lifecycle: LifecycleConfig) -> Self {
        self.lifecycle = lifecycle;
        self
    }

    /// When processors are called.
    pub fn processor_config(mut self, processor: ProcessorConfig) -> Self {
        self.processor = processor;
        self
    }

    /// Pace, read-ahead and memory of fetching.
    pub fn retrieval(mut self, retrieval: RetrievalConfig) -> Self {
        self.retrieval = retrieval;
        self
    }

    /// Which metrics are published, and how.
    pub fn metrics(mut self, metrics: MetricsConfig) -> Self {
        self.metrics = metrics;
        self
    }

    /// Reports metrics to this sink as well, such as the `MetricsRecorder` of the module `testing`. Called
    /// more than once, to each of them.
    pub fn metrics_sink(mut self, sink: impl MetricsSink + 'static) -> Self {
        self.metrics_sinks.push(Arc::new(sink));
        self
    }

    /// How the lease table is created and kept.
    pub fn lease_table(mut self, table: TableSpec) -> Self {
        self.table = table;
        self
    }

    #[cfg(feature = "internals")]
    pub(crate) fn world(mut self, world: Environment) -> Self {
        self.world = world;
        self
    }

    /// Checks every setting. Performs no I/O.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the setting that is missing or out of its range.
    pub fn build(self) -> Result<Consumer, Error> {
        let is_multi = self.is_multi
            || self.streams.len() > 1
            || self.streams.iter().any(StreamConfig::is_for_multi_stream_mode);
        if self.streams.is_empty() && !is_multi {
            return Err(missing("stream", "stream(\"name or ARN\")"));
        }
        self.streams.iter().try_for_each(|stream| stream.id().map(drop))?;
        let application = self.application.ok_or_else(|| missing("application", "application(\"name\")"))?;
        check_table_name("application", &application)?;
        let table_name = self.table_name.unwrap_or_else(|| application.clone());
        check_table_name("table_name", &table_name)?;
        let seeds = self.world.seed.map_or_else(Seeds::random, Seeds::from_seed);
        let worker_id = match self.worker_id {
            Some(id) if id.is_empty() => {
                return Err(invalid("worker_id is empty; give it a name or leave it out"));
            }
            Some(id) => id,
            None => format!("{:016x}{:016x}", seeds.seed(), seeds.seed()),
        };
        if let [first, .., last] = self.code[..] {
            return Err(invalid(format!(
                "{first} and {last} were both called; records are given to one of them"
            )));
        }
        if self.on_error.is_some() && self.code == ["processor_factory"] {
            return Err(invalid(
                "on_error is for handlers, and processor_factory was called; a processor decides for itself what to do \
                 when something fails",
            ));
        }
        let policy = self.on_error.unwrap_or_default();
        policy.validate()?;
        if self.concurrency.is_some() && !matches!(self.code[..], ["for_each" | "for_each_json" | "handler"])
        {
            return Err(invalid(
                "concurrency is for handlers of single records; call for_each(closure) or handler(handler), or handle the \
                 records of a batch at the same time yourself",
            ));
        }
        let concurrency = self.concurrency.unwrap_or_default();
        concurrency.validate()?;
        if self.filter.is_some() && self.code == ["processor_factory"] {
            return Err(invalid(
                "filter is for handlers, and processor_factory was called; a processor filters itself",
            ));
        }
        let options = HandlerOptions { policy, concurrency, filter: self.filter };
        let code = match self.factory {
            Some(make) => Code::Processors { factory: make(options), call: self.code[0] },
            None => Code::Streams(options),
        };
        self.management.validate()?;
        self.lease_config.validate(&application)?;
        self.coordination.validate()?;
        self.lifecycle.validate()?;
        self.retrieval.validate()?;
        self.metrics.validate()?;
        self.table.validate()?;
        let complete = |stream: StreamConfig| {
            stream.complete(is_multi, self.management.start_strategy, &self.lease_config, &application)
        };
        let streams: Vec<StreamSpec> = self.streams.into_iter().map(complete).collect::<Result<_, _>>()?;
        for (index, stream) in streams.iter().enumerate() {
            if streams[..index].iter().any(|earlier| earlier.id.may_be(&stream.id)) {
                return Err(invalid(format!("stream {} is given more than once", stream.id)));
            }
        }
        let stream_source = match (self.stream_api, self.kinesis) {
            (Some(api), _) => StreamSource::Given(api),
            (None, Some(client)) => StreamSource::Kinesis(client),
            (None, None) => {
                return Err(missing("a Kinesis client", "aws_config(&config) or kinesis_client(client)"));
            }
        };
        let lease_source = match (self.lease_store, self.dynamodb) {
            (Some(store), _) => LeaseSource::Given(store),
            (None, Some(client)) => LeaseSource::DynamoDb(client),
            (None, None) => {
                return Err(missing("a DynamoDB client", "aws_config(&config) or dynamodb_client(client)"));
            }
        };
        Ok(Consumer(ValidatedConfig {
            streams,
            is_multi,
            notifier: self.world.notifier.unwrap_or_default(),
            application,
            table_name,
            worker_id: worker_id.into(),
            code,
            management: self.management,
            lease_config: self.lease_config,
            coordination: self.coordination,
            lifecycle: self.lifecycle,
            processor: self.processor,
            retrieval: self.retrieval,
            metrics: self.metrics,
            metrics_sinks: self.metrics_sinks,
            table: self.table,
            stream_source,
            lease_source,
            cloudwatch: self.cloudwatch,
            clock: self.world.clock.unwrap_or_else(Clock::system),
            seeds,
            on_current_runtime: self.world.on_current_runtime,
            events: EventSink::new(),
        }))
    }
}

/// DynamoDB's rule for names of tables.
fn check_table_name(setting: &str, name: &str) -> Result<(), Error> {
    let is_allowed = (3..=255).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if is_allowed {
        return Ok(());
    }
    Err(invalid(format!(
        "{setting} is {name:?}; the lease table has that name, so it must be 3 to 255 of a-z A-Z 0-9 _ . -"
    )))
}

pub(super) fn missing(what: &str, call: &str) -> Error {
    invalid(format!("{what} is missing; call {call} on the builder"))
}

impl fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("streams", &self.streams)
            .field("application", &self.application)
            .field("table_name", &self.table_name)
            .field("worker_id", &self.worker_id)
            .field("management", &self.management)
            .field("lease_config", &self.lease_config)
            .field("coordination", &self.coordination)
            .field("lifecycle", &self.lifecycle)
            .field("processor", &self.processor)
            .field("retrieval", &self.retrieval)
            .field("metrics", &self.metrics)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ValidatedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidatedConfig")
            .field("streams", &self.streams)
            .field("application", &self.application)
            .field("table_name", &self.table_name)
            .field("worker_id", &self.worker_id)
            .finish_non_exhaustive()
    }
}
