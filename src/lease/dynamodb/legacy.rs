//! Where rows that are no leases are kept. KCL 3.5 keeps them in the lease table; 3.0 to 3.4 had
//! tables of their own for them, which stay in use until the fleet has moved them
//! (`TableMigrationStateMachineImpl`, `CoordinatorStateDAO`, `WorkerMetricStatsDAO`).

use std::time::Duration;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;

use super::{DynamoDbLeaseStore, key_value};
use crate::lease::{
    Attribute, Condition, EntityKind, Item, LeaseWrite, StoreError, StoreErrorKind, Update, names,
};
use crate::types::{LeaseKey, Moment};

/// The row that shows how far a fleet has moved its rows, and the attribute that does.
const TABLE_MIGRATION: &str = "TableMigration3.5";
const TABLE_MIGRATION_STATUS: &str = "tm";
const COORDINATOR_KEY: &str = "key";
const METRICS_KEY: &str = "wid";

/// A table, and the name of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) table: String,
    pub(super) key: &'static str,
}

/// How often it is asked whether the fleet still uses the tables.
const RECHECK: Duration = Duration::from_secs(60);

/// The tables that KCL 3.0 to 3.4 left, while the fleet uses them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LegacyTables {
    coordinator: Place,
    metrics: Option<Place>,
    /// Rows are on their way to the lease table: but for the lock, they are written there.
    is_moving: bool,
}

/// What was found when the tables were last looked for: they do not come into being later.
#[derive(Debug)]
pub(super) struct Known {
    tables: Option<LegacyTables>,
    looked: Moment,
}

impl LegacyTables {
    /// With the status of the migration as it is stored in the coordinator's table.
    fn in_use(coordinator: Place, metrics: Option<Place>, status: Option<&str>) -> Option<Self> {
        let status = status.map(|status| status.trim_start_matches("TABLE_MIGRATION_STATUS_"));
        let is_moving = status == Some("PENDING");
        (status != Some("COMPLETE")).then_some(Self { coordinator, metrics, is_moving })
    }

    /// Where rows of this kind are written; `None` for the lease table.
    fn place_of(&self, kind: EntityKind) -> Option<Place> {
        match kind {
            EntityKind::Leader => Some(self.coordinator.clone()),
            EntityKind::ClientVersionMigration if !self.is_moving => Some(self.coordinator.clone()),
            EntityKind::WorkerMetricStats if !self.is_moving => self.metrics.clone(),
            EntityKind::ClientVersionMigration | EntityKind::WorkerMetricStats => None,
        }
    }
}

impl DynamoDbLeaseStore {
    /// Where rows of this kind are written.
    pub(super) async fn place_of(&self, kind: EntityKind) -> Result<Place, StoreError> {
        let place = self.legacy_tables().await?.and_then(|legacy| legacy.place_of(kind));
        Ok(place.unwrap_or_else(|| self.own_place()))
    }

    /// Where a row of this kind is looked for, the first place first: it may have moved.
    pub(super) async fn places_of(&self, kind: EntityKind) -> Result<Vec<Place>, StoreError> {
        Ok(match self.legacy_tables().await? {
            Some(legacy) if kind == EntityKind::ClientVersionMigration => {
                vec![legacy.coordinator, self.own_place()]
            }
            _ => vec![self.place_of(kind).await?],
        })
    }

