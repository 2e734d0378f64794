//! The baselines: GetRecords back to back, and SubscribeToShard, one task per shard, records dropped.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{ShardIteratorType, StartingPosition, SubscribeToShardEventStream};
use kinesis_consumer::testing::LocalAws;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::corpus::STREAM;

/// How records are read.
#[derive(Clone)]
pub(crate) enum Way {
    Polling,
    /// As the consumer of this ARN.
    FanOut(String),
}

/// Reads until every shard has given its part of the Kinesis records there are; returns how many.
pub(crate) async fn read(local: &LocalAws, way: &Way, kinesis_records: usize) -> Outcome<usize> {
    let client = Client::new(&local.in_process_config());
    let shards = local.kinesis().open_shards(STREAM)?;
    let wanted = kinesis_records / shards.len();
    let mut readers = JoinSet::new();
    for shard in shards {
        let (client, shard) = (client.clone(), shard.id.as_str().to_owned());
        match way {
            Way::Polling => readers.spawn(read_shard(client, shard, wanted)),
            Way::FanOut(consumer) => readers.spawn(subscribe(client, consumer.clone(), shard, wanted)),
        };
    }
    let mut read = 0;
    while let Some(reader) = readers.join_next().await {
        read += reader??;
    }
    Ok(read)
}

async fn read_shard(client: Client, shard: String, wanted: usize) -> Outcome<usize> {
    let start = client.get_shard_iterator().stream_name(STREAM).shard_id(shard);
    let start = start.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
    let (mut iterator, mut read) = (start.shard_iterator, 0);
    while read < wanted {
        let page = client.get_records().limit(10_000).set_shard_iterator(iterator).send().await?;
        read += page.records.len();
        iterator = page.next_shard_iterator;
    }
    Ok(read)
}

async fn subscribe(client: Client, consumer: String, shard: String, wanted: usize) -> Outcome<usize> {
    let start = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build()?;
    let call = client.subscribe_to_shard().consumer_arn(consumer).shard_id(shard).starting_position(start);
    let (mut events, mut read) = (call.send().await?.event_stream, 0);
    while read < wanted {
        if let Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) = events.recv().await? {
            read += event.records.len();
        }
    }
    Ok(read)
}
