//! The invariants of every run, one file each.

use std::time::Duration;

use crate::history::{History, Violation};

mod asked_first;
mod balance;
mod bounded_memory;
mod callbacks;
mod checkpoints;
mod coverage;
mod delivery;
mod expiry;
mod handoff;
mod handover;
mod one_holder;
mod one_leader;
mod order;
mod ownership;
mod parents_first;
mod silence;

/// Virtual timers have a resolution of one millisecond.
const RESOLUTION: Duration = Duration::from_millis(2);

/// An invariant: its name, and the check that finds its violations.
type Invariant = (&'static str, fn(&History) -> Vec<(Duration, String)>);

pub(crate) const ALL: [Invariant; 16] = [
    ("one holder", one_holder::check),
    ("one leader", one_leader::check),
    ("silence", silence::check),
    ("asked first", asked_first::check),
    ("handoff", handoff::check),
    ("expiry", expiry::check),
    ("ownership", ownership::check),
    ("checkpoints", checkpoints::check),
    ("parents first", parents_first::check),
    ("coverage", coverage::check),
    ("order", order::check),
    ("delivery", delivery::check),
    ("callbacks", callbacks::check),
    ("bounded memory", bounded_memory::check),
    ("balance", balance::check),
    ("handover", handover::check),
];

/// All violations, the earliest first.
pub(crate) fn violations(history: &History) -> Vec<Violation> {
    let mut found: Vec<Violation> = ALL
        .iter()
        .flat_map(|(invariant, check)| {
            let broken = check(history).into_iter();
            broken.map(|(at, message)| Violation { invariant, at, message })
        })
        .collect();
    found.sort_by_key(|violation| violation.at);
    found
}
