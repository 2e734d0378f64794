//! The leader's lock, by the rules of the lock client that KCL uses (`AmazonDynamoDBLockClient`,
//! `DynamoDBLockBasedLeaderDecider`): the worker that put the row is the leader and gives it a new version with
//! each heartbeat. Another worker may put its own when it has itself seen one version for longer than
//! the duration the row states. No wall clocks are compared.
#![cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]

use std::fmt;
use std::time::Duration;

use crate::lease::names::LEASE_KEY;
use crate::lease::{Attribute, Condition, EntityKind, Item, LeaseWrite, Update};
use crate::planted::{Bug, planted};
use crate::types::{LeaseKey, Moment, WorkerId};

const KEY: &str = "Leader";
const OWNER: &str = "ownerName";
const DURATION: &str = "leaseDuration";
const VERSION: &str = "recordVersionNumber";
const RELEASED: &str = "isReleased";

/// The duration of a lock that does not state one (KCL's default).
const DURATION_FALLBACK: Duration = Duration::from_secs(120);

/// A version no other row has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(String);

impl Version {
    /// From 128 random bits, in the form of a UUID, as the lock client has it.
    #[must_use]
    pub fn new(random: u128) -> Self {
        let random = random & !(0xf << 76) & !(0xc << 60) | 4 << 76 | 8 << 60;
        let hex = format!("{random:032x}");
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        Self(parts.join("-"))
    }
}

/// The row as somebody put it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockRow {
    /// The leader.
    pub owner: WorkerId,
    /// Changes with every heartbeat.
    pub version: Version,
    /// For how long its version must have been seen before somebody else may put a row.
    pub duration: Duration,
    is_released: bool,
}

impl LockRow {
    /// `None` if the row cannot be read as a lock.
    #[must_use]
    pub fn from_item(row: &Item) -> Option<Self> {
        let text = |name| row.get(name).and_then(Attribute::text);
        let millis = text(DURATION).and_then(|millis| millis.parse().ok());
        Some(Self {
            owner: text(OWNER)?.into(),
            version: Version(text(VERSION)?.to_owned()),
            duration: millis.map_or(DURATION_FALLBACK, Duration::from_millis),
            is_released: text(RELEASED) == Some("1"),
        })
    }
}

/// The key of the row.
pub(crate) fn key() -> LeaseKey {
    KEY.into()
}

/// What one worker knows of the lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockView {
    /// The row as it was last seen, and since when; `None` if there was none.
    seen: Option<(LockRow, Moment)>,
    /// While this worker holds the lock: when the last heartbeat was sent that is known to have landed.
    held_since: Option<Moment>,
}

/// What a worker does about the lock now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElectionAction {
    /// Nobody is leader: put this.
    Acquire(LeaseWrite),
    /// This worker is leader, and shows that it is alive.
    Heartbeat(LeaseWrite),
    /// Another worker is leader.
    Wait,
}

impl LockView {
    /// The row is as it was read or as it refused a write at `now`.
    pub fn observe(&mut self, row: Option<LockRow>, now: Moment) {
        self.held_since = None;
        let since = match (&self.seen, &row) {
            (Some((seen, since)), Some(row)) if seen.version == row.version => *since,
            _ => now,
        };
        self.seen = row.map(|row| (row, since));
    }

    /// A write of this worker's that was sent at `sent` has put `row`.
    pub fn written(&mut self, row: LockRow, sent: Moment) {
        self.seen = Some((row, sent));
        self.held_since = Some(sent);
    }

    /// Until when this worker is the leader, unless a heartbeat lands. Nobody else puts a row before
    /// that, because others count from when they see the version, which is later.
    #[must_use]
    pub fn leads_until(&self) -> Option<Moment> {
        let (row, _) = self.seen.as_ref()?;
        self.held_since.map(|since| since + row.duration)
    }

