use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::consumers::no_consumer;
use super::error::{ErrorCode, ServiceError};
use super::limits::Usage;
use super::service::Service;
use super::shard::StoredRecord;
use super::state::StreamState;
use crate::kinesis::{ChildShard, IteratorPosition};
use crate::types::SequenceNumber;

/// A subscription ends after this time.
const LIFETIME: Duration = Duration::from_secs(300);
/// A subscription within this time of another of the same consumer to the same shard is refused.
const EXCLUSIVE: Duration = Duration::from_secs(5);
/// An empty event is sent when nothing else was sent for this long.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The maximum amount of data in one event, unless a single record is larger.
const EVENT_BYTES_MAX: usize = 1 << 20;
const EVENT_RECORDS_MAX: usize = 10_000;

/// One consumer's subscription to one shard, the latest if there were several.
#[derive(Debug)]
pub(crate) struct SubscriptionState {
    /// Distinguishes it from an earlier one that it replaced.
    id: u64,
    started: SystemTime,
    position: u64,
    last_event: Option<SystemTime>,
    read_bytes: Usage,
}

/// The handle with which events of a subscription are pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubscriptionId {
    pub(crate) stream: String,
    pub(crate) consumer: String,
    pub(crate) shard: u32,
    id: u64,
}

/// The content of one event of a subscription.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) records: Vec<Arc<StoredRecord>>,
    /// The number after which to subscribe again; `None` at the end of a closed shard.
    pub(crate) continuation: Option<SequenceNumber>,
    pub(crate) behind_latest: Duration,
    pub(crate) children: Vec<ChildShard>,
}

/// The result of pulling an event.
#[derive(Debug)]
pub(crate) enum NextEvent {
    Event(Event),
    /// No event before this time, unless a record is written or the shard closes.
    WaitUntil(SystemTime),
    /// It ended: five minutes have passed, or the shard has ended.
    Completed,
    /// It failed: another subscription replaced it, or what it reads is gone.
    Failed(ServiceError),
}

impl Service {
    /// SubscribeToShard: replaces an earlier subscription of the same consumer to the same shard.
    pub(crate) fn subscribe(
        &mut self,
        now: SystemTime,
        consumer_arn: &str,
        shard: &str,
        position: &IteratorPosition,
    ) -> Result<SubscriptionId, ServiceError> {
        let now = self.advance(now);
        let (name, consumer, is_active) = self.consumer_by_arn(now, consumer_arn)?;
        if !is_active {
            return Err(ErrorCode::ResourceInUse.error(format!("Consumer {consumer_arn} is not ACTIVE.")));
        }
        let id = self.next_subscription;
        let stream = self.stream_mut(now, &name)?;
        let shard = stream.shard(shard)?;
        let (position, shard) = (shard.resolve(now, position)?, shard.sequence.index());
        let key = (consumer.name.clone(), shard);
        if let Some(earlier) = stream.subscriptions.get(&key)
            && now.duration_since(earlier.started).is_ok_and(|age| age < EXCLUSIVE)
        {
            return Err(ErrorCode::ResourceInUse.error(format!(
                "Another active subscription exists for consumer {consumer_arn} and this shard."
            )));
        }
        let state =
            SubscriptionState { id, started: now, position, last_event: None, read_bytes: Usage::default() };
        stream.subscriptions.insert(key, state);
        self.next_subscription += 1;
        Ok(SubscriptionId { stream: name, consumer: consumer.name, shard, id })
    }

    /// Pulls the next event. The caller must send it: it is not returned again.
    pub(crate) fn next_event(&mut self, now: SystemTime, id: &SubscriptionId) -> NextEvent {
        let now = self.advance(now);
        let rate = self.limits.read_bytes;
        match self.stream_mut(now, &id.stream) {
            Ok(stream) => stream.next_event(now, rate, id).unwrap_or_else(NextEvent::Failed),
            Err(error) => NextEvent::Failed(error),
        }
    }
}

impl StreamState {
    fn next_event(
        &mut self,
        now: SystemTime,
        rate: Option<u32>,
        id: &SubscriptionId,
    ) -> Result<NextEvent, ServiceError> {
        let key = (id.consumer.clone(), id.shard);
        let state = self.subscriptions.get_mut(&key).ok_or_else(|| no_consumer(&id.consumer))?;
        if state.id != id.id {
            return Err(ErrorCode::ResourceInUse
                .error("Another subscription of the same consumer to the same shard took over."));
        }
        let ends = state.started + LIFETIME;
        if now >= ends {
            return Ok(NextEvent::Completed);
        }
        let Some(shard) = self.shards.get(&id.shard) else {
            return Err(ErrorCode::ResourceNotFound.error("The shard of this subscription has expired."));
        };
        if state.position == END {
            return Ok(NextEvent::Completed);
        }
        let allowed = state.read_bytes.allowed_at(now, rate);
        if allowed > now {
            return Ok(NextEvent::WaitUntil(allowed.min(ends)));
        }
        let slice = shard.read(now, state.position, EVENT_RECORDS_MAX, EVENT_BYTES_MAX);
        let heartbeat = state.last_event.map_or(now, |last| last + HEARTBEAT);
        if slice.records.is_empty() && !slice.is_end && now < heartbeat {
            return Ok(NextEvent::WaitUntil(heartbeat.min(ends)));
        }
        state.read_bytes.spend(now, rate, slice.bytes);
        state.last_event = Some(now);
        state.position = if slice.is_end { END } else { slice.next };
        Ok(NextEvent::Event(Event {
            continuation: (!slice.is_end).then(|| shard.number_before(slice.next)),
            behind_latest: slice.behind_latest,
            children: if slice.is_end { self.child_shards(id.shard) } else { Vec::new() },
            records: slice.records,
        }))
    }
}

