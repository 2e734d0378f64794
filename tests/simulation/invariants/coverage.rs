//! Once every hash key is covered by a lease that has not ended, it stays covered: the leases of
//! children exist before their parent's end is stored. Where records expire before they are read, a
//! shard can vanish with its children unknown; then coverage is required only at the end (see
//! `balance`).

use std::collections::BTreeMap;
use std::time::Duration;

use kinesis_consumer::HashKeyRange;

use crate::history::{EventKind, History};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    if history.retention.is_some() {
        return Vec::new();
    }
    let full: HashKeyRange = HashKeyRange::new(0, u128::MAX).expect("the full range");
    let mut running: BTreeMap<&str, HashKeyRange> = BTreeMap::new();
    let mut was_covered = false;
    for event in &history.events {
        let EventKind::Row { key, after, .. } = &event.kind else { continue };
        let key = key.as_str();
        match after {
            Some(row) if !row.checkpoint.is_shard_end() => {
                if let Some(range) = row.hash_key_range {
                    running.insert(key, range);
                }
            }
            _ => {
                running.remove(key);
            }
        }
        let is_covered = full.is_covered_by(running.values().copied());
        if was_covered && !is_covered {
            return vec![(
                event.at,
                format!("after a write to {key}, only {:?} have leases", running.keys()),
            )];
        }
        was_covered = is_covered;
    }
    Vec::new()
}
