//! A worker that could not renew a lease within the failover time, on its own clock, delivers nothing
//! more from its shard.

use std::collections::BTreeMap;
use std::time::Duration;

use super::RESOLUTION;
use crate::history::{EventKind, History};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let processors = history.processors();
    let mut broken = Vec::new();
    let rates = history.rates();
    // When a write of the owner last landed.
    let mut renewed: BTreeMap<(&str, &str), Duration> = BTreeMap::new();
    for event in &history.events {
        match &event.kind {
            EventKind::Row { key, before, after: Some(after), .. } => {
                let is_write = before.as_ref().is_none_or(|before| before.counter != after.counter);
                if let Some(owner) = after.actual_owner().filter(|_| is_write) {
                    renewed.insert((owner.as_str(), key.as_str()), event.at);
                }
            }
            EventKind::Delivered { processor, .. } => {
                let Some(of) = processors.get(processor) else { continue };
                let rate = rates.get(&of.incarnation).copied().unwrap_or(1.0);
                let last = renewed.get(&(of.incarnation.worker.as_str(), of.shard.as_str()));
                let last = last.copied().unwrap_or_default();
                let valid_until = last + history.failover.div_f64(rate) + RESOLUTION;
                if event.at > valid_until {
                    let what = format!(
                        "p{processor} of {} got records of {}, last renewed at {:.3} s",
                        of.incarnation,
                        of.shard,
                        last.as_secs_f64()
                    );
                    broken.push((event.at, what));
                }
            }
            _ => {}
        }
    }
    broken
}
