use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::decimal::Decimal;
use super::user_tables::UserTables;
use super::{
    Attribute, Condition, Created, EntityKind, EntityOutcome, Item, Lease, LeaseScan, LeaseStore,
    LeaseTransaction, LeaseWrite, StoreError, StoreErrorKind, TableSpec, TransactOutcome, Update,
    WriteOutcome, names,
};
use crate::types::{LeaseKey, WorkerId};

/// How many writes back [`MemoryLeaseStore::items_before`] can look.
const HISTORY_MAX: usize = 1024;

/// A lease table in memory, with the conditional semantics of DynamoDB: for tests, simulations, and
/// consumers that live in one process. Clones share the table.
///
/// ```
/// use kinesis_consumer::lease::{Lease, LeaseStore, LeaseWrite, MemoryLeaseStore, WriteOutcome};
/// use kinesis_consumer::Checkpoint;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let table = MemoryLeaseStore::default();
/// let lease = Lease::new("shardId-000000000000", Checkpoint::TrimHorizon);
/// table.create(&lease).await?;
///
/// let ours = table.apply(&LeaseWrite::take(&lease, &"a".into())).await?;
/// let theirs = table.apply(&LeaseWrite::take(&lease, &"b".into())).await?;
/// assert!(matches!(ours, WriteOutcome::Applied(taken) if taken.counter == 1));
/// assert!(matches!(theirs, WriteOutcome::Refused(Some(current)) if current.owner == Some("a".into())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryLeaseStore {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    rows: BTreeMap<LeaseKey, Item>,
    /// What the last rows that changed were before, oldest change first.
    history: VecDeque<(LeaseKey, Option<Item>)>,
    observer: Option<ChangeObserver>,
    items: UserTables,
}

/// Is called with each change of a row: its key, what it was and what it is now, `None` where there is
/// none.
type ChangeObserver = Box<dyn Fn(&LeaseKey, Option<&Item>, Option<&Item>) + Send>;

impl MemoryLeaseStore {
    /// Every row as it is now, of whatever kind.
    #[must_use]
    pub fn items(&self) -> BTreeMap<LeaseKey, Item> {
        self.table.lock().rows.clone()
    }

    /// Every row as it was before the last `writes` changes, or as far back as that is known (some
    /// thousand changes): what an eventually consistent read may still see.
    #[must_use]
    pub fn items_before(&self, writes: usize) -> BTreeMap<LeaseKey, Item> {
        let table = self.table.lock();
        let mut rows = table.rows.clone();
        for (key, before) in table.history.iter().rev().take(writes) {
            match before {
                Some(item) => rows.insert(key.clone(), item.clone()),
                None => rows.remove(key),
            };
        }
        rows
    }

    /// Puts a row as it is, replacing one with the same key: for tests of rows that others wrote.
    /// False if it has no `leaseKey`, and nothing is put.
    pub fn insert_item(&self, item: Item) -> bool {
        let Some(key) = item.get(names::LEASE_KEY).and_then(Attribute::text).map(LeaseKey::from) else {
            return false;
        };
        self.table.lock().put(key, Some(item));
        true
    }

    /// Makes a table for the effects of transactions, whose primary key has these attributes. One that is there stays.
    pub fn create_user_table(&self, name: &str, key: &[&str]) {
        self.table.lock().items.create(name, key);
    }

    /// Every item of a user's table, in the order of keys; empty if there is no such table.
    #[must_use]
    pub fn user_items(&self, table: &str) -> Vec<Item> {
        self.table.lock().items.items(table)
    }

    /// From now on calls `observer` with each change of a row, at the moment it happens: the key, the
    /// row before and the row after. It must not use this table.
    #[cfg(feature = "test-util")]
    pub fn observe_changes(
        &self,
        observer: impl Fn(&LeaseKey, Option<&Item>, Option<&Item>) + Send + 'static,
    ) {
        self.table.lock().observer = Some(Box::new(observer));
    }
}

impl Table {
    fn put(&mut self, key: LeaseKey, item: Option<Item>) {
        let before = match item {
            Some(item) => self.rows.insert(key.clone(), item),
            None => self.rows.remove(&key),
        };
        if let Some(observer) = &self.observer {
            observer(&key, before.as_ref(), self.rows.get(&key));
        }
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back((key, before));
    }

    fn delete(&mut self, key: &LeaseKey, conditions: &[Condition]) {
        if self.rows.get(key).is_some_and(|row| conditions.iter().all(|condition| condition.holds(row))) {
            self.put(key.clone(), None);
        }
    }

