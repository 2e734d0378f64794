use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::ShardEnvironment;
use super::status::StatusCell;
use crate::error::with_causes;
use crate::events::{Event, EventSink};
use crate::kinesis::{StreamError, StreamErrorKind};
use crate::lease::Lease;
use crate::retrieval::{Cause, FetchEvent, FetchObserver, Retrieval, RetrievalSpec, Source, StartPosition};
use crate::stream_tracker::TrackedStream;
use crate::types::{ShardId, StartStrategy};

/// Starts to read the shard of `lease` where it stands.
pub(super) fn fetch(
    environment: &ShardEnvironment,
    stream: &Arc<TrackedStream>,
    lease: &Lease,
    status: &Arc<StatusCell>,
) -> Retrieval {
    let timestamp = match stream.start_strategy {
        StartStrategy::Timestamp(millis) => Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis)),
        StartStrategy::Latest | StartStrategy::Oldest => None,
    };
    Retrieval::start(RetrievalSpec {
        api: Arc::clone(&environment.context.api),
        stream: stream.id.clone(),
        shard: lease.shard_id.clone(),
        start: StartPosition {
            checkpoint: lease.checkpoint.clone(),
            latest_since: lease
                .latest_since
                .map_or(stream.started, |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis)),
            timestamp,
        },
        lease: lease.clone(),
        on_recreated_stream: environment.context.coordination.on_recreated_stream,
        source: stream.fan_out.clone().map_or(Source::Polling, Source::FanOut),
        limit: environment.context.lease_config.records_per_call(),
        config: environment.retrieval.clone(),
        empty_batches: environment.processor.call_process_records_even_for_empty_record_list,
        budget: Arc::clone(&environment.budget),
        clock: environment.context.clock.clone(),
        seed: environment.context.seeds.seed(),
        metrics: environment.context.metrics.clone(),
        observer: observer(
            Arc::clone(stream),
            lease.clone(),
            environment.context.events.clone(),
            Arc::clone(status),
        ),
    })
}

/// Keeps the status of the shard, and emits events for what goes wrong.
fn observer(
    tracked: Arc<TrackedStream>,
    lease: Lease,
    events: EventSink,
    status: Arc<StatusCell>,
) -> Arc<dyn FetchObserver> {
    let (stream, key, shard, checkpoint) = (tracked.id.clone(), lease.key, lease.shard_id, lease.checkpoint);
    let foreign = ForeignShard { stream: tracked, shard: shard.clone() };
    Arc::new(move |event: FetchEvent<'_>| match event {
        FetchEvent::Fetched { records, millis_behind_latest, is_below } => {
            let had_problem = status.update(|status| {
                status.fetch_failures = 0;
                if records == 0 {
                    status.behind_latest = Some(millis(millis_behind_latest));
                }
                !is_below && status.problem.take().is_some()
            });
            if had_problem {
                foreign.set(None);
            }
        }
        FetchEvent::Failed { error, failures, retry_in, at_checkpoint } => {
            status.update(|status| status.fetch_failures = u64::from(failures));
            let mut reason = with_causes(error);
            if at_checkpoint && is_refusal(error) && checkpoint.position().is_some() {
                reason.push_str(&format!("; it was to be opened at checkpoint {checkpoint} of its lease"));
            }
            tracing::warn!(%stream, %shard, failures, ?retry_in, reason, "cannot fetch records; trying again");
            events.emit(Event::FetchFailed {
                stream: stream.clone(),
                shard: shard.clone(),
                kind: error.kind().into(),
                reason: reason.into(),
            });
        }
        FetchEvent::Refused { refusal, failures, retry_in } => {
            let reason = refusal.to_string();
            let is_new = status.update(|status| {
                status.fetch_failures = u64::from(failures);
                status.problem.replace(reason.clone()).as_ref() != Some(&reason)
            });
            if !is_new {
                tracing::debug!(%stream, %shard, failures, ?retry_in, "the shard is still refused");
                return;
            }
            tracing::warn!(%stream, %shard, reason, "the shard cannot be read by its lease; trying again");
            match &refusal.cause {
                Cause::OtherStream(_) => {
                    if foreign.set(Some(reason.clone())) {
                        events.emit(Event::StreamRecreated { stream: stream.clone(), reason: reason.into() });
                    }
                }
                Cause::Position => events.emit(Event::PositionRefused {
                    stream: stream.clone(),
                    shard: shard.clone(),
                    checkpoint: refusal.checkpoint().clone(),
                    reason: reason.into(),
                }),
            }
        }
        FetchEvent::Expired { oldest } => {
            let (oldest, arrived) = oldest.map_or((None, None), |record| {
                (Some(record.sequence_number.clone()), record.approximate_arrival_timestamp)
            });
            tracing::warn!(
                %stream,
                %shard,
                %checkpoint,
                oldest = oldest.as_ref().map(tracing::field::display),
                ?arrived,
                "records after the checkpoint may have expired unread"
            );
            events.emit(Event::RecordsExpired {
                stream: stream.clone(),
                shard: shard.clone(),
                checkpoint: checkpoint.clone(),
                oldest,
                arrived,
            });
        }
        FetchEvent::Restarted { first } => {
            let problem = format!(
                "shard {shard} of stream {} has sequence number {first}, which lies before those that were \
                 read by lease {key} (checkpoint {checkpoint}): its sequence numbers have begun again, as if \
                 the stream were another. Records before the checkpoint are not delivered. Set \
                 CoordinationConfig::on_recreated_stream to StartOver to read the stream from its oldest \
                 record, or delete the lease while no worker runs",
                stream.name()
            );
            tracing::warn!(%stream, %shard, problem, "sequence numbers have begun again");
            foreign.set(Some(problem.clone()));
            status.update(|status| status.problem = Some(problem));
            events.emit(Event::SequenceNumbersRestarted {
                stream: stream.clone(),
                shard: shard.clone(),
                checkpoint: checkpoint.clone(),
                fetched: first.clone(),
            });
        }
        FetchEvent::FellBackToPolling { error } => {
            let reason = with_causes(error);
            tracing::warn!(%stream, %shard, reason, "enhanced fan-out is unavailable; polling until it works again");
            events.emit(Event::FanOutUnavailable {
                stream: stream.clone(),
                shard: shard.clone(),
                kind: error.kind().into(),
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

/// What the status of the stream says of this shard, for as long as it is fetched.
struct ForeignShard {
    stream: Arc<TrackedStream>,
    shard: ShardId,
}

impl ForeignShard {
    /// Whether it is the first of the stream.
    fn set(&self, problem: Option<String>) -> bool {
        self.stream.set_foreign_shard(&self.shard, problem)
    }
}

impl Drop for ForeignShard {
    fn drop(&mut self) {
        self.set(None);
    }
}

fn is_refusal(error: &StreamError) -> bool {
    matches!(error.kind(), StreamErrorKind::NotFound | StreamErrorKind::InvalidArgument)
}

pub(super) fn millis(count: i64) -> Duration {
    Duration::from_millis(count.max(0).unsigned_abs())
}
