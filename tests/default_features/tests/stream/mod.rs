//! A stream of one shard in memory, as somebody writes it who does not use the feature `test-util`.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use kinesis_consumer::kinesis::{
    IteratorPosition, RecordsPage, Shard, ShardIterator, ShardPage, ShardPageRequest, StreamApi,
    StreamDescription, StreamError, StreamErrorKind,
};
use kinesis_consumer::{HashKeyRange, Record, SequenceNumber, ShardId, StreamId};

/// The number of the record at this index: real ones have some 56 digits.
fn number(index: usize) -> SequenceNumber {
    format!("4959000000000000000000000000000000000000000000{index:010}").parse().expect("digits")
}

#[derive(Debug, Clone, Default)]
pub(crate) struct OneShard(Arc<Mutex<Vec<Record>>>);

impl OneShard {
    /// Appends a record for each number.
    pub(crate) fn put(&self, numbers: std::ops::Range<usize>) {
        let mut records = self.0.lock().expect("not poisoned");
        for payload in numbers {
            let record = Record::new(number(records.len() + 1), "key", format!("payload-{payload}"));
            records.push(record);
        }
    }
}

#[async_trait]
impl StreamApi for OneShard {
    async fn describe_stream(&self, stream: &StreamId) -> Result<StreamDescription, StreamError> {
        let arn = format!("arn:aws:kinesis:us-east-1:123456789012:stream/{}", stream.name());
        Ok(StreamDescription::new(arn, 1, SystemTime::UNIX_EPOCH))
    }

    async fn list_shards(&self, _: &StreamId, _: &ShardPageRequest) -> Result<ShardPage, StreamError> {
        let shard = Shard::new("shardId-000000000000", HashKeyRange::FULL, number(0));
        Ok(ShardPage::new(vec![shard], None))
    }

    async fn shard_iterator(
        &self,
        stream: &StreamId,
        _: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, StreamError> {
        let records = self.0.lock().expect("not poisoned");
        let index = match position {
            IteratorPosition::TrimHorizon => 0,
            IteratorPosition::Latest => records.len(),
            IteratorPosition::At(at) => records.partition_point(|record| record.sequence_number < *at),
            IteratorPosition::After(at) => records.partition_point(|record| record.sequence_number <= *at),
            _ => {
                let kind = StreamErrorKind::InvalidArgument;
                return Err(StreamError::new(kind, "GetShardIterator", stream.name()));
            }
        };
        Ok(ShardIterator::from(index.to_string()))
    }

    async fn records(
        &self,
        stream: &StreamId,
        iterator: &ShardIterator,
        limit: u32,
    ) -> Result<RecordsPage, StreamError> {
        let expired = |_| StreamError::new(StreamErrorKind::ExpiredIterator, "GetRecords", stream.name());
        let index: usize = iterator.as_str().parse().map_err(expired)?;
        let records = self.0.lock().expect("not poisoned");
        let mut page = RecordsPage::default();
        page.records = records.iter().skip(index).take(limit as usize).cloned().collect();
        page.next_iterator = Some(ShardIterator::from((index + page.records.len()).to_string()));
        page.millis_behind_latest = Some(0);
        Ok(page)
    }
}
