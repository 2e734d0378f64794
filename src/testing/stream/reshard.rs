use std::time::{Duration, SystemTime};

use super::error::{ErrorCode, ServiceError};
use super::service::Service;
use super::shard::ShardState;
use super::state::{Change, StreamMode, StreamState, StreamStatus};
use crate::types::HashKeyRange;

/// Splitting, merging and rescaling: validation when they are requested ...
impl Service {
    /// SplitShard.
    pub(crate) fn split_shard(
        &mut self,
        now: SystemTime,
        stream: &str,
        shard: &str,
        new_starting_hash_key: u128,
    ) -> Result<(), ServiceError> {
        let due = now + self.control_delay;
        let stream = self.stream_mut(now, stream)?;
        stream.require_provisioned("SplitShard")?;
        stream.require(&[StreamStatus::Active])?;
        let shard = stream.eligible(shard)?;
        if new_starting_hash_key <= shard.hash_key_range.start()
            || !shard.hash_key_range.contains(new_starting_hash_key)
        {
            return Err(ErrorCode::InvalidArgument.error(format!(
                "NewStartingHashKey {new_starting_hash_key} used in SplitShard() on shard {} is not inside its \
                 range {}.",
                shard.id, shard.hash_key_range
            )));
        }
        let change = Change::Split { shard: shard.sequence.index(), at: new_starting_hash_key };
        stream.schedule(now, due, change);
        Ok(())
    }

    /// MergeShards.
    pub(crate) fn merge_shards(
        &mut self,
        now: SystemTime,
        stream: &str,
        shard: &str,
        adjacent: &str,
    ) -> Result<(), ServiceError> {
        let due = now + self.control_delay;
        let stream = self.stream_mut(now, stream)?;
        stream.require_provisioned("MergeShards")?;
        stream.require(&[StreamStatus::Active])?;
        let (one, other) = (stream.eligible(shard)?, stream.eligible(adjacent)?);
        let (lower, upper) =
            if one.hash_key_range < other.hash_key_range { (one, other) } else { (other, one) };
        if lower.hash_key_range.end().checked_add(1) != Some(upper.hash_key_range.start()) {
            return Err(ErrorCode::InvalidArgument.error(format!(
                "Shards {shard} and {adjacent} in stream {} are not an adjacent pair of shards eligible for \
                 merging.",
                stream.name
            )));
        }
        let change = Change::Merge { lower: lower.sequence.index(), upper: upper.sequence.index() };
        stream.schedule(now, due, change);
        Ok(())
    }

    /// UpdateShardCount with uniform scaling: from half to twice the current count. Returns the current
    /// count.
    pub(crate) fn update_shard_count(
        &mut self,
        now: SystemTime,
        stream: &str,
        target: u32,
    ) -> Result<usize, ServiceError> {
        let due = now + self.control_delay;
        let stream = self.stream_mut(now, stream)?;
        stream.require_provisioned("UpdateShardCount")?;
        stream.require(&[StreamStatus::Active])?;
        let current = stream.open_shards();
        if target == 0 || target as usize > 2 * current || (target as usize) < current.div_ceil(2) {
            return Err(ErrorCode::InvalidArgument.error(format!(
                "UpdateShardCount cannot scale {} from {current} open shards to {target}: from half to twice \
                 as many are possible at once.",
                stream.name
            )));
        }
        stream.schedule(now, due, Change::Rescale { shards: target });
        Ok(current)
    }
}

/// ... and the change of the shards when they take effect.
impl StreamState {
    pub(super) fn split(&mut self, at: SystemTime, shard: u32, key: u128) -> Option<(u32, u32)> {
        let range = self.shards.get(&shard)?.hash_key_range;
        let lower = HashKeyRange::new(range.start(), key.checked_sub(1)?)?;
        let upper = HashKeyRange::new(key, range.end())?;
        let at = self.close(at, &[shard]);
        Some((self.add_shard(at, lower, &[shard]), self.add_shard(at, upper, &[shard])))
    }

