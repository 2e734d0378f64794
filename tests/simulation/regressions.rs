//! Seeds that once found a fault of the crate. What a seed stands for changes with the scenarios, so
//! each fault also has its own test, or a planted bug that resembles it, where possible.

use crate::simulate;

/// The seed, and the fault it found.
const SEEDS: [(u64, &str); 12] = [
    (323, "a shard could not end while the other parent of its child had expired without a lease"),
    (433, "the same, among workers that subscribe"),
    (16, "the row of a shard that had ended elsewhere was taken for one that somebody had deleted"),
    (109, "the same, after the rows of its children had gone too"),
    (731_367, "a row that a stale scan did not show was taken for unowned, and its holder for dead"),
    (731_570, "records between the start at LATEST and a split just after it were lost"),
    (731_730, "the same, of a shard that was merged"),
    (70_191_360, "ended shards were read again, because a shard without a lease descended from them"),
    (1005, "finished leases were created again from a scan that was too old"),
    (1398, "a fleet did not move on to a leader because an ended lease named a worker long gone"),
    (2189, "a new leader gave leases to a worker that had been silent for longer than it is allowed"),
    (3418, "a handoff whose request took long was overdue, or its owner taken for dead, once it began"),
];

#[test]
fn what_was_mended_stays_mended() {
    for (seed, what) in SEEDS {
        let violations = simulate(seed).1;
        assert!(violations.is_empty(), "{}; once: {what}", violations[0]);
    }
}
