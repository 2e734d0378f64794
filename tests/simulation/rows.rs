//! Classifies the change of a row of the lease table.

use std::time::Duration;

use kinesis_consumer::LeaseKey;
use kinesis_consumer::lease::{Attribute, EntityKind, Item, Lease};

use crate::history::{By, EventKind, Lock};

pub(crate) const LOCK: &str = "Leader";
pub(crate) const MIGRATION: &str = "Migration3.0";
pub(crate) const VERSION: &str = "cv";

pub(crate) fn change(
    key: &LeaseKey,
    before: Option<&Item>,
    after: Option<&Item>,
    by: Option<By>,
) -> EventKind {
    let is = |kind: EntityKind| after.or(before).is_some_and(|row| kind.is_kind_of(row));
    if is(EntityKind::Leader) {
        return EventKind::LockRow { before: before.and_then(lock), after: after.and_then(lock), by };
    }
    if is(EntityKind::WorkerMetricStats) {
        let updated = after.and_then(|row| text(row, "lut"));
        return EventKind::MetricsReported { worker: key.as_str().to_owned(), updated, by };
    }
    if is(EntityKind::ClientVersionMigration) {
        return EventKind::Version {
            version: after.and_then(|row| text(row, VERSION)).unwrap_or_default(),
            by,
        };
    }
    EventKind::Row { key: key.clone(), before: lease(before), after: lease(after), by }
}

/// The leader's lock, if the row contains it.
pub(crate) fn lock(row: &Item) -> Option<Lock> {
    Some(Lock {
        owner: text(row, "ownerName")?,
        version: text(row, "recordVersionNumber")?,
        duration: Duration::from_millis(text(row, "leaseDuration")?.parse().ok()?),
    })
}

/// An attribute as text.
pub(crate) fn text(row: &Item, name: &str) -> Option<String> {
    match row.get(name)? {
        Attribute::S(text) | Attribute::N(text) => Some(text.clone()),
        _ => None,
    }
}

fn lease(item: Option<&Item>) -> Option<Box<Lease>> {
    item.and_then(|item| Lease::from_item(item).expect("readable")).map(Box::new)
}
