use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::types::Record;

fn at(number: u64) -> ExtendedSequenceNumber {
    ExtendedSequenceNumber::new(u128::from(number).into(), 0)
}

/// Records with these keys and their lanes, the first with this number.
fn records(first: u64, keys: &str) -> Vec<(u64, KinesisClientRecord)> {
    let numbered = (first..).zip(keys.chars());
    let records =
        numbered.map(|(number, key)| Record::new(u128::from(number).into(), key.to_string(), "").into());
    records.map(|record| (lane(Order::PartitionKey, &record), record)).collect()
}

fn queue(is_ordered: bool, keys: &str) -> DeliveryQueue<()> {
    let mut queue = DeliveryQueue::new(is_ordered);
    queue.push(records(0, keys), at(keys.len() as u64 - 1));
    queue
}

fn index(slot: u64) -> usize {
    usize::try_from(slot).expect("a small number")
}

/// The slots that can be taken now, which are out then.
fn take_all(queue: &mut DeliveryQueue<()>) -> Vec<u64> {
    std::iter::from_fn(|| {
        let has_next = queue.has_next();
        let taken = queue.take(Moment::ORIGIN);
        assert_eq!(has_next, taken.is_some());
        taken
    })
    .map(|taken| taken.slot)
    .collect()
}

#[test]
fn records_are_taken_in_order_and_those_that_failed_come_again_after_their_pause() {
    let mut queue = queue(false, "aab");
    let first = queue.take(Moment::ORIGIN).expect("a record");
    assert_eq!((first.slot, first.attempt, queue.out()), (0, Attempt::new(1), 1));
    let failed = queue.fail(0, first.record, FailureKind::Failed, Moment::ORIGIN).expect("it was out");
    assert_eq!((failed.failures, failed.transient, queue.out()), (1, 0, 0));
    let soon = Moment::ORIGIN + Duration::from_secs(1);
    queue.retry_at(0, soon);
    assert_eq!(queue.next_pause_end(), Some(soon));
    assert!(!queue.end_pauses(Moment::ORIGIN));
    assert_eq!(queue.take(Moment::ORIGIN).expect("a record").slot, 1, "others do not wait for it");
    assert!(queue.end_pauses(soon));
    let again = queue.take(soon).expect("a record");
    assert_eq!((again.slot, again.attempt.number), (0, 2), "before what was never taken");
    assert_eq!((again.attempt.failures, again.attempt.failing_for), (1, Some(Duration::from_secs(1))));
    queue.complete(1);
    assert_eq!(queue.watermark().position(), None);
    queue.complete(0);
    assert_eq!(queue.watermark().position(), Some(&at(1)));
    assert_eq!(take_all(&mut queue), [2]);
}

#[test]
fn of_a_key_one_record_is_out_and_the_others_wait_until_it_is_done() {
    let mut queue = queue(true, "aabca");
    assert_eq!(take_all(&mut queue), [0, 2, 3]);
    queue.complete(2);
    queue.complete(3);
    assert_eq!((take_all(&mut queue), queue.watermark().position()), (vec![], None), "a is not done");
    // Of another batch.
    queue.push(records(5, "ab"), at(6));
    assert_eq!(take_all(&mut queue), [6]);
    let (_, record) = records(0, "a").remove(0);
    queue.fail(0, record, FailureKind::Transient, Moment::ORIGIN);
    assert!(take_all(&mut queue).is_empty(), "it holds up its key while it pauses");
    queue.complete(0);
    assert_eq!((take_all(&mut queue), queue.watermark().position()), (vec![1], Some(&at(0))));
    queue.complete(1);
    assert_eq!((take_all(&mut queue), queue.watermark().position()), (vec![4], Some(&at(3))));
    queue.complete(6);
    queue.complete(4);
    assert_eq!((take_all(&mut queue), queue.watermark().position()), (vec![5], Some(&at(4))));
    queue.complete(5);
    assert_eq!((take_all(&mut queue), queue.watermark().position()), (vec![], Some(&at(6))));
    assert!(queue.lanes.is_empty() && queue.entries.is_empty(), "{queue:?}");
}

