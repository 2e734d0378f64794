//! The Kinesis service behind the port.

mod convert;
mod failure;

use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{self as sdk, ShardFilterType, ShardIteratorType};

use self::failure::Request;
use super::{
    IteratorPosition, RecordsPage, ShardFilter, ShardIterator, ShardPage, ShardPageRequest, StreamApi,
    StreamDescription, StreamError,
};
use crate::runtime::Clock;
use crate::types::{ShardId, StreamId};

/// Kinesis through the AWS SDK: one request per call, without the SDK's retries, each with a timeout.
#[derive(Debug)]
pub(crate) struct AwsStream {
    client: Client,
    clock: Clock,
    request_timeout: Duration,
}

impl AwsStream {
    pub(crate) fn new(client: &Client, clock: Clock, request_timeout: Duration) -> Self {
        // Pacing and back-off are decided above, where the shard's budget is known.
        let single_attempt = client.config().to_builder().retry_config(RetryConfig::disabled()).build();
        Self { client: Client::from_conf(single_attempt), clock, request_timeout }
    }

    async fn send<T, E>(
        &self,
        request: Request<'_>,
        response: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, StreamError>
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        match self.clock.timeout(self.request_timeout, response).await {
            Ok(answer) => answer.map_err(|failure| request.failed(&failure)),
            Err(_) => Err(request.timed_out(self.request_timeout)),
        }
    }
}

/// The name of the stream, unless it was given by its ARN: the service wants one of the two.
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
        let call = self.client.describe_stream_summary();
        let call = call.set_stream_name(name(stream)).set_stream_arn(arn(stream));
        let answer = self.send(request, call.send()).await?;
        convert::description(answer).ok_or_else(|| request.malformed("no description"))
    }

    async fn list_shards(
        &self,
        stream: &StreamId,
        page: &ShardPageRequest,
    ) -> Result<ShardPage, StreamError> {
        let request = Request::new("ListShards", stream);
        let call = self.client.list_shards();
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
        let shards = shards.ok_or_else(|| request.malformed("a shard with numbers that are none"))?;
        Ok(ShardPage::new(shards, answer.next_token))
    }

    async fn shard_iterator(
        &self,
        stream: &StreamId,
        shard: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, StreamError> {
        let request = Request::new("GetShardIterator", stream).of_shard(shard);
        let call = self.client.get_shard_iterator().shard_id(shard.as_str());
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
        answer.shard_iterator.map(Into::into).ok_or_else(|| request.malformed("no iterator"))
    }

    /// A record whose sequence number cannot be read fails the page: without it, neither order nor
    /// checkpoints would hold. The shard waits, visibly, and loses nothing.
    async fn records(
        &self,
        stream: &StreamId,
        iterator: &ShardIterator,
        limit: u32,
    ) -> Result<RecordsPage, StreamError> {
        let request = Request::new("GetRecords", stream);
        let call = self.client.get_records().shard_iterator(iterator.as_str()).set_stream_arn(arn(stream));
        let call = call.limit(limit.cast_signed());
        let answer = self.send(request, call.send()).await?;
        convert::page(answer).ok_or_else(|| request.malformed("a record or shard with numbers that are none"))
    }
}

/// `None` if the SDK refuses the filter, which has all it requires.
fn shard_filter(filter: ShardFilter) -> Option<sdk::ShardFilter> {
    let (kind, time) = match filter {
        ShardFilter::AtLatest => (ShardFilterType::AtLatest, None),
        ShardFilter::AtTrimHorizon => (ShardFilterType::AtTrimHorizon, None),
        ShardFilter::AtTimestamp(time) => (ShardFilterType::AtTimestamp, Some(DateTime::from(time))),
    };
    sdk::ShardFilter::builder().r#type(kind).set_timestamp(time).build().ok()
}
