//! Where rows that are no leases are kept. KCL 3.5 keeps them in the lease table; 3.0 to 3.4 had
//! tables of their own for them, which stay in use until the fleet has moved them
//! (`TableMigrationStateMachineImpl`, `CoordinatorStateDAO`, `WorkerMetricStatsDAO`).

use aws_sdk_dynamodb::error::ProvideErrorMetadata;

use super::{DynamoDbLeaseStore, key_value};
use crate::lease::{Attribute, Condition, EntityKind, Item, LeaseWrite, StoreError, Update, names};
use crate::types::LeaseKey;

/// The row that tells how far a fleet has moved its rows, and the attribute that tells it.
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

/// The tables that KCL 3.0 to 3.4 left, as far as they are still in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LegacyTables {
    coordinator: Option<Place>,
    metrics: Option<Place>,
}

impl LegacyTables {
    /// With the status of the migration as it is stored in the coordinator's table.
    fn in_use(coordinator: Place, metrics: Option<Place>, status: Option<&str>) -> Self {
        match status.map(|status| status.trim_start_matches("TABLE_MIGRATION_STATUS_")) {
            Some("COMPLETE") => Self::default(),
            Some("PENDING") => Self { coordinator: Some(coordinator), metrics: None },
            _ => Self { coordinator: Some(coordinator), metrics },
        }
    }
}

impl DynamoDbLeaseStore {
    /// Where rows of this kind are written.
    pub(super) async fn place_of(&self, kind: EntityKind) -> Result<Place, StoreError> {
        let legacy = self.legacy_tables().await?;
        let place = match kind {
            EntityKind::WorkerMetricStats => &legacy.metrics,
            EntityKind::Leader | EntityKind::ClientVersionMigration => &legacy.coordinator,
        };
        let own = || Place { table: self.table.clone(), key: names::LEASE_KEY };
        Ok(place.clone().unwrap_or_else(own))
    }

    /// The rows of workers that report to the table of KCL 3.0 to 3.4, if there are such.
    pub(super) async fn legacy_metrics(&self) -> Result<Vec<Item>, StoreError> {
        let Some(legacy) = self.legacy.get() else { return Ok(Vec::new()) };
        let Some(place) = &legacy.metrics else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        let mut start = None;
        loop {
            let page = self.reads.scan().table_name(&place.table).set_exclusive_start_key(start);
            let answer = self.send(self.request("ListWorkerMetrics", "Scan"), page.send()).await?;
            let items = answer.items.unwrap_or_default().into_iter().map(super::from_sdk_item);
            rows.extend(items.map(|row| from_place(row, place, EntityKind::WorkerMetricStats)));
            start = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                return Ok(rows);
            }
        }
    }

    /// Looked up once: KCL fixes it at the start as well.
    async fn legacy_tables(&self) -> Result<&LegacyTables, StoreError> {
        self.legacy.get_or_try_init(|| self.find_legacy_tables()).await
    }

    async fn find_legacy_tables(&self) -> Result<LegacyTables, StoreError> {
        let Some(application) = &self.application else { return Ok(LegacyTables::default()) };
        let coordinator = Place { table: format!("{application}-CoordinatorState"), key: COORDINATOR_KEY };
        if !self.exists(&coordinator).await? {
            return Ok(LegacyTables::default());
        }
        let metrics = Place { table: format!("{application}-WorkerMetricStats"), key: METRICS_KEY };
        let metrics = self.exists(&metrics).await?.then_some(metrics);
        let migration = self.item_at("GetTableMigration", &coordinator, &TABLE_MIGRATION.into()).await?;
        let status = migration.as_ref().and_then(|row| row.get(TABLE_MIGRATION_STATUS)?.text());
        let legacy = LegacyTables::in_use(coordinator, metrics, status);
        tracing::info!(?legacy, status, "the fleet has tables of KCL 3.0 to 3.4");
        Ok(legacy)
    }

    async fn exists(&self, place: &Place) -> Result<bool, StoreError> {
        let request = self.request("DescribeLegacyTable", "DescribeTable");
        match self.answer(request, self.reads.describe_table().table_name(&place.table).send()).await? {
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
        let read = self.reads.get_item().table_name(&place.table).consistent_read(true);
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
        let (Condition::Equals(name, _) | Condition::Exists(name) | Condition::Absent(name)) = condition;
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
        let in_use = |status| {
            let legacy = LegacyTables::in_use(coordinator.clone(), Some(metrics.clone()), status);
            (legacy.coordinator.is_some(), legacy.metrics.is_some())
        };
        assert_eq!(in_use(None), (true, true));
        assert_eq!(in_use(Some("TABLE_MIGRATION_STATUS_INIT")), (true, true));
        assert_eq!(in_use(Some("TABLE_MIGRATION_STATUS_DEPLOYED")), (true, true));
        assert_eq!(in_use(Some("TABLE_MIGRATION_STATUS_PENDING")), (true, false));
        assert_eq!(in_use(Some("TABLE_MIGRATION_STATUS_COMPLETE")), (false, false));
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
