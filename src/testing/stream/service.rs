use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::error::{ErrorCode, ServiceError};
use super::limits::{Limits, Usage};
use super::reshard::equal_ranges;
#[cfg(feature = "local")]
use super::settings::{Attached, Settings};
use super::state::{Change, Pending, StreamMode, StreamState, StreamStatus};
use crate::types::StreamId;

/// The whole simulated service: the streams of one account in one region.
///
/// Pure: every call gets the time, and the same calls at the same times have the same results. A time
/// earlier than a previous one counts as the previous one.
#[derive(Debug)]
pub(crate) struct Service {
    streams: BTreeMap<String, StreamState>,
    pub(super) limits: Limits,
    /// How long the service takes to create, change or delete a stream or consumer.
    pub(super) control_delay: Duration,
    describe_usage: Usage,
    next_incarnation: u64,
    pub(super) next_subscription: u64,
    latest: SystemTime,
}

/// The account and region of all streams.
pub(crate) const ACCOUNT: &str = "000000000000";
pub(crate) const REGION: &str = "us-east-1";

const RETENTION_DEFAULT: Duration = Duration::from_secs(24 * 3600);
const RECORD_BYTES_DEFAULT: usize = 1 << 20;
const SHARDS_MAX: u32 = 100_000;
/// The number of shards of a stream with on-demand capacity.
const SHARDS_ON_DEMAND: u32 = 4;

impl Service {
    pub(crate) fn new() -> Self {
        Self {
            streams: BTreeMap::new(),
            limits: Limits::none(),
            control_delay: Duration::ZERO,
            describe_usage: Usage::default(),
            next_incarnation: 1,
            next_subscription: 1,
            latest: SystemTime::UNIX_EPOCH,
        }
    }

    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(crate) fn set_control_delay(&mut self, delay: Duration) {
        self.control_delay = delay;
    }

    /// CreateStream; `shards` is `None` for capacity on demand.
    pub(crate) fn create_stream(
        &mut self,
        now: SystemTime,
        name: &str,
        shards: Option<u32>,
    ) -> Result<(), ServiceError> {
        let now = self.advance(now);
        if !name.parse::<StreamId>().is_ok_and(|id| id.arn().is_none()) {
            return Err(ErrorCode::Validation.error(format!("{name:?} is not a valid stream name.")));
        }
        if self.streams.contains_key(name) {
            return Err(ErrorCode::ResourceInUse.error(format!("Stream {name} already exists.")));
        }
        if !(1..=SHARDS_MAX).contains(&shards.unwrap_or(SHARDS_ON_DEMAND)) {
            return Err(ErrorCode::LimitExceeded.error(format!("A stream has 1 to {SHARDS_MAX} shards.")));
        }
        let mut stream = StreamState {
            incarnation: self.next_incarnation,
            name: name.to_owned(),
            arn: stream_arn(name),
            created: now,
            mode: if shards.is_some() { StreamMode::Provisioned } else { StreamMode::OnDemand },
            retention: RETENTION_DEFAULT,
            record_bytes_max: RECORD_BYTES_DEFAULT,
            #[cfg(feature = "local")]
            attached: Attached::default(),
            #[cfg(feature = "local")]
            settings: Settings::default(),
            status: StreamStatus::Creating,
            shards: BTreeMap::new(),
            open: BTreeMap::new(),
            next_shard: 0,
            pending: [Pending { due: now + self.control_delay, change: Change::Activate }].into(),
            next_trim: now,
            consumers: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            list_usage: Usage::default(),
        };
        self.next_incarnation += 1;
        for range in equal_ranges(shards.unwrap_or(SHARDS_ON_DEMAND)) {
            stream.add_shard(now, range, &[]);
        }
        stream.advance(now);
        self.streams.insert(name.to_owned(), stream);
        Ok(())
    }

    /// DeleteStream, at once. `force` deletes its registered consumers too.
    pub(crate) fn delete_stream(
        &mut self,
        now: SystemTime,
        name: &str,
        force: bool,
    ) -> Result<(), ServiceError> {
        let stream = self.stream_mut(now, name)?;
        if !force && !stream.consumers.is_empty() {
            return Err(ErrorCode::ResourceInUse.error(format!(
                "Stream {name} has registered consumers; EnforceConsumerDeletion is not set."
            )));
        }
        self.streams.remove(name);
        Ok(())
    }

    /// The stream in its current state.
    pub(crate) fn stream(&mut self, now: SystemTime, name: &str) -> Result<&StreamState, ServiceError> {
        self.stream_mut(now, name).map(|stream| &*stream)
    }

    /// The stream for DescribeStream and DescribeStreamSummary, which have their own rate.
    pub(crate) fn describe_stream(
        &mut self,
        now: SystemTime,
        name: &str,
    ) -> Result<&StreamState, ServiceError> {
        let now = self.advance(now);
        if !self.describe_usage.allows(now, self.limits.describes) {
            return Err(ErrorCode::LimitExceeded.error("Rate exceeded for this account."));
        }
        self.describe_usage.spend(now, self.limits.describes, 1);
        self.stream(now, name)
    }

    #[cfg(feature = "local")]
    /// All streams whose names come after `after`, in order.
    pub(crate) fn streams_after(
        &mut self,
        now: SystemTime,
        after: &str,
    ) -> impl Iterator<Item = &StreamState> {
        let now = self.advance(now);
        for stream in self.streams.values_mut() {
            stream.advance(now);
        }
        self.streams.values().filter(move |stream| stream.name.as_str() > after)
    }

    /// Sets how long records are kept.
    pub(crate) fn set_retention(
        &mut self,
        now: SystemTime,
        name: &str,
        retention: Duration,
    ) -> Result<(), ServiceError> {
        let due = now + self.control_delay;
        let stream = self.stream_mut(now, name)?;
        stream.require(&[StreamStatus::Active])?;
        stream.schedule(now, due, Change::Retain(retention));
        Ok(())
    }

    #[cfg(feature = "local")]
    /// Changes mode or record size of a stream that can be changed.
    pub(crate) fn update_stream(
        &mut self,
        now: SystemTime,
        name: &str,
        update: impl FnOnce(&mut StreamState),
    ) -> Result<(), ServiceError> {
        let stream = self.stream_mut(now, name)?;
        stream.require(&[StreamStatus::Active])?;
        update(stream);
        Ok(())
    }

    pub(super) fn stream_mut(
        &mut self,
        now: SystemTime,
        name: &str,
    ) -> Result<&mut StreamState, ServiceError> {
        let now = self.advance(now);
        let stream = self.streams.get_mut(name).ok_or_else(|| no_stream(name))?;
        stream.advance(now);
        Ok(stream)
    }

    /// The name of the stream an iterator or token was issued for, if it still exists.
    pub(super) fn name_of(&self, incarnation: u64) -> Option<String> {
        let stream = self.streams.values().find(|stream| stream.incarnation == incarnation)?;
        Some(stream.name.clone())
    }

    /// The later of `now` and the time of every earlier call.
    pub(super) fn advance(&mut self, now: SystemTime) -> SystemTime {
        self.latest = self.latest.max(now);
        self.latest
    }
}

pub(crate) fn no_stream(name: &str) -> ServiceError {
    ErrorCode::ResourceNotFound.error(format!("Stream {name} under account {ACCOUNT} not found."))
}

pub(crate) fn stream_arn(name: &str) -> String {
    format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}")
}
