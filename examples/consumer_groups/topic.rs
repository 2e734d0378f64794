use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::ShardIteratorType;
use kinesis_consumer::{BoxError, Checkpoint, ExtendedSequenceNumber, SequenceNumber};

/// How often something is looked for that has to come.
const LOOKS: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// A stream of one shard as a topic: its messages by offset. Kinesis has no offsets; here a message has the place
/// of its position among those of the shard, so that offsets are the same after a restart.
pub(crate) struct Topic {
    client: Client,
    name: String,
    shard: String,
    messages: Mutex<Vec<Message>>,
    /// Held while messages are read.
    reading: tokio::sync::Mutex<()>,
}

/// A message. Its offset is its place in the list.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) position: ExtendedSequenceNumber,
    pub(crate) key: String,
    pub(crate) content: String,
}

/// Where a message was written.
pub(crate) struct Produced {
    pub(crate) offset: usize,
    pub(crate) sequence_number: SequenceNumber,
    pub(crate) shard: String,
}

impl Topic {
    /// Opens the stream, which is created if it does not exist, and reads what is in it.
    pub(crate) async fn open(config: &SdkConfig, name: &str) -> Result<Self, BoxError> {
        let client = Client::new(config);
        if let Err(error) = client.create_stream().stream_name(name).shard_count(1).send().await
            && !error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception())
        {
            return Err(error.into());
        }
        let topic = Self {
            shard: only_shard(&client, name).await?,
            client,
            name: name.to_owned(),
            messages: Mutex::default(),
            reading: tokio::sync::Mutex::new(()),
        };
        topic.read(None).await?;
        Ok(topic)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn produce(&self, key: &str, content: &str) -> Result<Produced, BoxError> {
        let request = self.client.put_record().stream_name(&self.name).partition_key(key);
        let put = request.data(Blob::new(content)).send().await?;
        let sequence_number: SequenceNumber = put.sequence_number.parse()?;
        let offset = self.offset(&sequence_number).await?;
        Ok(Produced { offset, sequence_number, shard: put.shard_id })
    }

    /// The offset of a message that was written.
    pub(crate) async fn offset(&self, wanted: &SequenceNumber) -> Result<usize, BoxError> {
        if self.known(wanted).is_none() {
            self.read(Some(wanted)).await?;
        }
        self.known(wanted).ok_or_else(|| format!("message {wanted} is not in topic {}", self.name).into())
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.lock().clone()
    }

    /// How many messages there are up to a checkpoint.
    pub(crate) fn count_up_to(&self, checkpoint: &Checkpoint) -> usize {
        let Some(position) = checkpoint.position() else { return 0 };
        self.lock().partition_point(|message| message.position <= *position)
    }

    fn known(&self, wanted: &SequenceNumber) -> Option<usize> {
        self.lock().binary_search_by(|message| message.position.sequence_number.cmp(wanted)).ok()
    }

    /// Reads messages until `wanted` is among them, or the newest.
    async fn read(&self, wanted: Option<&SequenceNumber>) -> Result<(), BoxError> {
        let _reading = self.reading.lock().await;
        let last = self.lock().last().map(|message| message.position.sequence_number.to_string());
        let request = self.client.get_shard_iterator().stream_name(&self.name).shard_id(&self.shard);
        let request = match last {
            Some(last) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(last),
            None => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
        };
        let mut iterator = request.send().await?.shard_iterator;
        for _ in 0..LOOKS {
            let Some(from) = iterator else { break };
            let page = self.client.get_records().shard_iterator(from).send().await?;
            for record in &page.records {
                let message = Message {
                    position: ExtendedSequenceNumber::new(record.sequence_number.parse()?, 0),
                    key: record.partition_key.clone().unwrap_or_default(),
                    content: String::from_utf8_lossy(record.data.as_ref()).into_owned(),
                };
                self.lock().push(message);
            }
            let is_found = match wanted {
                Some(wanted) => self.known(wanted).is_some(),
                None => page.millis_behind_latest == Some(0),
            };
            if is_found {
                break;
            }
            iterator = page.next_shard_iterator;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Message>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shard of the stream, once it is active.
async fn only_shard(client: &Client, stream: &str) -> Result<String, BoxError> {
    for _ in 0..LOOKS {
        match client.list_shards().stream_name(stream).send().await {
            Ok(listed) => match listed.shards() {
                [shard] => return Ok(shard.shard_id.clone()),
                [] => {}
                shards => {
                    let count = shards.len();
                    return Err(
                        format!("stream {stream} has {count} shards; give a --topic of one shard").into()
                    );
                }
            },
            Err(error)
                if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("stream {stream} is still being created; try again later").into())
}
