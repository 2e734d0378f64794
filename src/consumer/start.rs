use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::builder::{Code, LeaseSource, StreamSource, ValidatedConfig, missing};
use super::handle::{ConsumerHandle, Finished, Running};
use crate::config::{CoordinationMode, StreamSpec};
use crate::context::Context;
use crate::coordination::election::{self, Election};
use crate::coordination::migration::{self, ClientVersion, ProtocolCell};
use crate::coordination::{CoordinationHealth, LeaseCoordinator, Worker, renewer, worker_metrics};
use crate::error::{Error, ErrorKind, invalid, with_causes};
use crate::events::{Event, EventSink, StopReason};
use crate::kinesis::{AwsStream, StreamApi};
use crate::lease::OpenLeases;
use crate::lease::{DynamoDbLeaseStore, LeaseStore, RuntimeBoundStore, StoreError, TableSpec, WritePacer};
use crate::metrics::{Metrics, Operation, names};
use crate::retrieval::{RetrievalConfig, WorkerBudget};
use crate::runtime::{Backoff, Coordination};
use crate::shard::{HeldLeases, ShardEnvironment};
use crate::stream_tracker::{CREATING_PATIENCE, CREATING_PAUSE, Streams, admit, find_waiting, search};
use crate::types::StreamId;

/// Tries at making the table ready before `start` fails.
const TABLE_TRIES: usize = 5;
/// RegisterStreamConsumer is limited to 5 calls a second in an account.
const CONCURRENT_REGISTRATIONS: usize = 4;

