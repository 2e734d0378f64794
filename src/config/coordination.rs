use std::time::Duration;

use crate::config::{check, check_duration, with_settings};
use crate::error::Error;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A leader of this many leases scans as often as one of many workers that take leases for themselves.
const LEASES_PER_WORKER: usize = 16;

/// How workers of a fleet agree on who holds which lease. All workers on a table must use
/// protocols that work together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CoordinationMode {
    /// Every worker scans the table, takes what is free and steals to balance: the protocol of KCL
    /// 2.x, and of fleets of this crate alone.
    #[default]
    Independent,
    /// One worker, the leader, assigns leases to all, by how busy they are: the protocol of KCL 3.x,
    /// and of fleets that workers of KCL 3.x take part in (`CLIENT_VERSION_CONFIG_3X`).
    ///
    /// A fleet that ran in another mode is moved through the two modes below first.
    Leader,
    /// The first step from `Independent` or KCL 2.x: the same as `Independent`, until the fleet's row
    /// says otherwise (`CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1`). Once every worker runs in
    /// this mode, rows that are no leases do no harm.
    CompatibleWith2xPhase1,
    /// The second step: workers report how busy they are. When all have done so for ten minutes, the
    /// fleet is run by a leader (`CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X`).
    CompatibleWith2x,
}

/// How the leader assigns leases ([`CoordinationMode::Leader`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AssignmentStrategy {
    /// So that all workers are equally busy (`WORKER_UTILIZATION_AWARE`).
    #[default]
    WorkerUtilizationAware,
    /// So that all workers have equally many leases (`LEASE_COUNT_BASED`).
    LeaseCountBased,
}

/// What to do about leases whose positions belong to another stream than the one that is read: the
/// stream was deleted and created again under the same name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnRecreatedStream {
    /// Leave the leases alone and report it ([`Event::StreamRecreated`](crate::Event::StreamRecreated), and
    /// a problem of the stream in the status) until somebody has decided.
    #[default]
    Report,
    /// Read the new stream from its oldest record: the positions of the earlier stream are discarded.
    StartOver,
}

/// What only concerns fleets that a leader runs. Workers that may become leader should agree on it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaderConfig {
    /// For how long a leader that says nothing more stays leader (1 s to 1 h). `None`, the default, is
    /// twice the failover time (KCL: 120 s). The leader writes four times as often, once per fleet.
    pub lease_duration: Option<Duration>,
    /// How leases are assigned. Default: by how busy workers are.
    pub assignment_strategy: AssignmentStrategy,
    /// Whether a lease that moves is first asked back from the worker that processes it, so that
    /// nothing is processed twice (`isGracefulLeaseHandoffEnabled`; default true).
    pub graceful_handoff: bool,
    /// How long the processor may take to let go of a shard that moves
    /// (`gracefulLeaseHandoffTimeoutMillis`; 1 ms to 1 h, default 30 s).
    pub graceful_handoff_timeout: Duration,
    /// By how much a worker may be busier or less busy than the average before leases are moved
    /// (`reBalanceThresholdPercentage`; 1 to 100, default 10).
    pub rebalance_threshold_percentage: u32,
    /// How much of what a worker has too much of is moved at once (`dampeningPercentage`; 1 to 100,
    /// default 60).
    pub dampening_percentage: u32,
    /// Whether a lease is moved that is more than what is to be moved, if no smaller one is there
    /// (`allowThroughputOvershoot`; default true).
    pub allow_throughput_overshoot: bool,
    /// The most KiB per second that one worker is given (`maxThroughputPerHostKBps`); `None`, the
    /// default, is no limit.
    pub max_throughput_kib_per_second: Option<u64>,
    /// How often this worker reports how busy it is (`workerMetricsReporterFreqInMillis`; 1 s to 30 s,
    /// default 30 s). Workers that have not reported for 60 s get no leases.
    pub worker_metrics_interval: Duration,
    /// Whether it reports how busy its CPU is (KCL's `disableWorkerMetrics`, turned round; default true).
    /// If not, it is judged by the throughput of its leases alone.
    pub measure_cpu: bool,
    /// For how long a fleet must have been ready before it is run by a leader; no setting, as in KCL.
    pub(crate) ready_for: Duration,
}