    /// Whether this worker is the leader, however long the process was suspended.
    #[must_use]
    pub fn leads(&self, now: Moment) -> bool {
        self.leads_until().is_some_and(|until| now < until)
    }

    /// Whether this worker may still carry out what it planned as the leader.
    #[must_use]
    pub fn may_assign(&self, now: Moment) -> bool {
        self.leads(now) || planted(Bug::LeadsForever)
    }

    /// Who holds the lock, as far as is known.
    pub(super) fn leader(&self) -> Option<&WorkerId> {
        self.seen.as_ref().map(|(row, _)| &row.owner)
    }

    /// When there will be something to do at the latest, if another worker is leader and does nothing.
    pub(super) fn expires(&self) -> Option<Moment> {
        self.seen.as_ref().map(|(row, since)| *since + row.duration)
    }

    /// What `worker` does at `now`. A lock of its own that it does not hold is from a former life of
    /// the same name, of which there can only be one.
    #[must_use]
    pub fn plan(
        &self,
        worker: &WorkerId,
        duration: Duration,
        version: Version,
        now: Moment,
    ) -> ElectionAction {
        let mut updates = vec![
            Update::Set(DURATION, Attribute::S(duration.as_millis().to_string())),
            Update::Set(VERSION, Attribute::S(version.0)),
        ];
        let held = self.seen.as_ref().filter(|_| self.held_since.is_some());
        if let Some((row, _)) = held {
            return ElectionAction::Heartbeat(write(
                "HeartbeatLock",
                vec![version_is(row), owner_is(worker)],
                updates,
            ));
        }
        updates.push(Update::Set(OWNER, Attribute::S(worker.as_str().to_owned())));
        let condition = match &self.seen {
            None => Condition::Absent(LEASE_KEY),
            Some((row, since)) => {
                let expires_after = if planted(Bug::LeadsTooEarly) { row.duration / 8 } else { row.duration };
                let is_free = row.is_released || row.owner == *worker || now.since(*since) > expires_after;
                if !is_free {
                    return ElectionAction::Wait;
                }
                updates.push(Update::Remove(RELEASED));
                if planted(Bug::LockIgnoresVersion) { Condition::Exists(LEASE_KEY) } else { version_is(row) }
            }
        };
        ElectionAction::Acquire(write("AcquireLock", vec![condition], updates))
    }

    /// What is known of the row, and since when the lock is held.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn from_parts(seen: Option<(LockRow, Moment)>, held_since: Option<Moment>) -> Self {
        Self { seen, held_since }
    }

    /// What [`from_parts`](Self::from_parts) takes.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn into_parts(self) -> (Option<(LockRow, Moment)>, Option<Moment>) {
        (self.seen, self.held_since)
    }

    /// What must be true for the row to be deleted when this worker gives the lock up; `None` if it
    /// does not hold it. It counts as given up from now on.
    pub fn resign(&mut self, worker: &WorkerId) -> Option<Vec<Condition>> {
        self.held_since.take()?;
        let (row, _) = self.seen.take()?;
        Some(vec![version_is(&row), owner_is(worker)])
    }
}

fn write(operation: &'static str, conditions: Vec<Condition>, updates: Vec<Update>) -> LeaseWrite {
    LeaseWrite::to_entity(operation, EntityKind::Leader, &key(), conditions, updates)
}

fn version_is(row: &LockRow) -> Condition {
    Condition::Equals(VERSION, Attribute::S(row.version.0.clone()))
}

fn owner_is(worker: &WorkerId) -> Condition {
    Condition::Equals(OWNER, Attribute::S(worker.as_str().to_owned()))
}

