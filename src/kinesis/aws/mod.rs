//! The adapter to the Kinesis service.

mod cbor;
mod cbor_interceptor;
mod convert;
mod event_frames;
mod failure;
mod negotiation;
mod pool_loads;
mod protocol_choice;
#[cfg(test)]
#[cfg(feature = "local")]
mod records_test;
mod subscription;
mod subscription_pools;

use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::get_records::{GetRecordsError, GetRecordsOutput};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{self as sdk, ShardFilterType, ShardIteratorType};
use bytes::Bytes;

use self::cbor_interceptor::CborInterceptor;
use self::failure::Request;
use self::negotiation::Negotiation;
use self::subscription_pools::SubscriptionPools;
use super::{
    IteratorPosition, RecordsPage, ShardFilter, ShardIterator, ShardPage, ShardPageRequest, StreamApi,
    StreamConsumerDescription, StreamDescription, StreamError, Subscription,
};
use crate::connections::{Connections, InFlight, PoolNumber, is_timeout};
use crate::kinesis::KinesisProtocol;
use crate::runtime::Clock;
use crate::types::{ConsumerArn, ShardId, StreamId};

/// Kinesis through the AWS SDK: one request per call, with a timeout and without the SDK's retries.
#[derive(Debug)]
pub(crate) struct AwsStream {
    requests: Connections<Client>,
    subscriptions: SubscriptionPools,
    clock: Clock,
    request_timeout: Duration,
    /// The formats of GetRecords and of SubscribeToShard.
    records_format: Negotiation,
    events_format: Negotiation,
}

impl AwsStream {
    pub(crate) fn new(
        client: &Client,
        clock: Clock,
        request_timeout: Duration,
        protocol: KinesisProtocol,
    ) -> Self {
        // The callers decide about pacing and back-off, because they know the budget of the shard.
        let config = client.config().to_builder().retry_config(RetryConfig::disabled()).build();
        let open = move |pool: PoolNumber| {
            let timeouts = pool.timeouts(config.timeout_config());
            Client::from_conf(config.to_builder().timeout_config(timeouts).build())
        };
        Self {
            requests: Connections::new(clock.clone(), open.clone()),
            subscriptions: SubscriptionPools::new(clock.clone(), open),
            records_format: Negotiation::new("GetRecords", protocol, clock.clone()),
            events_format: Negotiation::new("SubscribeToShard", protocol, clock.clone()),
            clock,
            request_timeout,
        }
    }

    /// GetRecords in CBOR; `None` if the response, and so perhaps the request, was not understood.
    async fn records_in_cbor(
        &self,
        request: Request<'_>,
        iterator: &ShardIterator,
        limit: u32,
        stream_arn: Option<&str>,
    ) -> Option<Result<RecordsPage, StreamError>> {
        let interceptor =
            CborInterceptor::new(cbor::CONTENT_TYPE, cbor::request(iterator, limit, stream_arn));
        // The SDK needs these members, for example to choose the endpoint.
        let call = self.client().get_records().shard_iterator(iterator.as_str());
        let call = call.set_stream_arn(stream_arn.map(ToOwned::to_owned)).limit(limit.cast_signed());
        let in_flight = self.requests.watch(self.request_timeout);
        let answered = self.clock.timeout(self.request_timeout, async {
            let answer = call.customize().interceptor(interceptor.clone()).send().await;
            match interceptor.response() {
                Some(raw) => Answer::Cbor(raw.status, raw.read().await),
                None => Answer::Sdk(Box::new(answer)),
            }
        });
        let answered = answered.await;
        match &answered {
            Err(_) => in_flight.timed_out(),
            Ok(Answer::Sdk(answer)) => settle(in_flight, answer),
            Ok(Answer::Cbor(..)) => in_flight.answered(),
        }
        match answered {
            Err(_) => Some(Err(request.timed_out(self.request_timeout))),
            Ok(Answer::Cbor(200, Ok(body))) => {
                let page = cbor::page(&body).ok()?;
                self.records_format.cbor_answered();
                Some(Ok(page))
            }
            Ok(Answer::Cbor(status, Ok(body))) => {
                let (code, message) = cbor::failure(&body)?;
                self.records_format.cbor_answered();
                Some(Err(request.refused(&code, &message, status)))
            }
            Ok(Answer::Cbor(_, Err(failure))) => Some(Err(request.interrupted(failure))),
            Ok(Answer::Sdk(answer)) => match *answer {
                Ok(answer) => Some(page(request, answer)),
                Err(SdkError::ServiceError(_) | SdkError::ResponseError(_)) => None,
                Err(failure) => Some(Err(request.failed(&failure))),
            },
        }
    }