    pub(super) fn merge(&mut self, at: SystemTime, lower: u32, upper: u32) -> Option<u32> {
        let (start, end) = (self.shards.get(&lower)?.hash_key_range, self.shards.get(&upper)?.hash_key_range);
        let range = HashKeyRange::new(start.start(), end.end())?;
        let at = self.close(at, &[lower, upper]);
        Some(self.add_shard(at, range, &[lower, upper]))
    }

    /// Splits every shard at the boundaries of the target ranges, then merges the shards within each of
    /// them, so that each new shard descends from all shards whose keys it takes over.
    pub(super) fn rescale(&mut self, at: SystemTime, shards: u32) {
        let ranges = equal_ranges(shards);
        for range in &ranges {
            let owner = self.open.range(..=range.start()).next_back();
            let Some((&start, &index)) = owner else { continue };
            if start != range.start() {
                self.split(at, index, range.start());
            }
        }
        for range in &ranges {
            let pieces: Vec<u32> =
                self.open.range(range.start()..=range.end()).map(|(_, &index)| index).collect();
            let mut pieces = pieces.into_iter();
            let Some(mut whole) = pieces.next() else { continue };
            for piece in pieces {
                whole = self.merge(at, whole, piece).unwrap_or(whole);
            }
        }
    }

    /// Closes `shards` and returns the time: strictly after each was opened, so that parents and
    /// children are never open at the same time even if the clock stands still.
    fn close(&mut self, at: SystemTime, shards: &[u32]) -> SystemTime {
        let opened = shards.iter().filter_map(|index| self.shards.get(index)).map(|shard| shard.opened).max();
        let at = opened.map_or(at, |opened| at.max(opened + Duration::from_millis(1)));
        for index in shards {
            if let Some(shard) = self.shards.get_mut(index) {
                shard.close(at);
                self.open.remove(&shard.hash_key_range.start());
            }
        }
        at
    }

    fn eligible(&self, id: &str) -> Result<&ShardState, ServiceError> {
        let shard = self.shard(id)?;
        if shard.is_open() {
            return Ok(shard);
        }
        Err(ErrorCode::InvalidArgument.error(format!(
            "Shard {id} in stream {} has already been merged or split, and thus is not eligible for merging \
             or splitting.",
            self.name
        )))
    }

    fn require_provisioned(&self, operation: &str) -> Result<(), ServiceError> {
        match self.mode {
            StreamMode::Provisioned => Ok(()),
            StreamMode::OnDemand => Err(ErrorCode::Validation.error(format!(
                "{operation} is not possible on stream {}: its capacity is on demand.",
                self.name
            ))),
        }
    }
}

