//! How the workers of a fleet coordinate their leases.

use std::time::Duration;

use kinesis_consumer::{AssignmentStrategy, CoordinationConfig, CoordinationMode};

use crate::history::LeaderRules;
use crate::scenario::FAILOVER;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Every worker takes leases itself.
    Independent,
    /// A leader assigns leases.
    Led,
    /// First independent, then led, while workers are redeployed.
    Migrating,
}

#[derive(Debug, Clone)]
pub(crate) struct Coordination {
    pub(crate) protocol: Protocol,
    pub(crate) strategy: AssignmentStrategy,
    pub(crate) graceful: bool,
    pub(crate) handoff_timeout: Duration,
    /// The probability that a fault of a worker affects the leader.
    pub(crate) targets_leader: f64,
    /// Probability per second that a worker is cut off after some more requests to the lease table, and
    /// dies.
    pub(crate) cuts: f64,
    /// Whether the fleet is rolled back once it is run by a leader.
    pub(crate) rolls_back: bool,
}

/// The stage of the deployment of a migrating fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Any mode that follows the rules of 2.x.
    Mixed,
    /// All workers are ready for a leader.
    Compatible,
    /// No worker needs the rules of 2.x any more.
    Led,
}

impl Coordination {
    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Self {
        let protocol = match rng.u32(..12) {
            0..=5 => Protocol::Independent,
            6..=9 => Protocol::Led,
            _ => Protocol::Migrating,
        };
        Self {
            protocol,
            strategy: match rng.u32(..3) {
                0 => AssignmentStrategy::LeaseCountBased,
                _ => AssignmentStrategy::WorkerUtilizationAware,
            },
            graceful: rng.u32(..5) > 0,
            handoff_timeout: [FAILOVER / 2, FAILOVER, FAILOVER * 3][rng.usize(..3)],
            targets_leader: [0.0, 0.3, 0.8][rng.usize(..3)],
            cuts: [0.0, 0.01, 0.03][rng.usize(..3)],
            rolls_back: rng.u32(..3) == 0,
        }
    }

    pub(crate) fn leader_rules(&self) -> LeaderRules {
        LeaderRules { asks_first: self.graceful, handoff_timeout: self.handoff_timeout }
    }

    /// The mode of a worker that starts now.
    pub(crate) fn mode(&self, stage: Stage, rng: &mut fastrand::Rng) -> CoordinationMode {
        match (self.protocol, stage) {
            (Protocol::Independent, _) => CoordinationMode::Independent,
            (Protocol::Led, _) | (Protocol::Migrating, Stage::Led) => CoordinationMode::Leader,
            (Protocol::Migrating, Stage::Compatible) => CoordinationMode::CompatibleWith2x,
            (Protocol::Migrating, Stage::Mixed) => [
                CoordinationMode::Independent,
                CoordinationMode::CompatibleWith2xPhase1,
                CoordinationMode::CompatibleWith2x,
            ][rng.usize(..3)],
        }
    }

    pub(crate) fn config(&self, mode: CoordinationMode) -> CoordinationConfig {
        let mut config = CoordinationConfig::default();
        config.mode = mode;
        config.failover_time = FAILOVER;
        config.lease_cleanup_interval = Duration::from_secs(20);
        config.leader.assignment_strategy = self.strategy;
        config.leader.graceful_handoff = self.graceful;
        config.leader.graceful_handoff_timeout = self.handoff_timeout;
        config
    }
}

impl Stage {
    /// Whether a worker in this mode must be redeployed.
    pub(crate) fn is_behind(self, mode: CoordinationMode) -> bool {
        match self {
            Self::Mixed => false,
            Self::Compatible => mode != CoordinationMode::CompatibleWith2x,
            Self::Led => mode != CoordinationMode::Leader,
        }
    }
}
