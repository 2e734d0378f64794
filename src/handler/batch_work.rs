use std::ops::Range;

use super::Attempt;
use super::policy::{Failed, FailureKind};
use crate::types::Moment;

/// What is done of a batch, and which of its records are handled next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BatchWork {
    len: usize,
    /// How many records are handled at once.
    step: usize,
    /// All before this are done.
    done: usize,
    /// Where parts end that were split off, the nearest last.
    ends: Vec<usize>,
    /// Until there, records are handled one by one.
    singles_until: usize,
    failures: u32,
    transient: u32,
    first_failed: Option<Moment>,
}

impl BatchWork {
    /// A batch of `len` records, of which `step` are handled at once.
    pub(super) fn new(len: usize, step: usize) -> Self {
        Self {
            len,
            step: step.max(1),
            done: 0,
            ends: Vec::new(),
            singles_until: 0,
            failures: 0,
            transient: 0,
            first_failed: None,
        }
    }

    /// How many records are done, from the first on.
    pub(super) fn done(&self) -> usize {
        self.done
    }

    /// The records that are handled next; `None` if all are done.
    pub(super) fn next(&self) -> Option<Range<usize>> {
        if self.done >= self.len {
            return None;
        }
        let end = match self.ends.last() {
            _ if self.done < self.singles_until => self.done + 1,
            Some(end) => *end,
            None => self.done.saturating_add(self.step).min(self.len),
        };
        Some(self.done..end)
    }

    /// The next attempt at them.
    pub(super) fn attempt(&self, now: Moment) -> Attempt {
        Attempt::after(self.failures, self.transient, self.first_failed, now)
    }

    /// The next records are done.
    pub(super) fn complete(&mut self) {
        if let Some(next) = self.next() {
            self.advance_to(next.end);
        }
    }

    /// Of the next records, those before `index` are done.
    pub(super) fn complete_before(&mut self, index: usize) {
        if let Some(next) = self.next() {
            self.advance_to((self.done + index).min(next.end - 1));
        }
    }

    /// The next records have failed. How often they have now.
    pub(super) fn fail(&mut self, kind: FailureKind, now: Moment) -> Failed {
        self.first_failed.get_or_insert(now);
        match kind {
            FailureKind::Transient => self.transient = self.transient.saturating_add(1),
            FailureKind::Failed | FailureKind::Poison => self.failures = self.failures.saturating_add(1),
        }
        Failed { kind, failures: self.failures, transient: self.transient }
    }

    /// The first of the next records is handled by itself, and it has failed.
    pub(super) fn fail_first(&mut self, kind: FailureKind, now: Moment) -> Failed {
        self.split_at(self.done + 1);
        self.fail(kind, now)
    }

    /// The next records are handled in two halves.
    pub(super) fn split(&mut self) {
        if let Some(next) = self.next() {
            self.split_at(next.start + next.len().div_ceil(2));
            self.forget_failures();
        }
    }

    /// The next records are handled one by one.
    pub(super) fn one_by_one(&mut self) {
        if let Some(next) = self.next() {
            self.singles_until = next.end;
            self.forget_failures();
        }
    }

    fn split_at(&mut self, middle: usize) {
        let Some(next) = self.next() else { return };
        for end in [next.end, middle] {
            // Parts end where their batch does, without another part of no records.
            if self.ends.last() != Some(&end) {
                self.ends.push(end);
            }
        }
    }

    fn advance_to(&mut self, done: usize) {
        self.done = done;
        while self.ends.last().is_some_and(|end| *end <= done) {
            self.ends.pop();
        }
        self.forget_failures();
    }

