use std::time::SystemTime;

use super::error::{ErrorCode, ServiceError};
use super::service::Service;
#[cfg(feature = "local")]
use super::settings::Attached;
use super::state::StreamState;
use crate::types::StreamId;

/// The maximum number of consumers registered with a stream.
const CONSUMERS_MAX: usize = 20;

/// A consumer registered for enhanced fan-out.
#[derive(Debug, Clone)]
pub(crate) struct RegisteredConsumer {
    pub(crate) name: String,
    pub(crate) arn: String,
    #[cfg(feature = "local")]
    pub(crate) created: SystemTime,
    #[cfg(feature = "local")]
    pub(crate) attached: Attached,
    active: SystemTime,
}

impl RegisteredConsumer {
    /// Whether it can subscribe yet.
    pub(crate) fn is_active(&self, now: SystemTime) -> bool {
        self.active <= now
    }
}

impl Service {
    /// RegisterStreamConsumer.
    pub(crate) fn register_consumer(
        &mut self,
        now: SystemTime,
        stream: &str,
        name: &str,
    ) -> Result<RegisteredConsumer, ServiceError> {
        let now = self.advance(now);
        let active = now + self.control_delay;
        let stream = self.stream_mut(now, stream)?;
        if !name.parse::<StreamId>().is_ok_and(|id| id.arn().is_none()) {
            return Err(ErrorCode::Validation.error(format!("{name:?} is not a valid consumer name.")));
        }
        if stream.consumers.contains_key(name) {
            return Err(ErrorCode::ResourceInUse
                .error(format!("Consumer {name} of stream {} already exists.", stream.name)));
        }
        if stream.consumers.len() >= CONSUMERS_MAX {
            return Err(ErrorCode::LimitExceeded
                .error(format!("Stream {} has {CONSUMERS_MAX} registered consumers already.", stream.name)));
        }
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let consumer = RegisteredConsumer {
            name: name.to_owned(),
            arn: format!("{}/consumer/{name}:{seconds}", stream.arn),
            #[cfg(feature = "local")]
            created: now,
            #[cfg(feature = "local")]
            attached: Attached::default(),
            active,
        };
        stream.consumers.insert(name.to_owned(), consumer.clone());
        Ok(consumer)
    }

    /// DescribeStreamConsumer by name; also returns whether it is active.
    pub(crate) fn consumer(
        &mut self,
        now: SystemTime,
        stream: &str,
        name: &str,
    ) -> Result<(RegisteredConsumer, bool), ServiceError> {
        let now = self.advance(now);
        let stream = self.stream_mut(now, stream)?;
        let consumer = stream.consumers.get(name).ok_or_else(|| no_consumer(name))?;
        Ok((consumer.clone(), consumer.is_active(now)))
    }

    /// DescribeStreamConsumer by ARN; also returns its stream, and whether it is active.
    pub(crate) fn consumer_by_arn(
        &mut self,
        now: SystemTime,
        arn: &str,
    ) -> Result<(String, RegisteredConsumer, bool), ServiceError> {
        let (stream, name) = stream_and_name(arn).ok_or_else(|| no_consumer(arn))?;
        let (consumer, is_active) = self.consumer(now, &stream, &name)?;
        if consumer.arn != arn {
            return Err(no_consumer(arn));
        }
        Ok((stream, consumer, is_active))
    }

    /// DeregisterStreamConsumer; its subscriptions end.
    pub(crate) fn deregister_consumer(&mut self, now: SystemTime, arn: &str) -> Result<(), ServiceError> {
        let (stream, consumer, _) = self.consumer_by_arn(now, arn)?;
        let stream: &mut StreamState = self.stream_mut(now, &stream)?;
        stream.consumers.remove(&consumer.name);
        stream.subscriptions.retain(|(name, _), _| *name != consumer.name);
        Ok(())
    }
}

pub(super) fn no_consumer(arn: &str) -> ServiceError {
    ErrorCode::ResourceNotFound.error(format!("Consumer {arn} not found."))
}

/// Splits `<stream ARN>/consumer/<name>:<creation time>`.
fn stream_and_name(arn: &str) -> Option<(String, String)> {
    let (stream, consumer) = arn.split_once("/consumer/")?;
    let stream: StreamId = stream.parse().ok()?;
    stream.arn()?;
    let (name, _) = consumer.rsplit_once(':')?;
    Some((stream.name().to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn consumers_are_found_by_name_and_arn_until_deregistered() -> Result<(), ServiceError> {
        let (mut service, now) = (Service::new(), SystemTime::UNIX_EPOCH);
        service.create_stream(now, "s", Some(1))?;
        service.set_control_delay(Duration::from_secs(2));
        let consumer = service.register_consumer(now, "s", "c")?;
        assert!(!service.consumer(now, "s", "c")?.1);
        assert!(service.consumer_by_arn(now + Duration::from_secs(2), &consumer.arn)?.2);
        let again = service.register_consumer(now, "s", "c").map_err(|error| error.code);
        assert_eq!(again.err(), Some(ErrorCode::ResourceInUse));
        service.deregister_consumer(now, &consumer.arn)?;
        let gone = service.consumer_by_arn(now, &consumer.arn).map_err(|error| error.code);
        assert_eq!(gone.err(), Some(ErrorCode::ResourceNotFound));
        Ok(())
    }
}
