use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::decimal::Decimal;
use crate::types::{Checkpoint, HashKeyRange, LeaseKey, SequenceNumber, ShardId, StreamId, WorkerId};

/// The decimals the table keeps of a throughput, and what that makes one of.
const DECIMALS: u8 = 6;
const MICROS: u128 = 10_u128.pow(DECIMALS as u32);
const NANOS_PER_SECOND: u128 = 1_000_000_000;
const BYTES_PER_KIB: u128 = 1024;

/// One row of the lease table: who reads a shard, and how far it has been processed (KCL's `Lease`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Lease {
    /// `leaseKey`, the primary key.
    pub key: LeaseKey,
    /// The shard: `shardId`, or the key where that attribute is missing.
    pub shard_id: ShardId,
    /// `streamName`: the serialized stream identifier in multi-stream mode.
    pub stream_name: Option<String>,
    /// `leaseOwner`: the worker that holds the lease or, during a handoff, the next one.
    pub owner: Option<WorkerId>,
    /// `leaseCounter`: heartbeat and optimistic lock.
    pub counter: u64,
    /// `ownerSwitchesSinceCheckpoint`.
    pub owner_switches: u64,
    /// `checkpoint` and `checkpointSubSequenceNumber`.
    pub checkpoint: Checkpoint,
    /// `pendingCheckpoint…`: the first phase of a two-phase checkpoint.
    pub pending_checkpoint: Option<PendingCheckpoint>,
    /// `parentShardId`.
    pub parents: BTreeSet<ShardId>,
    /// `childShardIds`, known once the shard ended.
    pub children: BTreeSet<ShardId>,
    /// `startingHashKey` and `endingHashKey`.
    pub hash_key_range: Option<HashKeyRange>,
    /// `throughputKBps`.
    pub throughput: Option<Throughput>,
    /// `checkpointOwner`: during a handoff, the worker still processing.
    pub checkpoint_owner: Option<WorkerId>,
    /// `startingSequenceNumber`: the first sequence number of the shard, which differs from that of a
    /// shard with the same identifier in another stream, or in an earlier one of the same name. Not an
    /// attribute of KCL's.
    pub starting_sequence_number: Option<SequenceNumber>,
    /// `sourceStream`: the name of the stream where `stream_name` does not say it, in single-stream
    /// mode. Not an attribute of KCL's.
    pub source_stream: Option<String>,
    /// `latestSince`: the instant that `LATEST` means for this lease, in milliseconds since 1970. It is
    /// stored when the lease is created or first acquired, and goes with the first checkpoint. Not an
    /// attribute of KCL's.
    pub latest_since: Option<u64>,
    /// `millisBehindLatest` and `millisBehindLatestAt`: how far the owner was behind, as it wrote with its last
    /// renewal or checkpoint. Not attributes of KCL's.
    pub behind_latest: Option<BehindLatest>,
    /// `paused`: the shard is not to be read for now. Not an attribute of KCL's.
    pub paused: Option<Paused>,
    /// `seekId`: the last seek that wrote the row. Not an attribute of KCL's.
    pub seek_id: Option<String>,
    /// `seekUnderWay`: where a seek is moving the leases to that was begun with this row and is not finished. Not an
    /// attribute of KCL's.
    pub seek_under_way: Option<String>,
}

impl Lease {
    /// A lease nobody has owned yet.
    #[must_use]
    pub fn new(key: impl Into<LeaseKey>, checkpoint: Checkpoint) -> Self {
        let key = key.into();
        Self {
            shard_id: key.as_str().into(),
            key,
            stream_name: None,
            owner: None,
            counter: 0,
            owner_switches: 0,
            checkpoint,
            pending_checkpoint: None,
            parents: BTreeSet::new(),
            children: BTreeSet::new(),
            hash_key_range: None,
            throughput: None,
            checkpoint_owner: None,
            starting_sequence_number: None,
            source_stream: None,
            latest_since: None,
            behind_latest: None,
            paused: None,
            seek_id: None,
            seek_under_way: None,
        }
    }

    /// How far the owner was behind the newest record of the shard at its last write; `None` if that is not known:
    /// the owner has not read yet, or is a worker of Java KCL, or somebody else wrote after it.
    #[must_use]
    pub fn behind_latest_now(&self) -> Option<Duration> {
        let behind = self.behind_latest.filter(|behind| behind.counter == self.counter)?;
        Some(Duration::from_millis(behind.millis))
    }

    /// The stream, as far as the row names it.
    #[must_use]
    pub(crate) fn stream(&self) -> Option<&str> {
        self.stream_name.as_deref().or(self.source_stream.as_deref())
    }

    /// Who works on the shard: the owner or, during a handoff, still the old one.
    #[must_use]
    pub fn actual_owner(&self) -> Option<&WorkerId> {
        self.checkpoint_owner.as_ref().or(self.owner.as_ref())
    }

    /// The row of the same lease, for anybody to take, if it was deleted.
    #[must_use]
    pub(crate) fn unowned_again(self) -> Self {
        let counter = self.counter.saturating_add(1);
        Self { owner: None, checkpoint_owner: None, counter, ..self }
    }

