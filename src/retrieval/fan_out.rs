use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::budget::cost;
use super::buffer::BatchSender;
use super::inquiry::{Finding, Inquiry};
use super::observe::{FetchEvent, FetchMetrics};
use super::pacing::Backoff;
use super::polling::{Poller, PollerExit, UNEXPLAINED_MAX};
use super::position::Position;
use super::subscription_pacer::SubscriptionPacer;
use super::{Batch, MemoryPermit, ReadOutcome, RetrievalSpec};
use crate::kinesis::registration::FanOutRegistration;
use crate::kinesis::{
    ChildShard, IteratorPosition, StreamError, StreamErrorKind, Subscription, SubscriptionEvent,
    ends_consistently,
};
use crate::planted::{Bug, planted};
use crate::types::{ConsumerArn, Moment};

const SUBSCRIBE_TO_SHARD: &str = "SubscribeToShard";

/// An idle shard sends an event every few seconds. A subscription that is silent for this long while an
/// event is awaited is considered dead.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A subscription from which no events are taken is dropped after this time. Data already sent waits in
/// the connection, whose flow-control window is shared with other shards.
const STALL_MAX: Duration = Duration::from_secs(10);

/// How long memory is held for an event. One that is there already takes a few milliseconds; otherwise the
/// shard has no more records, or has used up its 2 MB/s.
const HOLD_MAX: Duration = Duration::from_millis(50);

/// While a shard is polled, subscribing is retried after `PROBE_MIN`, doubling up to `PROBE_MAX`.
const PROBE_MIN: Duration = Duration::from_secs(30);
const PROBE_MAX: Duration = Duration::from_secs(300);

/// The timeout of one search for the registered consumer, and of a search while the shard is polled.
const SEARCH_MAX: Duration = Duration::from_secs(20);
const PROBE_PATIENCE: Duration = Duration::from_secs(3);

/// How a shard is read with enhanced fan-out.
#[derive(Debug, Clone)]
pub(crate) struct FanOut {
    pub(crate) registration: Arc<FanOutRegistration>,
    /// How long fan-out may fail before the shard is polled; `None` to never poll.
    pub(crate) fall_back_after: Option<Duration>,
}

/// Reads from `position` to the end of the shard, with fan-out while it is available and by polling
/// otherwise.
pub(super) async fn read(
    spec: &RetrievalSpec,
    fan_out: &FanOut,
    mut position: Position,
    sender: &BatchSender,
) -> ReadOutcome {
    let mut subscriber = Subscriber::new(spec, fan_out);
    let mut probe_after = PROBE_MIN;
    loop {
        let error = match subscriber.run(&mut position, sender).await {
            SubscriberExit::Finished(outcome) => return outcome,
            SubscriberExit::Unavailable(error) => error,
        };
        if !std::mem::replace(&mut subscriber.has_fallen_back, true) {
            spec.observer.observe(FetchEvent::FellBackToPolling { error: &error });
            subscriber.metrics.fell_back();
            probe_after = PROBE_MIN;
        }
        if planted(Bug::FallbackForgetsPosition) {
            position = Position::Start(IteratorPosition::Latest);
        }
        let until = spec.clock.now() + probe_after;
        position = match Poller::new(spec, position).run_until(until, sender).await {
            PollerExit::Finished(outcome) => return outcome,
            PollerExit::TimeUp(reached) => reached,
        };
        probe_after = (probe_after * 2).min(PROBE_MAX);
    }
}

/// Reads a shard with SubscribeToShard.
struct Subscriber<'a> {
    spec: &'a RetrievalSpec,
    fan_out: &'a FanOut,
    metrics: FetchMetrics,
    rng: fastrand::Rng,
    pacer: SubscriptionPacer,
    /// What the next event is expected to cost: as much as the last one, and nothing at the tip, where the
    /// next one may be seconds away.
    event_cost: u64,
    /// Whether the shard is being polled. The next event ends that; until then every failure returns to
    /// polling at once.
    has_fallen_back: bool,
    /// Whether the last failed request named a position.
    named_position: bool,
    inquiry: Inquiry,
}

/// Why a subscriber stopped.
enum SubscriberExit {
    Finished(ReadOutcome),
    /// Fan-out has failed for too long; this is the last failure.
    Unavailable(StreamError),
}

/// How a subscription ended without an error.
enum SubscriptionEnd {
    /// The service ended it after five minutes, or no events were taken from it: subscribe again.
    Renew,
    Finished(ReadOutcome),
}

impl<'a> Subscriber<'a> {
    fn new(spec: &'a RetrievalSpec, fan_out: &'a FanOut) -> Self {
        Self {
            spec,
            fan_out,
            metrics: FetchMetrics::new(spec),
            rng: fastrand::Rng::with_seed(spec.seed),
            pacer: SubscriptionPacer::default(),
            event_cost: 0,
            has_fallen_back: false,
            named_position: false,
            inquiry: Inquiry::default(),
        }
    }

