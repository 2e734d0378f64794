//! Names, units and levels, exactly KCL's, by the operation that reports them. The last group is
//! ours alone.

use super::MetricsLevel;
use crate::types::Checkpoint;

/// What is measured: its name, unit and level, and how a metrics system that distinguishes counters from
/// gauges should treat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) level: MetricsLevel,
    pub(crate) is_gauge: bool,
}

/// CloudWatch's units, as far as they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
}

/// The pair of metrics for the outcome of something: `<name>.Success` (1 or 0) and `<name>.Time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) success: Metric,
    pub(crate) time: Metric,
}

impl Metric {
    pub(crate) const fn summary(name: &'static str, unit: Unit) -> Self {
        Self { name, unit, level: MetricsLevel::Summary, is_gauge: false }
    }

    pub(crate) const fn detailed(name: &'static str, unit: Unit) -> Self {
        Self { name, unit, level: MetricsLevel::Detailed, is_gauge: false }
    }

    /// A level rather than an amount: the latest value counts, and a sum over time means nothing.
    const fn gauge(mut self) -> Self {
        self.is_gauge = true;
        self
    }
}

/// A detailed [`Outcome`] with a name.
macro_rules! outcome {
    ($name:literal) => {
        Outcome {
            success: Metric::detailed(concat!($name, ".Success"), Unit::Count),
            time: Metric::detailed(concat!($name, ".Time"), Unit::Milliseconds),
        }
    };
}

/// How one run of an operation went as a whole: plain `Success` and `Time`.
pub(crate) const RUN: Outcome = Outcome {
    success: Metric::summary("Success", Unit::Count),
    time: Metric::summary("Time", Unit::Milliseconds),
};

// ProcessTask
pub(crate) const RECORDS_PROCESSED: Metric = Metric::summary("RecordsProcessed", Unit::Count);
pub(crate) const DATA_BYTES_PROCESSED: Metric = Metric::summary("DataBytesProcessed", Unit::Bytes);
/// Also of ApplicationTracker.
pub(crate) const MILLIS_BEHIND_LATEST: Metric =
    Metric::summary("MillisBehindLatest", Unit::Milliseconds).gauge();
pub(crate) const PROCESS_RECORDS_TIME: Metric =
    Metric::summary("RecordProcessor.processRecords.Time", Unit::Milliseconds);
/// Reported without a shard.
pub(crate) const EXPIRED_ITERATOR: Metric = Metric::summary("ExpiredIterator", Unit::Count);
pub(crate) const GET_RECORDS: Outcome = outcome!("KinesisDataFetcher.getRecords");
pub(crate) const GET_SHARD_ITERATOR: Outcome = outcome!("KinesisDataFetcher.getShardIterator");
/// Checkpoints; also of ShutdownTask.
pub(crate) const UPDATE_LEASE: Outcome = outcome!("UpdateLease");

// InitializeTask
pub(crate) const INITIALIZE_TIME: Metric =
    Metric::summary("RecordProcessor.initialize.Time", Unit::Milliseconds);

// ShutdownTask
pub(crate) const SHUTDOWN_TIME: Metric = Metric::summary("RecordProcessor.shutdown.Time", Unit::Milliseconds);
pub(crate) const MISSING_MERGE_PARENT_LEASE: Metric = Metric::summary("MissingMergeParentLease", Unit::Count);
/// Also of ShardSyncTask; goes with [`create_lease_success`].
pub(crate) const CREATE_LEASE: Outcome = outcome!("CreateLease");

/// `CreateLease_<where the lease starts>.Success`, of ShutdownTask and ShardSyncTask.
pub(crate) fn create_lease_success(start: &Checkpoint) -> Metric {
    let name = match start {
        Checkpoint::AtTimestamp => "CreateLease_AT_TIMESTAMP.Success",
        Checkpoint::TrimHorizon => "CreateLease_TRIM_HORIZON.Success",
        Checkpoint::Latest => "CreateLease_LATEST.Success",
        Checkpoint::Sequence(_) => "CreateLease_SEQUENCE_NUMBER.Success",
        Checkpoint::ShardEnd => "CreateLease_SHARD_END.Success",
    };
    Metric::detailed(name, Unit::Count)
}

// ShardSyncTask
pub(crate) const SYNC_SHARDS_SUCCESS: Metric = Metric::detailed("SyncShards.Success", Unit::Count);

// PeriodicShardSyncManager
pub(crate) const STREAMS_WITH_PARTIAL_LEASES: Metric =
    Metric::summary("NumStreamsWithPartialLeases", Unit::Count);
pub(crate) const STREAMS_TO_SYNC: Metric = Metric::summary("NumStreamsToSync", Unit::Count).gauge();

// MultiStreamTracker
pub(crate) const ACTIVE_STREAMS: Metric = Metric::summary("ActiveStreams.Count", Unit::Count).gauge();

// RenewAllLeases
pub(crate) const LOST_LEASES: Metric = Metric::summary("LostLeases", Unit::Count);
pub(crate) const CURRENT_LEASES: Metric = Metric::summary("CurrentLeases", Unit::Count).gauge();
pub(crate) const RENEW_LEASE: Outcome = outcome!("RenewLease");

