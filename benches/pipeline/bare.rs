//! The baseline: GetRecords back to back, one task per shard, records dropped.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::ShardIteratorType;
use kinesis_consumer::testing::LocalAws;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::corpus::STREAM;

/// Reads until every shard has given its part of the Kinesis records there are; returns how many.
pub(crate) async fn read(local: &LocalAws, kinesis_records: usize) -> Outcome<usize> {
    let client = Client::new(&local.in_process_config());
    let shards = local.kinesis().open_shards(STREAM)?;
    let wanted = kinesis_records / shards.len();
    let mut readers = JoinSet::new();
    for shard in shards {
        readers.spawn(read_shard(client.clone(), shard.id.as_str().to_owned(), wanted));
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
