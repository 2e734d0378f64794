//! Checkpoints never move backwards, not even if a row is deleted and created again; they never move
//! beyond what was delivered or has expired; and invalid positions are refused.

use std::collections::BTreeMap;
use std::time::Duration;

use kinesis_consumer::{Checkpoint, ExtendedSequenceNumber};

use crate::history::{EventKind, History};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let processors = history.processors();
    let required_from = history.required_from();
    let mut broken = Vec::new();
    let mut highest: BTreeMap<&str, &Checkpoint> = BTreeMap::new();
    let mut delivered: BTreeMap<&str, &ExtendedSequenceNumber> = BTreeMap::new();
    for event in &history.events {
        match &event.kind {
            EventKind::Delivered { processor, positions } => {
                let (Some(of), Some(last)) = (processors.get(processor), positions.last()) else { continue };
                let highest = delivered.entry(of.shard.as_str()).or_insert(last);
                *highest = last.max(highest);
            }
            EventKind::Row { key, after: Some(row), .. } => {
                let key = key.as_str();
                if let Some(before) = highest.insert(key, &row.checkpoint)
                    && row.checkpoint < *before
                {
                    broken.push((event.at, format!("{key} went back from {before} to {}", row.checkpoint)));
                }
                let Some(shard) = history.shards.get(key) else { continue };
                let delivered = delivered.get(key);
                let is_beyond = match &row.checkpoint {
                    Checkpoint::Sequence(position) => delivered.is_none_or(|delivered| position > *delivered),
                    // Every record was delivered, except for expired ones.
                    Checkpoint::ShardEnd => shard.written.iter().any(|written| {
                        delivered.is_none_or(|delivered| written.position > **delivered)
                            && written.at >= required_from
                            && !history.may_be_expired(written.at, event.at)
                    }),
                    _ => false,
                };
                if is_beyond {
                    let what =
                        format!("{key} is at {}, but only {delivered:?} was delivered", row.checkpoint);
                    broken.push((event.at, what));
                }
                if row.checkpoint.is_shard_end() && shard.is_open {
                    broken.push((event.at, format!("{key} is at its end, but still open")));
                }
            }
            EventKind::InvalidCheckpoint { processor, requested, accepted: true } => {
                broken.push((event.at, format!("p{processor} was allowed to checkpoint {requested}")));
            }
            _ => {}
        }
    }
    broken
}
