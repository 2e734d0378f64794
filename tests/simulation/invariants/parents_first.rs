//! No processor of a child starts before every parent has ended: its row is at `SHARD_END`, or gone with
//! all its records delivered or expired; or it had ended before the fleet had any lease, and the fleet
//! does not start at the oldest record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kinesis_consumer::Checkpoint;

use crate::history::{EventKind, History};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let mut broken = Vec::new();
    let mut rows: BTreeMap<&str, &Checkpoint> = BTreeMap::new();
    let mut ended: BTreeSet<&str> = BTreeSet::new();
    let required_from = history.required_from();
    for event in &history.events {
        match &event.kind {
            EventKind::Row { key, after: Some(row), .. } => {
                rows.insert(key.as_str(), &row.checkpoint);
                if row.checkpoint.is_shard_end() {
                    ended.insert(key.as_str());
                }
            }
            EventKind::Row { key, after: None, .. } => {
                rows.remove(key.as_str());
            }
            EventKind::Initialized { processor, shard, .. } => {
                let Some(record) = history.shards.get(shard) else { continue };
                for parent in &record.parents {
                    let has_ended = match rows.get(parent.as_str()) {
                        Some(checkpoint) => checkpoint.is_shard_end(),
                        None => {
                            ended.contains(parent.as_str()) || {
                                let written = history.shards.get(parent).map(|parent| &parent.written[..]);
                                let is_expired =
                                    |at| at < required_from || history.may_be_expired(at, event.at);
                                written.unwrap_or_default().iter().all(|written| is_expired(written.at))
                            }
                        }
                    };
                    if !has_ended {
                        let what =
                            format!("p{processor} reads {shard}, but its parent {parent} has not ended");
                        broken.push((event.at, what));
                    }
                }
            }
            _ => {}
        }
    }
    broken
}