    /// Subscribes again and again, until the shard ends or fan-out is considered unavailable.
    async fn run(&mut self, position: &mut Position, sender: &BatchSender) -> SubscriberExit {
        loop {
            // Without room for records, an open subscription would only fill the connection.
            drop(self.room(sender).await);
            self.spec.clock.sleep_until(self.pacer.next_subscription()).await;
            let outcome = match self.subscribe(position).await {
                Ok((subscription, sent)) => self.receive(subscription, sent, position, sender).await,
                Err(error) => Err(error),
            };
            let error = match outcome {
                Ok(SubscriptionEnd::Renew) => {
                    if planted(Bug::RenewsAtTheTip) {
                        *position = Position::Start(IteratorPosition::Latest);
                    }
                    continue;
                }
                Ok(SubscriptionEnd::Finished(outcome)) => return SubscriberExit::Finished(outcome),
                Err(error) => error,
            };
            let mut backoff = Backoff::after(error.kind());
            let mut refusal = None;
            match self.inquire(&error, position).await {
                Finding::Finished(outcome) => return SubscriberExit::Finished(outcome),
                Finding::Refused(refused) => {
                    backoff = Backoff::PERSISTENT;
                    refusal = Some(refused);
                }
                Finding::Unexplained if is_refusal(&error) && self.pacer.failures() >= UNEXPLAINED_MAX => {
                    backoff = Backoff::PERSISTENT;
                }
                Finding::Unexplained => {}
            }
            let now = self.spec.clock.now();
            let retry_in = self.pacer.failed(now, backoff, &mut self.rng);
            let failures = self.pacer.failures();
            let at_checkpoint = self.named_position && !position.is_fetched();
            if let Some(refusal) = &refusal {
                self.spec.observer.observe(FetchEvent::Refused { refusal, failures, retry_in });
            }
            if self.is_out_of_patience(now) {
                return SubscriberExit::Unavailable(error);
            }
            if refusal.is_none() {
                let failed = FetchEvent::Failed { error: &error, failures, retry_in, at_checkpoint };
                self.spec.observer.observe(failed);
            }
        }
    }

    /// Diagnoses a failure that may concern the shard or the position rather than the consumer.
    async fn inquire(&mut self, error: &StreamError, position: &Position) -> Finding {
        match error.kind() {
            StreamErrorKind::InvalidArgument if !self.named_position => Finding::Unexplained,
            kind if is_refusal(error) => self.inquiry.refused(self.spec, position, kind).await,
            _ => Finding::Unexplained,
        }
    }

    fn is_out_of_patience(&self, now: Moment) -> bool {
        let patience = self.fan_out.fall_back_after;
        self.has_fallen_back || patience.is_some_and(|patience| self.pacer.failing_for(now) >= patience)
    }

    /// One SubscribeToShard request; also returns when it was sent.
    async fn subscribe(
        &mut self,
        position: &Position,
    ) -> Result<(Box<dyn Subscription>, SystemTime), StreamError> {
        self.named_position = false;
        let consumer = self.consumer().await?;
        self.named_position = true;
        let sent = self.spec.clock.wall();
        let subscribed = match self.request(&consumer, &position.next_iterator()).await {
            Err(error) if error.kind() == StreamErrorKind::InvalidArgument => match position.alternative() {
                Some(position) => self.request(&consumer, &position).await,
                None => Err(error),
            },
            outcome => outcome,
        };
        if let Err(error) = &subscribed
            && error.kind() == StreamErrorKind::NotFound
        {
            // The consumer may have been deregistered: register it again.
            self.fan_out.registration.forget(&consumer).await;
        }
        let subscription = subscribed?;
        self.named_position = false;
        Ok((subscription, sent))
    }

    /// The registered consumer. The search has a timeout, so that it does not delay polling; a later
    /// search continues from the state that the service has reached.
    async fn consumer(&self) -> Result<ConsumerArn, StreamError> {
        let patience = match self.fan_out.fall_back_after {
            _ if self.has_fallen_back => PROBE_PATIENCE,
            Some(patience) => patience.min(SEARCH_MAX),
            None => SEARCH_MAX,
        };
        let found = self.spec.clock.timeout(patience, self.fan_out.registration.arn()).await;
        found.unwrap_or_else(|elapsed| {
            let error = self.spec.error(StreamErrorKind::Unavailable, "DescribeStreamConsumer");
            Err(error.with_source(elapsed))
        })
    }

    async fn request(
        &mut self,
        consumer: &ConsumerArn,
        position: &IteratorPosition,
    ) -> Result<Box<dyn Subscription>, StreamError> {
        let RetrievalSpec { api, stream, shard, clock, config, .. } = self.spec;
        let sent = clock.now();
        let request = api.subscribe(stream, consumer, shard, position);
        let answer = clock.timeout(config.kinesis_request_timeout, request).await;
        let answer = answer.unwrap_or_else(|elapsed| {
            Err(self.spec.error(StreamErrorKind::Unavailable, SUBSCRIBE_TO_SHARD).with_source(elapsed))
        });
        let now = clock.now();
        self.metrics.subscription(answer.is_ok(), now.since(sent));
        if answer.is_ok() {
            // It is unknown from when the service counts, but it is not later than this.
            self.pacer.subscribed(now);
        }
        answer
    }

