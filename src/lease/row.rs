use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;

use crate::types::{Checkpoint, HashKeyRange, LeaseKey, ShardId, WorkerId};

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
        }
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
    /// The rate as a floating-point number of KiB per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
    pub fn kib_per_second(self) -> f64 {
        self.0 as f64 / 1e6
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
