//! How far a fleet has come from KCL 2.x to 3.x, as the row `Migration3.0` says
//! (`MigrationState`, `MigrationClientVersionStateInitializer`).

use std::fmt;

use crate::config::CoordinationMode;
use crate::lease::names::LEASE_KEY;
use crate::lease::{Attribute, Condition, EntityKind, Item, LeaseWrite, Update};
use crate::types::{LeaseKey, WorkerId};

const KEY: &str = "Migration3.0";
const VERSION: &str = "cv";
const MODIFIED_BY: &str = "mb";
const MODIFIED_AT: &str = "mts";
const HISTORY: &str = "h";
const HISTORY_MAX: usize = 10;

/// The protocol a fleet is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ClientVersion {
    /// Nothing is stored, and this worker stores nothing: as KCL 2.x.
    Init,
    /// As KCL 2.x; somebody has rolled the fleet back.
    V2x,
    /// As KCL 2.x, while workers report how busy they are and the index of owners is made.
    UpgradeFrom2x,
    /// Run by a leader; may be rolled back.
    V3xWithRollback,
    /// Run by a leader.
    V3x,
}

/// What a worker goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    /// Each worker scans, takes and steals.
    #[default]
    Independent,
    /// The same, and workers report how busy they are.
    Upgrading,
    /// The leader assigns.
    Led,
}

impl ClientVersion {
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Init | Self::V2x => Protocol::Independent,
            Self::UpgradeFrom2x => Protocol::Upgrading,
            Self::V3xWithRollback | Self::V3x => Protocol::Led,
        }
    }

    /// Whether somebody may still change it.
    pub(crate) fn may_change(self) -> bool {
        self != Self::V3x
    }

    fn name(self) -> &'static str {
        match self {
            Self::Init => "CLIENT_VERSION_INIT",
            Self::V2x => "CLIENT_VERSION_2X",
            Self::UpgradeFrom2x => "CLIENT_VERSION_UPGRADE_FROM_2X",
            Self::V3xWithRollback => "CLIENT_VERSION_3X_WITH_ROLLBACK",
            Self::V3x => "CLIENT_VERSION_3X",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Init, Self::V2x, Self::UpgradeFrom2x, Self::V3xWithRollback, Self::V3x]
            .into_iter()
            .find(|version| version.name() == name)
    }
}

/// The key of the row.
pub(crate) fn key() -> LeaseKey {
    KEY.into()
}

/// What is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MigrationState {
    pub(crate) version: ClientVersion,
    /// What was stored before, newest first, as it was found.
    row: Item,
}

impl MigrationState {
    /// # Errors
    ///
    /// If the row names a version that this crate does not know; the error has it.
    pub(crate) fn from_item(row: Item) -> Result<Self, String> {
        let name = row.get(VERSION).and_then(Attribute::text).unwrap_or_default();
        match ClientVersion::parse(name) {
            Some(version) => Ok(Self { version, row }),
            None => Err(format!("row {KEY} has the unknown client version {name:?}")),
        }
    }
}

/// The version a worker in `mode` starts with, given what is stored; and whether it has to be stored
/// first.
pub(crate) fn initial_version(
    mode: CoordinationMode,
    stored: Option<ClientVersion>,
) -> (ClientVersion, bool) {
    use ClientVersion::{Init, UpgradeFrom2x, V2x, V3x, V3xWithRollback};
    match (stored, mode) {
        (_, CoordinationMode::Independent)
        | (None | Some(Init), CoordinationMode::CompatibleWith2xPhase1) => (Init, false),
        (None | Some(Init), CoordinationMode::CompatibleWith2x) => (UpgradeFrom2x, true),
        (None | Some(Init | V3xWithRollback), CoordinationMode::Leader) => (V3x, true),
        (Some(stored @ (V2x | UpgradeFrom2x | V3xWithRollback | V3x)), _) => (stored, false),
    }
}

/// Stores `version`, if what is stored is still `previous`.
///
/// Refused: somebody else has changed it; look again.
pub(crate) fn store(
    previous: Option<&MigrationState>,
    version: ClientVersion,
    worker: &WorkerId,
    now_millis: u64,
) -> LeaseWrite {
    let condition = match previous {
        None => Condition::Absent(LEASE_KEY),
        Some(previous) => Condition::Equals(VERSION, text(previous.version.name())),
    };
    let updates = vec![
        Update::Set(VERSION, text(version.name())),
        Update::Set(MODIFIED_BY, text(worker.as_str())),
        Update::Set(MODIFIED_AT, Attribute::N(now_millis.to_string())),
        Update::Set(HISTORY, Attribute::L(previous.map(history).unwrap_or_default())),
    ];
    let kind = EntityKind::ClientVersionMigration;
    LeaseWrite::to_entity("UpdateMigrationState", kind, &key(), vec![condition], updates)
}

