use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt, stream};
use tokio_util::task::TaskTracker;

use super::TrackedStream;
use crate::config::{FanOutConsumer, WantedStream};
use crate::error::{Error, ErrorKind};
use crate::kinesis::list::list_shards;
use crate::kinesis::registration::FanOutRegistration;
use crate::kinesis::{Shard, StreamDescription, StreamError, StreamErrorKind};
use crate::retrieval::FanOut;
use crate::runtime::Backoff;
use crate::shard_sync::initial_filter;
use crate::types::StreamId;
use crate::worker::Worker;

/// Streams looked for at once: DescribeStreamSummary is limited to 20 calls a second in an account.
const CONCURRENT: usize = 8;
/// How long one of several streams is looked for at a time.
const PATIENCE: Duration = Duration::from_secs(10);
/// When streams that were not found are looked for again, doubling up to the other.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How long a stream that is being created is waited for at the start (KCL: 20 tries of its
/// initialization, a second apart), and the pause between two tries.
pub(crate) const CREATING_PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const CREATING_PAUSE: Duration = Duration::from_secs(1);

const DESCRIBE_TRIES: usize = 5;
const DESCRIBE_PAUSE_MIN: Duration = Duration::from_millis(200);
const DESCRIBE_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Looks for a stream: what it is called in the lease table, and which shards it has, so that a stream
/// that cannot be read is noticed here. `LATEST` counts from `since`, or else from when the shards are
/// listed: what was written to a shard that is not listed any more came before.
pub(crate) async fn find(
    worker: &Arc<Worker>,
    wanted: &WantedStream,
    since: Option<SystemTime>,
) -> Result<TrackedStream, Error> {
    let found = async {
        let id = if worker.streams.is_multi() { identify(worker, wanted).await? } else { wanted.id.clone() };
        let fan_out = wanted.consumer.as_ref().map(|consumer| fan_out(worker, &id, consumer));
        let shards = list_once_created(worker, wanted, &id, since).await?;
        Ok(TrackedStream {
            id,
            start_strategy: wanted.start_strategy,
            fan_out,
            started: since.unwrap_or_else(|| worker.clock.wall()),
            stopping: worker.stopping.child_token(),
            consumers: TaskTracker::new(),
            listed: Mutex::new(Some(shards)),
            problems: Mutex::default(),
        })
    };
    if !worker.streams.is_multi() {
        return found.await;
    }
    worker.clock.timeout(PATIENCE, found).await.unwrap_or_else(|elapsed| {
        let error = StreamError::new(StreamErrorKind::Unavailable, "ListShards", wanted.id.to_string());
        Err(error.with_source(elapsed).into())
    })
}

/// Lists the shards. A stream that is being created, or changed, is waited for; one that does not exist
/// is not.
async fn list_once_created(
    worker: &Worker,
    wanted: &WantedStream,
    id: &StreamId,
    since: Option<SystemTime>,
) -> Result<Vec<Shard>, StreamError> {
    let deadline = worker.clock.now() + CREATING_PATIENCE;
    loop {
        let filter = initial_filter(wanted.start_strategy, since);
        let listed = list_shards(&*worker.api, &worker.clock, id, Some(filter), worker.seeds.seed()).await;
        match listed {
            Err(error) if error.kind() == StreamErrorKind::InUse && worker.clock.now() < deadline => {
                tracing::info!(stream = %id, "waiting for the stream to become active");
                worker.clock.sleep(CREATING_PAUSE).await;
            }
            listed => return listed,
        }
    }
}

/// Looks again and again for the streams that were not found at the start, until none is left.
pub(crate) async fn find_waiting(worker: &Arc<Worker>, started: SystemTime) {
    let mut pause = RETRY_MIN;
    loop {
        let waiting = worker.streams.waiting();
        if waiting.is_empty() {
            return;
        }
        worker.clock.sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
        let mut searches = search(worker, waiting, Some(started));
        while let Some((wanted, outcome)) = searches.next().await {
            if let Err(error) = &outcome {
                tracing::warn!(stream = %wanted.id, %error, "a stream cannot be read; trying again");
                worker.coordination_failed("FindStream", error);
            }
            worker.streams.found(&wanted, outcome.map_err(|error| error.to_string()));
        }
    }
}

/// Looks for several streams at once; the outcomes come in the order of `wanted`.
pub(crate) fn search(
    worker: &Arc<Worker>,
    wanted: Vec<WantedStream>,
    since: Option<SystemTime>,
) -> impl Stream<Item = (WantedStream, Result<TrackedStream, Error>)> + Unpin {
    let search = move |wanted: WantedStream| {
        let worker = Arc::clone(worker);
        async move {
            let outcome = find(&worker, &wanted, since).await;
            (wanted, outcome)
        }
    };
    Box::pin(stream::iter(wanted).map(search).buffered(CONCURRENT))
}

/// What the stream is called in the lease table, and its ARN.
async fn identify(worker: &Worker, wanted: &WantedStream) -> Result<StreamId, Error> {
    if let Some(id) = wanted.creation_epoch.and_then(|epoch| wanted.id.created_at(epoch)) {
        return Ok(id);
    }
    let described = describe(worker, &wanted.id).await?;
    let created = || {
        let since_epoch = described.created.duration_since(SystemTime::UNIX_EPOCH);
        since_epoch.map_or(0, |since_epoch| since_epoch.as_secs())
    };
    let epoch = wanted.creation_epoch.unwrap_or_else(created);
    let found: Option<StreamId> = described.arn.parse().ok();
    let Some(id) = found.and_then(|found| found.created_at(epoch)) else {
        let message = format!("DescribeStreamSummary says nonsense of stream {}", wanted.id);
        return Err(Error::new(ErrorKind::Data, message));
    };
    if !id.may_be(&wanted.id) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "stream {} was looked for, but {} was found; give the ARN of one that belongs to another \
                 account, and its creation epoch with StreamConfig::with_creation_epoch",
                wanted.id, described.arn,
            ),
        ));
    }
    Ok(id)
}

async fn describe(worker: &Worker, stream: &StreamId) -> Result<StreamDescription, StreamError> {
    let (min, max) = (DESCRIBE_PAUSE_MIN, DESCRIBE_PAUSE_MAX);
    let mut pauses = Backoff::new(min, max, DESCRIBE_TRIES - 1, worker.seeds.seed());
    loop {
        let error = match worker.api.describe_stream(stream).await {
            Ok(description) => return Ok(description),
            Err(error) => error,
        };
        let passes = matches!(error.kind(), StreamErrorKind::Throttled | StreamErrorKind::Unavailable);
        match pauses.next() {
            Some(pause) if passes => worker.clock.sleep(pause).await,
            _ => return Err(error),
        }
    }
}

fn fan_out(worker: &Worker, stream: &StreamId, consumer: &FanOutConsumer) -> FanOut {
    let (api, clock, stream) = (Arc::clone(&worker.api), worker.clock.clone(), stream.clone());
    let registration = match consumer.name(&worker.application) {
        Ok(name) => FanOutRegistration::named(api, clock, stream, name.to_owned(), worker.seeds.seed()),
        Err(arn) => FanOutRegistration::given(api, clock, stream, arn.clone()),
    };
    let fall_back_after = worker.lease_config.fall_back_to_polling_after();
    FanOut { registration: Arc::new(registration), fall_back_after }
}
