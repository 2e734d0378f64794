use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::error::{ErrorCode, ServiceError};
use super::iterator::IteratorToken;
use super::service::{ACCOUNT, Service};
use super::shard::{PAGE_BYTES_MAX, StoredRecord, shard_id};
use super::state::StreamState;
use crate::kinesis::{ChildShard, IteratorPosition};
use crate::types::ShardId;

/// The maximum number of records per GetRecords call.
pub(crate) const LIMIT_MAX: u32 = 10_000;

/// The result of one GetRecords call.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) records: Vec<Arc<StoredRecord>>,
    /// `None` at the end of a closed shard.
    pub(crate) next_iterator: Option<String>,
    pub(crate) behind_latest: Duration,
    pub(crate) children: Vec<ChildShard>,
}

impl Service {
    /// GetShardIterator.
    pub(crate) fn shard_iterator(
        &mut self,
        now: SystemTime,
        stream: &str,
        shard: &str,
        position: &IteratorPosition,
    ) -> Result<String, ServiceError> {
        let now = self.advance(now);
        let rate = self.limits.iterators;
        let stream = self.stream_mut(now, stream)?;
        let (incarnation, name) = (stream.incarnation, stream.name.clone());
        let shard = stream.shard_mut(shard)?;
        if !shard.usage.iterators.allows(now, rate) {
            return Err(rate_exceeded(&shard.id, &name));
        }
        shard.usage.iterators.spend(now, rate, 1);
        let position = shard.resolve(now, position)?;
        let shard = shard.sequence.index();
        Ok(IteratorToken { incarnation, shard, position, issued: now }.encode())
    }

    /// GetRecords.
    pub(crate) fn records(
        &mut self,
        now: SystemTime,
        iterator: &str,
        limit: u32,
    ) -> Result<Page, ServiceError> {
        let now = self.advance(now);
        let limits = self.limits;
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(ErrorCode::InvalidArgument
                .error(format!("GetRecords takes a Limit from 1 to {LIMIT_MAX}, not {limit}.")));
        }
        let token = IteratorToken::decode(now, iterator)?;
        let gone =
            || ErrorCode::ResourceNotFound.error("The shard of this iterator does not exist any more.");
        let name = self.name_of(token.incarnation).ok_or_else(gone)?;
        let stream = self.stream_mut(now, &name)?;
        let shard = stream.shards.get_mut(&token.shard).ok_or_else(gone)?;
        let usage = &mut shard.usage;
        if !usage.reads.allows(now, limits.reads) || !usage.read_bytes.allows(now, limits.read_bytes) {
            return Err(rate_exceeded(&shard.id, &name));
        }
        usage.reads.spend(now, limits.reads, 1);
        let slice = shard.read(now, token.position, limit as usize, PAGE_BYTES_MAX);
        shard.usage.read_bytes.spend(now, limits.read_bytes, slice.bytes);
        let next = IteratorToken { position: slice.next, issued: now, ..token };
        Ok(Page {
            records: slice.records,
            next_iterator: (!slice.is_end).then(|| next.encode()),
            behind_latest: slice.behind_latest,
            children: if slice.is_end { stream.child_shards(token.shard) } else { Vec::new() },
        })
    }

    /// A response to GetRecords without records, although some may follow, as the service sometimes
    /// gives.
    pub(crate) fn empty_page(&mut self, now: SystemTime, iterator: &str) -> Result<Page, ServiceError> {
        let now = self.advance(now);
        let token = IteratorToken::decode(now, iterator)?;
        let gone =
            || ErrorCode::ResourceNotFound.error("The shard of this iterator does not exist any more.");
        let name = self.name_of(token.incarnation).ok_or_else(gone)?;
        let stream = self.stream_mut(now, &name)?;
        let shard = stream.shards.get(&token.shard).ok_or_else(gone)?;
        Ok(Page {
            records: Vec::new(),
            next_iterator: Some(IteratorToken { issued: now, ..token }.encode()),
            behind_latest: shard.behind_latest(now, token.position),
            children: Vec::new(),
        })
    }

    /// The shard of an iterator, whether or not it is still valid.
    pub(super) fn shard_of_iterator(&self, iterator: &str) -> Option<ShardId> {
        IteratorToken::shard(iterator).map(shard_id)
    }

    /// Every record that the shard still has.
    pub(crate) fn stored_records(
        &mut self,
        now: SystemTime,
        stream: &str,
        shard: &str,
    ) -> Result<Vec<Arc<StoredRecord>>, ServiceError> {
        Ok(self.stream_mut(now, stream)?.shard(shard)?.records().cloned().collect())
    }
}

impl StreamState {
    /// The child shards that GetRecords and SubscribeToShard return at the end of a closed shard.
    pub(super) fn child_shards(&self, parent: u32) -> Vec<ChildShard> {
        let Some(parent) = self.shards.get(&parent) else { return Vec::new() };
        self.children(&parent.id)
            .map(|child| ChildShard::new(child.id.clone(), child.parents().cloned(), child.hash_key_range))
            .collect()
    }
}

