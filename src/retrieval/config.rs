use std::time::Duration;

use super::buffer::Limits;
use crate::config::{check, check_duration, with_settings};
use crate::error::Error;
use crate::kinesis::KinesisProtocol;

/// How records are fetched. The defaults are KCL's unless stated.
///
/// ```
/// use kinesis_consumer::RetrievalConfig;
///
/// // Half of what the service allows, for a stream that two applications poll.
/// let retrieval = RetrievalConfig::default().with_reads_per_second(2.5).with_bytes_per_second(1 << 20);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetrievalConfig {
    /// The interval between two reads of a shard that has no new records
    /// (`idleTimeBetweenReadsInMillis`; 200 ms to 240 s, default 1.5 s). A shard that is behind is read
    /// without idling. A shard that just had records is read up to four times as often, but not more
    /// often than every 200 ms.
    pub idle_time_between_reads: Duration,
    /// The maximum number of fetched batches of a shard that wait for its processor
    /// (`maxPendingProcessRecordsInput`; 0 to 5, default 4). With 0, records are fetched only when the
    /// processor waits for them.
    pub max_pending_process_records_input: usize,
    /// The number of bytes of waiting records at which read-ahead of a shard stops (`maxByteSize`; 1
    /// byte to 1 GiB, default 8 MiB). The page that crosses the limit is kept.
    pub max_byte_size: usize,
    /// The number of waiting records at which read-ahead of a shard stops (`maxRecordsCount`; 1 to
    /// 10,000,000, default 30,000). The page that crosses the limit is kept.
    pub max_records_count: usize,
    /// The maximum number of reads per second of each shard (0.01 to 1000; default 5, the service's
    /// limit for all consumers of a shard together). `None` disables this limit. If several applications
    /// poll one stream, give each its share.
    pub reads_per_second: Option<f64>,
    /// The maximum number of bytes per second read from each shard (1 KiB to 1 GiB; default 2 MiB, the
    /// service's limit for all consumers of a shard together). `None` disables this limit. Polling keeps
    /// this pace against every endpoint, also against emulators and the local endpoints, which may allow
    /// more: set `None` to measure or to catch up there. Fan-out is paced by the service alone.
    pub bytes_per_second: Option<u64>,
    /// The timeout of each request (`kinesisRequestTimeout`; 100 ms to 5 min, default 30 s).
    pub kinesis_request_timeout: Duration,
    /// The wire format of GetRecords and SubscribeToShard (default [`KinesisProtocol::Cbor`]).
    pub protocol: KinesisProtocol,
    /// What to do if the stream has the shard but refuses the checkpoint of its lease, because it is a
    /// sequence number of another shard or stream or was edited by hand. Default: report it, and read
    /// the other shards.
    pub on_refused_checkpoint: OnRefusedCheckpoint,
    /// What to do with user records of a KPL aggregate whose hash keys are outside the range of the
    /// shard. Default: drop them, because the KPL sends them again to the shard they belong to. Records
    /// that were not aggregated are always delivered.
    pub out_of_range_records: OutOfRangeRecords,
    /// The memory in bytes for records of all shards of this worker that are fetched and not yet
    /// processed (16 MiB to 1 TiB, default 96 MiB; KCL has no such limit). A record counts with its
    /// payload, keys and overhead. Memory for pages being read is reserved in advance, so fewer shards
    /// are read concurrently when it is scarce.
    ///
    /// A processor that does not return keeps the memory of its batch and of the batches queued behind
    /// it. Allow `max_byte_size` and a page of 10 MiB for every shard that may stall.
    pub memory_bytes_max: u64,
}

impl Default for RetrievalConfig {
    fn default() -> Self {
        Self {
            idle_time_between_reads: Duration::from_millis(1500),
            max_pending_process_records_input: 4,
            max_byte_size: 8 << 20,
            max_records_count: 30_000,
            reads_per_second: Some(5.0),
            bytes_per_second: Some(2 << 20),
            kinesis_request_timeout: Duration::from_secs(30),
            protocol: KinesisProtocol::default(),
            on_refused_checkpoint: OnRefusedCheckpoint::default(),
            out_of_range_records: OutOfRangeRecords::default(),
            memory_bytes_max: 96 << 20,
        }
    }
}

