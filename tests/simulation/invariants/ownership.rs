//! Nothing is delivered by a worker after it was told that another owns the lease, nor after its
//! processor heard that the lease is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::history::{History, What};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let processors = history.processors();
    let mut broken = Vec::new();
    let mut over = BTreeSet::new();
    let mut alive: BTreeSet<u32> = BTreeSet::new();
    for event in &history.events {
        match &event.what {
            What::Initialized { processor, .. } => {
                alive.insert(*processor);
            }
            What::Refused { life, key } => {
                over.extend(alive.iter().copied().filter(|processor| {
                    let of = &processors[processor];
                    of.life == *life && of.shard.as_str() == key.as_str()
                }));
            }
            What::LeaseLost { processor } => {
                over.insert(*processor);
            }
            What::Delivered { processor, positions } if over.contains(processor) => {
                let of = &processors[processor];
                let what = format!("p{processor} of {} got {} records after that", of.life, positions.len());
                broken.push((event.at, what));
            }
            _ => {}
        }
    }
    broken
}
