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