    fn update(&mut self, write: &LeaseWrite) -> Result<WriteOutcome, StoreError> {
        let current = self.rows.get(&write.key);
        let after = row_after(write, current)
            .map_err(|reason| malformed(write.operation, &write.key).with_source(reason))?;
        let Some(item) = after else { return Ok(WriteOutcome::refused_by(current)) };
        let lease = Lease::from_item(&item);
        self.put(write.key.clone(), Some(item));
        match lease {
            Ok(Some(lease)) => Ok(WriteOutcome::Applied(Box::new(lease))),
            Ok(None) => Err(malformed(write.operation, &write.key)),
            Err(unreadable) => Err(malformed(write.operation, &write.key).with_source(unreadable)),
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// What DynamoDB's UpdateItem makes of a row, down to creating it if the conditions allow for none;
/// `None` if a condition does not hold.
pub(crate) fn row_after(write: &LeaseWrite, current: Option<&Item>) -> Result<Option<Item>, &'static str> {
    let empty = Item::new();
    if !write.conditions.iter().all(|condition| condition.holds(current.unwrap_or(&empty))) {
        return Ok(None);
    }
    let mut item = current.cloned().unwrap_or_else(|| {
        Item::from([(names::LEASE_KEY.to_owned(), Attribute::S(write.key.as_str().to_owned()))])
    });
    for update in &write.updates {
        carry_out(update, &mut item)?;
    }
    Ok(Some(item))
}

/// Carries one update out by DynamoDB's rules.
fn carry_out(update: &Update, item: &mut Item) -> Result<(), &'static str> {
    if update.attribute() == names::LEASE_KEY {
        return Err("the key of a row cannot be changed");
    }
    match update {
        Update::Set(_, Attribute::Ss(texts)) if texts.is_empty() => return Err("a set cannot be empty"),
        Update::Set(name, value) => {
            item.insert((*name).to_owned(), value.clone());
        }
        Update::Remove(name) => {
            item.remove(*name);
        }
        Update::Add(name, amount) => {
            let sum = match item.get(*name) {
                None => Some(*amount),
                Some(Attribute::N(text)) => Decimal::parse(text)
                    .and_then(|number| number.to_u64())
                    .and_then(|number| number.checked_add(*amount)),
                Some(_) => None,
            };
            let sum = sum.ok_or("only a whole number can be added to")?;
            item.insert((*name).to_owned(), Attribute::number(sum));
        }
    }
    Ok(())
}

fn malformed(operation: &'static str, key: &LeaseKey) -> StoreError {
    StoreError::new(StoreErrorKind::Malformed, operation, format!("in memory (row {key})"))
}

#[async_trait]
impl LeaseStore for MemoryLeaseStore {
    async fn ensure_table(&self, _spec: &TableSpec) -> Result<(), StoreError> {
        Ok(())
    }

    fn identity(&self) -> Option<String> {
        Some(format!("in memory at {:p}", Arc::as_ptr(&self.table)))
    }

    async fn scan(&self) -> Result<LeaseScan, StoreError> {
        Ok(LeaseScan::from_items(self.table.lock().rows.values()))
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        match self.table.lock().rows.get(key).map(Lease::from_item) {
            None => Ok(None),
            Some(Ok(lease)) => Ok(lease),
            Some(Err(unreadable)) => Err(malformed("GetLease", key).with_source(unreadable)),
        }
    }

    async fn keys_owned_by(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        Ok(keys_owned_by(&self.table.lock().rows, worker))
    }

    async fn create(&self, lease: &Lease) -> Result<Created, StoreError> {
        let mut table = self.table.lock();
        if table.rows.contains_key(&lease.key) {
            return Ok(Created::Already);
        }
        table.put(lease.key.clone(), Some(lease.to_item()));
        Ok(Created::Now)
    }

    async fn apply(&self, write: &LeaseWrite) -> Result<WriteOutcome, StoreError> {
        self.table.lock().update(write)
    }

    async fn transact(&self, transaction: &LeaseTransaction) -> Result<TransactOutcome, StoreError> {
        let mut table = self.table.lock();
        let write = &transaction.write;
        let failed = |reason: String| malformed(write.operation, &write.key).with_detail(reason);
        if table.items.has_happened(&transaction.token) {
            return Ok(TransactOutcome::Applied);
        }
        let current = table.rows.get(&write.key);
        let Some(row) = row_after(write, current).map_err(|reason| failed(reason.to_owned()))? else {
            return Ok(match WriteOutcome::refused_by(current) {
                WriteOutcome::Refused(row) => TransactOutcome::LeaseRefused(row),
                WriteOutcome::Applied(row) => TransactOutcome::LeaseRefused(Some(row)),
            });
        };
        match table.items.transact(&transaction.effects).map_err(failed)? {
            Ok(()) => {
                table.items.remember(&transaction.token);
                table.put(write.key.clone(), Some(row));
                Ok(TransactOutcome::Applied)
            }
            Err((effect, item)) => Ok(TransactOutcome::EffectRefused { effect, item }),
        }
    }

    async fn delete_ended(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.table.lock().delete(key, &[Condition::ended()]);
        Ok(())
    }

