use std::time::{Duration, SystemTime};

use super::error::{ErrorCode, ServiceError};
use super::iterator::{fields_text, is_expired, parse_fields, unix_millis};
use super::service::Service;
use super::shard::ShardState;
#[cfg(feature = "local")]
use super::shard::shard_index;
use super::state::{StreamState, StreamStatus};

/// The size of a page of ListShards by default.
const PAGE_DEFAULT: usize = 1000;
const PAGE_MAX: usize = 10_000;
const PREFIX: &str = "AAAAAAAAAAL";

/// Which shards a listing contains (`ShardFilter` of the Kinesis API).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListFilter {
    AfterShard(u32),
    AtTrimHorizon,
    FromTrimHorizon,
    AtLatest,
    AtTimestamp(SystemTime),
    FromTimestamp(SystemTime),
}

impl ListFilter {
    #[cfg(feature = "local")]
    /// The filter `AFTER_SHARD_ID`, which `ExclusiveStartShardId` means too.
    pub(crate) fn after_shard(id: &str) -> Result<Self, ServiceError> {
        let invalid = || ErrorCode::InvalidArgument.error(format!("{id} is not a shard id."));
        shard_index(id).map(Self::AfterShard).ok_or_else(invalid)
    }

    fn keeps(self, stream: &StreamState, now: SystemTime, shard: &ShardState) -> bool {
        let horizon = stream.horizon(now);
        match self {
            Self::AfterShard(index) => shard.sequence.index() > index,
            Self::AtTrimHorizon => shard.was_open_at(horizon),
            Self::FromTrimHorizon => true,
            Self::AtLatest => shard.is_open(),
            Self::AtTimestamp(time) => shard.was_open_at(time.max(horizon)),
            Self::FromTimestamp(time) => shard.closed.as_ref().is_none_or(|closed| time < closed.at),
        }
    }

    fn to_fields(self) -> [u64; 2] {
        match self {
            Self::AfterShard(index) => [0, u64::from(index)],
            Self::AtTrimHorizon => [1, 0],
            Self::FromTrimHorizon => [2, 0],
            Self::AtLatest => [3, 0],
            Self::AtTimestamp(time) => [4, unix_millis(time)],
            Self::FromTimestamp(time) => [5, unix_millis(time)],
        }
    }

    fn from_fields(kind: u64, value: u64) -> Option<Self> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(value);
        Some(match kind {
            0 => Self::AfterShard(u32::try_from(value).ok()?),
            1 => Self::AtTrimHorizon,
            2 => Self::FromTrimHorizon,
            3 => Self::AtLatest,
            4 => Self::AtTimestamp(time),
            5 => Self::FromTimestamp(time),
            _ => return None,
        })
    }
}

/// A page of a listing, as references into the stream.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    pub(crate) shards: Vec<&'a ShardState>,
    pub(crate) next_token: Option<String>,
}

