use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::error::{ErrorCode, ServiceError};
use super::limits::Usage;
use super::sequence::ShardSequence;
use crate::kinesis::{IteratorPosition, Shard};
use crate::types::{HashKeyRange, Record, SequenceNumber, ShardId};

/// The maximum number of bytes of data per GetRecords call.
pub(super) const PAGE_BYTES_MAX: usize = 10 << 20;

/// One shard with its records. A position in it is the ordinal of the next record to read: the first
/// record ever written is 0, and ordinals of trimmed records are never reused.
#[derive(Debug)]
pub(crate) struct ShardState {
    pub(crate) id: ShardId,
    pub(crate) parent: Option<ShardId>,
    pub(crate) adjacent_parent: Option<ShardId>,
    pub(crate) hash_key_range: HashKeyRange,
    pub(super) opened: SystemTime,
    pub(super) closed: Option<Closed>,
    pub(super) sequence: ShardSequence,
    records: VecDeque<Arc<StoredRecord>>,
    /// The ordinal of the oldest record that is left.
    first: u64,
    last_number: SequenceNumber,
    pub(super) usage: ShardUsage,
}

/// When a shard was split or merged away.
#[derive(Debug, Clone)]
pub(super) struct Closed {
    pub(super) at: SystemTime,
    pub(super) number: SequenceNumber,
}

/// The use of the shard's limits.
#[derive(Debug, Default)]
pub(super) struct ShardUsage {
    pub(super) reads: Usage,
    pub(super) read_bytes: Usage,
    pub(super) writes: Usage,
    pub(super) write_bytes: Usage,
    pub(super) iterators: Usage,
}

/// A record as stored, shared with all its readers.
#[derive(Debug)]
pub(crate) struct StoredRecord {
    pub(crate) record: Record,
    pub(super) arrival: SystemTime,
    /// The record as GetRecords encodes it in JSON, created by the first read over HTTP and cached. It
    /// takes as many bytes as base64 makes of the data, and makes serving a copy without encoding.
    #[cfg(feature = "local")]
    pub(crate) json: std::sync::OnceLock<bytes::Bytes>,
    /// The same in CBOR.
    #[cfg(feature = "local")]
    pub(crate) cbor: std::sync::OnceLock<bytes::Bytes>,
}

/// Records read from one position.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) records: Vec<Arc<StoredRecord>>,
    pub(super) bytes: usize,
    /// The position after them.
    pub(super) next: u64,
    pub(super) behind_latest: Duration,
    /// Whether the shard is closed and nothing follows.
    pub(super) is_end: bool,
}

impl ShardState {
    pub(super) fn new(
        index: u32,
        hash_key_range: HashKeyRange,
        opened: SystemTime,
        parents: &[&Self],
    ) -> Self {
        let sequences: Vec<_> = parents.iter().map(|parent| parent.sequence).collect();
        let sequence = ShardSequence::new(index, opened, &sequences);
        let mut parents = parents.iter().map(|parent| parent.id.clone());
        Self {
            id: shard_id(index),
            parent: parents.next(),
            adjacent_parent: parents.next(),
            hash_key_range,
            opened,
            closed: None,
            sequence,
            records: VecDeque::new(),
            first: 0,
            last_number: sequence.start(),
            usage: ShardUsage::default(),
        }
    }

    /// The shard as ListShards describes it.
    pub(crate) fn describe(&self) -> Shard {
        let mut shard = Shard::new(self.id.clone(), self.hash_key_range, self.sequence.start());
        shard.parents = self.parents().cloned().collect();
        shard.ending_sequence_number = self.closed.as_ref().map(|closed| closed.number.clone());
        shard
    }

    pub(crate) fn parents(&self) -> impl Iterator<Item = &ShardId> {
        self.parent.iter().chain(&self.adjacent_parent)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// Whether the shard was the one to write to at `time`.
    ///
    /// The closing time is excluded, so that a parent and its children never count as open together.
    pub(super) fn was_open_at(&self, time: SystemTime) -> bool {
        self.opened <= time && self.closed.as_ref().is_none_or(|closed| time < closed.at)
    }

    pub(super) fn close(&mut self, at: SystemTime) {
        self.closed = Some(Closed { at, number: self.sequence.end(at) });
    }

    pub(super) fn append(&mut self, now: SystemTime, mut record: Record) -> SequenceNumber {
        let arrival = whole_milliseconds(now);
        let number = self.sequence.record(self.tip() + 1, arrival);
        record.sequence_number = number.clone();
        record.approximate_arrival_timestamp = Some(arrival);
        self.last_number = number.clone();
        self.records.push_back(Arc::new(StoredRecord {
            record,
            arrival,
            #[cfg(feature = "local")]
            json: std::sync::OnceLock::new(),
            #[cfg(feature = "local")]
            cbor: std::sync::OnceLock::new(),
        }));
        number
    }

    /// Drops records that arrived before `horizon`.
    pub(super) fn trim(&mut self, horizon: SystemTime) {
        while self.records.front().is_some_and(|stored| stored.arrival < horizon) {
            self.records.pop_front();
            self.first += 1;
        }
    }

    /// The time of the oldest item that retention will remove: a record, or the closed shard.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        let record = self.records.front().map(|stored| stored.arrival);
        record.or_else(|| self.closed.as_ref().map(|closed| closed.at))
    }

