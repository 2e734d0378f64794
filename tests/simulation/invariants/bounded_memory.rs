//! The payload a worker has in hand, fetched and not yet processed, stays within its budget.

use std::time::Duration;

use crate::history::History;

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let over = history.memory_peaks.iter().filter(|(_, peak)| **peak > history.memory_max);
    over.map(|(life, peak)| (Duration::ZERO, format!("{life} had {peak} bytes in hand"))).collect()
}
