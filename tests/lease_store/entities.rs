//! Rows that are no leases: the leader's lock stands for all of them.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use kinesis_consumer::internals::{ElectionAction, LockRow, LockView, Version, dynamodb_lease_store};
use kinesis_consumer::lease::{
    Attribute, EntityKind, EntityOutcome, Item, LeaseStore, LeaseWrite, TableSpec,
};
use kinesis_consumer::{LeaseKey, Moment};

use crate::dynamodb::unique;
use crate::table::{Table, dynamodb};

const DURATION: Duration = Duration::from_secs(20);
const NOW: Moment = Moment::after_origin(Duration::from_secs(1000));

fn key() -> LeaseKey {
    "Leader".into()
}

/// What `worker`, which knows this of the lock, writes.
fn planned(view: &LockView, worker: &str, version: u128) -> LeaseWrite {
    match view.plan(&worker.into(), DURATION, Version::new(version), NOW) {
        ElectionAction::Acquire(write) | ElectionAction::Heartbeat(write) => write,
        ElectionAction::Wait => panic!("{worker} waits"),
    }
}

async fn put(store: &dyn LeaseStore, write: &LeaseWrite) -> Result<LockRow, Option<LockRow>> {
    match store.apply_to_entity(EntityKind::Leader, write).await.unwrap() {
        EntityOutcome::Applied(row) => Ok(LockRow::from_item(&row).unwrap()),
        EntityOutcome::Refused(row) => Err(row.as_ref().and_then(LockRow::from_item)),
    }
}

async fn stored(store: &dyn LeaseStore) -> Option<LockRow> {
    store.entity(EntityKind::Leader, &key()).await.unwrap().as_ref().and_then(LockRow::from_item)
}

pub(crate) async fn the_lock_is_put_once_and_kept_by_heartbeats(table: &Table) {
    let store = &*table.store;
    let (mut a, b) = (LockView::default(), LockView::default());
    let first = put(store, &planned(&a, "a", 1)).await.unwrap();
    assert_eq!((first.owner.as_str(), first.duration), ("a", DURATION));
    a.written(first.clone(), NOW);
    assert_eq!(put(store, &planned(&b, "b", 2)).await, Err(Some(first.clone())), "with the row as it is");
    let heartbeat = planned(&a, "a", 3);
    let second = put(store, &heartbeat).await.unwrap();
    assert_ne!(second.version, first.version);
    assert_eq!(put(store, &heartbeat).await, Err(Some(second.clone())), "the version has changed");
    assert_eq!(stored(store).await, Some(second));
    let scan = store.scan().await.unwrap();
    assert_eq!((scan.leases.len(), scan.unreadable.len(), scan.entities.len()), (0, 0, 1));
    let row = table.item("Leader").await.unwrap();
    assert_eq!(row.get("entityType"), Some(&Attribute::S("LEADER".to_owned())));
    assert_eq!(row.get("leaseDuration"), Some(&Attribute::S("20000".to_owned())));
}

pub(crate) async fn the_lock_is_deleted_only_by_who_holds_it(table: &Table) {
    let store = &*table.store;
    let (mut a, mut former) = (LockView::default(), LockView::default());
    let row = put(store, &planned(&a, "a", 1)).await.unwrap();
    former.written(row.clone(), NOW);
    a.written(row, NOW);
    a.written(put(store, &planned(&a, "a", 2)).await.unwrap(), NOW);
    for (view, is_left) in [(&mut former, true), (&mut a, false)] {
        let conditions = view.resign(&"a".into()).unwrap();
        store.delete_entity(EntityKind::Leader, &key(), &conditions).await.unwrap();
        assert_eq!(stored(store).await.is_some(), is_left);
    }
}

async fn create(client: &Client, table: &str, key: &str) {
    let schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build().unwrap();
    let key = AttributeDefinition::builder().attribute_name(key).attribute_type(ScalarAttributeType::S);
    let create = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    create.key_schema(schema).attribute_definitions(key.build().unwrap()).send().await.unwrap();
}

async fn insert(client: &Client, table: &str, texts: &[(&str, &str)]) {
    let item = texts.iter().map(|(name, text)| ((*name).to_owned(), AttributeValue::S((*text).to_owned())));
    client.put_item().table_name(table).set_item(Some(item.collect())).send().await.unwrap();
}

async fn rows(client: &Client, table: &str) -> Vec<HashMap<String, AttributeValue>> {
    client.scan().table_name(table).consistent_read(true).send().await.unwrap().items.unwrap_or_default()
}

/// A fleet of `application` with the tables of KCL 3.0 to 3.4, moved as far as `status` says.
async fn old_fleet(client: &Client, application: &str, status: Option<&str>) -> Vec<Item> {
    let leases = format!("{application}-leases");
    let [coordinator, metrics] =
        ["CoordinatorState", "WorkerMetricStats"].map(|name| format!("{application}-{name}"));
    create(client, &coordinator, "key").await;
    create(client, &metrics, "wid").await;
    insert(client, &metrics, &[("wid", "java")]).await;
    if let Some(status) = status {
        let status = format!("TABLE_MIGRATION_STATUS_{status}");
        insert(client, &coordinator, &[("key", "TableMigration3.5"), ("tm", &status)]).await;
    }
    let store = dynamodb_lease_store(client, &leases, Some(application), None, Duration::from_secs(20));
    store.ensure_table(&TableSpec::default()).await.unwrap();
    let mut view = LockView::default();
    view.written(put(&*store, &planned(&view, "a", 1)).await.unwrap(), NOW);
    let row = put(&*store, &planned(&view, "a", 2)).await.unwrap();
    assert_eq!(stored(&*store).await, Some(row));
    let is_moved = status == Some("COMPLETE");
    assert_eq!(rows(client, &leases).await.len(), usize::from(is_moved), "the lock in the lease table");
    let mut locks = rows(client, &coordinator).await;
    locks.retain(|row| row["key"].as_s().unwrap() == "Leader");
    assert_eq!(locks.len(), usize::from(!is_moved), "the lock in the table of its own");
    assert!(locks.iter().all(|row| !row.contains_key("entityType") && !row.contains_key("leaseKey")));
    insert(client, &leases, &[("leaseKey", "Migration3.0"), ("cv", "CLIENT_VERSION_3X")]).await;
    let state = store.entity(EntityKind::ClientVersionMigration, &"Migration3.0".into()).await.unwrap();
    assert!(state.is_some_and(|row| row.contains_key("cv")), "wherever it is");
    let entities = store.scan().await.unwrap().entities;
    let conditions = view.resign(&"a".into()).unwrap();
    store.delete_entity(EntityKind::Leader, &key(), &conditions).await.unwrap();
    assert!(stored(&*store).await.is_some(), "that was not the last version");
    entities
}

#[tokio::test]
async fn a_fleet_that_has_tables_of_its_own_for_them_keeps_them_there() {
    let client = dynamodb().await;
    let is_found = |entities: &[Item]| {
        entities.iter().any(|row| row.get("leaseKey") == Some(&Attribute::S("java".to_owned())))
    };
    assert!(is_found(&old_fleet(&client, &unique("old"), None).await), "the report of a 3.4 worker is read");
    assert!(is_found(&old_fleet(&client, &unique("deployed"), Some("DEPLOYED")).await));
    assert!(is_found(&old_fleet(&client, &unique("pending"), Some("PENDING")).await));
    assert!(!is_found(&old_fleet(&client, &unique("complete"), Some("COMPLETE")).await));
}