#[test]
fn what_is_closed_hands_nothing_out_and_still_counts_what_is_done() {
    for is_ordered in [false, true] {
        let mut queue = queue(is_ordered, "abc");
        let (first, second) =
            (queue.take(Moment::ORIGIN).expect("a record"), queue.take(Moment::ORIGIN).expect("a record"));
        queue.close();
        assert!(queue.take(Moment::ORIGIN).is_none() && !queue.has_next());
        queue.give_back(second.slot, second.record);
        queue.retry_at(1, Moment::ORIGIN);
        assert!(!queue.end_pauses(Moment::ORIGIN) && queue.take(Moment::ORIGIN).is_none());
        assert_eq!(queue.out(), 1);
        queue.complete(first.slot);
        assert_eq!((queue.out(), queue.watermark().position()), (0, Some(&at(0))));
        assert!(queue.entries.iter().all(|entry| entry.record.is_none()), "memory is given back");
    }
}

#[test]
fn what_comes_back_untried_is_the_same_attempt() {
    let mut queue = queue(true, "a");
    let taken = queue.take(Moment::ORIGIN).expect("a record");
    queue.give_back(taken.slot, taken.record);
    let again = queue.take(Moment::ORIGIN).expect("a record");
    assert_eq!((again.slot, again.attempt), (0, Attempt::new(1)));
}

#[test]
fn what_is_held_back_is_all_or_what_comes_later() {
    for is_ordered in [false, true] {
        let mut queue = queue(is_ordered, "ab");
        queue.hold_back();
        assert_eq!(take_all(&mut queue), if is_ordered { vec![0, 1] } else { vec![] });
    }
}

#[test]
fn lanes_follow_from_the_order() {
    let lanes = |order| ["a", "b", "a"].map(|key| lane(order, &records(0, key)[0].1));
    assert_eq!(lanes(Order::Shard), [0; 3]);
    assert_eq!(lanes(Order::Key(|record| record.record.partition_key.len() as u64)), [1; 3]);
    let [a, b, again] = lanes(Order::PartitionKey);
    assert!(a == again && a != b);
}

proptest! {
    /// Records of four keys come, are taken, fail and are completed in any order: each is done exactly once, of a key
    /// one at a time and in order, and the watermark is before the first that is not done.
    #[test]
    fn any_interleaving_keeps_the_order_of_keys_and_the_watermark(
        is_keyed in any::<bool>(),
        steps in vec((0_u8..5, "[a-d]{1,5}", any::<prop::sample::Index>()), 1..120),
    ) {
        let mut queue = DeliveryQueue::<()>::new(is_keyed);
        let (mut keys, mut done): (Vec<char>, Vec<bool>) = (Vec::new(), Vec::new());
        let mut out: Vec<Taken> = Vec::new();
        let mut now = Moment::ORIGIN;
        let last_step = (9, String::new(), steps[0].2);
        for (step, text, choice) in steps.into_iter().chain(std::iter::repeat_n(last_step, 2000)) {
            now = now + Duration::from_millis(10);
            match step {
                0 => {
                    let new = records(keys.len() as u64, &text);
                    let end = at((keys.len() + new.len()) as u64 - 1);
                    queue.push(new, end);
                    keys.extend(text.chars());
                    done.resize(keys.len(), false);
                }
                1 if !out.is_empty() => {
                    let Taken { slot, record, .. } = out.swap_remove(choice.index(out.len()));
                    prop_assert!(queue.fail(slot, record, FailureKind::Failed, Moment::ORIGIN).is_some());
                    queue.retry_at(slot, now + Duration::from_millis(15));
                }
                2 | 9 if !out.is_empty() => {
                    let taken = out.swap_remove(choice.index(out.len()));
                    done[index(taken.slot)] = true;
                    queue.complete(taken.slot);
                }
                _ => {
                    queue.end_pauses(now);
                    let Some(taken) = queue.take(Moment::ORIGIN) else { continue };
                    let slot = index(taken.slot);
                    prop_assert!(!done[slot]);
                    prop_assert_eq!(taken.record.extended_sequence_number(), at(taken.slot));
                    if is_keyed {
                        prop_assert!(out.iter().all(|other| keys[index(other.slot)] != keys[slot]), "twice at once");
                        prop_assert!((0..slot).all(|earlier| keys[earlier] != keys[slot] || done[earlier]), "order");
                    }
                    out.push(taken);
                }
            }
            prop_assert_eq!(queue.out(), out.len());
            let first = done.iter().position(|done| !done).unwrap_or(done.len()) as u64;
            prop_assert_eq!(queue.watermark().first(), first);
            prop_assert_eq!(queue.watermark().position().cloned(), first.checked_sub(1).map(at));
        }
        prop_assert!(done.iter().all(|done| *done), "nothing is forgotten");
    }
}