/// What to do about a lease whose checkpoint the stream refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnRefusedCheckpoint {
    /// Leave the lease unchanged, report it ([`Event::PositionRefused`](crate::Event::PositionRefused),
    /// and a problem of the shard in the status), and retry at most once a minute.
    #[default]
    Report,
    /// Discard the checkpoint and read the shard from its oldest record. Records that were processed
    /// before are delivered again if the stream still has them.
    ReadFromOldest,
}

/// What to do with user records of a KPL aggregate whose hash keys are outside the range of the shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutOfRangeRecords {
    /// Drop them, as KCL does, and report their number
    /// ([`Event::RecordsOutOfRange`](crate::Event::RecordsOutOfRange), metric `RecordsOutOfRange`).
    #[default]
    Drop,
    /// Deliver them. Use this for producers that create such aggregates and do not send the records
    /// again. Records that the KPL sends again after a split are then delivered twice, and order per key
    /// holds only within a shard.
    Deliver,
}

with_settings!(RetrievalConfig {
    with_idle_time_between_reads = idle_time_between_reads: Duration,
    with_max_pending_process_records_input = max_pending_process_records_input: usize,
    with_max_byte_size = max_byte_size: usize,
    with_max_records_count = max_records_count: usize,
    with_kinesis_request_timeout = kinesis_request_timeout: Duration,
    with_protocol = protocol: KinesisProtocol,
    with_on_refused_checkpoint = on_refused_checkpoint: OnRefusedCheckpoint,
    with_out_of_range_records = out_of_range_records: OutOfRangeRecords,
    with_memory_bytes_max = memory_bytes_max: u64,
} optional {
    with_reads_per_second = reads_per_second: f64,
    with_bytes_per_second = bytes_per_second: u64,
});

impl RetrievalConfig {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        check_duration("idle_time_between_reads", self.idle_time_between_reads, ms(200)..=s(240))?;
        check("max_pending_process_records_input", self.max_pending_process_records_input, 0..=5)?;
        check("max_byte_size", self.max_byte_size, 1..=1 << 30)?;
        check("max_records_count", self.max_records_count, 1..=10_000_000)?;
        if let Some(reads) = self.reads_per_second {
            check("reads_per_second", reads, 0.01..=1000.0)?;
        }
        if let Some(bytes) = self.bytes_per_second {
            check("bytes_per_second", bytes, 1 << 10..=1 << 30)?;
        }
        check_duration("kinesis_request_timeout", self.kinesis_request_timeout, ms(100)..=s(300))?;
        check("memory_bytes_max", self.memory_bytes_max, 16 << 20..=1 << 40)
    }

    pub(super) fn buffer_limits(&self) -> Limits {
        Limits {
            batches: self.max_pending_process_records_input,
            bytes: self.max_byte_size as u64,
            records: self.max_records_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range() {
        assert!(RetrievalConfig::default().validate().is_ok());
    }

    #[test]
    fn a_setting_out_of_range_is_named_with_its_range() {
        let default = RetrievalConfig::default;
        let cases = [
            (
                RetrievalConfig { idle_time_between_reads: Duration::from_millis(199), ..default() },
                "idle_time_between_reads is 199 ms; it must be between 200 and 240000 ms",
            ),
            (
                RetrievalConfig { max_pending_process_records_input: 6, ..default() },
                "max_pending_process_records_input is 6; it must be between 0 and 5",
            ),
            (
                RetrievalConfig { reads_per_second: Some(f64::NAN), ..default() },
                "reads_per_second is NaN; it must be between 0.01 and 1000",
            ),
            (
                RetrievalConfig { memory_bytes_max: 1 << 20, ..default() },
                "memory_bytes_max is 1048576; it must be between 16777216 and 1099511627776",
            ),
        ];
        for (config, message) in cases {
            assert_eq!(config.validate().expect_err("out of range").to_string(), message);
        }
    }
}
