//! Each processor gets the records of its shard in order and without gaps, from a checkpoint that was
//! stored. So the records of a key are delivered in order, and again only after a rewind to a
//! checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kinesis_consumer::{Checkpoint, ExtendedSequenceNumber};

use crate::history::{EventKind, History};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let processors = history.processors();
    let mut broken = Vec::new();
    let mut stored: BTreeMap<&str, BTreeSet<&Checkpoint>> = BTreeMap::new();
    let mut positions_of: BTreeMap<u32, Option<ExtendedSequenceNumber>> = BTreeMap::new();
    for event in &history.events {
        match &event.kind {
            EventKind::Row { key, after: Some(row), .. } => {
                stored.entry(key.as_str()).or_default().insert(&row.checkpoint);
            }
            EventKind::Initialized { processor, shard, from, .. } => {
                positions_of.insert(*processor, from.position().cloned());
                if !stored.get(shard.as_str()).is_some_and(|stored| stored.contains(from)) {
                    let what = format!("p{processor} starts {shard} from {from}, which was never stored");
                    broken.push((event.at, what));
                }
            }
            EventKind::Delivered { processor, positions } => {
                let Some(of) = processors.get(processor) else { continue };
                let Some(shard) = history.shards.get(&of.shard) else { continue };
                let before = positions_of.entry(*processor).or_default();
                for position in positions {
                    let next = match before.as_ref() {
                        Some(before) => shard.written.partition_point(|written| written.position <= *before),
                        None => 0,
                    };
                    let here = shard.written.partition_point(|written| written.position < *position);
                    let lost = shard.written.get(next..here).unwrap_or_default().iter();
                    let wanted_from = history.wanted_from(of);
                    let mut lost = lost.filter(|written| {
                        written.at >= wanted_from && !history.may_be_expired(written.at, event.at)
                    });
                    let is_there =
                        shard.written.get(here).is_some_and(|written| written.position == *position);
                    if here < next || !is_there {
                        let what = format!("p{processor} got {position} of {} after {before:?}", of.shard);
                        broken.push((event.at, what));
                    } else if let Some(lost) = lost.next() {
                        let what = format!(
                            "p{processor} got {position} of {} but not {} before it",
                            of.shard, lost.position
                        );
                        broken.push((event.at, what));
                    }
                    *before = Some(position.clone());
                }
            }
            _ => {}
        }
    }
    broken
}