    /// Passes on the events of one subscription. While the processor is busy or memory is short, no
    /// event is requested, and flow control makes the service wait.
    async fn receive(
        &mut self,
        subscription: Box<dyn Subscription>,
        subscribed: SystemTime,
        position: &mut Position,
        sender: &BatchSender,
    ) -> Result<SubscriptionEnd, StreamError> {
        let (mut subscription, mut events) = (Some(subscription), 0_u64);
        loop {
            let Some(open) = &mut subscription else { return Ok(SubscriptionEnd::Renew) };
            let room = self.spec.clock.timeout(STALL_MAX, self.room(sender)).await;
            let Ok(mut memory) = room else { return Ok(SubscriptionEnd::Renew) };
            let next = self.spec.clock.timeout(SILENCE_MAX, open.next());
            let event = match memory.held_for(next, HOLD_MAX, &self.spec.clock).await {
                Ok(Some(event)) => event?,
                Ok(None) if events > 0 => return Ok(SubscriptionEnd::Renew),
                // Even an idle shard sends events, so the subscription did not end regularly.
                Ok(None) => {
                    let error = self.spec.error(StreamErrorKind::Unavailable, SUBSCRIBE_TO_SHARD);
                    return Err(error.with_source("the subscription ended without an event"));
                }
                Err(_) if planted(Bug::WaitsForeverForEvents) => std::future::pending().await,
                Err(elapsed) => {
                    open.connection_lost();
                    let error = self.spec.error(StreamErrorKind::Unavailable, SUBSCRIBE_TO_SHARD);
                    return Err(error.with_source(elapsed));
                }
            };
            events += 1;
            let is_at_tip = event.millis_behind_latest == Some(0);
            let cost = cost(&event.records);
            if !memory.try_resize(cost) {
                // Released first: a holder of memory must not wait for more.
                drop(memory);
                let reserve = self.spec.budget.reserve(cost);
                memory = match self.spec.clock.timeout(STALL_MAX, reserve).await {
                    Ok(memory) => memory,
                    Err(_) => {
                        subscription = None;
                        self.spec.budget.reserve(cost).await
                    }
                };
            }
            if let Some(children) = self.accept(event, subscribed, memory, position, sender)? {
                return Ok(SubscriptionEnd::Finished(ReadOutcome::ShardEnd(children)));
            }
            if is_at_tip && let Some(outcome) = self.inquiry.caught_up(self.spec, position).await {
                return Ok(SubscriptionEnd::Finished(outcome));
            }
        }
    }

    /// Accepts an event and advances the position, or rejects it without any change. Returns the
    /// children of the shard if it was the last event.
    fn accept(
        &mut self,
        event: SubscriptionEvent,
        subscribed: SystemTime,
        permit: MemoryPermit,
        position: &mut Position,
        sender: &BatchSender,
    ) -> Result<Option<Vec<ChildShard>>, StreamError> {
        let SubscriptionEvent { records, continuation, millis_behind_latest, child_shards } = event;
        let is_end = continuation.is_none();
        if !ends_consistently(is_end, &child_shards) && !planted(Bug::TrustsAnyShardEnd) {
            return Err(self.spec.error(StreamErrorKind::Malformed, SUBSCRIBE_TO_SHARD));
        }
        let is_at_tip = millis_behind_latest == Some(0);
        self.event_cost = if is_at_tip { 0 } else { cost(&records) };
        self.pacer.event_arrived();
        self.inquiry.accepted(self.spec, position, &records, is_end);
        if std::mem::take(&mut self.has_fallen_back) {
            self.spec.observer.observe(FetchEvent::ReturnedToFanOut);
        }

        let millis_behind_latest = millis_behind_latest.unwrap_or(0);
        match (records.last(), continuation) {
            (Some(last), continuation) => {
                position.advance(&last.sequence_number);
                if let Some(continuation) = continuation {
                    position.advance(&continuation);
                }
            }
            (None, Some(continuation)) if position.is_fetched() => position.advance(&continuation),
            // Before the first record it is unknown whether the continuation number stands for a record
            // that was delivered.
            (None, _) if is_at_tip => position.nothing_until(subscribed),
            (None, _) => {}
        }
        let is_below = self.inquiry.is_below();
        let fetched = FetchEvent::Fetched { records: records.len(), millis_behind_latest, is_below };
        self.spec.observer.observe(fetched);
        if !records.is_empty() || self.spec.empty_batches {
            sender.push(Batch { records, millis_behind_latest, permit });
        }
        Ok(is_end.then_some(child_shards))
    }

    /// Waits until another event should be fetched, and reserves memory for it.
    async fn room(&self, sender: &BatchSender) -> MemoryPermit {
        sender.room().await;
        self.spec.budget.reserve(self.event_cost).await
    }
}

/// Whether the service refused the shard, the position or the consumer.
fn is_refusal(error: &StreamError) -> bool {
    matches!(error.kind(), StreamErrorKind::NotFound | StreamErrorKind::InvalidArgument)
}
