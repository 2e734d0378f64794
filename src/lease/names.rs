//! The attributes of the lease table, as KCL names them.

pub(crate) const LEASE_KEY: &str = "leaseKey";
pub(crate) const LEASE_OWNER: &str = "leaseOwner";
pub(crate) const LEASE_COUNTER: &str = "leaseCounter";
pub(crate) const OWNER_SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
pub(crate) const CHECKPOINT: &str = "checkpoint";
pub(crate) const CHECKPOINT_SUB_SEQUENCE: &str = "checkpointSubSequenceNumber";
pub(crate) const PENDING_CHECKPOINT: &str = "pendingCheckpoint";
pub(crate) const PENDING_CHECKPOINT_SUB_SEQUENCE: &str = "pendingCheckpointSubSequenceNumber";
pub(crate) const PENDING_CHECKPOINT_STATE: &str = "pendingCheckpointState";
pub(crate) const PARENT_SHARDS: &str = "parentShardId";
pub(crate) const CHILD_SHARDS: &str = "childShardIds";
pub(crate) const STARTING_HASH_KEY: &str = "startingHashKey";
pub(crate) const ENDING_HASH_KEY: &str = "endingHashKey";
pub(crate) const THROUGHPUT: &str = "throughputKBps";
pub(crate) const CHECKPOINT_OWNER: &str = "checkpointOwner";
pub(crate) const ENTITY_TYPE: &str = "entityType";
pub(crate) const STREAM_NAME: &str = "streamName";
pub(crate) const SHARD_ID: &str = "shardId";

// Not KCL's: Java keeps them, because it never replaces a row, and ignores them.
/// The first sequence number of the shard (S).
pub(crate) const STARTING_SEQUENCE_NUMBER: &str = "startingSequenceNumber";
/// The name of the stream, of leases that have no `streamName` (S).
pub(crate) const SOURCE_STREAM: &str = "sourceStream";
/// Of a lease at `LATEST`: from when on records are to be read, in milliseconds since 1970 (N).
pub(crate) const LATEST_SINCE: &str = "latestSince";
/// How far the owner was behind the newest record of the shard when it last wrote, in milliseconds (N).
pub(crate) const MILLIS_BEHIND_LATEST: &str = "millisBehindLatest";
/// The lease counter that was written along with it: if the row has another, somebody else has written since (N).
pub(crate) const MILLIS_BEHIND_LATEST_AT: &str = "millisBehindLatestAt";
/// The shard is not to be read for now: since when, by whom and why (M).
pub(crate) const PAUSED: &str = "paused";
/// The last seek that wrote the row (S).
pub(crate) const SEEK_ID: &str = "seekId";
/// In one row of a seek that is being carried out: where to, for people (S).
pub(crate) const SEEK_UNDER_WAY: &str = "seekUnderWay";
/// State beside the checkpoint, which goes with it.
pub(crate) const COMPLETED_BEYOND_CHECKPOINT: &str = "completedBeyondCheckpoint";
pub(crate) const PROCESSOR_STATE: &str = "processorState";

/// The `entityType` of leases; rows without one are leases too, rows with another are not.
pub(crate) const ENTITY_TYPE_LEASE: &str = "LEASE";

/// The index from `leaseOwner` to `leaseKey`.
pub(crate) const OWNER_INDEX: &str = "LeaseOwnerToLeaseKeyIndex";
