use std::time::Duration;

use crate::config::{check, check_duration, with_settings};
use crate::error::{Error, ErrorKind};
use crate::types::{ConsumerArn, StartStrategy};

/// How many leases this worker takes, and where it starts in shards nobody has processed yet.
///
/// ```
/// use kinesis_consumer::{ManagementConfig, StartStrategy};
///
/// let management =
///     ManagementConfig { leases_to_acquire: 2, max_leases: 20, start_strategy: StartStrategy::Latest };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagementConfig {
    /// The most leases taken away from other workers in one round of balancing (KCL's
    /// `maxLeasesToStealAtOneTime`; 1 or more, default 1). Leases that nobody holds are not counted:
    /// those are taken at once, up to this worker's fair share.
    pub leases_to_acquire: usize,
    /// The most leases this worker holds at a time (KCL's `maxLeasesForWorker`; 1 or more, default
    /// unlimited). When all workers of a fleet are at their limit, shards are left unread.
    pub max_leases: usize,
    /// Where to start in a shard that has no checkpoint. Default: [`StartStrategy::Latest`].
    pub start_strategy: StartStrategy,
}

impl Default for ManagementConfig {
    fn default() -> Self {
        Self { leases_to_acquire: 1, max_leases: usize::MAX, start_strategy: StartStrategy::default() }
    }
}

with_settings!(ManagementConfig {
    with_leases_to_acquire = leases_to_acquire: usize,
    with_max_leases = max_leases: usize,
    with_start_strategy = start_strategy: StartStrategy,
});

impl ManagementConfig {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        check("leases_to_acquire", self.leases_to_acquire, 1..=usize::MAX)?;
        check("max_leases", self.max_leases, 1..=usize::MAX)
    }
}

/// How records are fetched.
///
/// ```
/// use kinesis_consumer::{FanOutConsumer, LeaseConfig};
///
/// let polling = LeaseConfig::PollingConfig { limit: 1000 };
/// let fan_out = LeaseConfig::FanOutConfig {
///     consumer: FanOutConsumer::Named("orders-fraud".into()),
///     fall_back_to_polling_after: None,
/// };
/// assert_ne!(fan_out, LeaseConfig::fan_out());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseConfig {
    /// With GetRecords: all consumers of a shard share 2 MB/s and 5 calls/s.
    PollingConfig {
        /// The most Kinesis records one call returns: 1 to 10,000 (the default).
        limit: u32,
    },
    /// With SubscribeToShard: enhanced fan-out, 2 MB/s per shard for this application alone, and
    /// records within some 70 ms. The service charges for it by consumer, shard and byte. The Kinesis
    /// client must speak HTTP/2, as the SDK's own does.
    FanOutConfig {
        /// Which registered consumer to subscribe as.
        consumer: FanOutConsumer,
        /// How long a shard may be without fan-out before it is polled, until fan-out works again (1 s
        /// to 1 day; [`fan_out`](Self::fan_out) sets one minute); `None` for never.
        fall_back_to_polling_after: Option<Duration>,
    },
}

/// A consumer that is registered with the stream for enhanced fan-out. Each application needs one of
/// its own; all its workers share it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FanOutConsumer {
    /// The one named like the application; registered if there is none.
    #[default]
    Application,
    /// The one of this name (1 to 128 of `a-z A-Z 0-9 _ . -`); registered if there is none.
    Named(String),
    /// One that was registered by somebody else.
    Arn(ConsumerArn),
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self::PollingConfig { limit: 10_000 }
    }
}

impl LeaseConfig {
    /// Enhanced fan-out as the consumer named like the application, polling whenever fan-out
    /// was unavailable for a minute.
    #[must_use]
    pub fn fan_out() -> Self {
        Self::FanOutConfig {
            consumer: FanOutConsumer::default(),
            fall_back_to_polling_after: Some(Duration::from_secs(60)),
        }
    }

    pub(crate) fn validate(&self, application: &str) -> Result<(), Error> {
        match self {
            Self::PollingConfig { limit } => check("limit", *limit, 1..=10_000),
            Self::FanOutConfig { consumer, fall_back_to_polling_after } => {
                if let Some(after) = *fall_back_to_polling_after {
                    let range = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
                    check_duration("fall_back_to_polling_after", after, range)?;
                }
                consumer.validate(application)
            }
        }
    }

    /// The most records one GetRecords request asks for.
    pub(crate) fn records_per_call(&self) -> u32 {
        match self {
            Self::PollingConfig { limit } => *limit,
            Self::FanOutConfig { .. } => 10_000,
        }
    }

    /// How long fan-out may fail before a shard is polled; `None`: never.
    pub(crate) fn fall_back_to_polling_after(&self) -> Option<Duration> {
        match self {
            Self::PollingConfig { .. } => None,
            Self::FanOutConfig { fall_back_to_polling_after, .. } => *fall_back_to_polling_after,
        }
    }
}

impl FanOutConsumer {
    /// The name it is found or registered under; its ARN if it was given.
    pub(crate) fn name<'a>(&'a self, application: &'a str) -> Result<&'a str, &'a ConsumerArn> {
        match self {
            Self::Application => Ok(application),
            Self::Named(name) => Ok(name),
            Self::Arn(arn) => Err(arn),
        }
    }

    pub(super) fn validate(&self, application: &str) -> Result<(), Error> {
        let invalid = |message| Err(Error::new(ErrorKind::Invalid, message));
        let name = match self.name(application) {
            Ok(name) => name,
            Err(arn) if arn.as_str().starts_with("arn:") && arn.as_str().contains("/consumer/") => {
                return Ok(());
            }
            Err(arn) => {
                return invalid(format!(
                    "the fan-out consumer {arn:?} is no ARN of one; it looks like \
                     arn:aws:kinesis:<region>:<account>:stream/<stream>/consumer/<name>:<number>"
                ));
            }
        };
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if (1..=128).contains(&name.len()) && name.bytes().all(is_allowed) {
            return Ok(());
        }
        invalid(format!(
            "the fan-out consumer cannot be called {name:?}; a name has 1 to 128 of a-z A-Z 0-9 _ . -, and \
             FanOutConsumer::Named can give one that differs from the application's"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fan_out(consumer: FanOutConsumer) -> LeaseConfig {
        LeaseConfig::FanOutConfig { consumer, fall_back_to_polling_after: None }
    }

    #[test]
    fn what_cannot_work_is_said() {
        let arn = "arn:aws:kinesis:us-east-1:123456789012:stream/orders/consumer/fraud:1700000000";
        for (config, application, message) in [
            (LeaseConfig::PollingConfig { limit: 0 }, "app", "limit is 0"),
            (fan_out(FanOutConsumer::Application), "app", ""),
            (fan_out(FanOutConsumer::Application), &"a".repeat(200), "FanOutConsumer::Named"),
            (fan_out(FanOutConsumer::Named("fraud".into())), &"a".repeat(200), ""),
            (fan_out(FanOutConsumer::Named("no spaces".into())), "app", "\"no spaces\""),
            (fan_out(FanOutConsumer::Arn(arn.into())), "app", ""),
            (fan_out(FanOutConsumer::Arn("fraud".into())), "app", "no ARN"),
        ] {
            match config.validate(application) {
                Ok(()) => assert_eq!(message, "", "{config:?}"),
                Err(error) => assert!(!message.is_empty() && error.to_string().contains(message), "{error}"),
            }
        }
    }
}