    async fn send<T, E>(
        &self,
        request: Request<'_>,
        response: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, StreamError>
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let in_flight = self.requests.watch(self.request_timeout);
        match self.clock.timeout(self.request_timeout, response).await {
            Ok(answer) => {
                settle(in_flight, &answer);
                answer.map_err(|failure| request.failed(&failure))
            }
            Err(_) => {
                in_flight.timed_out();
                Err(request.timed_out(self.request_timeout))
            }
        }
    }

    /// The client for the next request.
    fn client(&self) -> Client {
        self.requests.clients()
    }
}

/// Notes whether there was a response.
fn settle<C: Clone, T, E>(in_flight: InFlight<C>, answer: &Result<T, SdkError<E, HttpResponse>>) {
    match answer {
        Err(failure) if is_timeout(failure) => in_flight.timed_out(),
        _ => in_flight.answered(),
    }
}

#[cfg(feature = "internals")]
pub(crate) use self::subscription::events_from_frames;

/// The page in a CBOR response, for fuzzing.
#[cfg(feature = "internals")]
pub(crate) fn page_from_cbor(response: &Bytes) -> Option<RecordsPage> {
    cbor::page(response).ok()
}

/// The response to a request in CBOR.
enum Answer {
    /// The status and the body.
    Cbor(u16, Result<Bytes, BoxError>),
    /// A JSON response, or no response.
    Sdk(Box<Result<GetRecordsOutput, SdkError<GetRecordsError, HttpResponse>>>),
}

/// A record whose sequence number cannot be parsed fails the page: without it, neither order nor
/// checkpoints would be correct. The shard waits, visibly, and loses nothing.
fn page(request: Request<'_>, answer: GetRecordsOutput) -> Result<RecordsPage, StreamError> {
    convert::page(answer).ok_or_else(|| request.malformed("an invalid sequence number or range of hash keys"))
}

/// The name of the stream, unless it was given by its ARN: the service accepts only one of the two.
fn name(stream: &StreamId) -> Option<String> {
    stream.arn().is_none().then(|| stream.name().to_owned())
}

fn arn(stream: &StreamId) -> Option<String> {
    stream.arn().map(ToOwned::to_owned)
}

#[async_trait]
impl StreamApi for AwsStream {
    async fn describe_stream(&self, stream: &StreamId) -> Result<StreamDescription, StreamError> {
        let request = Request::new("DescribeStreamSummary", stream);
        let call = self.client().describe_stream_summary();
        let call = call.set_stream_name(name(stream)).set_stream_arn(arn(stream));
        let answer = self.send(request, call.send()).await?;
        convert::description(answer).ok_or_else(|| request.malformed("a response without a description"))
    }

    async fn list_shards(
        &self,
        stream: &StreamId,
        page: &ShardPageRequest,
    ) -> Result<ShardPage, StreamError> {
        let request = Request::new("ListShards", stream);
        let call = self.client().list_shards();
        let call = match page {
            ShardPageRequest::First(filter) => call
                .set_stream_name(name(stream))
                .set_stream_arn(arn(stream))
                .set_shard_filter(filter.and_then(shard_filter)),
            ShardPageRequest::Next(token) => call.next_token(token),
        };
        let answer = self.send(request, call.send()).await?;
        let shards = answer.shards.unwrap_or_default().into_iter().map(convert::shard);
        let shards: Option<Vec<_>> = shards.collect();
        let shards = shards.ok_or_else(|| {
            request.malformed("a shard with an invalid sequence number or range of hash keys")
        })?;
        Ok(ShardPage::new(shards, answer.next_token))
    }

