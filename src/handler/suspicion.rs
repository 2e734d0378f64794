use std::fmt;

use crate::types::ExtendedSequenceNumber;

/// A shard is suspected from this many changes of its owner without a checkpoint on.
const SWITCHES_MIN: u64 = 2;
/// The records that are marked at once, as long as it is not known which of them ends the process.
const SUSPECTS: usize = 100;
/// The records that are handled with marks before a shard is no longer suspected: more than what is handed on at once,
/// which are the records that may have been in hand.
const WATCHED: usize = 1 << 15;
/// What begins a mark.
const PREFIX: &str = "suspected record";

/// What is stored, as the state of a pending checkpoint at the last record of a call, before the call: should the process
/// end in it, the next owner of the lease finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// One of the records from the checkpoint on.
    Several,
    /// This record, and how many times it was handled with this mark.
    One { times: u32 },
}

/// Which records are handled how, in a shard whose owners have died before.
///
/// ```text
/// owners died twice     ──► Watching: a mark before every 100 records
/// a mark of several     ──► Searching: a mark before every record up to it
/// a mark of one record  ──► Searching: once more, or given up if its processes have ended often enough
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suspicion {
    state: State,
    /// After this number of ends of the process in a record it is given up.
    crash_attempts: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Off,
    /// Some record among the next ones may end the process.
    Watching {
        left: usize,
    },
    /// One up to this position does.
    Searching {
        until: ExtendedSequenceNumber,
        /// How many times the process has ended in the record at that position, if it is the one.
        ended: Option<u32>,
    },
}

/// What is done with the next records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// All are handled as usual.
    All,
    /// This number is handled, without a mark.
    Unmarked(usize),
    /// This number is handled, after this mark is stored at the last one.
    Marked(usize, Mark),
    /// The first one is given up: the process has ended in it that often.
    GiveUp(u32),
}

impl Suspicion {
    /// What is suspected at the start of a lease, which found `switches` changes of the owner without a checkpoint, and
    /// perhaps a mark of the owner before.
    pub(super) fn new(
        crash_attempts: u32,
        switches: u64,
        found: Option<(ExtendedSequenceNumber, Mark)>,
    ) -> Self {
        let state = match found {
            Some((until, Mark::Several)) => State::Searching { until, ended: None },
            Some((until, Mark::One { times })) => State::Searching { until, ended: Some(times) },
            None if switches >= SWITCHES_MIN => State::Watching { left: WATCHED },
            None => State::Off,
        };
        Self { state, crash_attempts }
    }

    /// Nothing is suspected, whatever happened.
    pub(super) fn off() -> Self {
        Self { state: State::Off, crash_attempts: 0 }
    }

    pub(super) fn is_off(&self) -> bool {
        self.state == State::Off
    }

    /// What is done with the next records, at these positions.
    pub(super) fn next(&mut self, positions: &[ExtendedSequenceNumber]) -> Step {
        let Some(first) = positions.first() else { return Step::All };
        match &self.state {
            State::Searching { until, ended: None } if first <= until => {
                Step::Marked(1, Mark::One { times: 1 })
            }
            // What is before the record was handled by the owner before, after which the mark was stored.
            State::Searching { until, ended: Some(_) } if first < until => {
                Step::Unmarked(positions.partition_point(|position| position < until))
            }
            State::Searching { until, ended: Some(ended) } if first == until => match *ended {
                ended if ended >= self.crash_attempts => Step::GiveUp(ended),
                ended => Step::Marked(1, Mark::One { times: ended + 1 }),
            },
            State::Watching { left } if *left > 0 => {
                Step::Marked(positions.len().min(SUSPECTS).min(*left), Mark::Several)
            }
            State::Searching { .. } | State::Watching { .. } | State::Off => {
                self.state = State::Off;
                Step::All
            }
        }
    }

    /// This number of records is done.
    pub(super) fn done(&mut self, records: usize) {
        if let State::Watching { left } = &mut self.state {
            *left = left.saturating_sub(records);
        }
    }
}

impl Mark {
    /// The mark that these bytes are, if they are one.
    pub(super) fn parse(state: &[u8]) -> Option<Self> {
        let rest = std::str::from_utf8(state).ok()?.strip_prefix(PREFIX)?;
        match rest.strip_prefix(", times ") {
            Some(times) => Some(Self::One { times: times.parse().ok()? }),
            None => (rest == "s").then_some(Self::Several),
        }
    }
}

