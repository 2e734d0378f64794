//! Records as they arrive.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{ChildShard, Record, ShardIteratorType};
use kinesis_consumer::StreamId;
use serde_json::json;

use crate::args::Tail;
use crate::fleet::interrupted_within;
use crate::times::parse_time;
use crate::{Ended, Failure, with_causes};

/// Each shard allows five reads a second; consumers want some, too.
const PAUSE: Duration = Duration::from_secs(1);
const RECORDS_MAX: i32 = 1000;

struct Source {
    shard: String,
    iterator: String,
}

pub(crate) async fn run(config: &SdkConfig, args: &Tail) -> Result<Ended, Failure> {
    let from = args.from.as_deref().map(|text| parse_time(text, SystemTime::now())).transpose()?;
    let reader = Reader { client: Client::new(config), stream: &args.stream };
    let mut sources = VecDeque::new();
    for shard in reader.shards(from).await? {
        if args.shards.is_empty() || args.shards.contains(&shard) {
            let iterator = reader.open(&shard, from).await?;
            sources.push_back(Source { shard, iterator });
        }
    }
    if sources.is_empty() {
        return Err(format!("stream {} has no such shard", args.stream).into());
    }
    let mut left = args.limit.unwrap_or(usize::MAX);
    loop {
        for _ in 0..sources.len() {
            let Some(source) = sources.pop_front() else { break };
            let (records, next, children) = reader.read(&source).await?;
            for record in &records {
                print(args, &source.shard, record);
                left = left.saturating_sub(1);
                if left == 0 {
                    return Ok(Ended::Done);
                }
            }
            if let Some(iterator) = next {
                sources.push_back(Source { iterator, ..source });
                continue;
            }
            for child in children {
                // A merged shard has two parents: its records come once.
                let is_read = sources.iter().any(|source| source.shard == child.shard_id);
                if !is_read {
                    let iterator = reader.open(&child.shard_id, Some(SystemTime::UNIX_EPOCH)).await?;
                    sources.push_back(Source { shard: child.shard_id, iterator });
                }
            }
        }
        if sources.is_empty() || interrupted_within(PAUSE).await {
            return Ok(Ended::Done);
        }
    }
}

struct Reader<'a> {
    client: Client,
    stream: &'a StreamId,
}

impl Reader<'_> {
    fn name(&self) -> Option<String> {
        self.stream.arn().is_none().then(|| self.stream.name().to_owned())
    }

    fn arn(&self) -> Option<String> {
        self.stream.arn().map(ToOwned::to_owned)
    }

    fn failed(&self, error: impl Into<aws_sdk_kinesis::Error>) -> Failure {
        let error: aws_sdk_kinesis::Error = error.into();
        format!("stream {} cannot be read: {}", self.stream, with_causes(&error)).into()
    }

    /// The shards that are open, or were at `from`.
    async fn shards(&self, from: Option<SystemTime>) -> Result<Vec<String>, Failure> {
        use aws_sdk_kinesis::types::{ShardFilter, ShardFilterType};
        let filter = match from {
            Some(time) => {
                ShardFilter::builder().r#type(ShardFilterType::AtTimestamp).timestamp(DateTime::from(time))
            }
            None => ShardFilter::builder().r#type(ShardFilterType::AtLatest),
        };
        let mut shards = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let list = self.client.list_shards();
            let list = match token {
                Some(token) => list.next_token(token),
                None => {
                    let list = list.set_stream_name(self.name()).set_stream_arn(self.arn());
                    list.set_shard_filter(filter.clone().build().ok())
                }
            };
            let page = list.send().await.map_err(|error| self.failed(error))?;
            shards.extend(page.shards.unwrap_or_default().into_iter().map(|shard| shard.shard_id));
            token = page.next_token;
            if token.is_none() {
                return Ok(shards);
            }
        }
    }

    async fn open(&self, shard: &str, from: Option<SystemTime>) -> Result<String, Failure> {
        let open = self.client.get_shard_iterator().shard_id(shard);
        let open = open.set_stream_name(self.name()).set_stream_arn(self.arn());
        let open = match from {
            Some(SystemTime::UNIX_EPOCH) => open.shard_iterator_type(ShardIteratorType::TrimHorizon),
            Some(time) => {
                open.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(DateTime::from(time))
            }
            None => open.shard_iterator_type(ShardIteratorType::Latest),
        };
        let answer = open.send().await.map_err(|error| self.failed(error))?;
        answer.shard_iterator.ok_or_else(|| format!("shard {shard} cannot be opened").into())
    }

    async fn read(&self, source: &Source) -> Result<(Vec<Record>, Option<String>, Vec<ChildShard>), Failure> {
        let read = self.client.get_records().shard_iterator(&source.iterator).limit(RECORDS_MAX);
        let page = read.set_stream_arn(self.arn()).send().await.map_err(|error| self.failed(error))?;
        Ok((page.records, page.next_shard_iterator, page.child_shards.unwrap_or_default()))
    }
}

fn print(args: &Tail, shard: &str, record: &Record) {
    let bytes = record.data.as_ref();
    let data = String::from_utf8_lossy(bytes);
    if args.json {
        let arrival = record.approximate_arrival_timestamp.and_then(|at| at.to_millis().ok());
        let line = json!({
            "shard": shard,
            "sequenceNumber": record.sequence_number,
            "partitionKey": record.partition_key,
            "arrivalMillis": arrival,
            "data": data,
        });
        println!("{line}");
        return;
    }
    println!(
        "{shard} {} {}  {data}",
        record.sequence_number,
        record.partition_key.as_deref().unwrap_or_default()
    );
}
