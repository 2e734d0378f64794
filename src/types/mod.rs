//! The nouns of the protocol: parsed once on entry, compared and copied cheaply afterwards.
//!
//! Pure: nothing here reads a clock, performs I/O or knows an AWS type.

mod checkpoint;
mod hash_key;
mod ids;
mod keys;
mod moment;
mod payload;
mod record;
mod sequence_number;
mod start;
mod stream;
mod text;

pub use self::checkpoint::{Checkpoint, ExtendedSequenceNumber, ParseCheckpointError, ParsePositionError};
pub use self::hash_key::{HashKeyRange, ParseHashKeyError};
pub use self::ids::{ConsumerArn, LeaseKey, ShardId, WorkerId};
pub use self::keys::{ExplicitHashKey, PartitionKey};
pub use self::moment::Moment;
pub use self::payload::Payload;
pub use self::record::{EncryptionType, KinesisClientRecord, Record};
pub use self::sequence_number::{ParseSequenceNumberError, SequenceNumber};
pub use self::start::StartStrategy;
pub use self::stream::{ParseStreamError, StreamId};

#[cfg(all(test, feature = "serde"))]
mod serde_tests {
    use std::fmt::Debug;

    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;

    fn is_written_as<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, text: &str) {
        let json = serde_json::to_value(value).expect("written");
        assert_eq!(json, serde_json::Value::from(text));
        assert_eq!(serde_json::from_value::<T>(json).expect("read"), *value);
    }

    #[test]
    fn identifiers_and_positions_are_written_as_texts_and_read_again() {
        is_written_as(&ShardId::from("shardId-0"), "shardId-0");
        is_written_as(&WorkerId::from("\"quoted\""), "\"quoted\"");
        is_written_as(&PartitionKey::from("k".repeat(100)), &"k".repeat(100));
        is_written_as(&SequenceNumber::from(7), "7");
        let position = ExtendedSequenceNumber::new(7.into(), 3);
        is_written_as(&Checkpoint::from(position.clone()), "7/3");
        is_written_as(&position, "7/3");
        is_written_as(&Checkpoint::ShardEnd, "SHARD_END");
        is_written_as(&HashKeyRange::new(1, 5).expect("in order"), "1-5");
        for stream in ["orders", "arn:aws:kinesis:eu-west-1:123456789012:stream/orders", "1:orders:5"] {
            is_written_as(&stream.parse::<StreamId>().expect("a stream"), stream);
        }
        assert!(serde_json::from_str::<Checkpoint>("\"latest\"").is_err());
        assert!(serde_json::from_str::<SequenceNumber>("7").is_err(), "a number may be too large for JSON");
    }
}
