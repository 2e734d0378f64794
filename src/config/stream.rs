use crate::config::{FanOutConsumer, LeaseConfig};
use crate::error::{Error, invalid};
use crate::types::{ConsumerArn, StartStrategy, StreamId};

/// A stream to read, and what is particular about it among several.
///
/// Wherever one is asked for, a text will do: the stream's name, its ARN or, for tables shared with
/// Java, KCL's `<account>:<name>:<creation epoch>`.
///
/// ```
/// use kinesis_consumer::{StartStrategy, StreamConfig};
///
/// let plain: StreamConfig = "orders".into();
/// let payments = StreamConfig::new("payments").with_start_strategy(StartStrategy::Oldest);
/// assert_ne!(plain, payments);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    stream: String,
    creation_epoch: Option<u64>,
    start_strategy: Option<StartStrategy>,
    consumer: Option<FanOutConsumer>,
}

impl StreamConfig {
    /// The stream with this name, ARN or `<account>:<name>:<creation epoch>`, without settings of its
    /// own.
    pub fn new(stream: impl Into<String>) -> Self {
        Self { stream: stream.into(), creation_epoch: None, start_strategy: None, consumer: None }
    }

    /// Where to start in shards of this stream that have no checkpoint. Default:
    /// [`ManagementConfig::start_strategy`](crate::ManagementConfig::start_strategy).
    #[must_use]
    pub fn with_start_strategy(mut self, strategy: StartStrategy) -> Self {
        self.start_strategy = Some(strategy);
        self
    }

    /// Which consumer of this stream to subscribe as, with
    /// [`LeaseConfig::FanOutConfig`](crate::LeaseConfig::FanOutConfig). Default: the one named there.
    #[must_use]
    pub fn with_consumer(mut self, consumer: FanOutConsumer) -> Self {
        self.consumer = Some(consumer);
        self
    }

    /// The number that distinguishes the stream from earlier ones of the same name in the keys of leases
    /// (multi-stream mode; positive). Default: when the stream was created, in seconds since 1970. Give
    /// the one that Java workers of the same application are given, if that is another.
    #[must_use]
    pub fn with_creation_epoch(mut self, epoch: u64) -> Self {
        self.creation_epoch = Some(epoch);
        self
    }

    /// Which stream it is.
    pub(crate) fn id(&self) -> Result<StreamId, Error> {
        self.stream.parse().map_err(|error| invalid("stream is not valid").with_source(error))
    }

    /// Whether it makes no sense outside multi-stream mode.
    pub(crate) fn is_for_multi_stream_mode(&self) -> bool {
        self.creation_epoch.is_some() || self.id().is_ok_and(|id| id.serialized().is_some())
    }

    /// The stream with all its settings, those of the consumer for what it has none of its own.
    pub(crate) fn complete(
        self,
        is_multi: bool,
        start_strategy: StartStrategy,
        lease_config: &LeaseConfig,
        application: &str,
    ) -> Result<StreamSpec, Error> {
        let id = self.id()?;
        if self.creation_epoch.is_some_and(|epoch| epoch == 0 || i64::try_from(epoch).is_err()) {
            return Err(invalid(format!("the creation epoch of stream {id} must be between 1 and 2^63 - 1")));
        }
        if let (Some(given), Some(epoch)) = (id.creation_epoch(), self.creation_epoch)
            && given != epoch
        {
            return Err(invalid(format!("stream {id} is given another creation epoch, {epoch}")));
        }
        let creation_epoch = self.creation_epoch.or(id.creation_epoch());
        let consumer = match (lease_config, self.consumer) {
            (LeaseConfig::PollingConfig { .. }, None) => None,
            (LeaseConfig::PollingConfig { .. }, Some(_)) => {
                return Err(invalid(format!(
                    "stream {id} has a fan-out consumer, but shards are polled; call \
                     lease_config(LeaseConfig::fan_out()) on the builder"
                )));
            }
            (LeaseConfig::FanOutConfig { consumer, .. }, None) => Some(consumer.clone()),
            (LeaseConfig::FanOutConfig { .. }, Some(consumer)) => Some(consumer),
        };
        if let Some(consumer) = &consumer {
            consumer.validate(application)?;
            if let FanOutConsumer::Arn(arn) = consumer
                && is_multi
                && !is_consumer_of(arn, &id)
            {
                return Err(invalid(format!(
                    "the fan-out consumer {arn} is none of stream {id}; a consumer belongs to one stream, \
                     so give each its own with StreamConfig::with_consumer"
                )));
            }
        }
        let start_strategy = self.start_strategy.unwrap_or(start_strategy);
        Ok(StreamSpec { id, creation_epoch, start_strategy, consumer })
    }
}

