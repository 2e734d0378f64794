//! At most one worker holds a (lease, counter): every change of owner and every write of a holder raises
//! the counter by exactly one, and the counter of a row never falls. (Starting a handoff leaves the
//! lease with the old owner.)

use std::time::Duration;

use crate::history::{EventKind, History};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let mut broken = Vec::new();
    for event in &history.events {
        let EventKind::Row { key, before: Some(before), after: Some(after), .. } = &event.kind else {
            continue;
        };
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
