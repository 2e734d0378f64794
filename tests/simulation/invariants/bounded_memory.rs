//! The payload bytes that a worker has fetched and not yet processed stay within its budget.

use std::time::Duration;

use crate::history::History;

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let over = history.memory_peaks.iter().filter(|(_, peak)| **peak > history.memory_max);
    over.map(|(incarnation, peak)| (Duration::ZERO, format!("{incarnation} had {peak} bytes in hand")))
        .collect()
}
