use std::time::SystemTime;

use super::error::ServiceError;
use super::kinesis::SimulatedKinesis;
use super::subscription::{Event, NextEvent, SubscriptionId};
use crate::kinesis::SubscriptionEvent;

/// A subscription of a registered consumer to one shard.
#[derive(Debug)]
pub struct SimulatedSubscription {
    kinesis: SimulatedKinesis,
    id: SubscriptionId,
}

impl SimulatedSubscription {
    pub(super) fn kinesis(&self) -> &SimulatedKinesis {
        &self.kinesis
    }

    pub(super) fn new(kinesis: SimulatedKinesis, id: SubscriptionId) -> Self {
        Self { kinesis, id }
    }

    /// Waits for the next event: records, the end of the shard, or every five seconds an empty one.
    /// Returns `None` after five minutes or the end of the shard.
    ///
    /// # Errors
    ///
    /// `ResourceInUse` if another subscription replaced this one, `ResourceNotFound` if the stream, the
    /// shard or the consumer is gone.
    ///
    /// # Cancel safety
    ///
    /// No event is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Result<SubscriptionEvent, ServiceError>> {
        let event = match self.next_stored().await? {
            Ok(event) => event,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(SubscriptionEvent {
            records: event.records.iter().map(|stored| stored.record.clone()).collect(),
            continuation: event.continuation,
            millis_behind_latest: Some(i64::try_from(event.behind_latest.as_millis()).unwrap_or(i64::MAX)),
            child_shards: event.children,
        }))
    }

    /// [`next`](Self::next), with the records as they are stored.
    pub(crate) async fn next_stored(&mut self) -> Option<Result<Event, ServiceError>> {
        loop {
            // Created before looking, so that a write in between is not missed.
            let written = self.kinesis.written().notified();
            let clock = self.kinesis.clock();
            let now = clock.wall();
            match self.next_now(now) {
                NextEvent::Event(event) => return Some(Ok(event)),
                NextEvent::Completed => return None,
                NextEvent::Failed(error) => return Some(Err(error)),
                NextEvent::WaitUntil(time) => {
                    let wait = time.duration_since(now).unwrap_or_default();
                    // Whichever comes first, the next iteration finds out what happened.
                    let _ = clock.timeout(wait, written).await;
                }
            }
        }
    }

    fn next_now(&self, now: SystemTime) -> NextEvent {
        self.kinesis.service().next_event(now, &self.id)
    }
}
