use std::time::Duration;

use async_trait::async_trait;

use super::error::ServiceError;
use super::faults::{Call, Fault};
use super::kinesis::SimulatedKinesis;
use super::list::{ListFilter, Listing};
use super::live::SimulatedSubscription;
use crate::kinesis::{
    IteratorPosition, RecordsPage, ShardFilter, ShardIterator, ShardPage, ShardPageRequest, StreamApi,
    StreamConsumerDescription, StreamConsumerStatus, StreamDescription, StreamError, StreamErrorKind,
    Subscription, SubscriptionEvent,
};
use crate::types::{ConsumerArn, ShardId, StreamId};

#[async_trait]
impl StreamApi for SimulatedKinesis {
    async fn describe_stream(&self, stream: &StreamId) -> Result<StreamDescription, StreamError> {
        let call = Call { operation: "DescribeStreamSummary", stream: stream.name(), shard: None };
        self.answer(call, |_| {
            self.look(|service, now| {
                let stream = service.describe_stream(now, call.stream)?;
                let open = u32::try_from(stream.open_shards()).unwrap_or(u32::MAX);
                let arn = stream.arn.as_str();
                let mut description = StreamDescription::new(arn, open, stream.creation_time());
                description.retention = Some(stream.retention);
                Ok(description)
            })
        })
        .await
    }

