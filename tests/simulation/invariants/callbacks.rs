//! The callbacks of a processor never overlap; nothing follows `lease_lost`; and one that panicked
//! over a batch is never called again, so that the batch is not skipped.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::history::{History, What};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let mut broken = Vec::new();
    let (mut busy, mut delivering, mut told) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for event in &history.events {
        let processor = match &event.what {
            What::Delivered { processor, .. } => processor,
            What::LeaseLost { processor } => processor,
            What::ShardEnded { processor } => processor,
            What::ShutdownRequested { processor } => processor,
            What::Returned { processor, panicked } => {
                busy.remove(processor);
                if *panicked && delivering.contains(processor) {
                    told.insert(*processor);
                }
                continue;
            }
            _ => continue,
        };
        match &event.what {
            What::Delivered { .. } => delivering.insert(*processor),
            _ => delivering.remove(processor),
        };
        if !busy.insert(*processor) {
            broken.push((event.at, format!("p{processor} was called while it was busy")));
        }
        if told.contains(processor) {
            broken.push((event.at, format!("p{processor} was called after its end")));
        }
        if matches!(event.what, What::LeaseLost { .. }) {
            told.insert(*processor);
        }
    }
    broken
}
