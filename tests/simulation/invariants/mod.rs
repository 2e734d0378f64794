//! What must hold in every run, one file each.

use crate::history::{History, Violation};

mod balance;
mod bounded_memory;
mod callbacks;
mod checkpoints;
mod coverage;
mod delivery;
mod expiry;
mod handover;
mod one_holder;
mod order;
mod ownership;
mod parents_first;

/// An invariant: its name, and the check that finds where it was broken.
type Invariant = (&'static str, fn(&History) -> Vec<(std::time::Duration, String)>);

pub(crate) const ALL: [Invariant; 12] = [
    ("one holder", one_holder::check),
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

/// Everything that went wrong, the earliest first.
pub(crate) fn violations(history: &History) -> Vec<Violation> {
    let mut found: Vec<Violation> = ALL
        .iter()
        .flat_map(|(invariant, check)| {
            let broken = check(history).into_iter();
            broken.map(|(at, what)| Violation { invariant, at, what })
        })
        .collect();
    found.sort_by_key(|violation| violation.at);
    found
}