impl Service {
    /// ListShards by stream: the first page.
    pub(crate) fn list_shards(
        &mut self,
        now: SystemTime,
        stream: &str,
        filter: ListFilter,
        page: Option<usize>,
    ) -> Result<Listing<'_>, ServiceError> {
        self.listing(now, stream, filter, None, page)
    }

    /// ListShards by token: a following page.
    pub(crate) fn list_more_shards(
        &mut self,
        now: SystemTime,
        token: &str,
        page: Option<usize>,
    ) -> Result<Listing<'_>, ServiceError> {
        let invalid = || ErrorCode::InvalidArgument.error("NextToken is invalid.");
        let [incarnation, kind, value, after, issued] = parse_fields(PREFIX, token).ok_or_else(invalid)?;
        if is_expired(now, SystemTime::UNIX_EPOCH + Duration::from_millis(issued)) {
            return Err(ErrorCode::ExpiredNextToken.error("NextToken is older than 300 seconds."));
        }
        let filter = ListFilter::from_fields(kind, value).ok_or_else(invalid)?;
        let after = u32::try_from(after).map_err(|_| invalid())?;
        let stream = self.name_of(incarnation).ok_or_else(invalid)?;
        self.listing(now, &stream, filter, Some(after), page)
    }

    fn listing(
        &mut self,
        now: SystemTime,
        stream: &str,
        filter: ListFilter,
        after: Option<u32>,
        page: Option<usize>,
    ) -> Result<Listing<'_>, ServiceError> {
        let rate = self.limits.lists;
        let stream = self.stream_mut(now, stream)?;
        stream.require(&[StreamStatus::Active, StreamStatus::Updating])?;
        if !stream.list_usage.allows(now, rate) {
            return Err(ErrorCode::LimitExceeded.error(format!("Rate exceeded for stream {}.", stream.name)));
        }
        stream.list_usage.spend(now, rate, 1);
        let page = page.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&page) {
            return Err(ErrorCode::Validation.error("MaxResults must be from 1 to 10000."));
        }
        let stream = &*stream;
        let start = after.map_or(0, |after| after.saturating_add(1));
        let mut shards: Vec<_> = stream
            .shards
            .range(start..)
            .map(|(_, shard)| shard)
            .filter(|shard| filter.keeps(stream, now, shard))
            .take(page + 1)
            .collect();
        let next_token = (shards.len() > page).then(|| {
            shards.truncate(page);
            let after = shards.last().map_or(0, |shard| shard.sequence.index());
            let [kind, value] = filter.to_fields();
            fields_text(PREFIX, &[stream.incarnation, kind, value, u64::from(after), unix_millis(now)])
        });
        Ok(Listing { shards, next_token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_000_000 + seconds)
    }

    /// Shard 0, split ten seconds after the stream was created.
    fn service() -> Service {
        let mut service = Service::new();
        service.create_stream(at(0), "s", Some(1)).unwrap();
        service.split_shard(at(10), "s", "shardId-000000000000", 1 << 127).unwrap();
        service
    }

    fn list(service: &mut Service, now: SystemTime, filter: ListFilter) -> Vec<u32> {
        let listing = service.list_shards(now, "s", filter, None).unwrap();
        listing.shards.iter().map(|shard| shard.sequence.index()).collect()
    }

    #[test]
    fn each_filter_keeps_what_the_api_says() {
        let mut service = service();
        for (filter, expected) in [
            (ListFilter::AtLatest, &[1, 2][..]),
            (ListFilter::AtTrimHorizon, &[0]),
            (ListFilter::FromTrimHorizon, &[0, 1, 2]),
            (ListFilter::AfterShard(0), &[1, 2]),
            (ListFilter::AtTimestamp(at(0)), &[0]),
            (ListFilter::AtTimestamp(at(9)), &[0]),
            (ListFilter::AtTimestamp(at(10)), &[1, 2]),
            (ListFilter::AtTimestamp(SystemTime::UNIX_EPOCH), &[0]),
            (ListFilter::FromTimestamp(at(9)), &[0, 1, 2]),
            (ListFilter::FromTimestamp(at(11)), &[1, 2]),
        ] {
            assert_eq!(list(&mut service, at(20), filter), expected, "{filter:?}");
        }
    }

    #[test]
    fn a_closed_shard_leaves_the_listing_with_its_last_possible_record() {
        let mut service = service();
        let day = 24 * 3600;
        assert_eq!(list(&mut service, at(day + 10), ListFilter::FromTrimHorizon), [0, 1, 2]);
        assert_eq!(list(&mut service, at(day + 11), ListFilter::FromTrimHorizon), [1, 2]);
    }

    #[test]
    fn shards_split_at_the_instant_of_creation_still_come_after_their_parent() {
        let mut service = Service::new();
        service.create_stream(at(0), "s", Some(1)).unwrap();
        service.split_shard(at(0), "s", "shardId-000000000000", 1 << 127).unwrap();
        assert_eq!(list(&mut service, at(0), ListFilter::AtTrimHorizon), [0]);
        assert_eq!(list(&mut service, at(0), ListFilter::AtLatest), [1, 2]);
    }

    #[test]
    fn a_token_keeps_the_filter_and_expires() {
        let mut service = service();
        let first = service.list_shards(at(20), "s", ListFilter::AtLatest, Some(1)).unwrap();
        let token = first.next_token.unwrap();
        let next = service.list_more_shards(at(320), &token, Some(1)).unwrap();
        assert_eq!(next.shards[0].sequence.index(), 2);
        assert_eq!(next.next_token, None);
        let late = service.list_more_shards(at(321), &token, None).unwrap_err();
        assert_eq!(late.code, ErrorCode::ExpiredNextToken);
    }
}