/// The position of a subscription that has sent its shard's last event.
const END: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Limits, NewRecord};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn after(seconds: u64) -> SystemTime {
        NOW + Duration::from_secs(seconds)
    }

    /// A service with one stream of one shard, and the ARN of its only consumer.
    fn service() -> (Service, String) {
        let mut service = Service::new();
        service.create_stream(NOW, "s", Some(1)).unwrap();
        let consumer = service.register_consumer(NOW, "s", "c").unwrap();
        (service, consumer.arn)
    }

    fn subscribe(service: &mut Service, now: SystemTime, arn: &str) -> Result<SubscriptionId, ErrorCode> {
        let shard = "shardId-000000000000";
        service.subscribe(now, arn, shard, &IteratorPosition::TrimHorizon).map_err(|error| error.code)
    }

    fn event(next: NextEvent) -> Event {
        match next {
            NextEvent::Event(event) => event,
            other => panic!("{other:?} instead of an event"),
        }
    }

    #[test]
    fn a_second_subscription_is_refused_for_five_seconds_and_then_takes_over() {
        let (mut service, arn) = service();
        let first = subscribe(&mut service, NOW, &arn).unwrap();
        assert_eq!(subscribe(&mut service, after(4), &arn), Err(ErrorCode::ResourceInUse));
        let second = subscribe(&mut service, after(5), &arn).unwrap();
        assert!(matches!(service.next_event(after(5), &first), NextEvent::Failed(error)
            if error.code == ErrorCode::ResourceInUse));
        assert!(event(service.next_event(after(5), &second)).records.is_empty());
    }

    #[test]
    fn a_subscription_beats_while_idle_and_completes_after_five_minutes() {
        let (mut service, arn) = service();
        let id = subscribe(&mut service, NOW, &arn).unwrap();
        assert_eq!(event(service.next_event(NOW, &id)).behind_latest, Duration::ZERO);
        assert!(matches!(service.next_event(after(1), &id), NextEvent::WaitUntil(time) if time == after(5)));
        event(service.next_event(after(5), &id));
        assert!(matches!(service.next_event(after(300), &id), NextEvent::Completed));
    }

    #[test]
    fn continuation_numbers_resume_without_gap_or_repetition() {
        let (mut service, arn) = service();
        let id = subscribe(&mut service, NOW, &arn).unwrap();
        let before_any = event(service.next_event(NOW, &id)).continuation.unwrap();
        service.put_record(NOW, "s", NewRecord::new("k", "1")).unwrap();
        let seen = event(service.next_event(NOW, &id));
        assert_eq!(seen.records.len(), 1);
        service.put_record(NOW, "s", NewRecord::new("k", "2")).unwrap();
        for (continuation, expected) in [(before_any, 2), (seen.continuation.unwrap(), 1)] {
            let position = IteratorPosition::After(continuation);
            let at = service.advance(NOW) + EXCLUSIVE;
            let id = service.subscribe(at, &arn, "shardId-000000000000", &position).unwrap();
            assert_eq!(event(service.next_event(at, &id)).records.len(), expected);
        }
    }

    #[test]
    fn a_closed_shard_ends_with_its_children_and_no_continuation() {
        let (mut service, arn) = service();
        let id = subscribe(&mut service, NOW, &arn).unwrap();
        service.put_record(NOW, "s", NewRecord::new("k", "1")).unwrap();
        service.split_shard(NOW, "s", "shardId-000000000000", 1 << 127).unwrap();
        let last = event(service.next_event(NOW, &id));
        assert_eq!((last.records.len(), last.children.len(), last.continuation), (1, 2, None));
        assert!(matches!(service.next_event(NOW, &id), NextEvent::Completed));
    }

    #[test]
    fn a_record_larger_than_an_event_is_pushed_alone() {
        let (mut service, arn) = service();
        service.update_stream(NOW, "s", |stream| stream.record_bytes_max = 10 << 20).unwrap();
        for size in [3 << 20, 1, EVENT_BYTES_MAX - 1] {
            service.put_record(NOW, "s", NewRecord::new("k", vec![0; size])).unwrap();
        }
        let id = subscribe(&mut service, NOW, &arn).unwrap();
        let events = [1, 2].map(|_| event(service.next_event(NOW, &id)).records.len());
        assert_eq!(events, [1, 2]);
    }

    #[test]
    fn an_enforced_rate_spreads_events_over_time() {
        let (mut service, arn) = service();
        service.set_limits(Limits { read_bytes: Some(1 << 20), ..Limits::none() });
        for _ in 0..3 {
            service.put_record(NOW, "s", NewRecord::new("k", vec![0; 1_000_000])).unwrap();
        }
        let id = subscribe(&mut service, NOW, &arn).unwrap();
        event(service.next_event(NOW, &id));
        let mut now = NOW;
        for _ in 0..2 {
            while let NextEvent::WaitUntil(time) = service.next_event(now, &id) {
                assert!(time > now);
                now = time;
            }
        }
        assert!(now > NOW + Duration::from_millis(900), "{now:?}");
    }
}
