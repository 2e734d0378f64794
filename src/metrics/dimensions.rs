use crate::types::{ShardId, StreamId, WorkerId};

/// The values of KCL's dimension `Operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    ProcessTask,
    ApplicationTracker,
    InitializeTask,
    ShutdownTask,
    ShardSyncTask,
    PeriodicShardSyncManager,
    MultiStreamTracker,
    RenewAllLeases,
    TakeLeases,
    LeaseDiscovery,
    LeaseAssignmentManager,
    WorkerMetricStatsReporter,
    Migration,
    SchedulerInitialize,
}

/// What a value is about: the operation, and the shard, stream and worker where they apply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Dimensions {
    pub(crate) operation: Operation,
    pub(crate) shard: Option<ShardId>,
    pub(crate) stream: Option<StreamId>,
    pub(crate) worker: Option<WorkerId>,
}

impl Operation {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ProcessTask => "ProcessTask",
            Self::ApplicationTracker => "ApplicationTracker",
            Self::InitializeTask => "InitializeTask",
            Self::ShutdownTask => "ShutdownTask",
            Self::ShardSyncTask => "ShardSyncTask",
            Self::PeriodicShardSyncManager => "PeriodicShardSyncManager",
            Self::MultiStreamTracker => "MultiStreamTracker",
            Self::RenewAllLeases => "RenewAllLeases",
            Self::TakeLeases => "TakeLeases",
            Self::LeaseDiscovery => "LeaseDiscovery",
            Self::LeaseAssignmentManager => "LeaseAssignmentManager",
            Self::WorkerMetricStatsReporter => "WorkerMetricStatsReporter",
            Self::Migration => "Migration",
            Self::SchedulerInitialize => "Scheduler:Initialize",
        }
    }

    /// Whether KCL reports it by worker.
    pub(crate) const fn is_by_worker(self) -> bool {
        matches!(
            self,
            Self::RenewAllLeases | Self::TakeLeases | Self::LeaseDiscovery | Self::WorkerMetricStatsReporter
        )
    }
}

impl Dimensions {
    pub(crate) const fn of(operation: Operation) -> Self {
        Self { operation, shard: None, stream: None, worker: None }
    }

    /// KCL's names of the dimensions, with their values.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let shard = self.shard.as_ref().map(|shard| ("ShardId", shard.as_str()));
        let stream =
            self.stream.as_ref().map(|stream| ("StreamId", stream.serialized().unwrap_or(stream.name())));
        let worker = self.worker.as_ref().map(|worker| ("WorkerIdentifier", worker.as_str()));
        [Some(("Operation", self.operation.name())), shard, stream, worker].into_iter().flatten()
    }
}
