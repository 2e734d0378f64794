use std::time::Duration;

use crate::config::with_settings;
use crate::error::{Error, invalid};
use crate::handler::validate_limits;

/// How records are delivered by a [`RecordStream`](crate::RecordStream) or
/// [`ShardStream`](crate::ShardStream).
///
/// ```
/// use kinesis_consumer::StreamOptions;
///
/// let options = StreamOptions::default().with_span_max(1000);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamOptions {
    /// No further batch of a shard is taken in while there are more records than this from the first one that is not
    /// acknowledged to the newest (1 to 10,000,000; default 20,000). A batch is at most 32,768 records.
    pub span_max: usize,
    /// The memory for all batches with records that are not acknowledged, over all shards, in bytes (1 MiB to 1 TiB;
    /// default 64 MiB). It comes in addition to
    /// [`RetrievalConfig::memory_bytes_max`](crate::RetrievalConfig::memory_bytes_max). A batch counts until its last
    /// record is acknowledged. Where it is used up, a shard takes in its next batch when the one before is
    /// acknowledged.
    pub bytes_max: u64,
    /// How often a shard stores what is acknowledged (1 ms to 1 h; default 1 s). Also stored when a shard is
    /// given back, and for [`Delivery::ack_durably`](crate::Delivery::ack_durably) at once.
    pub checkpoint_every: Duration,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { span_max: 20_000, bytes_max: 64 << 20, checkpoint_every: Duration::from_secs(1) }
    }
}

with_settings!(StreamOptions {
    with_span_max = span_max: usize,
    with_bytes_max = bytes_max: u64,
    with_checkpoint_every = checkpoint_every: Duration,
});

impl StreamOptions {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let Self { span_max, bytes_max, checkpoint_every } = self;
        validate_limits(*span_max, *bytes_max)?;
        let (shortest, longest) = (Duration::from_millis(1), Duration::from_secs(3600));
        if !(shortest..=longest).contains(checkpoint_every) {
            return Err(invalid(format!("checkpoint_every is {checkpoint_every:?}; it must be 1 ms to 1 h")));
        }
        Ok(())
    }
}