    /// The rows of workers that report to the table of KCL 3.0 to 3.4, if there are such.
    pub(super) async fn legacy_metrics(&self) -> Result<Vec<Item>, StoreError> {
        if self.legacy.lock().await.is_none() {
            // Nobody has asked for rows that are no leases.
            return Ok(Vec::new());
        }
        let Some(place) = self.legacy_tables().await?.and_then(|legacy| legacy.metrics) else {
            return Ok(Vec::new());
        };
        let mut rows = Vec::new();
        let mut start = None;
        loop {
            let page = self.reads().scan().table_name(&place.table).set_exclusive_start_key(start);
            let answer = match self.send(self.request("ListWorkerMetrics", "Scan"), page.send()).await {
                // Deleted since it was looked for.
                Err(error) if error.kind() == StoreErrorKind::TableMissing => return Ok(rows),
                answer => answer?,
            };
            let items = answer.items.unwrap_or_default().into_iter().map(super::from_sdk_item);
            rows.extend(items.map(|row| from_place(row, &place, EntityKind::WorkerMetricStats)));
            start = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                return Ok(rows);
            }
        }
    }

    /// KCL fixes at the start where rows are written, and goes on looking for the end of the move.
    async fn legacy_tables(&self) -> Result<Option<LegacyTables>, StoreError> {
        let mut known = self.legacy.lock().await;
        let now = self.clock.now();
        if let Some(Known { tables, looked }) = &*known
            && (tables.is_none() || now.since(*looked) < RECHECK)
        {
            return Ok(tables.clone());
        }
        let found = self.find_legacy_tables().await?;
        let before = known.take().and_then(|known| known.tables);
        let tables = found.map(|found| match before {
            Some(before) => LegacyTables { is_moving: before.is_moving, ..found },
            None => found,
        });
        *known = Some(Known { tables: tables.clone(), looked: now });
        Ok(tables)
    }

    async fn find_legacy_tables(&self) -> Result<Option<LegacyTables>, StoreError> {
        let Some(application) = &self.application else { return Ok(None) };
        let coordinator = Place { table: format!("{application}-CoordinatorState"), key: COORDINATOR_KEY };
        if !self.exists(&coordinator).await? {
            return Ok(None);
        }
        let metrics = Place { table: format!("{application}-WorkerMetricStats"), key: METRICS_KEY };
        let metrics = self.exists(&metrics).await?.then_some(metrics);
        let migration = self.item_at("GetTableMigration", &coordinator, &TABLE_MIGRATION.into()).await?;
        let status = migration.as_ref().and_then(|row| row.get(TABLE_MIGRATION_STATUS)?.text());
        let legacy = LegacyTables::in_use(coordinator, metrics, status);
        tracing::debug!(?legacy, status, "the fleet has tables of KCL 3.0 to 3.4");
        Ok(legacy)
    }

    async fn exists(&self, place: &Place) -> Result<bool, StoreError> {
        let request = self.request("DescribeLegacyTable", "DescribeTable");
        match self.answer(request, self.reads().describe_table().table_name(&place.table).send()).await? {
            Ok(_) => Ok(true),
            Err(failure) if failure.code() == Some("ResourceNotFoundException") => Ok(false),
            Err(failure) => Err(request.failed(&failure)),
        }
    }

    /// A row as it is now.
    pub(super) async fn item_at(
        &self,
        operation: &'static str,
        place: &Place,
        key: &LeaseKey,
    ) -> Result<Option<Item>, StoreError> {
        let read = self.reads().get_item().table_name(&place.table).consistent_read(true);
        let response = read.key(place.key, key_value(key)).send();
        let answer = self.send(self.row_request(operation, "GetItem", key), response).await?;
        Ok(answer.item.map(super::from_sdk_item))
    }
}

/// A row of `place` as it would be in the lease table.
pub(super) fn from_place(mut row: Item, place: &Place, kind: EntityKind) -> Item {
    if place.key != names::LEASE_KEY {
        if let Some(key) = row.remove(place.key) {
            row.insert(names::LEASE_KEY.to_owned(), key);
        }
        row.insert(names::ENTITY_TYPE.to_owned(), Attribute::S(kind.name().to_owned()));
    }
    row
}

/// A write to the lease table as it has to be in `place`.
pub(super) fn to_place(write: &LeaseWrite, place: &Place) -> LeaseWrite {
    let mut write = write.clone();
    if place.key != names::LEASE_KEY {
        conditions_to_place(&mut write.conditions, place);
        write.updates.retain(|update| !matches!(update, Update::Set(names::ENTITY_TYPE, _)));
    }
    write
}

pub(super) fn conditions_to_place(conditions: &mut [Condition], place: &Place) {
    for condition in conditions {
        let (Condition::Equals(name, _)
        | Condition::EqualsOrAbsent(name, _)
        | Condition::Exists(name)
        | Condition::Absent(name)) = condition;
        if *name == names::LEASE_KEY {
            *name = place.key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(table: &str, key: &'static str) -> Place {
        Place { table: table.to_owned(), key }
    }

    #[test]
    fn tables_are_in_use_until_their_rows_have_moved() {
        let (coordinator, metrics) =
            (place("a-CoordinatorState", "key"), place("a-WorkerMetricStats", "wid"));
        let own = |status| {
            let legacy = LegacyTables::in_use(coordinator.clone(), Some(metrics.clone()), status)?;
            let kinds =
                [EntityKind::Leader, EntityKind::ClientVersionMigration, EntityKind::WorkerMetricStats];
            Some(kinds.map(|kind| legacy.place_of(kind).is_some()))
        };
        assert_eq!(own(None), Some([true, true, true]));
        assert_eq!(own(Some("TABLE_MIGRATION_STATUS_INIT")), Some([true, true, true]));
        assert_eq!(own(Some("TABLE_MIGRATION_STATUS_DEPLOYED")), Some([true, true, true]));
        assert_eq!(own(Some("TABLE_MIGRATION_STATUS_PENDING")), Some([true, false, false]));
        assert_eq!(own(Some("TABLE_MIGRATION_STATUS_COMPLETE")), None);
    }

    #[test]
    fn rows_and_writes_go_by_the_key_of_their_table() {
        let place = place("a-CoordinatorState", "key");
        let write = LeaseWrite::to_entity(
            "AcquireLock",
            EntityKind::Leader,
            &"Leader".into(),
            vec![Condition::Absent(names::LEASE_KEY)],
            vec![Update::Set("ownerName", Attribute::S("a".to_owned()))],
        );
        let moved = to_place(&write, &place);
        assert_eq!(moved.conditions, [Condition::Absent("key")]);
        assert_eq!(moved.updates.len(), 1);
        let row = Item::from([("key".to_owned(), Attribute::S("Leader".to_owned()))]);
        let row = from_place(row, &place, EntityKind::Leader);
        assert_eq!(row.get(names::LEASE_KEY).and_then(Attribute::text), Some("Leader"));
        assert!(EntityKind::Leader.is_kind_of(&row));
    }
}
