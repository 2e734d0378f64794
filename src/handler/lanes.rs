use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

/// The records of a batch by their keys: those of one key are handled one after the other, and those of different
/// keys at the same time.
#[derive(Debug, Clone)]
pub(super) struct Lanes {
    /// What waits in each lane behind its record that runs or is ready.
    waiting: Vec<VecDeque<usize>>,
    lane_of: Vec<usize>,
    /// The records that may run now.
    ready: BTreeSet<usize>,
    is_done: Vec<bool>,
    /// All before this are done.
    done: usize,
}

impl Lanes {
    /// The lanes of records with these keys, in their order.
    pub(super) fn new<K: Hash + Eq>(keys: impl IntoIterator<Item = K>) -> Self {
        let mut lanes: HashMap<K, usize> = HashMap::new();
        let mut new = Self {
            waiting: Vec::new(),
            lane_of: Vec::new(),
            ready: BTreeSet::new(),
            is_done: Vec::new(),
            done: 0,
        };
        for (index, key) in keys.into_iter().enumerate() {
            let lane = *lanes.entry(key).or_insert(new.waiting.len());
            new.lane_of.push(lane);
            new.is_done.push(false);
            match new.waiting.get_mut(lane) {
                Some(waiting) => waiting.push_back(index),
                None => {
                    new.waiting.push(VecDeque::new());
                    new.ready.insert(index);
                }
            }
        }
        new
    }

    /// Starts a record that may run now: the first one in the shard.
    pub(super) fn start(&mut self) -> Option<usize> {
        self.ready.pop_first()
    }

    /// A record that was [started](Self::start) is done. The next one of its key may run.
    pub(super) fn complete(&mut self, index: usize) {
        self.is_done[index] = true;
        while self.is_done.get(self.done) == Some(&true) {
            self.done += 1;
        }
        self.ready.extend(self.waiting[self.lane_of[index]].pop_front());
    }

    /// How many records are done without a gap, from the first on.
    pub(super) fn done(&self) -> usize {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_a_key_follow_each_other_and_others_do_not_wait() {
        let mut lanes = Lanes::new("aabca".chars());
        assert_eq!(
            [lanes.start(), lanes.start(), lanes.start(), lanes.start()],
            [Some(0), Some(2), Some(3), None]
        );
        lanes.complete(2);
        lanes.complete(3);
        assert_eq!((lanes.start(), lanes.done()), (None, 0), "a is not done");
        lanes.complete(0);
        assert_eq!((lanes.start(), lanes.done()), (Some(1), 1));
        assert_eq!(lanes.start(), None);
        lanes.complete(1);
        assert_eq!((lanes.start(), lanes.done()), (Some(4), 4));
        lanes.complete(4);
        assert_eq!((lanes.start(), lanes.done()), (None, 5));
    }

    #[test]
    fn any_order_of_completion_keeps_the_order_of_each_key_and_the_watermark() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let keys: Vec<u8> = (0..rng.usize(1..60)).map(|_| rng.u8(..6)).collect();
            let (tasks, mut lanes) = (rng.usize(1..8), Lanes::new(&keys));
            let (mut running, mut completed): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
            while completed.len() < keys.len() {
                while running.len() < tasks
                    && let Some(index) = lanes.start()
                {
                    assert!(
                        running.iter().all(|other| keys[*other] != keys[index]),
                        "a key runs twice, seed {seed}"
                    );
                    running.push(index);
                }
                let index = running.swap_remove(rng.usize(..running.len()));
                let of_key = completed.iter().filter(|other| keys[**other] == keys[index]);
                assert!(of_key.clone().all(|other| *other < index), "out of order, seed {seed}");
                lanes.complete(index);
                completed.push(index);
                let gap = (0..keys.len()).find(|index| !completed.contains(index)).unwrap_or(keys.len());
                assert_eq!(lanes.done(), gap, "seed {seed}");
            }
            assert_eq!(lanes.start(), None);
        }
    }
}