fn rate_exceeded(shard: &ShardId, stream: &str) -> ServiceError {
    ErrorCode::ProvisionedThroughputExceeded
        .error(format!("Rate exceeded for shard {shard} in stream {stream} under account {ACCOUNT}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Limits, NewRecord};
    use crate::types::SequenceNumber;

    const SHARD: &str = "shardId-000000000000";

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_000_000_000 + millis)
    }

    /// A stream of one shard in which record n arrived n milliseconds after the start.
    fn service(records: u64) -> (Service, Vec<SequenceNumber>) {
        let mut service = Service::new();
        service.create_stream(at(0), "s", Some(1)).unwrap();
        let put =
            |n| service.put_record(at(n), "s", NewRecord::new("k", n.to_string())).unwrap().sequence_number;
        let numbers = (0..records).map(put).collect();
        (service, numbers)
    }

    fn read(service: &mut Service, position: &IteratorPosition, limit: u32) -> Result<Page, ServiceError> {
        let iterator = service.shard_iterator(at(0), "s", SHARD, position)?;
        service.records(at(0), &iterator, limit)
    }

    fn texts(page: &Page) -> String {
        let texts: Vec<_> =
            page.records.iter().map(|stored| String::from_utf8_lossy(&stored.record.data)).collect();
        texts.join(" ")
    }

    #[test]
    fn every_position_starts_where_the_api_says() {
        let (mut service, numbers) = service(4);
        for (position, expected) in [
            (IteratorPosition::TrimHorizon, "0 1 2 3"),
            (IteratorPosition::Latest, ""),
            (IteratorPosition::At(numbers[1].clone()), "1 2 3"),
            (IteratorPosition::After(numbers[1].clone()), "2 3"),
            (IteratorPosition::AtTimestamp(at(2)), "2 3"),
            (IteratorPosition::AtTimestamp(at(2) + Duration::from_micros(700)), "2 3"),
            (IteratorPosition::AtTimestamp(SystemTime::UNIX_EPOCH), "0 1 2 3"),
        ] {
            assert_eq!(texts(&read(&mut service, &position, 10).unwrap()), expected, "{position:?}");
        }
    }

    #[test]
    fn invalid_positions_are_refused() {
        let (mut service, _) = service(1);
        for position in [
            IteratorPosition::At(SequenceNumber::from(12345)),
            IteratorPosition::After(SequenceNumber::from(0)),
            IteratorPosition::AtTimestamp(at(60_000)),
        ] {
            let error = read(&mut service, &position, 10).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{position:?}");
        }
        for limit in [0, 10_001] {
            let error = read(&mut service, &IteratorPosition::Latest, limit).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{limit}");
        }
        let error = service.shard_iterator(at(0), "s", "shardId-7", &IteratorPosition::Latest).unwrap_err();
        assert_eq!(error.code, ErrorCode::ResourceNotFound);
    }

    #[test]
    fn only_the_tip_is_zero_milliseconds_behind() {
        let (mut service, _) = service(2);
        service.advance(at(1000));
        let start = IteratorPosition::TrimHorizon;
        assert_eq!(read(&mut service, &start, 1).unwrap().behind_latest, Duration::from_millis(1000));
        assert_eq!(read(&mut service, &start, 2).unwrap().behind_latest, Duration::ZERO);
    }

    #[test]
    fn a_page_holds_ten_mebibytes_but_at_least_one_record() {
        let (mut service, _) = service(0);
        service.update_stream(at(0), "s", |stream| stream.record_bytes_max = 10 << 20).unwrap();
        for size in [9 << 20, 1 << 20, 1, 10_000_000] {
            service.put_record(at(0), "s", NewRecord::new("k", vec![0; size])).unwrap();
        }
        let mut iterator = service.shard_iterator(at(0), "s", SHARD, &IteratorPosition::TrimHorizon).unwrap();
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let page = service.records(at(0), &iterator, 10_000).unwrap();
            sizes.push(page.records.len());
            iterator = page.next_iterator.unwrap();
        }
        assert_eq!(sizes, [2, 2, 0]);
    }

    #[test]
    fn reads_are_throttled_per_shard_when_switched_on() {
        let (mut service, _) = service(1);
        service.set_limits(Limits { iterators: None, ..Limits::service() });
        let calls: Vec<_> =
            (0..6).map(|_| read(&mut service, &IteratorPosition::TrimHorizon, 1).is_ok()).collect();
        assert_eq!(calls, [true, true, true, true, true, false]);
    }

    #[test]
    fn an_iterator_of_a_deleted_stream_does_not_read_its_successor() {
        let (mut service, _) = service(1);
        let iterator = service.shard_iterator(at(0), "s", SHARD, &IteratorPosition::TrimHorizon).unwrap();
        service.delete_stream(at(0), "s", true).unwrap();
        service.create_stream(at(0), "s", Some(1)).unwrap();
        let error = service.records(at(0), &iterator, 1).unwrap_err();
        assert_eq!(error.code, ErrorCode::ResourceNotFound);
    }
}
