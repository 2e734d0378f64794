//! A worker delivers nothing after it learned that another worker owns the lease, nor after `lease_lost`
//! of its processor.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::history::{EventKind, History};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let processors = history.processors();
    let mut broken = Vec::new();
    let mut ended = BTreeSet::new();
    let mut alive: BTreeSet<u32> = BTreeSet::new();
    for event in &history.events {
        match &event.kind {
            EventKind::Initialized { processor, .. } => {
                alive.insert(*processor);
            }
            EventKind::Refused { incarnation, key } => {
                ended.extend(alive.iter().copied().filter(|processor| {
                    let of = &processors[processor];
                    of.incarnation == *incarnation && of.shard.as_str() == key.as_str()
                }));
            }
            EventKind::LeaseLost { processor } => {
                ended.insert(*processor);
            }
            EventKind::Delivered { processor, positions } if ended.contains(processor) => {
                let of = &processors[processor];
                let what =
                    format!("p{processor} of {} got {} records after that", of.incarnation, positions.len());
                broken.push((event.at, what));
            }
            _ => {}
        }
    }
    broken
}
