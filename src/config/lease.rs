use crate::config::check;
use crate::error::{Error, ErrorKind};
use crate::types::StartStrategy;

/// How many leases this worker takes, and where it starts in shards nobody has processed yet.
///
/// ```
/// use kinesis_consumer::{ManagementConfig, StartStrategy};
///
/// let management =
///     ManagementConfig { leases_to_acquire: 2, max_leases: 20, start_strategy: StartStrategy::Latest };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagementConfig {
    /// The most leases taken away from other workers in one round of balancing (KCL's
    /// `maxLeasesToStealAtOneTime`; 1 or more, default 1). Leases that nobody holds are not counted:
    /// those are taken at once, up to this worker's fair share.
    pub leases_to_acquire: usize,
    /// The most leases this worker holds at a time (KCL's `maxLeasesForWorker`; 1 or more, default
    /// unlimited). When all workers of a fleet are at their limit, shards are left unread.
    pub max_leases: usize,
    /// Where to start in a shard that has no checkpoint. Default: [`StartStrategy::Latest`].
    pub start_strategy: StartStrategy,
}

impl Default for ManagementConfig {
    fn default() -> Self {
        Self { leases_to_acquire: 1, max_leases: usize::MAX, start_strategy: StartStrategy::default() }
    }
}

impl ManagementConfig {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        check("leases_to_acquire", self.leases_to_acquire, 1..=usize::MAX)?;
        check("max_leases", self.max_leases, 1..=usize::MAX)
    }
}

/// How records are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseConfig {
    /// With GetRecords: all consumers of a shard share 2 MB/s and 5 calls/s.
    PollingConfig {
        /// The most Kinesis records one call returns: 1 to 10,000 (the default).
        limit: u32,
    },
    /// With SubscribeToShard: enhanced fan-out, 2 MB/s per shard for this application alone. Not
    /// available in this version: [`build`](crate::ConsumerBuilder::build) refuses it.
    #[non_exhaustive]
    FanOutConfig {},
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self::PollingConfig { limit: 10_000 }
    }
}

impl LeaseConfig {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        match self {
            Self::PollingConfig { limit } => check("limit", *limit, 1..=10_000),
            Self::FanOutConfig {} => Err(Error::new(
                ErrorKind::Invalid,
                "enhanced fan-out is not available in this version; use LeaseConfig::PollingConfig",
            )),
        }
    }
}