    async fn ensure_owner_index(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn entity(&self, _kind: EntityKind, key: &LeaseKey) -> Result<Option<Item>, StoreError> {
        Ok(self.table.lock().rows.get(key).cloned())
    }

    async fn apply_to_entity(
        &self,
        _kind: EntityKind,
        write: &LeaseWrite,
    ) -> Result<EntityOutcome, StoreError> {
        let mut table = self.table.lock();
        let current = table.rows.get(&write.key);
        let after = row_after(write, current)
            .map_err(|reason| malformed(write.operation, &write.key).with_source(reason))?;
        let Some(item) = after else { return Ok(EntityOutcome::Refused(current.cloned())) };
        table.put(write.key.clone(), Some(item.clone()));
        Ok(EntityOutcome::Applied(item))
    }

    async fn delete_entity(
        &self,
        _kind: EntityKind,
        key: &LeaseKey,
        conditions: &[Condition],
    ) -> Result<(), StoreError> {
        self.table.lock().delete(key, conditions);
        Ok(())
    }
}

/// The index `LeaseOwnerToLeaseKeyIndex`: of every row with that owner, in the order of keys.
pub(super) fn keys_owned_by(rows: &BTreeMap<LeaseKey, Item>, worker: &WorkerId) -> Vec<LeaseKey> {
    let is_owner = |row: &Item| {
        row.get(names::LEASE_OWNER).and_then(Attribute::text).is_some_and(|owner| *worker == owner)
    };
    rows.iter().filter(|(_, row)| is_owner(row)).map(|(key, _)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::arbitrary;
    use super::*;
    use proptest::prelude::*;

    fn changed_attributes<'a>(before: &'a Item, after: &'a Item) -> Vec<&'a str> {
        let names = before.keys().chain(after.keys());
        names.filter(|name| before.get(*name) != after.get(*name)).map(String::as_str).collect()
    }

    #[test]
    fn the_past_can_be_read() {
        let store = MemoryLeaseStore::default();
        let item = |key: &str, counter| {
            Item::from([
                (names::LEASE_KEY.to_owned(), Attribute::S(key.to_owned())),
                (names::LEASE_COUNTER.to_owned(), Attribute::number(counter)),
            ])
        };
        assert!(!store.insert_item(Item::new()));
        for (key, counter) in [("a", 0), ("b", 0), ("a", 1)] {
            assert!(store.insert_item(item(key, counter)));
        }
        assert_eq!(store.items_before(0), store.items());
        let before_last = BTreeMap::from([("a".into(), item("a", 0)), ("b".into(), item("b", 0))]);
        assert_eq!(store.items_before(1), before_last);
        assert_eq!(store.items_before(99), BTreeMap::new());
    }

    proptest! {
        #[test]
        fn a_write_happens_if_and_only_if_its_conditions_hold(item in arbitrary::item(), write in arbitrary::write()) {
            let store = MemoryLeaseStore::default();
            store.insert_item(item);
            let before = store.items();
            let row = before.get(&write.key).cloned().unwrap_or_default();
            let holds = write.conditions.iter().all(|condition| condition.holds(&row));
            let outcome = store.table.lock().update(&write);
            let after = store.items();
            match outcome {
                Ok(WriteOutcome::Applied(lease)) => {
                    prop_assert!(holds);
                    prop_assert_eq!(Lease::from_item(&after[&write.key]), Ok(Some(*lease)));
                    let named: Vec<_> = write.updates.iter().map(Update::attribute).collect();
                    let changed = changed_attributes(&row, &after[&write.key]);
                    prop_assert!(changed.iter().all(|name| named.contains(name)));
                }
                Ok(WriteOutcome::Refused(_)) => {
                    prop_assert!(!holds);
                    prop_assert_eq!(after, before);
                }
                // A row that was no readable lease, or that the write could not be carried out on.
                Err(_) => prop_assert!(holds),
            }
        }

        #[test]
        fn a_write_made_from_the_row_as_it_is_happens(lease in arbitrary::lease(), to in arbitrary::worker()) {
            let mut lease = lease;
            lease.counter = lease.counter.min(u64::MAX >> 2);
            lease.owner_switches = lease.owner_switches.min(u64::MAX >> 2);
            let writes = [
                Some(LeaseWrite::renew(&lease, None)),
                Some(LeaseWrite::take(&lease, &to)),
                Some(LeaseWrite::checkpoint(&lease, &crate::types::Checkpoint::ShardEnd)),
                Some(LeaseWrite::assign(&lease, &to)),
                Some(LeaseWrite::assign_expired(&lease, &to)),
                LeaseWrite::finish_handoff(&lease),
            ];
            for write in writes.into_iter().flatten() {
                let store = MemoryLeaseStore::default();
                store.insert_item(lease.to_item());
                let Ok(WriteOutcome::Applied(now)) = store.table.lock().update(&write) else {
                    return Err(TestCaseError::fail(write.to_string()));
                };
                prop_assert_eq!(now.counter, lease.counter + 1);
            }
        }
    }
}