impl Default for LeaderConfig {
    fn default() -> Self {
        Self {
            lease_duration: None,
            assignment_strategy: AssignmentStrategy::default(),
            graceful_handoff: true,
            graceful_handoff_timeout: Duration::from_secs(30),
            rebalance_threshold_percentage: 10,
            dampening_percentage: 60,
            allow_throughput_overshoot: true,
            max_throughput_kib_per_second: None,
            worker_metrics_interval: Duration::from_secs(30),
            measure_cpu: true,
            ready_for: Duration::from_secs(600),
        }
    }
}

with_settings!(LeaderConfig {
    with_assignment_strategy = assignment_strategy: AssignmentStrategy,
    with_graceful_handoff = graceful_handoff: bool,
    with_graceful_handoff_timeout = graceful_handoff_timeout: Duration,
    with_rebalance_threshold_percentage = rebalance_threshold_percentage: u32,
    with_dampening_percentage = dampening_percentage: u32,
    with_allow_throughput_overshoot = allow_throughput_overshoot: bool,
    with_worker_metrics_interval = worker_metrics_interval: Duration,
    with_measure_cpu = measure_cpu: bool,
} optional {
    with_lease_duration = lease_duration: Duration,
    with_max_throughput_kib_per_second = max_throughput_kib_per_second: u64,
});

impl LeaderConfig {
    fn validate(&self) -> Result<(), Error> {
        if let Some(duration) = self.lease_duration {
            check_duration("leader.lease_duration", duration, SECOND..=HOUR)?;
        }
        let millisecond = Duration::from_millis(1);
        check_duration("leader.graceful_handoff_timeout", self.graceful_handoff_timeout, millisecond..=HOUR)?;
        check("leader.rebalance_threshold_percentage", self.rebalance_threshold_percentage, 1..=100)?;
        check("leader.dampening_percentage", self.dampening_percentage, 1..=100)?;
        check_duration("leader.worker_metrics_interval", self.worker_metrics_interval, SECOND..=SECOND * 30)
    }
}

