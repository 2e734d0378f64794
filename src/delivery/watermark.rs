use std::collections::VecDeque;
use std::ops::Range;

use crate::types::ExtendedSequenceNumber;

/// How far the records of a shard are done without a gap, while they are completed in any order.
///
/// Records have slots, numbered from 0 in the order of the shard. Those that came together are a batch, for which `P`
/// (its share of some memory) is held until all of them are done.
#[derive(Debug)]
pub(super) struct Watermark<P> {
    /// The slots from the first one that is not done to the newest.
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    /// Where all is done up to.
    position: Option<ExtendedSequenceNumber>,
    batches: VecDeque<Batch<P>>,
}

#[derive(Debug)]
struct Slot {
    position: ExtendedSequenceNumber,
    is_done: bool,
}

#[derive(Debug)]
struct Batch<P> {
    slots: Range<u64>,
    /// How many of its records are not done.
    open: usize,
    held: Option<P>,
}

/// What the end of one record has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Completed {
    /// The watermark has moved.
    pub(super) has_moved: bool,
    /// It was the last open record of its batch.
    pub(super) ends_batch: bool,
}

impl<P> Default for Watermark<P> {
    fn default() -> Self {
        Self { slots: VecDeque::new(), first: 0, position: None, batches: VecDeque::new() }
    }
}

impl<P> Watermark<P> {
    /// Adds a batch: the positions of its records, in order, and the last position it covers, which may lie beyond them.
    /// The slots of the records.
    pub(super) fn push(
        &mut self,
        positions: impl IntoIterator<Item = ExtendedSequenceNumber>,
        end: ExtendedSequenceNumber,
    ) -> Range<u64> {
        let start = self.next();
        self.slots.extend(positions.into_iter().map(|position| Slot { position, is_done: false }));
        let records = start..self.next();
        let open = records.clone().count();
        if open == 0 || self.slots.back().is_none_or(|last| last.position != end) {
            self.slots.push_back(Slot { position: end, is_done: true });
        }
        self.batches.push_back(Batch { slots: start..self.next(), open, held: None });
        self.advance();
        records
    }

    /// Holds this until the batch with `slot` is done; not at all if it is.
    pub(super) fn hold(&mut self, slot: u64, held: P) {
        if let Some(batch) = self.batch_index(slot).map(|index| &mut self.batches[index])
            && batch.open > 0
        {
            batch.held = Some(held);
        }
    }

    /// The record is done. Nothing changes if it was before.
    pub(super) fn complete(&mut self, slot: u64) -> Completed {
        if self.is_done(slot) {
            return Completed::default();
        }
        if let Some(index) = self.index(slot) {
            self.slots[index].is_done = true;
        }
        let mut ends_batch = false;
        if let Some(batch) = self.batch_index(slot).map(|index| &mut self.batches[index]) {
            batch.open -= 1;
            if batch.open == 0 {
                batch.held = None;
                ends_batch = true;
            }
        }
        let first = self.first;
        self.advance();
        Completed { has_moved: self.first > first, ends_batch }
    }

    pub(super) fn is_done(&self, slot: u64) -> bool {
        slot < self.first || self.index(slot).is_none_or(|index| self.slots[index].is_done)
    }

    /// Whether all records are done that came with this one.
    pub(super) fn is_batch_done(&self, slot: u64) -> bool {
        self.batch_index(slot).is_none_or(|index| self.batches[index].open == 0)
    }

    /// The last position before which everything is done; `None` as long as nothing is.
    pub(super) fn position(&self) -> Option<&ExtendedSequenceNumber> {
        self.position.as_ref()
    }

    /// The first record that is not done.
    pub(super) fn first_open(&self) -> Option<&ExtendedSequenceNumber> {
        Some(&self.slots.front()?.position)
    }

    /// The slot of the first record that is not done: all before are.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The slot of the next record that is added.
    pub(super) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// How many records there are from the first one that is not done to the newest.
    pub(super) fn span(&self) -> usize {
        self.slots.len()
    }

    fn advance(&mut self) {
        while let Some(slot) = self.slots.pop_front_if(|slot| slot.is_done) {
            self.position = Some(slot.position);
            self.first += 1;
        }
        while self.batches.pop_front_if(|batch| batch.slots.end <= self.first).is_some() {}
    }

    fn batch_index(&self, slot: u64) -> Option<usize> {
        let index = self.batches.partition_point(|batch| batch.slots.end <= slot);
        self.batches.get(index).filter(|batch| batch.slots.contains(&slot)).map(|_| index)
    }

    fn index(&self, slot: u64) -> Option<usize> {
        let index = usize::try_from(slot.checked_sub(self.first)?).ok()?;
        (index < self.slots.len()).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn at(number: u64) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(u128::from(number).into(), 0)
    }