/// All hash keys in `count` (at least one) ranges of equal size; the last takes the remainder.
pub(super) fn equal_ranges(count: u32) -> Vec<HashKeyRange> {
    // The size of a single range of 2^128 keys does not fit into 128 bits.
    if count <= 1 {
        return vec![HashKeyRange::FULL];
    }
    let count = u128::from(count);
    let size = u128::MAX / count + u128::from(u128::MAX % count == count - 1);
    (0..count)
        .filter_map(|index| {
            let end = if index == count - 1 { u128::MAX } else { (index + 1) * size - 1 };
            HashKeyRange::new(index * size, end)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::NewRecord;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn service(shards: u32) -> Service {
        let mut service = Service::new();
        service.create_stream(NOW, "s", Some(shards)).unwrap();
        service
    }

    fn shape(service: &mut Service) -> Vec<String> {
        let stream = service.stream(NOW, "s").unwrap();
        stream
            .shards()
            .map(|shard| {
                let parents: Vec<_> = shard.parents().map(|id| id.as_str()[19..].to_owned()).collect();
                let state = if shard.is_open() { "open" } else { "closed" };
                format!("{}<-{} {state}", &shard.id.as_str()[19..], parents.join("+"))
            })
            .collect()
    }

    #[test]
    fn a_split_leaves_two_children_and_a_merge_one_with_two_parents() {
        let mut service = service(1);
        service.split_shard(NOW, "s", "shardId-000000000000", 1 << 127).unwrap();
        service.merge_shards(NOW, "s", "shardId-000000000002", "shardId-000000000001").unwrap();
        assert_eq!(shape(&mut service), ["0<- closed", "1<-0 closed", "2<-0 closed", "3<-1+2 open"]);
    }

    #[test]
    fn children_number_their_records_above_their_parents() {
        let mut service = service(1);
        let before = service.put_record(NOW, "s", NewRecord::new("k", "1")).unwrap();
        service.split_shard(NOW, "s", "shardId-000000000000", 1 << 127).unwrap();
        let after = service.put_record(NOW, "s", NewRecord::new("k", "2")).unwrap();
        assert!(before.shard != after.shard && before.sequence_number < after.sequence_number);
        let stream = service.stream(NOW, "s").unwrap();
        let parent = stream.shard("shardId-000000000000").unwrap().describe();
        let child = stream.shard(after.shard.as_str()).unwrap().describe();
        assert!(before.sequence_number < parent.ending_sequence_number.clone().unwrap());
        assert!(parent.ending_sequence_number.unwrap() < child.starting_sequence_number);
    }

    #[test]
    fn what_is_not_open_or_not_adjacent_is_refused() {
        let mut service = service(3);
        let (first, third) = ("shardId-000000000000", "shardId-000000000002");
        let code = |result: Result<(), ServiceError>| result.unwrap_err().code;
        assert_eq!(code(service.merge_shards(NOW, "s", first, third)), ErrorCode::InvalidArgument);
        assert_eq!(code(service.split_shard(NOW, "s", first, 0)), ErrorCode::InvalidArgument);
        assert_eq!(code(service.split_shard(NOW, "s", first, u128::MAX)), ErrorCode::InvalidArgument);
        service.split_shard(NOW, "s", first, 1).unwrap();
        assert_eq!(code(service.split_shard(NOW, "s", first, 2)), ErrorCode::InvalidArgument);
    }

    #[test]
    fn a_delayed_split_keeps_the_parent_writable_until_it_happens() {
        let mut service = service(1);
        service.set_control_delay(Duration::from_secs(10));
        service.split_shard(NOW, "s", "shardId-000000000000", 1 << 127).unwrap();
        assert_eq!(service.stream(NOW, "s").unwrap().status, StreamStatus::Updating);
        let parent = service.put_record(NOW, "s", NewRecord::new("k", "1")).unwrap().shard;
        assert_eq!(parent, "shardId-000000000000");
        let busy = service.split_shard(NOW, "s", "shardId-000000000000", 1 << 127).unwrap_err();
        assert_eq!(busy.code, ErrorCode::ResourceInUse);
        let later = NOW + Duration::from_secs(10);
        let stream = service.stream(later, "s").unwrap();
        assert_eq!((stream.status, stream.open_shards()), (StreamStatus::Active, 2));
    }

    #[test]
    fn rescaling_ends_in_equal_shards_that_all_have_parents() {
        let mut service = service(2);
        for target in [4, 3, 2, 1] {
            service.update_shard_count(NOW, "s", target).unwrap();
            let stream = service.stream(NOW, "s").unwrap();
            let mut open: Vec<_> =
                stream.shards().filter(|shard| shard.is_open()).map(|shard| shard.hash_key_range).collect();
            open.sort();
            assert_eq!(open, equal_ranges(target), "{target}");
            assert!(stream.shards().skip(2).all(|shard| shard.parent.is_some()), "{target}");
        }
        let error = service.update_shard_count(NOW, "s", 3).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn equal_ranges_tile_all_hash_keys() {
        for count in [1, 2, 3, 4, 7, 1000] {
            let ranges = equal_ranges(count);
            assert_eq!(ranges.len(), count as usize);
            assert_eq!((ranges[0].start(), ranges[ranges.len() - 1].end()), (0, u128::MAX));
            assert!(ranges.windows(2).all(|pair| pair[0].end() + 1 == pair[1].start()), "{count}");
        }
        assert_eq!(equal_ranges(2)[1].start(), 1 << 127);
    }
}
