//! The reports of the workers of a fleet, and what must hold for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use kinesis_consumer::SequenceNumber;
use serde::{Deserialize, Serialize};

/// A line that a worker reported.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Microseconds since 1970, by the clock that all processes share.
    pub(crate) at: u64,
    pub(crate) worker: String,
    pub(crate) event: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shard: Option<String>,
    /// A sequence number or a sentinel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sequence: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sub: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<u64>,
}

impl Entry {
    pub(crate) fn is_of(&self, worker: &str, event: &str) -> bool {
        self.worker == worker && self.event == event
    }

    fn position(&self) -> Position {
        Position::new(self.sequence.as_deref().expect("a position"), self.sub.unwrap_or(0))
    }
}

/// A place in a shard.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Position {
    Start,
    Record(SequenceNumber, u64),
    End,
}

impl Position {
    fn new(sequence: &str, sub: u64) -> Self {
        match sequence.parse() {
            Ok(sequence) => Self::Record(sequence, sub),
            Err(_) if sequence == "SHARD_END" => Self::End,
            Err(_) => Self::Start,
        }
    }
}

/// The reports of all workers of a fleet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<Entry>>>);

/// What came of a fleet's work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivered {
    pub(crate) records: usize,
    /// Deliveries beyond the first of each record.
    pub(crate) duplicates: usize,
}

impl fmt::Display for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records, {} duplicates", self.records, self.duplicates)
    }
}

impl Journal {
    pub(crate) fn push(&self, entry: Entry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Everything so far, as it happened.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        entries.sort_by_key(|entry| entry.at);
        entries
    }

    pub(crate) fn has(&self, worker: &str, event: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|entry| entry.is_of(worker, event))
    }

    /// How many of the records that were `put` nobody has got yet.
    pub(crate) fn missing(&self, put: &BTreeMap<String, u64>) -> usize {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let got: BTreeSet<_> =
            entries.iter().filter_map(|entry| Some((entry.key.as_deref()?, entry.number?))).collect();
        put.iter()
            .map(|(key, count)| (0..*count).filter(|n| !got.contains(&(key.as_str(), *n))).count())
            .sum()
    }

    /// Leaves it in a file, for who must find out what went wrong.
    pub(crate) fn write(&self, path: &Path) {
        let lines = self
            .entries()
            .into_iter()
            .map(|entry| serde_json::to_string(&entry).expect("plain values") + "\n");
        std::fs::write(path, lines.collect::<String>()).expect("a writable directory");
    }

    /// Checks every promise of an at-least-once consumer:
    ///
    /// - every record of `put` was delivered;
    /// - who starts in a shard starts at its last checkpoint (or at one that was on its way when its
    ///   worker died), so that nothing comes again but what was not checkpointed;
    /// - from there on positions ascend, and the records of each key come one after the other;
    /// - no record comes before the one before it of the same key.
    pub(crate) fn check(&self, put: &BTreeMap<String, u64>) -> Delivered {
        let missing = self.missing(put);
        assert_eq!(missing, 0, "records were not delivered");
        let mut checkpoints: BTreeMap<&str, Checkpoints> = BTreeMap::new();
        let mut readers: BTreeMap<(&str, &str), Reader> = BTreeMap::new();
        let mut delivered: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut records, mut duplicates) = (0, 0);
        let entries = self.entries();
        for entry in &entries {
            let Some(shard) = entry.shard.as_deref() else { continue };
            let worker = entry.worker.as_str();
            match entry.event.as_str() {
                "initialize" => {
                    let at = entry.position();
                    let known = checkpoints.entry(shard).or_default();
                    assert!(known.may_start_at(&at), "{entry:?}, but {known:?}");
                    readers.insert((worker, shard), Reader { at, keys: BTreeMap::new() });
                }
                "checkpointing" => checkpoints.entry(shard).or_default().pending.push(entry.position()),
                "checkpointed" => {
                    let known = checkpoints.entry(shard).or_default();
                    *known = Checkpoints { stored: entry.position(), pending: Vec::new() };
                }
                "record" => {
                    let reader = readers.get_mut(&(worker, shard)).expect("a reader starts first");
                    let at = entry.position();
                    assert!(at > reader.at, "{entry:?} came after {:?}", reader.at);
                    reader.at = at;
                    let (key, number) =
                        (entry.key.as_deref().expect("a key"), entry.number.expect("a number"));
                    let next = delivered.entry(key).or_default();
                    assert!(number <= *next, "{entry:?} came before number {next}");
                    if let Some(last) = reader.keys.insert(key, number) {
                        assert_eq!(number, last + 1, "{entry:?} skips");
                    }
                    if number < *next {
                        duplicates += 1;
                    } else {
                        records += 1;
                        *next += 1;
                    }
                }
                _ => {}
            }
        }
        Delivered { records, duplicates }
    }
}

/// The checkpoints of a shard.
#[derive(Debug)]
struct Checkpoints {
    stored: Position,
    /// Sent, without an answer so far.
    pending: Vec<Position>,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self { stored: Position::Start, pending: Vec::new() }
    }
}

impl Checkpoints {
    fn may_start_at(&self, position: &Position) -> bool {
        *position == self.stored || self.pending.contains(position)
    }
}

/// A worker that reads a shard.
struct Reader<'a> {
    at: Position,
    /// The last record of each key.
    keys: BTreeMap<&'a str, u64>,
}