    async fn list_shards(
        &self,
        stream: &StreamId,
        request: &ShardPageRequest,
    ) -> Result<ShardPage, StreamError> {
        let call = Call { operation: "ListShards", stream: stream.name(), shard: None };
        let page = |listing: Listing<'_>| {
            ShardPage::new(listing.shards.iter().map(|shard| shard.describe()).collect(), listing.next_token)
        };
        self.answer(call, |_| {
            self.look(|service, now| match request {
                ShardPageRequest::First(filter) => {
                    let filter = filter.map_or(ListFilter::FromTrimHorizon, ListFilter::from);
                    service.list_shards(now, call.stream, filter, None).map(page)
                }
                ShardPageRequest::Next(token) => service.list_more_shards(now, token, None).map(page),
            })
        })
        .await
    }

    async fn shard_iterator(
        &self,
        stream: &StreamId,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, StreamError> {
        let call = Call { operation: "GetShardIterator", stream: stream.name(), shard: Some(shard.as_str()) };
        self.answer(call, |_| {
            self.look(|service, now| service.shard_iterator(now, call.stream, shard.as_str(), position))
        })
        .await
        .map(ShardIterator::from)
    }

    async fn records(
        &self,
        stream: &StreamId,
        iterator: &ShardIterator,
        limit: u32,
    ) -> Result<RecordsPage, StreamError> {
        let shard = self.service().shard_of_iterator(iterator.as_str());
        let call = Call {
            operation: "GetRecords",
            stream: stream.name(),
            shard: shard.as_ref().map(ShardId::as_str),
        };
        let page = self
            .answer(call, |is_empty| {
                self.look(|service, now| match is_empty {
                    true => service.empty_page(now, iterator.as_str()),
                    false => service.records(now, iterator.as_str(), limit),
                })
            })
            .await?;
        Ok(RecordsPage {
            records: page.records.iter().map(|stored| stored.record.clone()).collect(),
            next_iterator: page.next_iterator.map(ShardIterator::from),
            millis_behind_latest: Some(millis(page.behind_latest)),
            child_shards: page.children,
        })
    }

    async fn describe_consumer(
        &self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumerDescription, StreamError> {
        let stream = stream_named(stream_arn);
        let call = Call { operation: "DescribeStreamConsumer", stream, shard: None };
        self.answer(call, |_| {
            self.look(|service, now| {
                let (consumer, is_active) = service.consumer(now, stream, name)?;
                let status =
                    if is_active { StreamConsumerStatus::Active } else { StreamConsumerStatus::Creating };
                Ok(StreamConsumerDescription::new(consumer.arn, status))
            })
        })
        .await
    }

    async fn register_consumer(
        &self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumerDescription, StreamError> {
        let stream = stream_named(stream_arn);
        let call = Call { operation: "RegisterStreamConsumer", stream, shard: None };
        // The response says CREATING even if the consumer is active at once.
        let describe = |arn: String| StreamConsumerDescription::new(arn, StreamConsumerStatus::Creating);
        self.answer(call, |_| self.register_consumer(stream, name).map(describe)).await
    }

    async fn deregister_consumer(&self, consumer: &ConsumerArn) -> Result<(), StreamError> {
        let call = Call { operation: "DeregisterStreamConsumer", stream: "", shard: None };
        self.answer(call, |_| self.deregister_consumer(consumer.as_str())).await
    }

    async fn subscribe(
        &self,
        stream: &StreamId,
        consumer: &ConsumerArn,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<Box<dyn Subscription>, StreamError> {
        let call = Call { operation: "SubscribeToShard", stream: stream.name(), shard: Some(shard.as_str()) };
        let subscription = self.answer(call, |_| self.subscribe(consumer.as_str(), shard, position)).await?;
        Ok(Box::new(PortSubscription { subscription, stream: stream.clone(), shard: shard.clone() }))
    }
}

/// A subscription whose events are calls of the operation `SubscribeToShardEvent` to the fault hook: an
/// error breaks the subscription, a delay delays the event.
#[derive(Debug)]
struct PortSubscription {
    subscription: SimulatedSubscription,
    stream: StreamId,
    shard: ShardId,
}

#[async_trait]
impl Subscription for PortSubscription {
    async fn next(&mut self) -> Option<Result<SubscriptionEvent, StreamError>> {
        let operation = "SubscribeToShardEvent";
        let call = Call { operation, stream: self.stream.name(), shard: Some(self.shard.as_str()) };
        let kinesis = self.subscription.kinesis().clone();
        if let Err(error) = kinesis.answer(call, |_| Ok(())).await {
            return Some(Err(error));
        }
        let event = self.subscription.next().await?;
        Some(event.map_err(|error| {
            StreamError::new(error.code.kind(), operation, self.shard.as_str()).with_source(error)
        }))
    }
}

fn stream_named(arn: &str) -> &str {
    arn.rsplit_once('/').map_or(arn, |(_, name)| name)
}

impl SimulatedKinesis {
    /// Makes a call with the fault that is injected into it, if any. The argument of `operation` says
    /// whether it must return no records.
    async fn answer<T>(
        &self,
        call: Call<'_>,
        operation: impl FnOnce(bool) -> Result<T, ServiceError>,
    ) -> Result<T, StreamError> {
        // A real call always suspends. So does this one; otherwise a busy reader would starve its
        // runtime.
        tokio::task::yield_now().await;
        let subject = || call.shard.unwrap_or(call.stream).to_owned();
        let fail = |kind| StreamError::new(kind, call.operation, subject());
        let fault = self.fault_for(&call);
        match fault {
            Some(Fault::Error(kind)) => return Err(fail(kind)),
            Some(Fault::Delay(delay)) => self.clock().sleep(delay).await,
            Some(Fault::NoAnswer(_) | Fault::EmptyPage) | None => {}
        }
        let result = operation(fault == Some(Fault::EmptyPage));
        if let Some(Fault::NoAnswer(after)) = fault {
            self.clock().sleep(after).await;
            return Err(fail(StreamErrorKind::Unavailable));
        }
        result.map_err(|error| fail(error.code.kind()).with_source(error))
    }
}

impl From<ShardFilter> for ListFilter {
    fn from(filter: ShardFilter) -> Self {
        match filter {
            ShardFilter::AtLatest => Self::AtLatest,
            ShardFilter::AtTrimHorizon => Self::AtTrimHorizon,
            ShardFilter::AtTimestamp(time) => Self::AtTimestamp(time),
            ShardFilter::FromTimestamp(time) => Self::FromTimestamp(time),
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::types::Record;

    fn stream() -> StreamId {
        "orders".parse().expect("a stream name")
    }

    fn kinesis(shards: u32) -> SimulatedKinesis {
        let kinesis =
            SimulatedKinesis::starting_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_000_000));
        kinesis.create_stream("orders", shards).unwrap();
        kinesis
    }

    fn texts(records: &[Record]) -> Vec<&str> {
        records.iter().map(|record| std::str::from_utf8(&record.data).unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_is_read_to_its_end_and_on_in_its_children() {
        let kinesis = kinesis(1);
        let parent = kinesis.put("orders", "k", "1").unwrap().shard;
        let (lower, upper) = kinesis.split("orders", &parent).unwrap();
        let position = IteratorPosition::TrimHorizon;
        let iterator = kinesis.shard_iterator(&stream(), &parent, &position).await.unwrap();
        let page = kinesis.records(&stream(), &iterator, 100).await.unwrap();
        assert_eq!(texts(&page.records), ["1"]);
        assert_eq!(page.next_iterator, None);
        let children: Vec<_> = page.child_shards.iter().map(|child| child.id.clone()).collect();
        assert_eq!(children, [lower, upper]);
        assert!(page.child_shards.iter().all(|child| child.parents == [parent.clone()].into()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_injected_fault_is_what_the_caller_sees() {
        let kinesis = kinesis(1);
        kinesis.set_faults(|call| {
            (call.operation == "ListShards").then_some(Fault::Error(StreamErrorKind::Throttled))
        });
        let all = ShardPageRequest::First(None);
        let error = kinesis.list_shards(&stream(), &all).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (StreamErrorKind::Throttled, "ListShards"));
        assert!(kinesis.describe_stream(&stream()).await.is_ok());
        assert!(kinesis.with_own_faults().list_shards(&stream(), &all).await.is_ok());
        kinesis.clear_faults();
        assert!(kinesis.list_shards(&stream(), &all).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn empty_pages_lose_nothing() {
        let kinesis = kinesis(1);
        let shard = kinesis.put("orders", "k", "1").unwrap().shard;
        let start = IteratorPosition::TrimHorizon;
        let iterator = kinesis.shard_iterator(&stream(), &shard, &start).await.unwrap();
        kinesis.set_faults(|call| {
            assert!(call.shard == Some("shardId-000000000000"), "{call:?}");
            Some(Fault::EmptyPage)
        });
        let page = kinesis.records(&stream(), &iterator, 1).await.unwrap();
        assert!(page.records.is_empty());
        kinesis.clear_faults();
        let page = kinesis.records(&stream(), &page.next_iterator.unwrap(), 1).await.unwrap();
        assert_eq!(texts(&page.records), ["1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn iterators_expire_and_records_are_forgotten_as_time_passes() {
        let kinesis = kinesis(1);
        let shard = kinesis.put("orders", "k", "old").unwrap().shard;
        let start = IteratorPosition::TrimHorizon;
        let iterator = kinesis.shard_iterator(&stream(), &shard, &start).await.unwrap();
        tokio::time::advance(Duration::from_secs(301)).await;
        let error = kinesis.records(&stream(), &iterator, 1).await.unwrap_err();
        assert_eq!(error.kind(), StreamErrorKind::ExpiredIterator);
        tokio::time::advance(Duration::from_secs(24 * 3600 - 300)).await;
        kinesis.put("orders", "k", "new").unwrap();
        let iterator = kinesis.shard_iterator(&stream(), &shard, &start).await.unwrap();
        assert_eq!(texts(&kinesis.records(&stream(), &iterator, 9).await.unwrap().records), ["new"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_pages_by_token_alone() {
        let kinesis = kinesis(1001);
        let first = kinesis.list_shards(&stream(), &ShardPageRequest::First(None)).await.unwrap();
        assert_eq!(first.shards.len(), 1000);
        let next = ShardPageRequest::Next(first.next_token.unwrap());
        let second = kinesis.list_shards(&stream(), &next).await.unwrap();
        assert_eq!((second.shards.len(), second.next_token), (1, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_gets_what_is_written_while_it_waits() {
        let kinesis = kinesis(1);
        let arn = kinesis.register_consumer("orders", "c").unwrap();
        let shard = kinesis.open_shards("orders").unwrap()[0].id.clone();
        let mut subscription = kinesis.subscribe(&arn, &shard, &IteratorPosition::Latest).unwrap();
        assert!(subscription.next().await.unwrap().unwrap().records.is_empty());
        let waiting = tokio::spawn(async move { subscription.next().await });
        tokio::task::yield_now().await;
        kinesis.put("orders", "k", "1").unwrap();
        let event = waiting.await.unwrap().unwrap().unwrap();
        assert_eq!(texts(&event.records), ["1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_stream_is_not_found() {
        let error = SimulatedKinesis::new().describe_stream(&stream()).await.unwrap_err();
        assert_eq!(error.kind(), StreamErrorKind::NotFound);
    }
}