    async fn shard_iterator(
        &self,
        stream: &StreamId,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, StreamError> {
        let request = Request::new("GetShardIterator", stream).of_shard(shard);
        let call = self.client().get_shard_iterator().shard_id(shard.as_str());
        let call = call.set_stream_name(name(stream)).set_stream_arn(arn(stream));
        let call = match position {
            IteratorPosition::TrimHorizon => call.shard_iterator_type(ShardIteratorType::TrimHorizon),
            IteratorPosition::Latest => call.shard_iterator_type(ShardIteratorType::Latest),
            IteratorPosition::AtTimestamp(time) => {
                call.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(DateTime::from(*time))
            }
            IteratorPosition::At(number) => call
                .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                .starting_sequence_number(number.to_string()),
            IteratorPosition::After(number) => call
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(number.to_string()),
        };
        let answer = self.send(request, call.send()).await?;
        answer
            .shard_iterator
            .map(Into::into)
            .ok_or_else(|| request.malformed("a response without an iterator"))
    }

    async fn records(
        &self,
        stream: &StreamId,
        iterator: &ShardIterator,
        limit: u32,
    ) -> Result<RecordsPage, StreamError> {
        let request = Request::new("GetRecords", stream);
        let used_cbor = self.records_format.is_cbor();
        if used_cbor && let Some(answer) = self.records_in_cbor(request, iterator, limit, stream.arn()).await
        {
            return answer;
        }
        let call = self.client().get_records().shard_iterator(iterator.as_str()).set_stream_arn(arn(stream));
        let call = call.limit(limit.cast_signed());
        let answer = self.send(request, call.send()).await?;
        if used_cbor {
            self.records_format.only_json_answered();
        }
        page(request, answer)
    }

    async fn describe_consumer(
        &self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumerDescription, StreamError> {
        let request = Request::about("DescribeStreamConsumer", &stream_arn);
        let call = self.client().describe_stream_consumer().stream_arn(stream_arn).consumer_name(name);
        let answer = self.send(request, call.send()).await?;
        let description = answer
            .consumer_description
            .ok_or_else(|| request.malformed("a response without a description"))?;
        Ok(convert::consumer(description.consumer_arn, &description.consumer_status))
    }

    async fn register_consumer(
        &self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumerDescription, StreamError> {
        let request = Request::about("RegisterStreamConsumer", &stream_arn);
        let call = self.client().register_stream_consumer().stream_arn(stream_arn).consumer_name(name);
        let answer = self.send(request, call.send()).await?;
        let consumer =
            answer.consumer.ok_or_else(|| request.malformed("a response without a description"))?;
        Ok(convert::consumer(consumer.consumer_arn, &consumer.consumer_status))
    }

    async fn deregister_consumer(&self, consumer: &ConsumerArn) -> Result<(), StreamError> {
        let request = Request::about("DeregisterStreamConsumer", consumer);
        let call = self.client().deregister_stream_consumer().consumer_arn(consumer.as_str());
        self.send(request, call.send()).await.map(drop)
    }

    async fn subscribe(
        &self,
        stream: &StreamId,
        consumer: &ConsumerArn,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<Box<dyn Subscription>, StreamError> {
        self.open_subscription(stream, consumer, shard, position).await
    }
}

/// `None` if the SDK rejects the filter, which cannot happen because all required members are set.
fn shard_filter(filter: ShardFilter) -> Option<sdk::ShardFilter> {
    let (kind, time) = match filter {
        ShardFilter::AtLatest => (ShardFilterType::AtLatest, None),
        ShardFilter::AtTrimHorizon => (ShardFilterType::AtTrimHorizon, None),
        ShardFilter::AtTimestamp(time) => (ShardFilterType::AtTimestamp, Some(DateTime::from(time))),
        ShardFilter::FromTimestamp(time) => (ShardFilterType::FromTimestamp, Some(DateTime::from(time))),
    };
    sdk::ShardFilter::builder().r#type(kind).set_timestamp(time).build().ok()
}
