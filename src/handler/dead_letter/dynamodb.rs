use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::{DeadLetter, DeadLetters};
use crate::handler::BoxError;

/// Sends dead letters to a DynamoDB table, whose only key is the string `id`. Each letter is one item, and replaces
/// one that was sent before.
///
/// Attributes: `id`, `application`, `worker`, `stream`, `shard`, `sequenceNumber`, `subSequenceNumber` (N),
/// `partitionKey`, `explicitHashKey` (if there is one), `arrival` (N, milliseconds since 1970), `payload` (B), `error`,
/// `reason`, `attempts` (N). An item of DynamoDB has at most 400 KB: a larger record cannot be sent, and its shard
/// waits. Needs the permission `dynamodb:PutItem` on the table.
#[derive(Debug, Clone)]
pub struct DynamoDbDeadLetters {
    client: Client,
    table: String,
}

impl DynamoDbDeadLetters {
    /// The destination `table`, which exists.
    #[must_use]
    pub fn table(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }
}

#[async_trait]
impl DeadLetters for DynamoDbDeadLetters {
    async fn send(&self, letters: &[DeadLetter]) -> Result<(), BoxError> {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        for letter in letters {
            let explicit_hash_key = letter.explicit_hash_key.as_ref().map(ToString::to_string);
            let put = self.client.put_item().table_name(&self.table);
            let put = put
                .item("id", AttributeValue::S(letter.id()))
                .item("application", text(&letter.application))
                .item("worker", text(letter.worker.as_str()))
                .item("stream", text(letter.stream.name()))
                .item("shard", text(letter.shard.as_str()))
                .item("sequenceNumber", AttributeValue::S(letter.position.sequence_number.to_string()))
                .item("subSequenceNumber", AttributeValue::N(letter.position.sub_sequence_number.to_string()))
                .item("partitionKey", text(letter.partition_key.as_str()))
                .item("payload", AttributeValue::B(Blob::new(letter.payload.to_vec())))
                .item("error", text(&letter.error))
                .item("reason", text(&letter.reason))
                .item("attempts", AttributeValue::N(letter.attempts.to_string()));
            let put = match letter.arrival_milliseconds() {
                Some(arrival) => put.item("arrival", AttributeValue::N(arrival.to_string())),
                None => put,
            };
            let put = match explicit_hash_key {
                Some(key) => put.item("explicitHashKey", AttributeValue::S(key)),
                None => put,
            };
            put.send().await?;
        }
        Ok(())
    }
}
