//! Every record from the start of the fleet on is delivered at least once, unless it expired first.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::history::{EventKind, History};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let processors = history.processors();
    let mut delivered = BTreeSet::new();
    for event in &history.events {
        if let EventKind::Delivered { processor, positions } = &event.kind
            && let Some(of) = processors.get(processor)
        {
            delivered.extend(positions.iter().map(|position| (&of.shard, position)));
        }
    }
    let end = history.events.last().map_or(Duration::ZERO, |event| event.at);
    let required_from = history.required_from();
    let mut broken = Vec::new();
    for (id, shard) in &history.shards {
        let lost = shard.written.iter().filter(|written| {
            written.at >= required_from
                && !delivered.contains(&(id, &written.position))
                && !history.may_be_expired(written.at, end)
        });
        let lost: Vec<_> = lost.collect();
        if let Some(first) = lost.first() {
            let what = format!(
                "{} records of {id} were never delivered, the first {} written at {:.3} s",
                lost.len(),
                first.position,
                first.at.as_secs_f64()
            );
            broken.push((end, what));
        }
    }
    broken
}
