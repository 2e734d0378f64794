use super::{Attribute, Condition, Item, LeaseWrite, Update, names};
use crate::types::LeaseKey;

/// What a row of the lease table is, other than a lease (KCL's `EntityType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EntityKind {
    /// `LEADER`: the lock that makes one worker the leader.
    Leader,
    /// `CLIENT_VERSION_MIGRATION`: how far the fleet has come from KCL 2.x to 3.x.
    ClientVersionMigration,
    /// `WORKER_METRIC_STATS`: how busy a worker is.
    WorkerMetricStats,
}

/// What became of a conditional write of a row that is no lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum EntityOutcome {
    /// Every condition held; the row is now this.
    Applied(Item),
    /// A condition did not hold; the row is this (`None`: there is none).
    Refused(Option<Item>),
}

impl EntityKind {
    /// The value of `entityType`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "LEADER",
            Self::ClientVersionMigration => "CLIENT_VERSION_MIGRATION",
            Self::WorkerMetricStats => "WORKER_METRIC_STATS",
        }
    }

    /// Whether `row` is of this kind.
    #[must_use]
    pub fn is_kind_of(self, row: &Item) -> bool {
        row.get(names::ENTITY_TYPE).and_then(Attribute::text) == Some(self.name())
    }
}

impl LeaseWrite {
    /// A conditional write of a row that is no lease; where the conditions allow for no row, it is
    /// created.
    pub(crate) fn to_entity(
        operation: &'static str,
        kind: EntityKind,
        key: &LeaseKey,
        conditions: Vec<Condition>,
        updates: Vec<Update>,
    ) -> Self {
        let mut write = Self { operation, key: key.clone(), conditions, updates };
        write.updates.push(Update::Set(names::ENTITY_TYPE, Attribute::S(kind.name().to_owned())));
        write
    }
}