/// A stream that is to be read, with all its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamSpec {
    /// As it was given: in multi-stream mode there is more to learn about it.
    pub(crate) id: StreamId,
    pub(crate) creation_epoch: Option<u64>,
    pub(crate) start_strategy: StartStrategy,
    /// Whom to subscribe as; `None` to poll.
    pub(crate) consumer: Option<FanOutConsumer>,
}

fn is_consumer_of(consumer: &ConsumerArn, stream: &StreamId) -> bool {
    let of = consumer.as_str().split_once("/consumer/").and_then(|(arn, _)| arn.parse::<StreamId>().ok());
    of.is_some_and(|of| of.may_be(stream))
}

impl From<&str> for StreamConfig {
    fn from(stream: &str) -> Self {
        Self::new(stream)
    }
}

impl From<String> for StreamConfig {
    fn from(stream: String) -> Self {
        Self::new(stream)
    }
}

impl From<&String> for StreamConfig {
    fn from(stream: &String) -> Self {
        Self::new(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ORDERS: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/orders/consumer/fraud:1700000000";

    fn complete(stream: StreamConfig, lease_config: &LeaseConfig) -> Result<StreamSpec, Error> {
        stream.complete(true, StartStrategy::Latest, lease_config, "app")
    }

    #[test]
    fn a_stream_takes_what_it_has_not_from_the_consumer() {
        let plain = complete("orders".into(), &LeaseConfig::default()).expect("valid");
        assert_eq!((plain.start_strategy, plain.consumer), (StartStrategy::Latest, None));
        let own = StreamConfig::new("1:orders:5").with_start_strategy(StartStrategy::Oldest);
        let own = complete(own, &LeaseConfig::fan_out()).expect("valid");
        assert_eq!((own.start_strategy, own.creation_epoch), (StartStrategy::Oldest, Some(5)));
        assert_eq!(own.consumer, Some(FanOutConsumer::Application));
    }

    #[test]
    fn what_cannot_work_is_said() {
        let consumer = FanOutConsumer::Arn(OF_ORDERS.into());
        let for_all =
            LeaseConfig::FanOutConfig { consumer: consumer.clone(), fall_back_to_polling_after: None };
        for (stream, lease_config, message) in [
            ("two words".into(), LeaseConfig::default(), "stream is not valid"),
            (StreamConfig::new("orders").with_creation_epoch(0), LeaseConfig::default(), "creation epoch"),
            (StreamConfig::new("1:orders:5").with_creation_epoch(6), LeaseConfig::default(), "another"),
            (StreamConfig::new("orders").with_consumer(consumer.clone()), LeaseConfig::default(), "polled"),
            (StreamConfig::new("orders").with_consumer(consumer), LeaseConfig::fan_out(), ""),
            ("orders".into(), for_all.clone(), ""),
            ("payments".into(), for_all, "StreamConfig::with_consumer"),
        ] {
            match complete(stream.clone(), &lease_config) {
                Ok(_) => assert_eq!(message, "", "{stream:?}"),
                Err(error) => assert!(!message.is_empty() && error.to_string().contains(message), "{error}"),
            }
        }
    }
}
