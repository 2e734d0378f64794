use std::time::{Duration, SystemTime};

use crate::types::SequenceNumber;

/// Composes the sequence numbers of one shard.
///
/// The layout is that of the service, because KCL for Java can check a record's shard against its
/// sequence number: from the top a version, the shard's epoch in seconds, a count, the arrival time in
/// seconds, the shard's index and the version again. Within a shard, the count makes numbers grow.
/// Across shards, the index makes them distinct, and the epoch puts a child's above its parents'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShardSequence {
    epoch: u64,
    index: u32,
}

const VERSION: u64 = 2;
/// The count in the sequence number that ends a closed shard.
const COUNT_END: u64 = i64::MAX as u64;

impl ShardSequence {
    /// Numbers for the shard `index`, opened at `at`, above those of all its `parents`.
    pub(super) fn new(index: u32, at: SystemTime, parents: &[Self]) -> Self {
        let after_parents = parents.iter().map(|parent| parent.epoch + 1).max().unwrap_or(0);
        Self { epoch: after_parents.max(unix_seconds(at)), index }
    }

    /// The number of the `count`-th record, from 1.
    pub(super) fn record(self, count: u64, at: SystemTime) -> SequenceNumber {
        self.number(count, unix_seconds(at))
    }

    /// The number at which the shard starts; below that of its first record.
    pub(super) fn start(self) -> SequenceNumber {
        self.number(0, self.epoch)
    }

    /// The number at which the shard ends; above that of its last record.
    pub(super) fn end(self, at: SystemTime) -> SequenceNumber {
        self.number(COUNT_END, unix_seconds(at))
    }

    pub(super) fn index(self) -> u32 {
        self.index
    }

    /// Whether `number` can be a position in this shard.
    pub(super) fn owns(self, number: &SequenceNumber) -> bool {
        let Some([high, _, low]) = number.words() else { return false };
        // 192 bits hold the 188 of the layout: 4 spare, version 4, epoch 36, low index 4, count ...
        let version = high >> 56;
        let epoch = (high >> 20) & 0xF_FFFF_FFFF;
        let index = (low >> 4) & 0xFFFF_FFFF;
        (version, epoch, index, low & 0xF) == (VERSION, self.epoch, u64::from(self.index), VERSION)
    }

    fn number(self, count: u64, seconds: u64) -> SequenceNumber {
        let mut words = [0; 3];
        for (bits, value) in [
            (4, VERSION),
            (36, self.epoch),
            (4, u64::from(self.index)),
            (32, count >> 32),
            (32, count),
            (8, 0),
            (36, seconds),
            (32, u64::from(self.index)),
            (4, VERSION),
        ] {
            push(&mut words, bits, value);
        }
        SequenceNumber::from_words(words)
    }
}

/// Appends the low `bits` (1 to 63) of `value` to the number.
fn push(words: &mut [u64; 3], bits: u32, value: u64) {
    let [high, middle, low] = *words;
    *words = [
        high << bits | middle >> (64 - bits),
        middle << bits | low >> (64 - bits),
        low << bits | value & ((1 << bits) - 1),
    ];
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn numbers_look_like_those_of_the_service() {
        let shard = ShardSequence::new(0, at(1_763_000_000), &[]);
        let text = shard.record(1, at(1_763_000_001)).to_string();
        assert_eq!((text.len(), &text[..4]), (56, "4966"));
    }

    #[test]
    fn numbers_grow_within_a_shard_and_from_parent_to_child() {
        let parent = ShardSequence::new(3, at(100), &[]);
        // Its index is above the parent's, but not in the bits that stand before the count.
        let child = ShardSequence::new(16, at(100), &[parent]);
        let numbers = [
            parent.start(),
            parent.record(1, at(100)),
            parent.record(2, at(90)),
            parent.record(1 << 40, at(100)),
            parent.end(at(100)),
            child.start(),
        ];
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    }

    #[test]
    fn a_shard_knows_its_own_numbers() {
        let (zero, sixteen) = (ShardSequence::new(0, at(100), &[]), ShardSequence::new(16, at(100), &[]));
        let number = sixteen.record(7, at(200));
        assert!(sixteen.owns(&number) && sixteen.owns(&sixteen.start()) && sixteen.owns(&sixteen.end(at(9))));
        assert!(!zero.owns(&number));
        assert!(!zero.owns(&SequenceNumber::from(12345)));
    }
}