/// Makes the parts, checks that stream and table are there, and starts the loops.
pub(super) async fn start(parts: ValidatedConfig) -> Result<ConsumerHandle, Error> {
    let Code::Processors { factory, .. } = parts.code else {
        return Err(missing(
            "the code for records",
            "for_each(closure), for_each_batch(closure) or processor_factory(factory)",
        ));
    };
    let started = parts.clock.wall();
    let user_runtime = Handle::try_current().map_err(|error| {
        let message = "start() was not called on a tokio runtime, which a consumer needs; await it in \
                       tokio::runtime::Runtime::block_on or under #[tokio::main]";
        Error::new(ErrorKind::Invalid, message).with_source(error)
    })?;
    let coordination = if parts.on_current_runtime {
        Coordination::on_current_runtime()
    } else {
        Coordination::on_own_thread("kinesis-consumer").map_err(|error| {
            Error::new(ErrorKind::Internal, "cannot start the coordination thread").with_source(error)
        })?
    };
    let clock = parts.clock;
    let api: Arc<dyn StreamApi> = match parts.stream_source {
        StreamSource::Kinesis(client) => {
            let RetrievalConfig { kinesis_request_timeout, protocol, .. } = parts.retrieval;
            Arc::new(AwsStream::new(&client, clock.clone(), kinesis_request_timeout, protocol))
        }
        StreamSource::Given(api) => api,
    };
    let store: Arc<dyn LeaseStore> = match parts.lease_source {
        LeaseSource::DynamoDb(client) => {
            let store = DynamoDbLeaseStore::new(&client, parts.table_name, clock.clone())
                .with_request_timeout(parts.coordination.store_timeout())
                .with_scan_segments(parts.coordination.scan_total_segments)
                .with_legacy_tables_of(&parts.application);
            Arc::new(RuntimeBoundStore::new(Arc::new(store), coordination.handle().clone()))
        }
        LeaseSource::Given(store) => store,
    };
    let (metrics, publisher) = Metrics::start(
        &parts.application,
        &parts.worker_id,
        &parts.metrics,
        &clock,
        parts.cloudwatch,
        parts.metrics_sinks,
    );
    let is_led = parts.coordination.mode == CoordinationMode::Leader;
    let table = TableSpec { owner_index: parts.table.owner_index || is_led, ..parts.table };
    let measures_cpu = parts.coordination.leader.measure_cpu && !parts.on_current_runtime;
    let write_pacer = Arc::new(WritePacer::new(
        clock.clone(),
        parts.coordination.failover_time,
        parts.events.clone(),
        &parts.worker_id,
    ));
    let context = Arc::new(Context {
        id: parts.worker_id,
        application: parts.application.into(),
        management: parts.management,
        coordination: parts.coordination,
        lifecycle: parts.lifecycle,
        lease_config: parts.lease_config,
        store,
        write_pacer,
        notifier: parts.notifier,
        api,
        clock,
        seeds: parts.seeds,
        metrics,
        events: parts.events,
        stopping: CancellationToken::new(),
    });
    let open_leases = Arc::new(OpenLeases::default());
    let environment = Arc::new(ShardEnvironment {
        context: Arc::clone(&context),
        factory,
        processor: parts.processor,
        budget: Arc::new(WorkerBudget::new(parts.retrieval.memory_bytes_max)),
        retrieval: parts.retrieval,
        open_leases: Arc::clone(&open_leases),
    });
    let worker = Arc::new(Worker {
        context,
        streams: Streams::new(parts.is_multi),
        held_leases: HeldLeases::default(),
        open_leases,
        health: CoordinationHealth::default(),
        protocol: ProtocolCell::default(),
        election: Election::default(),
        seen_workers: worker_metrics::SeenWorkers::default(),
        measures_cpu,
        table,
        wake: Notify::new(),
    });

    let wanted = parts.streams;
    let preparing = Arc::clone(&worker);
    let prepared = coordination.spawn(async move {
        let worker = preparing;
        let prepared = tokio::try_join!(
            async { prepare_table(&worker).await.map_err(Error::from) },
            find_streams(&worker, wanted),
        )?;
        check_table(&worker).await?;
        Ok::<_, Error>(prepared)
    });
    let prepared = prepared
        .await
        .map_err(|error| Error::new(ErrorKind::Internal, "the start failed").with_source(error))?;
    let mut report = worker.context.metrics.operation(Operation::SchedulerInitialize);
    report.add(names::INITIALIZE_SUCCESS, u64::from(prepared.is_ok()));
    let (version, ()) = prepared?;

    let (finished_tx, finished) = watch::channel(None);
    let running = Arc::clone(&worker);
    let worker_of_streams = Arc::clone(&worker);
    let mut closing = Closing { events: worker.context.events.clone(), is_complete: false };
    let main = coordination.spawn(async move {
        let metrics_stop = CancellationToken::new();
        let publishing = publisher.run(metrics_stop.clone());
        let working = async {
            let coordinator = LeaseCoordinator::new(Arc::clone(&running), environment, user_runtime);
            // Leases are renewed until the last consumer is done with its own.
            let left_behind = tokio::select! {
                biased;
                left_behind = coordinator.run() => left_behind,
                () = renewer::run(Arc::clone(&running)) => 0,
                () = election::run(Arc::clone(&running)) => 0,
                () = worker_metrics::run(Arc::clone(&running)) => 0,
                () = migration::run(running, version) => 0,
            };
            metrics_stop.cancel();
            left_behind
        };
        let waiting = worker_of_streams.context.stopping.run_until_cancelled(async {
            tokio::join!(
                register(&worker_of_streams),
                find_waiting(&worker_of_streams.context, &worker_of_streams.streams, started)
            )
        });
        let (left_behind, (), _) = tokio::join!(working, publishing, waiting);
        // Nobody waiting is fine.
        let _ = finished_tx.send(Some(Finished { left_behind }));
        closing.complete();
    });
    Ok(ConsumerHandle::new(Running { worker, finished, _main: main, _coordination: coordination }))
}

/// Ends the streams of events with the main task, however that ends.
struct Closing {
    events: EventSink,
    /// Whether the main task came to its end by itself.
    is_complete: bool,
}