    /// The position after the newest record.
    pub(super) fn tip(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Where reading from `position` starts.
    pub(super) fn resolve(&self, now: SystemTime, position: &IteratorPosition) -> Result<u64, ServiceError> {
        Ok(match position {
            IteratorPosition::TrimHorizon => self.first,
            IteratorPosition::Latest => self.tip(),
            IteratorPosition::AtTimestamp(time) => {
                if *time > now {
                    return Err(ErrorCode::InvalidArgument.error(
                        "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis.",
                    ));
                }
                // Arrival times have no finer resolution.
                let time = whole_milliseconds(*time);
                self.first + self.records.partition_point(|stored| stored.arrival < time) as u64
            }
            IteratorPosition::At(number) => {
                self.check_number(number)?;
                self.first + self.partition(|stored| stored < number)
            }
            IteratorPosition::After(number) => {
                self.check_number(number)?;
                self.first + self.partition(|stored| stored <= number)
            }
        })
    }

    /// At most `limit` records and 10 MiB from `position` on; at least one record if there is one.
    pub(super) fn read(&self, now: SystemTime, position: u64, limit: usize, bytes_max: usize) -> Slice {
        let position = position.clamp(self.first, self.tip());
        let skipped = usize::try_from(position - self.first).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let records: Vec<_> = self
            .records
            .range(skipped.min(self.records.len())..)
            .take(limit)
            .take_while(|stored| {
                let is_first = bytes == 0;
                bytes += stored.record.data.len();
                is_first || bytes <= bytes_max
            })
            .cloned()
            .collect();
        let next = position + records.len() as u64;
        let is_tip = next == self.tip();
        let behind_latest = match records.last() {
            // Zero would mean that nothing follows.
            Some(last) if !is_tip => {
                now.duration_since(last.arrival).unwrap_or_default().max(Duration::from_millis(1))
            }
            _ => Duration::ZERO,
        };
        Slice {
            bytes: records.iter().map(|stored| stored.record.data.len()).sum(),
            records,
            next,
            behind_latest,
            is_end: is_tip && !self.is_open(),
        }
    }

    /// The number after which reading continues at `position`.
    pub(super) fn number_before(&self, position: u64) -> SequenceNumber {
        if position >= self.tip() {
            return self.last_number.clone();
        }
        let before = position.checked_sub(self.first + 1).and_then(|index| usize::try_from(index).ok());
        match before.and_then(|index| self.records.get(index)) {
            Some(stored) => stored.record.sequence_number.clone(),
            None => self.sequence.start(),
        }
    }

    /// How far the reader at `position` is behind the newest record.
    pub(super) fn behind_latest(&self, now: SystemTime, position: u64) -> Duration {
        let index = usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let next = self.records.get(index);
        next.and_then(|stored| now.duration_since(stored.arrival).ok()).unwrap_or_default()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<StoredRecord>> {
        self.records.iter()
    }

    fn partition(&self, is_before: impl Fn(&SequenceNumber) -> bool) -> u64 {
        self.records.partition_point(|stored| is_before(&stored.record.sequence_number)) as u64
    }

    fn check_number(&self, number: &SequenceNumber) -> Result<(), ServiceError> {
        if self.sequence.owns(number) {
            return Ok(());
        }
        Err(ErrorCode::InvalidArgument.error(format!(
            "Invalid StartingSequenceNumber. It does not belong to {}, for which it was used.",
            self.id
        )))
    }
}

pub(super) fn shard_id(index: u32) -> ShardId {
    ShardId::from(format!("shardId-{index:012}"))
}

/// The index in a shard's identifier; `None` if it is not one of this service.
pub(super) fn shard_index(id: &str) -> Option<u32> {
    let index = id.strip_prefix("shardId-")?.parse().ok()?;
    (shard_id(index) == *id).then_some(index)
}

/// Rounds down to the resolution of arrival times.
fn whole_milliseconds(time: SystemTime) -> SystemTime {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(since_epoch.as_secs(), since_epoch.subsec_millis() * 1_000_000)
}