    /// The lease of the same shard as a row of `stream`: in multi-stream mode, key and `streamName`
    /// say which it is.
    #[must_use]
    pub(crate) fn in_stream(mut self, stream: &StreamId) -> Self {
        self.key = stream.lease_key(&self.shard_id);
        self.stream_name = stream.serialized().map(ToOwned::to_owned);
        self.source_stream = self.stream_name.is_none().then(|| stream.name().to_owned());
        self
    }
}

/// How far an owner was behind the newest record of its shard, as it wrote along with a renewal or a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct BehindLatest {
    /// By how much, in milliseconds.
    pub millis: u64,
    /// The counter that was written along. A row with another counter was written by somebody else since.
    pub counter: u64,
}

/// That a shard is not to be read for now, and why. Its owner keeps the lease. Workers of Java KCL do not know this
/// attribute, and go on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Paused {
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// Who has paused it.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Paused {
    /// Paused at `since`, in milliseconds since 1970.
    #[must_use]
    pub fn new(since: u64, by: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { since, by: by.into(), reason: reason.into() }
    }
}

/// The prepared but not yet committed half of a two-phase checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct PendingCheckpoint {
    /// The position that was prepared.
    pub checkpoint: Checkpoint,
    /// Bytes the application stored beside it.
    pub state: Option<Bytes>,
}

impl PendingCheckpoint {
    /// A pending checkpoint.
    #[must_use]
    pub fn new(checkpoint: Checkpoint, state: Option<Bytes>) -> Self {
        Self { checkpoint, state }
    }
}

/// A rate of delivered bytes in KiB per second, with the six decimals the table keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Throughput(u64);

impl Throughput {
    /// The rate at which `bytes` were delivered in `elapsed`; zero if no time has passed.
    #[must_use]
    pub fn from_bytes(bytes: u64, elapsed: Duration) -> Self {
        let numerator = u128::from(bytes) * MICROS * NANOS_PER_SECOND;
        let denominator = elapsed.as_nanos() * BYTES_PER_KIB;
        // A rounded division, half up.
        let micros = (2 * numerator + denominator).checked_div(2 * denominator).unwrap_or(0);
        Self(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// The exponential moving average (α = 0.5) after one more sample, as KCL's
    /// `LeaseStatsRecorder` keeps it.
    #[must_use]
    pub fn averaged_with(self, sample: Self) -> Self {
        Self(self.0.midpoint(sample.0) + ((self.0 ^ sample.0) & 1))
    }

    /// The rate as a floating-point number of KiB per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
    pub fn kib_per_second(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Parses a number in any form DynamoDB may give it; rates too large to be true are cut off.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = Decimal::parse(text)?;
        (!number.is_negative()).then(|| Self(number.to_scaled(DECIMALS).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Throughput {
    /// The decimal text Java gives the number: up to six decimals, at least one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", u128::from(self.0) / MICROS, u128::from(self.0) % MICROS);
        let trimmed = text.trim_end_matches('0');
        f.pad(if trimmed.ends_with('.') { &text[..=trimmed.len()] } else { trimmed })
    }
}

/// A row that looks like a lease but cannot be read as one. It is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadableRow {
    /// The row's key, if that at least is readable.
    pub key: Option<LeaseKey>,
    /// Which attribute is wrong, and how.
    pub reason: String,
}

impl fmt::Display for UnreadableRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map_or("(no key)", LeaseKey::as_str);
        write!(f, "lease row {key}: {}", self.reason)
    }
}

impl std::error::Error for UnreadableRow {}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Throughput {
        Throughput::parse(text).unwrap()
    }

    #[test]
    fn throughput_reads_every_form_and_writes_javas() {
        for (read, written) in [
            ("412.337891", "412.337891"),
            ("0", "0.0"),
            ("0.0", "0.0"),
            ("1E-6", "0.000001"),
            ("10", "10.0"),
            ("1.50", "1.5"),
            ("0.0000005", "0.000001"),
        ] {
            assert_eq!(rate(read).to_string(), written);
        }
        assert_eq!(Throughput::parse("-1"), None);
        assert_eq!(Throughput::parse("fast"), None);
    }

    #[test]
    fn throughput_is_kib_per_second_rounded_half_up() {
        let three_seconds = Duration::from_secs(3);
        assert_eq!(Throughput::from_bytes(1024, three_seconds).to_string(), "0.333333");
        assert_eq!(Throughput::from_bytes(2048, three_seconds).to_string(), "0.666667");
        assert_eq!(Throughput::from_bytes(1024, Duration::ZERO).to_string(), "0.0");
        assert_eq!(Throughput::from_bytes(u64::MAX, Duration::from_nanos(1)), Throughput(u64::MAX));
    }

    #[test]
    fn throughput_averages_half_and_half() {
        assert_eq!(rate("100").averaged_with(rate("50")), rate("75"));
        assert_eq!(rate("0.000001").averaged_with(rate("0.000002")), rate("0.000002"));
        let largest = Throughput(u64::MAX);
        assert_eq!(largest.averaged_with(largest), largest);
    }
}
