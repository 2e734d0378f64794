use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::watermark::{Completed, Watermark};
use crate::handler::{Attempt, Failed, FailureKind, Order};
use crate::types::{ExtendedSequenceNumber, KinesisClientRecord, Moment};

/// The records of one shard that are not done: which one is next, which are out, and which come again when.
///
/// Records are taken in the order of the shard, those that failed as soon as their pause has passed. With lanes, of the
/// records of a lane only the first one that is not done can be taken.
#[derive(Debug)]
pub(super) struct DeliveryQueue<P> {
    watermark: Watermark<P>,
    /// One for each slot of the watermark.
    entries: VecDeque<Entry>,
    /// The slot of the first entry.
    first: u64,
    is_ordered: bool,
    /// What waits in each lane that has a record ready, out or failed.
    lanes: HashMap<u64, VecDeque<u64>>,
    /// Without lanes: the first slot that was never taken.
    fresh: u64,
    /// What can be taken besides.
    ready: BTreeSet<u64>,
    /// What can be taken again from that moment on.
    pauses: BTreeSet<(Moment, u64)>,
    out: usize,
    is_held_back: bool,
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    /// The record, unless it is out or done.
    record: Option<KinesisClientRecord>,
    lane: u64,
    is_out: bool,
    failures: u32,
    transient: u32,
    first_failed: Option<Moment>,
}

/// A record that is out now.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) slot: u64,
    pub(super) record: KinesisClientRecord,
    pub(super) attempt: Attempt,
}

impl<P> DeliveryQueue<P> {
    /// With lanes, in which records wait for each other, or without.
    pub(super) fn new(is_ordered: bool) -> Self {
        Self {
            watermark: Watermark::default(),
            entries: VecDeque::new(),
            first: 0,
            is_ordered,
            lanes: HashMap::new(),
            fresh: 0,
            ready: BTreeSet::new(),
            pauses: BTreeSet::new(),
            out: 0,
            is_held_back: false,
            is_closed: false,
        }
    }

    /// Adds the records of a batch that covers the shard up to `end`, each with its lane. The slot of the last one, by
    /// which the batch goes; `None` if there are none.
    pub(super) fn push(
        &mut self,
        records: Vec<(u64, KinesisClientRecord)>,
        end: ExtendedSequenceNumber,
    ) -> Option<u64> {
        let positions = records.iter().map(|(_, record)| record.extended_sequence_number());
        let slots = self.watermark.push(positions, end);
        let last = slots.clone().last();
        for (slot, (lane, record)) in slots.zip(records) {
            if self.is_ordered {
                match self.lanes.get_mut(&lane) {
                    Some(waiting) => waiting.push_back(slot),
                    None => {
                        self.lanes.insert(lane, VecDeque::new());
                        self.ready.insert(slot);
                    }
                }
            }
            self.entries.push_back(Entry::new(Some(record), lane));
        }
        // The end of the batch may have a slot of its own.
        let slots = self.watermark.next() - self.first;
        while (self.entries.len() as u64) < slots {
            self.entries.push_back(Entry::new(None, 0));
        }
        self.forget_done();
        last
    }

    /// Takes the next record.
    pub(super) fn take(&mut self, now: Moment) -> Option<Taken> {
        if !self.hands_out() {
            return None;
        }
        let slot = match self.ready.pop_first() {
            Some(slot) => slot,
            None => self.take_fresh()?,
        };
        let entry = self.entry(slot)?;
        let record = entry.record.take()?;
        entry.is_out = true;
        let attempt = Attempt::after(entry.failures, entry.transient, entry.first_failed, now);
        self.out += 1;
        Some(Taken { slot, record, attempt })
    }

    /// Whether [`take`](Self::take) would return one.
    pub(super) fn has_next(&self) -> bool {
        let is_fresh = !self.is_ordered && self.fresh_slots().any(|slot| !self.watermark.is_done(slot));
        self.hands_out() && (!self.ready.is_empty() || is_fresh)
    }

    /// The record is done: acknowledged, or given up by the error policy.
    pub(super) fn complete(&mut self, slot: u64) -> Completed {
        if self.watermark.is_done(slot) {
            return Completed::default();
        }
        let Some(entry) = self.entry(slot) else { return Completed::default() };
        entry.record = None;
        let (lane, was_out) = (entry.lane, std::mem::take(&mut entry.is_out));
        self.out -= usize::from(was_out);
        if self.is_ordered {
            match self.lanes.get_mut(&lane).map(VecDeque::pop_front) {
                Some(Some(next)) => drop(self.ready.insert(next)),
                _ => drop(self.lanes.remove(&lane)),
            }
        }
        let completed = self.watermark.complete(slot);
        self.forget_done();
        completed
    }

