//! At most one worker holds a (lease, counter): every change of hands and every write of a holder
//! raises the counter by exactly one, and the counter of a row never falls.
//!
//! And a lease changes hands only when its owner has been silent for the failover time on the
//! taker's clock, has more than others, is the taker itself, or is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::{History, What};

pub fn check(history: &History) -> Vec<(Duration, String)> {
    let mut broken = Vec::new();
    let mut counters: BTreeMap<String, u64> = BTreeMap::new();
    for event in &history.events {
        let What::Row { key, before: Some(before), after } = &event.what else { continue };
        let Some(after) = after else {
            counters.remove(key.as_str());
            continue;
        };
        let same_hands = before.owner == after.owner && before.checkpoint == after.checkpoint;
        let expected =
            if same_hands && before.counter == after.counter { before.counter } else { before.counter + 1 };
        if after.counter != expected {
            let what = format!(
                "{key}: the counter went from {} ({:?}) to {} ({:?})",
                before.counter, before.owner, after.counter, after.owner
            );
            broken.push((event.at, what));
        }
        counters.insert(key.to_string(), after.counter);
    }
    broken
}