/// Timing and rules of lease coordination. The defaults are KCL's unless stated.
///
/// ```
/// use std::time::Duration;
/// use kinesis_consumer::{CoordinationConfig, CoordinationMode, LeaderConfig};
///
/// let coordination = CoordinationConfig::default()
///     .with_mode(CoordinationMode::Leader)
///     .with_leader(LeaderConfig::default().with_measure_cpu(false))
///     .with_failover_time(Duration::from_secs(20));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoordinationConfig {
    /// The protocol. Default: [`CoordinationMode::Independent`].
    pub mode: CoordinationMode,
    /// What only concerns fleets that a leader runs.
    pub leader: LeaderConfig,
    /// How long a lease may go without renewal before others take it over (`failoverTimeMillis`; 1 s
    /// to 1 h, default 10 s). Must be the same for every worker of the fleet. Renewals are sent three
    /// times as often.
    pub failover_time: Duration,
    /// The time between two rounds in which this worker looks for leases to take
    /// (`leaseAssignmentIntervalMillis`; 100 ms to 1 h). Each round scans the lease table once.
    ///
    /// The default, `None`, is a quarter of the failover time per four workers, at most KCL's twice
    /// the failover time: small fleets take over quickly, and in large ones the scans stay cheap
    /// beside the renewals.
    pub lease_assignment_interval: Option<Duration>,
    /// The time one request to the lease table may take (`dynamoDbRequestTimeout`; 10 ms to 1 h).
    /// `None`, the default, is a third of the failover time: a renewal that takes longer is useless.
    pub request_timeout: Option<Duration>,
    /// In how many parts at once the lease table is scanned (`leaseTableScanTotalSegments`; 1 to 1,000,000).
    /// `None`, the default, derives it from the size of the table: one part per 0.2 GiB, at most 32.
    pub scan_total_segments: Option<u32>,
    /// Whether leases that nobody has renewed for three failover times are taken without regard to
    /// this worker's fair share (`enablePriorityLeaseAssignment`; default true).
    pub priority_lease_assignment: bool,
    /// How often a worker that waits for the parents of its shard looks whether they have ended
    /// (`parentShardPollIntervalMillis`; 100 ms to 1 h, default 10 s). Parents that end in the same
    /// process, or are seen ended in a scan, are noticed sooner.
    pub parent_shard_poll_interval: Duration,
    /// How often the leases are checked for hash keys that none of them covers
    /// (`leasesRecoveryAuditorExecutionFrequencyMillis`; 1 s to 24 h, default 10 s, where KCL has 120
    /// s: here it costs no request unless there is a hole).
    pub audit_interval: Duration,
    /// How many checks in a row must find the same hole before shards are listed again
    /// (`leasesRecoveryAuditorInconsistencyConfidenceThreshold`; 1 to 100, default 3).
    pub audit_confidence_threshold: u32,
    /// Whether rows of finished shards are deleted (`cleanupLeasesUponShardCompletion`; default
    /// true).
    pub cleanup_leases_upon_shard_completion: bool,
    /// How often finished rows are looked for (`leaseCleanupIntervalMillis`; 1 s to 24 h, default
    /// 60 s).
    pub lease_cleanup_interval: Duration,
    /// Whether a shard whose parent is still open is ignored instead of failing the shard sync
    /// (`ignoreUnexpectedChildShards`; default false).
    pub ignore_unexpected_child_shards: bool,
    /// What to do if the stream was deleted and created again under the same name. Default: report it,
    /// and read nothing by positions of the earlier stream.
    pub on_recreated_stream: OnRecreatedStream,
}

impl Default for CoordinationConfig {
    fn default() -> Self {
        Self {
            mode: CoordinationMode::default(),
            leader: LeaderConfig::default(),
            failover_time: Duration::from_secs(10),
            lease_assignment_interval: None,
            request_timeout: None,
            scan_total_segments: None,
            priority_lease_assignment: true,
            parent_shard_poll_interval: Duration::from_secs(10),
            audit_interval: Duration::from_secs(10),
            audit_confidence_threshold: 3,
            cleanup_leases_upon_shard_completion: true,
            lease_cleanup_interval: Duration::from_secs(60),
            ignore_unexpected_child_shards: false,
            on_recreated_stream: OnRecreatedStream::default(),
        }
    }
}

with_settings!(CoordinationConfig {
    with_mode = mode: CoordinationMode,
    with_leader = leader: LeaderConfig,
    with_failover_time = failover_time: Duration,
    with_priority_lease_assignment = priority_lease_assignment: bool,
    with_parent_shard_poll_interval = parent_shard_poll_interval: Duration,
    with_audit_interval = audit_interval: Duration,
    with_audit_confidence_threshold = audit_confidence_threshold: u32,
    with_cleanup_leases_upon_shard_completion = cleanup_leases_upon_shard_completion: bool,
    with_lease_cleanup_interval = lease_cleanup_interval: Duration,
    with_ignore_unexpected_child_shards = ignore_unexpected_child_shards: bool,
    with_on_recreated_stream = on_recreated_stream: OnRecreatedStream,
} optional {
    with_lease_assignment_interval = lease_assignment_interval: Duration,
    with_request_timeout = request_timeout: Duration,
    with_scan_total_segments = scan_total_segments: u32,
});

