//! At most one worker holds a (lease, counter): every change of hands and every write of a holder
//! raises the counter by exactly one, and the counter of a row never falls. (A handoff that begins
//! leaves the lease in the hands of the old owner.)

use std::time::Duration;

use crate::history::{History, What};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let mut broken = Vec::new();
    for event in &history.events {
        let What::Row { key, before: Some(before), after: Some(after), .. } = &event.what else { continue };
        let same_hands =
            before.actual_owner() == after.actual_owner() && before.checkpoint == after.checkpoint;
        let expected =
            if same_hands && before.counter == after.counter { before.counter } else { before.counter + 1 };
        if after.counter != expected {
            let what = format!(
                "{key}: the counter went from {} ({:?}) to {} ({:?})",
                before.counter, before.owner, after.counter, after.owner
            );
            broken.push((event.at, what));
        }
    }
    broken
}
