use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;

use super::{DeadLetter, DeadLetters};
use crate::handler::BoxError;

/// Sends dead letters to a Kinesis stream: the payload as it was, under the partition key and explicit hash key it had.
///
/// A record of Kinesis has no room for anything else, so the error, the attempts and the position are not in the stream:
/// they are in the event and the log of the worker. A letter that is sent again is there twice. Needs the permission
/// `kinesis:PutRecord` on the stream.
#[derive(Debug, Clone)]
pub struct KinesisDeadLetters {
    client: Client,
    stream: String,
}

impl KinesisDeadLetters {
    /// The destination `stream`, which exists, by its name.
    #[must_use]
    pub fn stream(client: Client, stream: impl Into<String>) -> Self {
        Self { client, stream: stream.into() }
    }
}

#[async_trait]
impl DeadLetters for KinesisDeadLetters {
    async fn send(&self, letters: &[DeadLetter]) -> Result<(), BoxError> {
        for letter in letters {
            let put = self.client.put_record().stream_name(&self.stream);
            put.partition_key(letter.partition_key.as_str())
                .set_explicit_hash_key(letter.explicit_hash_key.as_ref().map(ToString::to_string))
                .data(Blob::new(letter.payload.to_vec()))
                .send()
                .await?;
        }
        Ok(())
    }
}