impl Closing {
    fn complete(&mut self) {
        self.is_complete = true;
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let reason = match self.is_complete {
            true => StopReason::Shutdown,
            false if std::thread::panicking() => StopReason::Failed,
            false => StopReason::HandleDropped,
        };
        self.events.close(Event::Stopped { reason });
    }
}

/// Makes sure that there is a table, and finds out which protocol its fleet is at.
async fn prepare_table(worker: &Worker) -> Result<ClientVersion, StoreError> {
    ensure_table(worker).await?;
    worker.context.notifier.bind(worker.context.store.identity());
    if worker.context.coordination.mode == CoordinationMode::Independent {
        return Ok(ClientVersion::Init);
    }
    migration::initialize(worker).await
}

/// Refuses a table whose leases this consumer would not go on with. If it cannot be read, the rounds look
/// again, and report it.
async fn check_table(worker: &Worker) -> Result<(), Error> {
    let scan = match worker.context.store.scan().await {
        Ok(scan) => scan,
        Err(error) => {
            tracing::warn!(%error, "cannot scan the lease table; trying again");
            return Ok(());
        }
    };
    let tracked = worker.streams.tracked();
    let streams: Vec<&StreamId> = tracked.iter().map(|stream| &stream.id).collect();
    admit(&scan.leases, &streams, worker.streams.is_multi()).map_err(|refusal| invalid(refusal.to_string()))
}

/// Looks for the streams. One that cannot be found fails the start if it is the only one; of several,
/// the others are read while it is looked for again. While none of several can be found, those that may
/// be there soon are looked for as long as one alone would be.
async fn find_streams(worker: &Arc<Worker>, mut wanted: Vec<StreamSpec>) -> Result<(), Error> {
    let deadline = worker.context.clock.now() + CREATING_PATIENCE;
    loop {
        let mut failure = None;
        let mut may_come = Vec::new();
        let mut searches = search(&worker.context, worker.streams.is_multi(), wanted, None);
        while let Some((wanted, found)) = searches.next().await {
            match found {
                Ok(stream) => worker.streams.first_found(&wanted, stream),
                Err(error) => {
                    let problem = with_causes(&error);
                    tracing::warn!(stream = %wanted.id, error = problem, "a stream cannot be read");
                    worker.streams.wait_for(wanted.clone(), problem);
                    if error.kind() == ErrorKind::Unavailable {
                        may_come.push(wanted);
                    }
                    failure = failure.or(Some(error));
                }
            }
        }
        let Some(error) = failure.filter(|_| worker.streams.tracked().is_empty()) else { return Ok(()) };
        if !worker.streams.is_multi() || may_come.is_empty() || worker.context.clock.now() >= deadline {
            return Err(error);
        }
        wanted = may_come;
        worker.context.clock.sleep(CREATING_PAUSE).await;
    }
}

/// Registers the fan-out consumers, so that no shard waits for one longer than it must.
async fn register(worker: &Worker) {
    let streams = worker.streams.tracked();
    let fan_outs = streams.iter().filter_map(|stream| stream.fan_out.as_ref());
    stream::iter(fan_outs)
        .for_each_concurrent(CONCURRENT_REGISTRATIONS, |fan_out| async {
            // A failure recurs with the first shard, and is reported there.
            let _ = fan_out.registration.arn().await;
        })
        .await;
}

async fn ensure_table(worker: &Worker) -> Result<(), StoreError> {
    let mut pauses = Backoff::new(
        Duration::from_millis(100),
        Duration::from_secs(2),
        TABLE_TRIES - 1,
        worker.context.seeds.seed(),
    );
    loop {
        match worker.context.store.ensure_table(&worker.table).await {
            Err(error) if error.is_retryable() => match pauses.next() {
                Some(pause) => worker.context.clock.sleep(pause).await,
                None => return Err(error),
            },
            outcome => return outcome,
        }
    }
}
