use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::status::StatusCell;
use crate::error::with_causes;
use crate::events::{Event, EventSink};
use crate::lease::Lease;
use crate::retrieval::{FetchEvent, FetchObserver, Retrieval, RetrievalSpec, Source, StartPosition};
use crate::streams::TrackedStream;
use crate::types::{ShardId, StartStrategy, StreamId};
use crate::worker::Worker;

/// Starts to read the shard of `lease` where it stands.
pub(super) fn fetch(
    worker: &Worker,
    stream: &TrackedStream,
    lease: &Lease,
    status: &Arc<StatusCell>,
) -> Retrieval {
    let timestamp = match stream.start_strategy {
        StartStrategy::Timestamp(millis) => Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis)),
        StartStrategy::Latest | StartStrategy::Oldest => None,
    };
    Retrieval::start(RetrievalSpec {
        api: Arc::clone(&worker.api),
        stream: stream.id.clone(),
        shard: lease.shard_id.clone(),
        start: StartPosition {
            checkpoint: lease.checkpoint.clone(),
            latest_since: lease.latest_since.map_or(stream.started, |millis| {
                SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
            }),
            timestamp,
        },
        source: stream.fan_out.clone().map_or(Source::Polling, Source::FanOut),
        limit: worker.lease_config.records_per_call(),
        config: worker.retrieval.clone(),
        empty_batches: worker.coordination.call_process_records_even_for_empty_record_list,
        budget: Arc::clone(&worker.budget),
        clock: worker.clock.clone(),
        seed: worker.seeds.seed(),
        metrics: worker.metrics.clone(),
        observer: observer(
            stream.id.clone(),
            lease.shard_id.clone(),
            worker.events.clone(),
            Arc::clone(status),
        ),
    })
}

/// Keeps the status of the shard, and tells who listens what goes wrong.
fn observer(
    stream: StreamId,
    shard: ShardId,
    events: EventSink,
    status: Arc<StatusCell>,
) -> Arc<dyn FetchObserver> {
    Arc::new(move |event: FetchEvent<'_>| match event {
        FetchEvent::Fetched { records, millis_behind_latest } => status.update(|status| {
            status.fetch_failures = 0;
            if records == 0 {
                status.behind_latest = Some(millis(millis_behind_latest));
            }
        }),
        FetchEvent::Failed { error, failures, retry_in } => {
            status.update(|status| status.fetch_failures = u64::from(failures));
            let reason = with_causes(error);
            tracing::warn!(%stream, %shard, failures, ?retry_in, reason, "cannot fetch records; trying again");
            events.emit(Event::FetchFailed {
                stream: stream.clone(),
                shard: shard.clone(),
                reason: reason.into(),
            });
        }
        FetchEvent::FellBackToPolling { error } => {
            let reason = with_causes(error);
            tracing::warn!(%stream, %shard, reason, "enhanced fan-out cannot be had; polling until it works again");
            events.emit(Event::FanOutUnavailable {
                stream: stream.clone(),
                shard: shard.clone(),
                reason: reason.into(),
            });
        }
        FetchEvent::ReturnedToFanOut => {
            tracing::info!(%stream, %shard, "enhanced fan-out works again");
            events.emit(Event::FanOutRestored { stream: stream.clone(), shard: shard.clone() });
        }
        FetchEvent::TimestampMissing => tracing::warn!(
            %stream,
            %shard,
            "the lease starts at a timestamp, but none is configured any more; reading from the oldest record"
        ),
    })
}

pub(super) fn millis(count: i64) -> Duration {
    Duration::from_millis(count.max(0).unsigned_abs())
}