// TakeLeases
pub(crate) const TAKEN_LEASES: Metric = Metric::summary("TakenLeases", Unit::Count);
pub(crate) const UNTAKEN_LEASES: Metric = Metric::summary("UntakenLeases", Unit::Count);
pub(crate) const EXPIRED_LEASES: Metric = Metric::summary("ExpiredLeases", Unit::Count).gauge();
pub(crate) const LEASE_SPILLOVER: Metric = Metric::summary("LeaseSpillover", Unit::Count);
pub(crate) const NUM_WORKERS: Metric = Metric::summary("NumWorkers", Unit::Count).gauge();
pub(crate) const VERY_OLD_LEASES: Metric = Metric::summary("VeryOldLeases", Unit::Count).gauge();
pub(crate) const LEASES_TO_TAKE: Metric = Metric::detailed("LeasesToTake", Unit::Count);
pub(crate) const NEEDED_LEASES: Metric = Metric::detailed("NeededLeases", Unit::Count);
pub(crate) const TOTAL_LEASES: Metric = Metric::detailed("TotalLeases", Unit::Count).gauge();
pub(crate) const LIST_LEASES: Outcome = outcome!("ListLeases");
pub(crate) const TAKE_LEASE: Outcome = outcome!("TakeLease");

// LeaseDiscovery
pub(crate) const NEW_LEASES_DISCOVERED: Metric = Metric::detailed("NewLeasesDiscovered", Unit::Count);
pub(crate) const OWNER_MISMATCH: Metric = Metric::detailed("OwnerMismatch", Unit::Count);
pub(crate) const LIST_LEASE_KEYS: Metric =
    Metric::detailed("ListLeaseKeysForWorker.Time", Unit::Milliseconds);

// LeaseAssignmentManager
pub(crate) const LEASE_REASSIGNMENTS: Metric = Metric::summary("NumOfLeasesReassignment", Unit::Count);
pub(crate) const FORCE_LEADER_RELEASE: Metric = Metric::summary("ForceLeaderRelease", Unit::Count);
pub(crate) const WORKERS_WITH_INVALID_ENTRY: Metric =
    Metric::summary("NumWorkersWithInvalidEntry", Unit::Count);
pub(crate) const FAILED_ASSIGNMENTS: Metric = Metric::detailed("FailedAssignmentCount", Unit::Count);

// Migration
pub(crate) const GSI_READY: Metric = Metric::summary("GsiReadyStatus", Unit::Count).gauge();
pub(crate) const WORKER_METRICS_READY: Metric =
    Metric::summary("WorkerMetricsReadyStatus", Unit::Count).gauge();

// Scheduler:Initialize
pub(crate) const INITIALIZE_SUCCESS: Metric = Metric::summary("Initialize.Success", Unit::Count);

// Unknown to KCL.
/// ProcessTask: callbacks of a processor that panicked.
pub(crate) const PROCESSOR_PANICS: Metric = Metric::summary("ProcessorPanics", Unit::Count);
/// ProcessTask: calls of a handler that failed.
pub(crate) const HANDLER_FAILURES: Metric = Metric::summary("HandlerFailures", Unit::Count);
/// ProcessTask: records that were sent to a destination for dead letters.
pub(crate) const RECORDS_DEAD_LETTERED: Metric = Metric::summary("RecordsDeadLettered", Unit::Count);
/// ProcessTask: dead letters that were not accepted, each time.
pub(crate) const DEAD_LETTERS_FAILED: Metric = Metric::summary("DeadLettersFailed", Unit::Count);
/// ProcessTask: records that the error policy passed over.
pub(crate) const RECORDS_SKIPPED: Metric = Metric::summary("RecordsSkipped", Unit::Count);
/// ProcessTask: records that a filter left out.
pub(crate) const RECORDS_FILTERED: Metric = Metric::summary("RecordsFiltered", Unit::Count);
/// ProcessTask: records that looked like KPL aggregates and were delivered whole, being damaged.
pub(crate) const MALFORMED_AGGREGATES: Metric = Metric::summary("MalformedAggregates", Unit::Count);
/// ProcessTask: user records of KPL aggregates left out because their hash keys lie outside the shard's.
pub(crate) const RECORDS_OUT_OF_RANGE: Metric = Metric::summary("RecordsOutOfRange", Unit::Count);
/// ProcessTask: SubscribeToShard requests.
pub(crate) const SUBSCRIBE_TO_SHARD: Outcome = outcome!("FanOutSubscriber.subscribeToShard");
/// ProcessTask: shards that are polled because fan-out was unavailable.
pub(crate) const FAN_OUT_FALLBACK: Metric = Metric::summary("FanOutFallback", Unit::Count);
/// TakeLeases: rows of the lease table that could not be read and were left alone.
pub(crate) const UNREADABLE_LEASES: Metric = Metric::summary("UnreadableLeases", Unit::Count).gauge();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_named_as_in_kcl() {
        assert_eq!(GET_RECORDS.success.name, "KinesisDataFetcher.getRecords.Success");
        assert_eq!(GET_RECORDS.time.name, "KinesisDataFetcher.getRecords.Time");
        assert_eq!(GET_RECORDS.time.unit, Unit::Milliseconds);
        assert_eq!((RUN.success.name, RUN.time.name), ("Success", "Time"));
    }

    #[test]
    fn a_created_lease_is_counted_by_where_it_starts() {
        let name = |text: &str| create_lease_success(&Checkpoint::parse(text, 0).unwrap()).name;
        for sentinel in ["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "SHARD_END"] {
            assert_eq!(name(sentinel), format!("CreateLease_{sentinel}.Success"));
        }
        assert_eq!(name("4711"), "CreateLease_SEQUENCE_NUMBER.Success");
    }
}