impl CoordinationConfig {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let ms = Duration::from_millis;
        check_duration("failover_time", self.failover_time, SECOND..=HOUR)?;
        self.leader.validate()?;
        if let Some(interval) = self.lease_assignment_interval {
            check_duration("lease_assignment_interval", interval, ms(100)..=HOUR)?;
        }
        if let Some(timeout) = self.request_timeout {
            check_duration("request_timeout", timeout, ms(10)..=HOUR)?;
        }
        if let Some(segments) = self.scan_total_segments {
            check("scan_total_segments", segments, 1..=1_000_000)?;
        }
        check_duration("parent_shard_poll_interval", self.parent_shard_poll_interval, ms(100)..=HOUR)?;
        check_duration("audit_interval", self.audit_interval, SECOND..=HOUR * 24)?;
        check("audit_confidence_threshold", self.audit_confidence_threshold, 1..=100)?;
        check_duration("lease_cleanup_interval", self.lease_cleanup_interval, SECOND..=HOUR * 24)
    }

    /// The time between two renewals of a lease: a third of the failover time, less 25 ms
    /// (`epsilonMillis`).
    pub(crate) fn renew_interval(&self) -> Duration {
        (self.failover_time / 3).saturating_sub(Duration::from_millis(25))
    }

    /// The time between two rounds of lease assignment in a fleet of `workers`.
    pub(crate) fn assignment_interval(&self, workers: usize) -> Duration {
        self.lease_assignment_interval.unwrap_or_else(|| {
            let groups = u32::try_from(workers.div_ceil(4)).unwrap_or(u32::MAX).max(1);
            (self.failover_time / 4).saturating_mul(groups).min(self.failover_time * 2)
        })
    }

    /// The time between two scans of a leader, whose cost grows with the number of leases.
    pub(crate) fn leader_interval(&self, leases: usize) -> Duration {
        self.assignment_interval(leases.div_ceil(LEASES_PER_WORKER))
    }

    /// The time between two looks of a worker into the index of owners, which cost next to nothing
    /// however large the fleet is.
    pub(crate) fn discovery_interval(&self) -> Duration {
        self.assignment_interval(1)
    }

    /// For how long the leader's lock is good after each heartbeat.
    pub(crate) fn leader_lease_duration(&self) -> Duration {
        self.leader.lease_duration.unwrap_or(self.failover_time * 2)
    }

    /// The time one request to the lease table may take.
    pub(crate) fn store_timeout(&self) -> Duration {
        self.request_timeout.unwrap_or(self.failover_time / 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_quick_in_small_fleets_and_never_rarer_than_in_kcl() {
        let config = CoordinationConfig::default();
        let seconds = |workers| config.assignment_interval(workers).as_secs_f64();
        assert_eq!([0, 1, 4, 5, 16, 32, 1000].map(seconds), [2.5, 2.5, 2.5, 5.0, 10.0, 20.0, 20.0]);
        let seconds = |leases| config.leader_interval(leases).as_secs_f64();
        assert_eq!([0, 1, 64, 65, 512, 10_000].map(seconds), [2.5, 2.5, 2.5, 5.0, 20.0, 20.0]);
        assert_eq!(config.discovery_interval().as_secs_f64(), 2.5);
    }

    #[test]
    fn an_optional_setting_is_given_by_its_value_or_taken_back() {
        let timed = CoordinationConfig::default().with_request_timeout(SECOND);
        assert_eq!((timed.request_timeout, timed.store_timeout()), (Some(SECOND), SECOND));
        assert_eq!(timed.with_request_timeout(None), CoordinationConfig::default());
    }

    #[test]
    fn a_setting_out_of_range_is_named_with_its_range() {
        let config = CoordinationConfig { failover_time: Duration::ZERO, ..CoordinationConfig::default() };
        let error = config.validate().expect_err("out of range");
        assert_eq!(error.to_string(), "failover_time is 0 ms; it must be between 1000 and 3600000 ms");
        assert!(CoordinationConfig::default().validate().is_ok());
    }
}
