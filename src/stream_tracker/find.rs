use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::{Streams, TrackedStream};
use crate::config::{FanOutConsumer, StreamSpec};
use crate::context::Context;
use crate::error::{Error, ErrorKind, with_causes};
use crate::kinesis::list::list_shards;
use crate::kinesis::registration::FanOutRegistration;
use crate::kinesis::{Shard, StreamDescription, StreamError, StreamErrorKind};
use crate::retrieval::FanOut;
use crate::runtime::Backoff;
use crate::shard_sync::initial_filter;
use crate::types::StreamId;

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
    context: &Arc<Context>,
    is_multi: bool,
    wanted: &StreamSpec,
    since: Option<SystemTime>,
) -> Result<TrackedStream, Error> {
    let found = async {
        let id = if is_multi { identify(context, wanted).await? } else { wanted.id.clone() };
        let fan_out = wanted.consumer.as_ref().map(|consumer| fan_out(context, &id, consumer));
        let shards = list_once_created(context, wanted, &id, since).await?;
        Ok(TrackedStream {
            id,
            start_strategy: wanted.start_strategy,
            fan_out,
            started: since.unwrap_or_else(|| context.clock.wall()),
            stopping: context.stopping.child_token(),
            consumers: TaskTracker::new(),
            listed: Mutex::new(Some(shards)),
            problems: Mutex::default(),
        })
    };
    if !is_multi {
        return found.await;
    }
    context.clock.timeout(PATIENCE, found).await.unwrap_or_else(|elapsed| {
        let error = StreamError::new(StreamErrorKind::Unavailable, "ListShards", wanted.id.to_string());
        Err(error.with_source(elapsed).into())
    })
}

/// Lists the shards. A stream that is being created, or changed, is waited for; one that does not exist
/// is not.
async fn list_once_created(
    context: &Context,
    wanted: &StreamSpec,
    id: &StreamId,
    since: Option<SystemTime>,
) -> Result<Vec<Shard>, StreamError> {
    let deadline = context.clock.now() + CREATING_PATIENCE;
    loop {
        let filter = initial_filter(wanted.start_strategy, since);
        let listed = list_shards(&*context.api, &context.clock, id, Some(filter), context.seeds.seed()).await;
        match listed {
            Err(error) if error.kind() == StreamErrorKind::InUse && context.clock.now() < deadline => {
                tracing::info!(stream = %id, "waiting for the stream to become active");
                context.clock.sleep(CREATING_PAUSE).await;
            }
            listed => return listed,
        }
    }
}

/// Looks again and again for the streams that were not found at the start, until none is left.
pub(crate) async fn find_waiting(context: &Arc<Context>, streams: &Streams, started: SystemTime) {
    let mut pause = RETRY_MIN;
    loop {
        let waiting = streams.waiting();
        if waiting.is_empty() {
            return;
        }
        context.clock.sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
        let mut searches = search(context, streams.is_multi(), waiting, Some(started));
        while let Some((wanted, outcome)) = searches.next().await {
            if let Err(error) = &outcome {
                let reason = with_causes(error);
                tracing::warn!(stream = %wanted.id, error = reason, "a stream cannot be read; trying again");
                context.coordination_failed("FindStream", error);
            }
            streams.found(&wanted, outcome.map_err(|error| with_causes(&error)));
        }
    }
}

/// Looks for several streams at once; the outcomes come in the order of `wanted`.
pub(crate) fn search(
    context: &Arc<Context>,
    is_multi: bool,
    wanted: Vec<StreamSpec>,
    since: Option<SystemTime>,
) -> impl Stream<Item = (StreamSpec, Result<TrackedStream, Error>)> + Unpin {
    let search = move |wanted: StreamSpec| {
        let context = Arc::clone(context);
        async move {
            let outcome = find(&context, is_multi, &wanted, since).await;
            (wanted, outcome)
        }
    };
    Box::pin(stream::iter(wanted).map(search).buffered(CONCURRENT))
}

/// What the stream is called in the lease table, and its ARN.
async fn identify(context: &Context, wanted: &StreamSpec) -> Result<StreamId, Error> {
    if let Some(id) = wanted.creation_epoch.and_then(|epoch| wanted.id.created_at(epoch)) {
        return Ok(id);
    }
    let described = describe(context, &wanted.id).await?;
    let created = || {
        let since_epoch = described.created.duration_since(SystemTime::UNIX_EPOCH);
        since_epoch.map_or(0, |since_epoch| since_epoch.as_secs())
    };
    let epoch = wanted.creation_epoch.unwrap_or_else(created);
    let found: Option<StreamId> = described.arn.parse().ok();
    let Some(id) = found.and_then(|found| found.created_at(epoch)) else {
        let message =
            format!("DescribeStreamSummary returned an unexpected response for stream {}", wanted.id);
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

async fn describe(context: &Context, stream: &StreamId) -> Result<StreamDescription, StreamError> {
    let (min, max) = (DESCRIBE_PAUSE_MIN, DESCRIBE_PAUSE_MAX);
    let mut pauses = Backoff::new(min, max, DESCRIBE_TRIES - 1, context.seeds.seed());
    loop {
        let error = match context.api.describe_stream(stream).await {
            Ok(description) => return Ok(description),
            Err(error) => error,
        };
        let passes = matches!(error.kind(), StreamErrorKind::Throttled | StreamErrorKind::Unavailable);
        match pauses.next() {
            Some(pause) if passes => context.clock.sleep(pause).await,
            _ => return Err(error),
        }
    }
}

fn fan_out(context: &Context, stream: &StreamId, consumer: &FanOutConsumer) -> FanOut {
    let (api, clock, stream) = (Arc::clone(&context.api), context.clock.clone(), stream.clone());
    let registration = match consumer.name(&context.application) {
        Ok(name) => FanOutRegistration::named(api, clock, stream, name.to_owned(), context.seeds.seed()),
        Err(arn) => FanOutRegistration::given(api, clock, stream, arn.clone()),
    };
    let fall_back_after = context.lease_config.fall_back_to_polling_after();
    FanOut { registration: Arc::new(registration), fall_back_after }
}