/// The history with what was the present before.
fn history(previous: &MigrationState) -> Vec<Attribute> {
    let names = [VERSION, MODIFIED_BY, MODIFIED_AT];
    let entry = names.iter().filter_map(|name| Some(((*name).to_owned(), previous.row.get(*name)?.clone())));
    let older = match previous.row.get(HISTORY) {
        Some(Attribute::L(older)) => older.as_slice(),
        _ => &[],
    };
    let newest = Attribute::M(entry.collect());
    std::iter::once(newest).chain(older.iter().cloned()).take(HISTORY_MAX).collect()
}

fn text(value: &str) -> Attribute {
    Attribute::S(value.to_owned())
}

impl fmt::Display for ClientVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::row_after;
    use ClientVersion::{Init, UpgradeFrom2x, V2x, V3x, V3xWithRollback};

    #[test]
    fn a_worker_starts_as_kcls_table_says() {
        let modes = [
            CoordinationMode::CompatibleWith2xPhase1,
            CoordinationMode::CompatibleWith2x,
            CoordinationMode::Leader,
        ];
        for (stored, expected) in [
            (None, [(Init, false), (UpgradeFrom2x, true), (V3x, true)]),
            (Some(V3xWithRollback), [(V3xWithRollback, false), (V3xWithRollback, false), (V3x, true)]),
            (Some(V2x), [(V2x, false); 3]),
            (Some(UpgradeFrom2x), [(UpgradeFrom2x, false); 3]),
            (Some(V3x), [(V3x, false); 3]),
        ] {
            assert_eq!(modes.map(|mode| initial_version(mode, stored)), expected, "{stored:?}");
        }
        assert_eq!(initial_version(CoordinationMode::Independent, Some(V3x)), (Init, false));
    }

    #[test]
    fn the_row_is_javas_and_keeps_its_history() {
        let mut row: Option<Item> = None;
        let versions = [UpgradeFrom2x, V3xWithRollback, V2x, UpgradeFrom2x, V3xWithRollback, V3x];
        for (number, version) in versions.iter().enumerate() {
            let previous = row.clone().map(|row| MigrationState::from_item(row).unwrap());
            let write = store(previous.as_ref(), *version, &"wA".into(), number as u64);
            let after = row_after(&write, row.as_ref()).unwrap().expect("nobody else writes");
            // The same again is refused, unless nothing changes.
            assert!(
                previous.is_none_or(|previous| previous.version == *version)
                    || row_after(&write, Some(&after)).unwrap().is_none()
            );
            row = Some(after);
        }
        let row = row.unwrap();
        assert_eq!(row.get("cv"), Some(&text("CLIENT_VERSION_3X")));
        assert_eq!(row.get("mts"), Some(&Attribute::N("5".to_owned())));
        assert_eq!(row.get("entityType"), Some(&text("CLIENT_VERSION_MIGRATION")));
        let Some(Attribute::L(history)) = row.get("h") else { panic!("no history") };
        assert_eq!(history.len(), 5);
        let Attribute::M(newest) = &history[0] else { panic!("no map") };
        assert_eq!(newest.get("cv"), Some(&text("CLIENT_VERSION_3X_WITH_ROLLBACK")));
        assert_eq!(newest.get("mb"), Some(&text("wA")));
    }

    #[test]
    fn the_history_keeps_the_last_ten_states_newest_first() {
        let mut row: Option<Item> = None;
        for number in 0..30_u64 {
            let version = if number % 2 == 0 { UpgradeFrom2x } else { V2x };
            let previous = row.clone().map(|row| MigrationState::from_item(row).unwrap());
            let write = store(previous.as_ref(), version, &"wA".into(), number);
            row = row_after(&write, row.as_ref()).unwrap();
            let Some(Attribute::L(history)) = row.as_ref().unwrap().get("h") else { panic!("no history") };
            let written: Vec<_> = history
                .iter()
                .map(|entry| match entry {
                    Attribute::M(entry) => entry.get("mts").cloned().expect("when it was written"),
                    other => panic!("{other:?}"),
                })
                .collect();
            let expected = (0..number).rev().take(10).map(|earlier| Attribute::N(earlier.to_string()));
            assert_eq!(written, expected.collect::<Vec<_>>(), "after write {number}");
        }
    }

    #[test]
    fn an_unknown_version_is_told() {
        let row = Item::from([("cv".to_owned(), text("CLIENT_VERSION_4X"))]);
        assert!(MigrationState::from_item(row).unwrap_err().contains("CLIENT_VERSION_4X"));
    }
}