    fn forget_failures(&mut self) {
        (self.failures, self.transient, self.first_failed) = (0, 0, None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::policy::{ErrorPolicy, Isolate, Next};
    use super::*;

    /// What is called under `policy` if a batch consists of these records: `.` is handled, `X` always fails, `!` is
    /// poisoned, `2` fails twice. `D` stands for a record that is given up, and `-` for a pause.
    fn calls(policy: &ErrorPolicy, records: &str, step: usize) -> String {
        let mut records: Vec<char> = records.chars().collect();
        let mut work = BatchWork::new(records.len(), step);
        let mut story = Vec::new();
        while let Some(range) = work.next() {
            assert!(story.len() < 200, "no end: {story:?}");
            story.push(match range.len() {
                1 => range.start.to_string(),
                _ => format!("{}-{}", range.start, range.end - 1),
            });
            let worst = range.clone().find(|&index| records[index] != '.');
            let Some(worst) = worst else {
                work.complete();
                continue;
            };
            let kind = if records[worst] == '!' { FailureKind::Poison } else { FailureKind::Failed };
            match records[worst] {
                '2' => records[worst] = '1',
                '1' => records[worst] = '.',
                _ => {}
            }
            match policy.next(work.fail(kind, Moment::ORIGIN), range.len(), Duration::ZERO, 0.0) {
                Next::Retry(_) => story.push("-".to_owned()),
                Next::Split => work.split(),
                Next::OneByOne => work.one_by_one(),
                Next::GiveUp(_) => {
                    story.push("D".repeat(range.len()));
                    work.complete();
                }
            }
        }
        assert_eq!(work.done(), records.len());
        story.join(" ")
    }

    #[test]
    fn a_record_that_always_fails_is_found_and_given_up() {
        let policy = ErrorPolicy::attempts(3).skip();
        for (records, step, expected) in [
            ("........", 8, "0-7"),
            ("....X...", 8, "0-7 0-3 4-7 4-5 4 - 4 - 4 D 5 6-7"),
            ("X.", 2, "0-1 0 - 0 - 0 D 1"),
            ("..!", 3, "0-2 0-1 2 D"),
            ("2...", 4, "0-3 0-1 0 1 2-3"),
            (".X.", 1, "0 1 - 1 - 1 D 2"),
            ("XX", 2, "0-1 0 - 0 - 0 D 1 - 1 - 1 D"),
            (".....", 2, "0-1 2-3 4"),
        ] {
            assert_eq!(calls(&policy, records, step), expected, "{records}");
        }
        let policy = policy.isolate(Isolate::OneByOne);
        assert_eq!(calls(&policy, "..X.", 4), "0-3 - 0-3 - 0-3 0 1 2 - 2 - 2 D 3");
        let policy = policy.isolate(Isolate::Off);
        assert_eq!(calls(&policy, "..X.", 2), "0-1 2-3 - 2-3 - 2-3 DD");
    }

    #[test]
    fn one_record_among_many_is_isolated_in_few_calls() {
        let policy = ErrorPolicy::attempts(1).skip();
        for len in [1_usize, 2, 3, 7, 64, 1000, 10_000] {
            let most = 2 * len.next_power_of_two().ilog2() as usize + 1;
            for at in [0, len / 3, len / 2, len - 1] {
                let mut records = ".".repeat(len);
                records.replace_range(at..=at, "X");
                let story = calls(&policy, &records, len);
                let (before, _) = story.split_once(" D").expect("given up");
                let isolating = before.split(' ').count();
                assert!(isolating <= most, "{isolating} calls for {at} of {len}, at most {most}");
            }
        }
    }

    #[test]
    fn a_batch_that_says_how_far_it_got_goes_on_from_there() {
        let mut work = BatchWork::new(10, 10);
        work.complete_before(4);
        assert_eq!((work.next(), work.attempt(Moment::ORIGIN).number), (Some(4..10), 1), "a fresh batch");
        let failed = work.fail_first(FailureKind::Failed, Moment::ORIGIN);
        assert_eq!((work.next(), work.attempt(Moment::ORIGIN).number, failed.failures), (Some(4..5), 2, 1));
        work.complete();
        assert_eq!(work.next(), Some(5..10));
        work.complete_before(99);
        assert_eq!(work.next(), Some(9..10), "the last one failed");
        work.complete();
        assert_eq!(work.next(), None);
    }

    #[test]
    fn the_failures_of_a_record_are_its_own() {
        let mut work = BatchWork::new(2, 1);
        assert_eq!(work.fail(FailureKind::Transient, Moment::ORIGIN).transient, 1);
        assert_eq!(work.fail(FailureKind::Failed, Moment::ORIGIN).failures, 1);
        let later = Moment::after_origin(Duration::from_secs(5));
        let attempt = work.attempt(later);
        assert_eq!((attempt.number, attempt.failures), (3, 1));
        assert_eq!(
            attempt.failing_for,
            Some(Duration::from_secs(5)),
            "since the first failure, transient or not"
        );
        work.complete();
        assert_eq!(work.attempt(later), Attempt::new(1));
    }
}
