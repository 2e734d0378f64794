//! Who leads a fleet of KCL 2.x (`DeterministicShuffleShardSyncLeaderDecider`): the first of the owners
//! of leases, shuffled by `java.util.Random` with a fixed seed, so that every worker finds the same one.

use std::collections::BTreeSet;

use crate::types::WorkerId;

const SEED: u64 = 1947;

/// Whether `worker` leads, among the owners of leases. Without any, everybody does.
pub(crate) fn leads<'a>(worker: &WorkerId, owners: impl IntoIterator<Item = &'a WorkerId>) -> bool {
    let owners: BTreeSet<&WorkerId> = owners.into_iter().collect();
    let mut owners: Vec<&WorkerId> = owners.into_iter().collect();
    // Java compares texts by their UTF-16 units.
    owners.sort_by(|a, b| a.as_str().encode_utf16().cmp(b.as_str().encode_utf16()));
    shuffle(&mut owners);
    owners.first().is_none_or(|leader| *leader == worker)
}

/// `java.util.Collections.shuffle`.
fn shuffle<T>(items: &mut [T]) {
    let mut random = JavaRandom::new(SEED);
    for size in (2..=items.len()).rev() {
        items.swap(size - 1, random.below(size));
    }
}

/// `java.util.Random`: a linear congruential generator of 48 bits.
struct JavaRandom(u64);

impl JavaRandom {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;

    fn new(seed: u64) -> Self {
        Self((seed ^ Self::MULTIPLIER) & Self::MASK)
    }

    /// The next 31 bits.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(Self::MULTIPLIER).wrapping_add(11) & Self::MASK;
        self.0 >> 17
    }

    /// `nextInt(bound)`.
    fn below(&mut self, bound: usize) -> usize {
        let wide = bound as u64;
        let number = if wide.is_power_of_two() {
            (wide * self.next()) >> 31
        } else {
            loop {
                let bits = self.next();
                let number = bits % wide;
                // What is left of 31 bits after whole multiples of the bound would favour some numbers.
                if bits - number + (wide - 1) < 1 << 31 {
                    break number;
                }
            }
        };
        usize::try_from(number).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shuffles_as_java_does() {
        let shuffled = |count: usize| {
            let mut items: Vec<usize> = (0..count).collect();
            shuffle(&mut items);
            items
        };
        assert_eq!(shuffled(5), [4, 0, 2, 1, 3]);
        assert_eq!(shuffled(8), [2, 3, 0, 6, 4, 7, 1, 5]);
        assert_eq!(shuffled(0), Vec::<usize>::new());
    }

    #[test]
    fn all_agree_on_one() {
        let owners: Vec<WorkerId> = ["a", "b", "c", "d", "e", "a"].map(WorkerId::from).to_vec();
        let leaders: Vec<&WorkerId> = owners[..5].iter().filter(|worker| leads(worker, &owners)).collect();
        assert_eq!(leaders, [&owners[4]]);
        assert!(leads(&"x".into(), []) && !leads(&"x".into(), &owners));
    }
}
