use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::{StreamApi, StreamConsumerStatus, StreamError, StreamErrorKind};
use crate::runtime::{Backoff, Clock};
use crate::types::{ConsumerArn, Moment, StreamId};

/// How often, and how many times, the status of a consumer that is being created or deleted is polled.
const STATUS_POLL: Duration = Duration::from_secs(1);
const STATUS_POLLS_MAX: usize = 60;

const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const RETRIES: usize = 10;

/// A failure is cached for this long and returned to all callers.
const FAILURE_LASTS: Duration = Duration::from_secs(5);

/// The stream consumer of one application, for enhanced fan-out: given by its ARN, found by its name, or
/// registered under that name. It is looked up when it is first needed, once for all shards, and never
/// deregistered automatically (KCL's `FanOutConsumerRegistration`).
pub(crate) struct FanOutRegistration {
    api: Arc<dyn StreamApi>,
    clock: Clock,
    stream: StreamId,
    name: String,
    /// The seed of the retry jitter.
    seed: u64,
    found: Mutex<Found>,
}

#[derive(Debug)]
enum Found {
    Nothing,
    Consumer(ConsumerArn),
    Failure { kind: StreamErrorKind, reason: String, at: Moment },
}

impl FanOutRegistration {
    /// A consumer that is found by its name.
    pub(crate) fn named(
        api: Arc<dyn StreamApi>,
        clock: Clock,
        stream: StreamId,
        name: String,
        seed: u64,
    ) -> Self {
        Self { api, clock, stream, name, seed, found: Mutex::new(Found::Nothing) }
    }

    /// A consumer that was registered by someone else.
    pub(crate) fn given(api: Arc<dyn StreamApi>, clock: Clock, stream: StreamId, arn: ConsumerArn) -> Self {
        let found = Mutex::new(Found::Consumer(arn));
        Self { api, clock, stream, name: String::new(), seed: 0, found }
    }

    /// The ARN of the consumer, once it is active.
    ///
    /// # Errors
    ///
    /// The failure of the last attempt; it is returned to all callers for the next five seconds.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the search; the next caller starts it again.
    pub(crate) async fn arn(&self) -> Result<ConsumerArn, StreamError> {
        let mut found = self.found.lock().await;
        match &*found {
            Found::Consumer(arn) => return Ok(arn.clone()),
            Found::Failure { kind, reason, at } if self.clock.now().since(*at) < FAILURE_LASTS => {
                let subject = format!("consumer {} of stream {}", self.name, self.stream);
                let error = StreamError::new(*kind, "RegisterStreamConsumer", subject);
                return Err(error.with_source(reason.clone()));
            }
            Found::Failure { .. } | Found::Nothing => {}
        }
        match self.find_or_register().await {
            Ok(arn) => {
                tracing::info!(stream = self.stream.name(), consumer = %arn, "fan-out consumer is active");
                *found = Found::Consumer(arn.clone());
                Ok(arn)
            }
            Err(error) => {
                let at = self.clock.now();
                *found = Found::Failure { kind: error.kind(), reason: error.to_string(), at };
                Err(error)
            }
        }
    }

    /// The service no longer knows `arn`: look it up again when it is next needed. A consumer given by
    /// its ARN stays, because there is no name to look up.
    pub(crate) async fn forget(&self, arn: &ConsumerArn) {
        let mut found = self.found.lock().await;
        if !self.name.is_empty() && matches!(&*found, Found::Consumer(known) if known == arn) {
            *found = Found::Nothing;
        }
    }

    /// Deregisters the consumer, if there is one and it was not given by its ARN.
    pub(crate) async fn deregister(&self) -> Result<(), StreamError> {
        if self.name.is_empty() {
            return Ok(());
        }
        let mut found = self.found.lock().await;
        let known = match &*found {
            Found::Consumer(arn) => Some(arn.clone()),
            Found::Failure { .. } | Found::Nothing => self.describe(&self.stream_arn().await?).await?,
        };
        if let Some(arn) = known {
            match self.retried(|| self.api.deregister_consumer(&arn)).await {
                Err(error) if error.kind() == StreamErrorKind::NotFound => {}
                outcome => outcome?,
            }
        }
        *found = Found::Nothing;
        Ok(())
    }

    async fn find_or_register(&self) -> Result<ConsumerArn, StreamError> {
        let stream_arn = self.stream_arn().await?;
        for _ in 0..STATUS_POLLS_MAX {
            let described = self.retried(|| self.api.describe_consumer(&stream_arn, &self.name)).await;
            match described {
                Ok(consumer) if consumer.status == StreamConsumerStatus::Active => return Ok(consumer.arn),
                // It is being created, or being deleted and soon to be registered again.
                Ok(_) => self.clock.sleep(STATUS_POLL).await,
                Err(error) if error.kind() == StreamErrorKind::NotFound => {
                    match self.retried(|| self.api.register_consumer(&stream_arn, &self.name)).await {
                        Ok(consumer) if consumer.status == StreamConsumerStatus::Active => {
                            return Ok(consumer.arn);
                        }
                        // Another worker was faster, or the last response was lost.
                        Err(error) if error.kind() == StreamErrorKind::InUse => {}
                        outcome => drop(outcome?),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let error = StreamError::new(StreamErrorKind::InUse, "DescribeStreamConsumer", self.name.as_str());
        Err(error.with_source(format!("it was not ACTIVE after {STATUS_POLLS_MAX} polls")))
    }

    async fn describe(&self, stream_arn: &str) -> Result<Option<ConsumerArn>, StreamError> {
        match self.retried(|| self.api.describe_consumer(stream_arn, &self.name)).await {
            Ok(consumer) => Ok(Some(consumer.arn)),
            Err(error) if error.kind() == StreamErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn stream_arn(&self) -> Result<String, StreamError> {
        match self.stream.arn() {
            Some(arn) => Ok(arn.to_owned()),
            None => Ok(self.retried(|| self.api.describe_stream(&self.stream)).await?.arn),
        }
    }

    /// Retries transient failures.
    async fn retried<T, F>(&self, call: impl Fn() -> F) -> Result<T, StreamError>
    where
        F: Future<Output = Result<T, StreamError>>,
    {
        let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX, RETRIES, self.seed);
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let passes = matches!(error.kind(), StreamErrorKind::Throttled | StreamErrorKind::Unavailable);
            match pauses.next() {
                Some(pause) if passes => self.clock.sleep(pause).await,
                _ => return Err(error),
            }
        }
    }
}

impl fmt::Debug for FanOutRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanOutRegistration")
            .field("stream", &self.stream.name())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "registration_test.rs"]
mod tests;