    /// A record that was out has failed: how often now. It stays here until it is to be tried
    /// [again](Self::retry_at) or is [done](Self::complete).
    pub(super) fn fail(
        &mut self,
        slot: u64,
        record: KinesisClientRecord,
        kind: FailureKind,
        now: Moment,
    ) -> Option<Failed> {
        let entry = self.put_back(slot, record)?;
        entry.first_failed.get_or_insert(now);
        match kind {
            FailureKind::Transient => entry.transient = entry.transient.saturating_add(1),
            FailureKind::Failed | FailureKind::Poison => entry.failures = entry.failures.saturating_add(1),
        }
        Some(Failed { kind, failures: entry.failures, transient: entry.transient })
    }

    /// A record that was out comes back untried.
    pub(super) fn give_back(&mut self, slot: u64, record: KinesisClientRecord) {
        if self.put_back(slot, record).is_some() && !self.is_closed {
            self.ready.insert(slot);
        }
    }

    /// The record can be taken again from then on.
    pub(super) fn retry_at(&mut self, slot: u64, moment: Moment) {
        if !self.is_closed {
            self.pauses.insert((moment, slot));
        }
    }

    /// Ends the pauses that have passed. Whether there was one.
    pub(super) fn end_pauses(&mut self, now: Moment) -> bool {
        let mut has_ended = false;
        while let Some((_, slot)) = self.pauses.first().copied().filter(|(moment, _)| *moment <= now) {
            self.pauses.pop_first();
            has_ended |= self.ready.insert(slot);
        }
        has_ended
    }

    /// When the next pause ends.
    pub(super) fn next_pause_end(&self) -> Option<Moment> {
        self.pauses.first().map(|(moment, _)| *moment)
    }

    /// From now on nothing is taken, or with lanes: nothing that is not here yet. What waits stays.
    pub(super) fn hold_back(&mut self) {
        self.is_held_back = true;
    }

    pub(super) fn is_held_back(&self) -> bool {
        self.is_held_back
    }

    /// Nothing is taken any more, and what waits is dropped. What is out can still be completed.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.ready.clear();
        self.pauses.clear();
        self.entries.iter_mut().for_each(|entry| entry.record = None);
    }

    /// How many records are out.
    pub(super) fn out(&self) -> usize {
        self.out
    }

    pub(super) fn watermark(&self) -> &Watermark<P> {
        &self.watermark
    }

    /// Holds this until the batch with `slot` is done.
    pub(super) fn hold(&mut self, slot: u64, held: P) {
        self.watermark.hold(slot, held);
    }

    fn hands_out(&self) -> bool {
        !self.is_closed && (self.is_ordered || !self.is_held_back)
    }

    fn put_back(&mut self, slot: u64, record: KinesisClientRecord) -> Option<&mut Entry> {
        let is_closed = self.is_closed;
        let entry = self.entry(slot).filter(|entry| entry.is_out)?;
        entry.is_out = false;
        entry.record = (!is_closed).then_some(record);
        self.out -= 1;
        self.entry(slot)
    }

    fn take_fresh(&mut self) -> Option<u64> {
        let slot = self.fresh_slots().find(|slot| !self.watermark.is_done(*slot))?;
        self.fresh = slot + 1;
        Some(slot)
    }

    fn fresh_slots(&self) -> std::ops::Range<u64> {
        let end = if self.is_ordered { 0 } else { self.watermark.next() };
        self.fresh.max(self.first)..end
    }

    fn entry(&mut self, slot: u64) -> Option<&mut Entry> {
        let index = usize::try_from(slot.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index)
    }

    fn forget_done(&mut self) {
        let done = (self.first..self.watermark.first()).count();
        self.entries.drain(..done.min(self.entries.len()));
        self.first = self.watermark.first();
    }
}

/// The lane of a record.
pub(super) fn lane(order: Order, record: &KinesisClientRecord) -> u64 {
    match order {
        Order::None | Order::Shard => 0,
        Order::Key(key) => key(record),
        // Two keys of one hash wait for each other, which does no harm.
        Order::PartitionKey => {
            let mut hasher = DefaultHasher::new();
            record.record.partition_key.hash(&mut hasher);
            hasher.finish()
        }
    }
}

impl Entry {
    fn new(record: Option<KinesisClientRecord>, lane: u64) -> Self {
        Self { record, lane, is_out: false, failures: 0, transient: 0, first_failed: None }
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