/// As it is stored.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Several => write!(f, "{PREFIX}s"),
            Self::One { times } => write!(f, "{PREFIX}, times {times}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: usize) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new((number as u128).into(), 0)
    }

    #[test]
    fn what_is_suspected_follows_from_the_row() {
        let several = || Some((at(3), Mark::Several));
        let one = |times| Some((at(3), Mark::One { times }));
        let marked = |records, mark| Step::Marked(records, mark);
        for (switches, found, first, expected) in [
            (0, None, 1, Step::All),
            (1, None, 1, Step::All),
            (2, None, 1, marked(100, Mark::Several)),
            (0, several(), 1, marked(1, Mark::One { times: 1 })),
            (0, several(), 3, marked(1, Mark::One { times: 1 })),
            (5, several(), 4, Step::All),
            (0, one(1), 1, Step::Unmarked(2)),
            (0, one(1), 3, marked(1, Mark::One { times: 2 })),
            (0, one(2), 3, Step::GiveUp(2)),
            (0, one(7), 2, Step::Unmarked(1)),
            (0, one(7), 3, Step::GiveUp(7)),
            // It is not in the stream any more.
            (0, one(2), 4, Step::All),
        ] {
            let positions: Vec<_> = (first..first + 200).map(at).collect();
            let mut suspicion = Suspicion::new(2, switches, found.clone());
            assert_eq!(suspicion.next(&positions), expected, "{switches} {found:?} from {first}");
            assert_eq!(suspicion.next(&[]), Step::All);
        }
        assert_eq!(Suspicion::off().next(&[at(1)]), Step::All);
    }

    #[test]
    fn a_shard_is_watched_for_as_many_records_as_can_have_been_in_hand() {
        let positions: Vec<_> = (0..WATCHED + 500).map(at).collect();
        let mut suspicion = Suspicion::new(2, 2, None);
        let mut done = 0;
        while let Step::Marked(records, Mark::Several) = suspicion.next(&positions[done..]) {
            assert!((1..=SUSPECTS).contains(&records));
            suspicion.done(records);
            done += records;
        }
        assert_eq!((done, suspicion.next(&positions[done..])), (WATCHED, Step::All));
    }

    #[test]
    fn marks_are_read_as_they_are_written_and_nothing_else_is_one() {
        for mark in [Mark::Several, Mark::One { times: 1 }, Mark::One { times: u32::MAX }] {
            assert_eq!(Mark::parse(mark.to_string().as_bytes()), Some(mark));
        }
        for state in [
            "",
            "suspected record",
            "suspected record, times",
            "suspected record, times x",
            "other",
            "\u{fc}",
        ] {
            assert_eq!(Mark::parse(state.as_bytes()), None, "{state}");
        }
        assert_eq!(Mark::parse(&[0xff, 0xfe]), None);
    }

    /// Owners that die in a record, one after the other, as far as the lease row shows it: how often until it is given up,
    /// and which records were handled in the end.
    fn deaths(records: usize, killer: usize, crash_attempts: u32) -> (usize, Vec<usize>) {
        let positions: Vec<_> = (0..records).map(at).collect();
        let (mut checkpoint, mut switches, mut mark) = (0, 0, None);
        let mut handled = Vec::new();
        for deaths in 0..50 {
            let mut suspicion = Suspicion::new(crash_attempts, switches, mark.take());
            let mut next = checkpoint;
            let has_died = loop {
                if next == records {
                    break false;
                }
                let step = suspicion.next(&positions[next..]);
                let count = match step {
                    Step::All => records - next,
                    Step::Unmarked(count) => count,
                    Step::Marked(count, stored) => {
                        mark = Some((at(next + count - 1), stored));
                        count
                    }
                    Step::GiveUp(_) => {
                        assert_eq!(next, killer, "an innocent record");
                        next += 1;
                        (checkpoint, switches, mark) = (next, 0, None);
                        continue;
                    }
                };
                if (next..next + count).contains(&killer) {
                    switches += 1;
                    break true;
                }
                handled.extend(next..next + count);
                suspicion.done(count);
                next += count;
                (checkpoint, switches, mark) = (next, 0, None);
            };
            if !has_died {
                return (deaths, handled);
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn a_record_that_ends_the_process_is_given_up_after_few_deaths_and_nothing_else_is() {
        for (records, killer) in [(1, 0), (50, 0), (50, 49), (1000, 0), (1000, 455), (10_000, 9999)] {
            let (died, mut handled) = deaths(records, killer, 2);
            assert!(died <= 5, "{died} deaths, {killer} of {records}");
            handled.dedup();
            let expected: Vec<_> = (0..records).filter(|record| *record != killer).collect();
            assert_eq!(handled, expected, "{killer} of {records}");
        }
        assert_eq!(deaths(1000, 455, 1).0, 4);
    }
}
