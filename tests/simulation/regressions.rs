//! Seeds that once showed a fault of the crate. What a seed stands for changes with the scenarios, so
//! each fault also has a test of its own, or a planted bug that resembles it, where it can.

use crate::simulate;

/// The seed, and what it showed when it was found.
const SEEDS: [(u64, &str); 3] = [
    (323, "a shard could not end while the other parent of its child had expired without a lease"),
    (433, "the same, among workers that subscribe"),
    (1005, "finished leases were created again from a scan that was too old"),
];

#[test]
fn what_was_mended_stays_mended() {
    for (seed, what) in SEEDS {
        let violations = simulate(seed).1;
        assert!(violations.is_empty(), "{}; once: {what}", violations[0]);
    }
}