impl fmt::Display for ElectionAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquire(write) | Self::Heartbeat(write) => write.fmt(f),
            Self::Wait => f.write_str("another worker is leader"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{EntityOutcome, LeaseStore, MemoryLeaseStore};

    const DURATION: Duration = Duration::from_secs(20);

    fn at(seconds: u64) -> Moment {
        Moment::after_origin(Duration::from_secs(seconds))
    }

    /// One step of a worker: reads the row unless it holds the lock, and does what the plan says.
    async fn step(table: &MemoryLeaseStore, view: &mut LockView, worker: &str, now: Moment, random: u128) {
        if view.leads_until().is_none() {
            let row = table.entity(EntityKind::Leader, &key()).await.unwrap();
            view.observe(row.as_ref().and_then(LockRow::from_item), now);
        }
        match view.plan(&worker.into(), DURATION, Version::new(random), now) {
            ElectionAction::Acquire(write) | ElectionAction::Heartbeat(write) => {
                match table.apply_to_entity(EntityKind::Leader, &write).await.unwrap() {
                    EntityOutcome::Applied(row) => view.written(LockRow::from_item(&row).unwrap(), now),
                    EntityOutcome::Refused(row) => {
                        view.observe(row.as_ref().and_then(LockRow::from_item), now)
                    }
                }
            }
            ElectionAction::Wait => {}
        }
    }

    #[tokio::test]
    async fn one_leads_until_it_is_silent_and_then_another() {
        let table = MemoryLeaseStore::default();
        let (mut a, mut b) = (LockView::default(), LockView::default());
        step(&table, &mut a, "a", at(0), 1).await;
        step(&table, &mut b, "b", at(1), 2).await;
        assert!(a.leads(at(1)) && !b.leads(at(1)));
        step(&table, &mut a, "a", at(5), 3).await;
        assert_eq!(a.leads_until(), Some(at(25)));
        // From here on a is silent.
        for now in [10, 20, 30] {
            step(&table, &mut b, "b", at(now), 4).await;
            assert!(!b.leads(at(now)), "{now}");
        }
        assert!(!a.leads(at(25)), "it stops by itself before another can start");
        step(&table, &mut b, "b", at(31), 5).await;
        assert!(b.leads(at(31)));
        // What a still sends is refused, which shows it that it leads no longer.
        step(&table, &mut a, "a", at(32), 6).await;
        assert!(!a.leads(at(32)));
        assert_eq!(a.leader(), Some(&"b".into()));
    }

    #[tokio::test]
    async fn who_resigns_is_followed_at_once() {
        let table = MemoryLeaseStore::default();
        let (mut a, mut b) = (LockView::default(), LockView::default());
        step(&table, &mut a, "a", at(0), 1).await;
        step(&table, &mut b, "b", at(1), 2).await;
        let conditions = a.resign(&"a".into()).unwrap();
        table.delete_entity(EntityKind::Leader, &key(), &conditions).await.unwrap();
        assert_eq!(b.resign(&"b".into()), None);
        step(&table, &mut b, "b", at(2), 3).await;
        assert!(b.leads(at(2)) && !a.leads(at(2)));
    }

    #[tokio::test]
    async fn a_lock_of_an_earlier_life_is_taken_back_at_once() {
        let table = MemoryLeaseStore::default();
        step(&table, &mut LockView::default(), "a", at(0), 1).await;
        let mut again = LockView::default();
        step(&table, &mut again, "a", at(1), 2).await;
        assert!(again.leads(at(1)));
    }

    #[test]
    fn rows_are_javas() {
        let mut row = Item::new();
        for (name, value) in [
            ("ownerName", "wA"),
            ("leaseDuration", "120000"),
            ("recordVersionNumber", "7c0e"),
            ("isReleased", "1"),
        ] {
            row.insert(name.to_owned(), Attribute::S(value.to_owned()));
        }
        let lock = LockRow::from_item(&row).unwrap();
        assert_eq!((lock.owner.as_str(), lock.duration), ("wA", Duration::from_secs(120)));
        let mut view = LockView::default();
        view.observe(Some(lock), at(0));
        assert!(matches!(
            view.plan(&"b".into(), DURATION, Version::new(1), at(0)),
            ElectionAction::Acquire(_)
        ));
        assert_eq!(Version::new(u128::MAX).0, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