    #[test]
    fn it_is_the_last_position_before_which_all_is_done() {
        let mut watermark = Watermark::<()>::default();
        assert_eq!(watermark.push([10, 11, 12].map(at), at(12)), 0..3);
        assert_eq!((watermark.position(), watermark.first_open()), (None, Some(&at(10))));
        assert_eq!(watermark.complete(1), Completed { has_moved: false, ends_batch: false });
        assert_eq!(watermark.complete(0), Completed { has_moved: true, ends_batch: false });
        assert_eq!((watermark.position(), watermark.span()), (Some(&at(11)), 1));
        assert_eq!(watermark.complete(0), Completed::default(), "it is done");
        assert_eq!(watermark.complete(2), Completed { has_moved: true, ends_batch: true });
        assert_eq!((watermark.position(), watermark.span()), (Some(&at(12)), 0));
        // Of this one no record, and of the next one not the last record.
        assert_eq!(watermark.push([], at(15)), 3..3);
        assert_eq!((watermark.position(), watermark.span()), (Some(&at(15)), 0));
        assert_eq!(watermark.push([at(16)], at(19)), 4..5);
        assert_eq!((watermark.position(), watermark.span()), (Some(&at(15)), 2));
        watermark.complete(4);
        assert_eq!((watermark.position(), watermark.first_open()), (Some(&at(19)), None));
    }

    #[test]
    fn what_is_held_for_a_batch_is_given_up_when_its_last_record_is_done() {
        let mut watermark = Watermark::default();
        watermark.push([1, 2].map(at), at(2));
        watermark.push([3, 4].map(at), at(4));
        let held = Arc::new(());
        watermark.hold(1, Arc::clone(&held));
        watermark.hold(3, Arc::clone(&held));
        watermark.complete(2);
        assert!(!watermark.is_batch_done(2));
        assert!(watermark.complete(3).ends_batch);
        assert!(watermark.is_batch_done(3) && !watermark.is_batch_done(0));
        assert_eq!(Arc::strong_count(&held), 2, "though the batch before is not done");
        watermark.hold(3, Arc::clone(&held));
        assert_eq!(Arc::strong_count(&held), 2, "it is done");
        watermark.complete(1);
        watermark.complete(0);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    /// A record of the naive model: all that were ever added are kept in a list.
    struct Added {
        position: ExtendedSequenceNumber,
        slot: u64,
        batch: usize,
        is_done: bool,
    }

    proptest! {
        /// Batches of records, some of which are filtered, are added and completed in any order.
        #[test]
        fn it_agrees_with_a_list_of_all_records(
            steps in vec((0_usize..4, vec(any::<bool>(), 1..9), any::<prop::sample::Index>()), 1..80)
        ) {
            let mut watermark = Watermark::default();
            let (mut all, mut shares): (Vec<Added>, Vec<Arc<()>>) = (Vec::new(), Vec::new());
            let mut number = 0;
            for (step, kept, choice) in steps {
                if step == 0 {
                    let positions: Vec<_> = (number..).zip(&kept).filter(|(_, kept)| **kept).map(|(n, _)| at(n)).collect();
                    number += kept.len() as u64;
                    let slots = watermark.push(positions.clone(), at(number - 1));
                    let (batch, share) = (shares.len(), Arc::new(()));
                    if let Some(last) = slots.clone().last() {
                        watermark.hold(last, Arc::clone(&share));
                    }
                    shares.push(share);
                    let added = slots.zip(positions);
                    all.extend(added.map(|(slot, position)| Added { position, slot, batch, is_done: false }));
                    if kept.last() == Some(&false) {
                        // What is filtered at the end of a batch is done with what is before it.
                        let slot = watermark.next() - 1;
                        all.push(Added { position: at(number - 1), slot, batch, is_done: true });
                    }
                } else {
                    let open: Vec<usize> = (0..all.len()).filter(|index| !all[*index].is_done).collect();
                    if open.is_empty() {
                        continue;
                    }
                    let completed = &mut all[open[choice.index(open.len())]];
                    completed.is_done = true;
                    watermark.complete(completed.slot);
                }
                let done = all.iter().take_while(|added| added.is_done);
                prop_assert_eq!(watermark.position(), done.clone().last().map(|added| &added.position));
                prop_assert_eq!(watermark.span(), all.len() - done.count());
                let first_open = all.iter().find(|added| !added.is_done).map(|added| &added.position);
                prop_assert_eq!(watermark.first_open(), first_open);
                for added in &all {
                    prop_assert_eq!(watermark.is_done(added.slot), added.is_done);
                    let mut of_batch = all.iter().filter(|other| other.batch == added.batch);
                    let is_open = of_batch.any(|other| !other.is_done);
                    prop_assert_eq!(watermark.is_batch_done(added.slot), !is_open);
                    prop_assert_eq!(Arc::strong_count(&shares[added.batch]), if is_open { 2 } else { 1 });
                }
            }
        }
    }
}
