use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::consumers::no_consumer;
use super::error::{ErrorCode, ServiceError};
use super::service::Service;
use super::state::{Change, StreamState, StreamStatus};

/// The metrics that a stream can publish for each shard.
pub(crate) const SHARD_METRICS: [&str; 7] = [
    "IncomingBytes",
    "IncomingRecords",
    "IteratorAgeMilliseconds",
    "OutgoingBytes",
    "OutgoingRecords",
    "ReadProvisionedThroughputExceeded",
    "WriteProvisionedThroughputExceeded",
];

/// Settings of a stream that do not affect how it is read and written here.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// The metrics that are enabled for its shards.
    pub(crate) monitoring: BTreeSet<&'static str>,
    /// The KMS key its records are encrypted with.
    pub(crate) key: Option<String>,
}

/// The tags and policy of a stream or consumer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attached {
    pub(crate) tags: BTreeMap<String, String>,
    /// The resource policy, as it was put.
    pub(crate) policy: Option<String>,
}

/// What tags and a policy can be attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    /// A stream, by name.
    Stream(String),
    /// A consumer, by ARN.
    Consumer(String),
}

impl Service {
    /// Changes settings of a stream that is ACTIVE. It is UPDATING until the change is complete.
    pub(crate) fn reconfigure<T>(
        &mut self,
        now: SystemTime,
        stream: &str,
        change: impl FnOnce(&mut StreamState) -> T,
    ) -> Result<T, ServiceError> {
        let now = self.advance(now);
        let due = now + self.control_delay;
        let stream = self.stream_mut(now, stream)?;
        stream.require(&[StreamStatus::Active])?;
        let answer = change(stream);
        stream.schedule(now, due, Change::Activate);
        Ok(answer)
    }

    /// The tags and policy of `resource`.
    pub(crate) fn attached(
        &mut self,
        now: SystemTime,
        resource: &Resource,
    ) -> Result<&mut Attached, ServiceError> {
        match resource {
            Resource::Stream(name) => Ok(&mut self.stream_mut(now, name)?.attached),
            Resource::Consumer(arn) => {
                let (stream, consumer, _) = self.consumer_by_arn(now, arn)?;
                let consumers = &mut self.stream_mut(now, &stream)?.consumers;
                let consumer = consumers.get_mut(&consumer.name).ok_or_else(|| no_consumer(arn))?;
                Ok(&mut consumer.attached)
            }
        }
    }

    /// UntagResource. A stream must be ACTIVE.
    pub(crate) fn untag(
        &mut self,
        now: SystemTime,
        resource: &Resource,
        keys: &[&str],
    ) -> Result<(), ServiceError> {
        if let Resource::Stream(name) = resource {
            self.stream_mut(now, name)?.require(&[StreamStatus::Active])?;
        }
        self.attached(now, resource)?.tags.retain(|key, _| !keys.contains(&key.as_str()));
        Ok(())
    }
}

/// The shard-level metrics that a request names; `ALL` stands for all.
pub(crate) fn shard_metrics(names: &[&str]) -> Result<BTreeSet<&'static str>, ServiceError> {
    let mut metrics = BTreeSet::new();
    for name in names {
        if *name == "ALL" {
            metrics.extend(SHARD_METRICS);
            continue;
        }
        let known = SHARD_METRICS.into_iter().find(|known| known == name);
        let unknown = || ErrorCode::Validation.error(format!("{name} is not a shard-level metric."));
        metrics.insert(known.ok_or_else(unknown)?);
    }
    if metrics.is_empty() {
        return Err(ErrorCode::Validation.error("ShardLevelMetrics must name at least one metric."));
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn a_stream_is_updating_until_its_settings_are_changed() {
        let mut service = Service::new();
        service.create_stream(NOW, "s", Some(1)).unwrap();
        service.set_control_delay(Duration::from_secs(2));
        service.reconfigure(NOW, "s", |stream| stream.settings.key = Some("k".to_owned())).unwrap();
        let again = service.reconfigure(NOW, "s", |_| ()).unwrap_err();
        assert_eq!(again.code, ErrorCode::ResourceInUse);
        let later = NOW + Duration::from_secs(2);
        service
            .reconfigure(later, "s", |stream| assert_eq!(stream.settings.key.as_deref(), Some("k")))
            .unwrap();
    }

    #[test]
    fn a_stream_and_its_consumers_have_tags_of_their_own() {
        let mut service = Service::new();
        service.create_stream(NOW, "s", Some(1)).unwrap();
        let arn = service.register_consumer(NOW, "s", "c").unwrap().arn;
        let (stream, consumer) = (Resource::Stream("s".to_owned()), Resource::Consumer(arn.clone()));
        for (resource, value) in [(&stream, "of the stream"), (&consumer, "of the consumer")] {
            let tags = &mut service.attached(NOW, resource).unwrap().tags;
            tags.insert("key".to_owned(), value.to_owned());
            tags.insert("other".to_owned(), String::new());
        }
        service.untag(NOW, &consumer, &["other", "none"]).unwrap();
        assert_eq!(service.attached(NOW, &consumer).unwrap().tags["key"], "of the consumer");
        assert_eq!(service.attached(NOW, &consumer).unwrap().tags.len(), 1);
        assert_eq!(service.attached(NOW, &stream).unwrap().tags.len(), 2);
        service.deregister_consumer(NOW, &arn).unwrap();
        assert_eq!(service.attached(NOW, &consumer).unwrap_err().code, ErrorCode::ResourceNotFound);
    }

    #[test]
    fn metrics_are_named_one_by_one_or_all_at_once() {
        let metrics = |names: &[&str]| shard_metrics(names).map(|metrics| metrics.len()).map_err(|e| e.code);
        assert_eq!(metrics(&["ALL"]), Ok(7));
        assert_eq!(metrics(&["IncomingBytes", "IncomingBytes", "OutgoingBytes"]), Ok(2));
        assert_eq!(metrics(&["IncomingBytes", "IncomingBits"]), Err(ErrorCode::Validation));
        assert_eq!(metrics(&[]), Err(ErrorCode::Validation));
    }
}
