//! The callbacks of a processor never overlap. Nothing follows `lease_lost`. A processor that panicked
//! over a batch is never called again, so that the batch is not skipped.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::history::{EventKind, History};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let mut broken = Vec::new();
    let (mut busy, mut delivering, mut ended) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for event in &history.events {
        let processor = match &event.kind {
            EventKind::Delivered { processor, .. } => processor,
            EventKind::LeaseLost { processor } => processor,
            EventKind::ShardEnded { processor } => processor,
            EventKind::ShutdownRequested { processor } => processor,
            EventKind::Returned { processor, panicked } => {
                busy.remove(processor);
                if *panicked && delivering.contains(processor) {
                    ended.insert(*processor);
                }
                continue;
            }
            _ => continue,
        };
        match &event.kind {
            EventKind::Delivered { .. } => delivering.insert(*processor),
            _ => delivering.remove(processor),
        };
        if !busy.insert(*processor) {
            broken.push((event.at, format!("p{processor} was called while it was busy")));
        }
        if ended.contains(processor) {
            broken.push((event.at, format!("p{processor} was called after its end")));
        }
        if matches!(event.kind, EventKind::LeaseLost { .. }) {
            ended.insert(*processor);
        }
    }
    broken
}
