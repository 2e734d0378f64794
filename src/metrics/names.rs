//! The names under which KCL publishes its metrics, with their units and levels.

use super::MetricsLevel;

/// What a metric counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Unit {
    Count,
    Bytes,
    Milliseconds,
}

/// A metric: its name, its unit, and from which level on it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) level: MetricsLevel,
}

/// The pair `<name>.Success` (1 or 0) and `<name>.Time`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) success: Metric,
    pub(crate) time: Metric,
}

const fn summary(name: &'static str, unit: Unit) -> Metric {
    Metric { name, unit, level: MetricsLevel::Summary }
}

const fn detailed(name: &'static str, unit: Unit) -> Metric {
    Metric { name, unit, level: MetricsLevel::Detailed }
}

macro_rules! outcome {
    ($name:literal) => {
        Outcome {
            success: detailed(concat!($name, ".Success"), Unit::Count),
            time: detailed(concat!($name, ".Time"), Unit::Milliseconds),
        }
    };
}

/// Of an operation as a whole.
pub(crate) const OPERATION: Outcome =
    Outcome { success: summary("Success", Unit::Count), time: summary("Time", Unit::Milliseconds) };

pub(crate) const RECORDS_PROCESSED: Metric = summary("RecordsProcessed", Unit::Count);
pub(crate) const DATA_BYTES_PROCESSED: Metric = summary("DataBytesProcessed", Unit::Bytes);
pub(crate) const MILLIS_BEHIND_LATEST: Metric = summary("MillisBehindLatest", Unit::Milliseconds);
pub(crate) const PROCESS_RECORDS_TIME: Metric =
    summary("RecordProcessor.processRecords.Time", Unit::Milliseconds);
pub(crate) const EXPIRED_ITERATOR: Metric = summary("ExpiredIterator", Unit::Count);
pub(crate) const GET_RECORDS: Outcome = outcome!("KinesisDataFetcher.getRecords");
pub(crate) const GET_SHARD_ITERATOR: Outcome = outcome!("KinesisDataFetcher.getShardIterator");
pub(crate) const UPDATE_LEASE: Outcome = outcome!("UpdateLease");

pub(crate) const INITIALIZE_TIME: Metric = summary("RecordProcessor.initialize.Time", Unit::Milliseconds);
pub(crate) const SHUTDOWN_TIME: Metric = summary("RecordProcessor.shutdown.Time", Unit::Milliseconds);

pub(crate) const CREATE_LEASE: Outcome = outcome!("CreateLease");
pub(crate) const SYNC_SHARDS_SUCCESS: Metric = detailed("SyncShards.Success", Unit::Count);
pub(crate) const STREAMS_WITH_PARTIAL_LEASES: Metric = summary("NumStreamsWithPartialLeases", Unit::Count);
pub(crate) const STREAMS_TO_SYNC: Metric = summary("NumStreamsToSync", Unit::Count);

pub(crate) const LOST_LEASES: Metric = summary("LostLeases", Unit::Count);
pub(crate) const CURRENT_LEASES: Metric = summary("CurrentLeases", Unit::Count);
pub(crate) const RENEW_LEASE: Outcome = outcome!("RenewLease");

pub(crate) const TAKEN_LEASES: Metric = summary("TakenLeases", Unit::Count);
pub(crate) const UNTAKEN_LEASES: Metric = summary("UntakenLeases", Unit::Count);
pub(crate) const EXPIRED_LEASES: Metric = summary("ExpiredLeases", Unit::Count);
pub(crate) const LEASE_SPILLOVER: Metric = summary("LeaseSpillover", Unit::Count);
pub(crate) const NUM_WORKERS: Metric = summary("NumWorkers", Unit::Count);
pub(crate) const VERY_OLD_LEASES: Metric = summary("VeryOldLeases", Unit::Count);
pub(crate) const LEASES_TO_TAKE: Metric = detailed("LeasesToTake", Unit::Count);
pub(crate) const NEEDED_LEASES: Metric = detailed("NeededLeases", Unit::Count);
pub(crate) const TOTAL_LEASES: Metric = detailed("TotalLeases", Unit::Count);
pub(crate) const LIST_LEASES: Outcome = outcome!("ListLeases");
pub(crate) const TAKE_LEASE: Outcome = outcome!("TakeLease");

pub(crate) const INITIALIZE_SUCCESS: Metric = summary("Initialize.Success", Unit::Count);

// What KCL does not have.

/// Callbacks that panicked.
pub(crate) const PROCESSOR_PANICS: Metric = summary("ProcessorPanics", Unit::Count);
/// Records that look like KPL aggregates and are delivered as plain records because they are damaged.
pub(crate) const MALFORMED_AGGREGATES: Metric = summary("MalformedAggregates", Unit::Count);
/// Rows of the lease table that cannot be read.
pub(crate) const UNREADABLE_LEASES: Metric = summary("UnreadableLeases", Unit::Count);
