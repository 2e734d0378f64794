//! The callbacks of a processor never overlap, and nothing follows the last one.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::history::{History, What};

pub fn check(history: &History) -> Vec<(Duration, String)> {
    let mut broken = Vec::new();
    let (mut busy, mut told) = (BTreeSet::new(), BTreeSet::new());
    for event in &history.events {
        let processor = match &event.what {
            What::Delivered { processor, .. } => processor,
            What::LeaseLost { processor } => processor,
            What::ShardEnded { processor } => processor,
            What::ShutdownRequested { processor } => processor,
            What::Returned { processor } => {
                busy.remove(processor);
                continue;
            }
            _ => continue,
        };
        if !busy.insert(*processor) {
            broken.push((event.at, format!("p{processor} was called while it was busy")));
        }
        if told.contains(processor) {
            broken.push((event.at, format!("p{processor} was called after lease_lost")));
        }
        if matches!(event.what, What::LeaseLost { .. }) {
            told.insert(*processor);
        }
    }
    broken
}
