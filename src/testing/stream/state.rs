use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use super::consumers::RegisteredConsumer;
use super::error::{ErrorCode, ServiceError};
use super::limits::Usage;
#[cfg(feature = "local")]
use super::settings::{Attached, Settings};
use super::shard::{ShardState, shard_index};
use super::subscription::SubscriptionState;
use crate::types::{EncryptionType, HashKeyRange, ShardId};

/// One stream: its settings, shards and subscriptions.
#[derive(Debug)]
pub(crate) struct StreamState {
    /// Distinguishes streams of the same name that were created one after the other.
    pub(super) incarnation: u64,
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(super) created: SystemTime,
    pub(crate) mode: StreamMode,
    pub(crate) retention: Duration,
    pub(crate) record_bytes_max: usize,
    #[cfg(feature = "local")]
    pub(crate) attached: Attached,
    #[cfg(feature = "local")]
    pub(crate) settings: Settings,
    pub(crate) status: StreamStatus,
    pub(super) shards: BTreeMap<u32, ShardState>,
    /// The open shards by the start of their hash key ranges, which tile all hash keys.
    pub(super) open: BTreeMap<u128, u32>,
    pub(super) next_shard: u32,
    pub(super) pending: VecDeque<Pending>,
    /// No record or shard of the stream expires before this time.
    pub(super) next_trim: SystemTime,
    pub(crate) consumers: BTreeMap<String, RegisteredConsumer>,
    pub(super) subscriptions: BTreeMap<(String, u32), SubscriptionState>,
    pub(super) list_usage: Usage,
}

/// How a stream's capacity is managed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamMode {
    Provisioned,
    OnDemand,
}

/// Whether a stream can be used and changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamStatus {
    Creating,
    Active,
    Updating,
}

impl StreamStatus {
    #[cfg(feature = "local")]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Active => "ACTIVE",
            Self::Updating => "UPDATING",
        }
    }
}

/// A change that was requested and takes effect later.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) due: SystemTime,
    pub(super) change: Change,
}

/// A change of a stream that the service makes in the background.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Activate,
    Split { shard: u32, at: u128 },
    Merge { lower: u32, upper: u32 },
    Rescale { shards: u32 },
    Retain(Duration),
}

impl StreamState {
    /// Applies the changes that are due and drops what retention has passed.
    pub(super) fn advance(&mut self, now: SystemTime) {
        while self.pending.front().is_some_and(|pending| pending.due <= now) {
            if let Some(Pending { due, change }) = self.pending.pop_front() {
                self.apply(due, change);
                self.status = StreamStatus::Active;
            }
        }
        if self.next_trim < now {
            self.trim(now);
        }
    }

    /// Drops old records and shards, and computes when that will be needed again.
    fn trim(&mut self, now: SystemTime) {
        let horizon = self.horizon(now);
        self.shards.retain(|_, shard| shard.closed.as_ref().is_none_or(|closed| closed.at >= horizon));
        let mut oldest = now;
        for shard in self.shards.values_mut() {
            shard.trim(horizon);
            oldest = oldest.min(shard.oldest().unwrap_or(now));
        }
        self.next_trim = oldest + self.retention;
        let shards = &self.shards;
        self.subscriptions.retain(|(_, shard), _| shards.contains_key(shard));
    }

    fn apply(&mut self, at: SystemTime, change: Change) {
        match change {
            Change::Activate => {}
            Change::Split { shard, at: key } => {
                self.split(at, shard, key);
            }
            Change::Merge { lower, upper } => {
                self.merge(at, lower, upper);
            }
            Change::Rescale { shards } => self.rescale(at, shards),
            Change::Retain(retention) => {
                self.retention = retention;
                self.next_trim = SystemTime::UNIX_EPOCH;
            }
        }
    }

    /// Makes `change` at `due`, or at once if that is now.
    pub(super) fn schedule(&mut self, now: SystemTime, due: SystemTime, change: Change) {
        self.status = StreamStatus::Updating;
        self.pending.push_back(Pending { due, change });
        self.advance(now);
    }

    /// The encryption of records that are put now.
    pub(crate) fn encryption_type(&self) -> EncryptionType {
        #[cfg(feature = "local")]
        if self.settings.key.is_some() {
            return EncryptionType::Kms;
        }
        EncryptionType::None
    }

    /// When the stream was created, in whole seconds as in the service.
    pub(crate) fn creation_time(&self) -> SystemTime {
        let since_epoch = self.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
    }

    /// The arrival time of the oldest record that is still kept.
    pub(super) fn horizon(&self, now: SystemTime) -> SystemTime {
        now.checked_sub(self.retention).map_or(self.created, |horizon| horizon.max(self.created))
    }

    pub(crate) fn shards(&self) -> impl DoubleEndedIterator<Item = &ShardState> {
        self.shards.values()
    }

    pub(crate) fn open_shards(&self) -> usize {
        self.open.len()
    }

    pub(super) fn shard(&self, id: &str) -> Result<&ShardState, ServiceError> {
        shard_index(id).and_then(|index| self.shards.get(&index)).ok_or_else(|| self.no_shard(id))
    }

    pub(super) fn shard_mut(&mut self, id: &str) -> Result<&mut ShardState, ServiceError> {
        let missing = self.no_shard(id);
        shard_index(id).and_then(|index| self.shards.get_mut(&index)).ok_or(missing)
    }

    fn no_shard(&self, id: &str) -> ServiceError {
        ErrorCode::ResourceNotFound.error(format!("Shard {id} in stream {} does not exist.", self.name))
    }

    /// The shards split or merged from `parent`.
    pub(super) fn children<'a>(&'a self, parent: &'a ShardId) -> impl Iterator<Item = &'a ShardState> {
        self.shards.values().filter(move |shard| shard.parents().any(|id| id == parent))
    }

    /// The open shard that holds `hash_key`.
    pub(super) fn shard_of(&mut self, hash_key: u128) -> Option<&mut ShardState> {
        let (_, index) = self.open.range(..=hash_key).next_back()?;
        self.shards.get_mut(index)
    }

    pub(super) fn add_shard(&mut self, at: SystemTime, range: HashKeyRange, parents: &[u32]) -> u32 {
        let index = self.next_shard;
        let parents: Vec<_> = parents.iter().filter_map(|parent| self.shards.get(parent)).collect();
        let shard = ShardState::new(index, range, at, &parents);
        self.shards.insert(index, shard);
        self.open.insert(range.start(), index);
        self.next_shard += 1;
        index
    }

    pub(super) fn require(&self, allowed: &[StreamStatus]) -> Result<(), ServiceError> {
        if allowed.contains(&self.status) {
            return Ok(());
        }
        Err(ErrorCode::ResourceInUse.error(format!("Stream {} is {:?}, not ACTIVE.", self.name, self.status)))
    }
}
