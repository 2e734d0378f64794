use std::time::SystemTime;

use bytes::Bytes;
use md5::{Digest, Md5};

use super::error::{ErrorCode, ServiceError};
use super::limits::Limits;
use super::service::{ACCOUNT, Service};
use super::state::{StreamState, StreamStatus};
use crate::types::{PartitionKey, Record, SequenceNumber, ShardId};

/// The maximum number of records, and of bytes (keys included), per PutRecords call.
const ENTRIES_MAX: usize = 500;
const REQUEST_BYTES_MAX: usize = 10 << 20;
const PARTITION_KEY_CHARACTERS_MAX: usize = 256;

/// A record to be put into a stream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewRecord {
    /// Determines the shard by its MD5 hash, unless there is an explicit hash key.
    pub partition_key: PartitionKey,
    /// The hash key to use instead of the partition key's.
    pub explicit_hash_key: Option<u128>,
    /// The payload.
    pub data: Bytes,
}

impl NewRecord {
    /// A record whose partition key determines the shard.
    pub fn new(partition_key: impl Into<PartitionKey>, data: impl Into<Bytes>) -> Self {
        Self { partition_key: partition_key.into(), explicit_hash_key: None, data: data.into() }
    }

    /// The same record with the explicit hash key `hash_key`.
    #[must_use]
    pub fn with_explicit_hash_key(mut self, hash_key: u128) -> Self {
        self.explicit_hash_key = Some(hash_key);
        self
    }

    fn hash_key(&self) -> u128 {
        self.explicit_hash_key
            .unwrap_or_else(|| u128::from_be_bytes(Md5::digest(self.partition_key.as_bytes()).into()))
    }

    fn size(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// Where a record was put.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// The shard.
    pub shard: ShardId,
    /// The sequence number of the record.
    pub sequence_number: SequenceNumber,
}

impl Service {
    /// PutRecord.
    pub(crate) fn put_record(
        &mut self,
        now: SystemTime,
        stream: &str,
        record: NewRecord,
    ) -> Result<Placement, ServiceError> {
        let now = self.advance(now);
        let limits = self.limits;
        let stream = self.stream_mut(now, stream)?;
        stream.require_writable()?;
        stream.check(&record)?;
        stream.put(now, &limits, record)
    }

    /// PutRecords: each record succeeds or fails individually, unless one of them makes the whole
    /// request invalid.
    pub(crate) fn put_records(
        &mut self,
        now: SystemTime,
        stream: &str,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Result<Placement, ServiceError>>, ServiceError> {
        let now = self.advance(now);
        let limits = self.limits;
        let stream = self.stream_mut(now, stream)?;
        stream.require_writable()?;
        if !(1..=ENTRIES_MAX).contains(&records.len()) {
            return Err(ErrorCode::Validation.error(format!(
                "1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have \
                 length from 1 to {ENTRIES_MAX}"
            )));
        }
        if records.iter().map(NewRecord::size).sum::<usize>() > REQUEST_BYTES_MAX {
            return Err(ErrorCode::InvalidArgument.error("Records size exceeds 10 MB limit"));
        }
        records.iter().try_for_each(|record| stream.check(record))?;
        Ok(records.into_iter().map(|record| stream.put(now, &limits, record)).collect())
    }
}

impl StreamState {
    fn require_writable(&self) -> Result<(), ServiceError> {
        match self.status {
            StreamStatus::Active | StreamStatus::Updating => Ok(()),
            status => Err(ErrorCode::ResourceNotFound
                .error(format!("Stream {} under account {ACCOUNT} is {status:?}.", self.name))),
        }
    }

    fn check(&self, record: &NewRecord) -> Result<(), ServiceError> {
        let characters = record.partition_key.chars().take(PARTITION_KEY_CHARACTERS_MAX + 1).count();
        if !(1..=PARTITION_KEY_CHARACTERS_MAX).contains(&characters) {
            return Err(ErrorCode::Validation.error(format!(
                "1 validation error detected: Value at 'partitionKey' failed to satisfy constraint: Member must \
                 have length from 1 to {PARTITION_KEY_CHARACTERS_MAX}"
            )));
        }
        if record.size() > self.record_bytes_max {
            return Err(ErrorCode::InvalidArgument.error(format!(
                "A record of {} bytes exceeds the {} that stream {} allows.",
                record.size(),
                self.record_bytes_max,
                self.name
            )));
        }
        Ok(())
    }

    fn put(
        &mut self,
        now: SystemTime,
        limits: &Limits,
        record: NewRecord,
    ) -> Result<Placement, ServiceError> {
        let (hash_key, size) = (record.hash_key(), record.size());
        let (name, encryption_type) = (self.name.clone(), self.encryption_type());
        let shard = self
            .shard_of(hash_key)
            .ok_or_else(|| ErrorCode::InternalFailure.error("No open shard has this hash key."))?;
        let usage = &mut shard.usage;
        if !usage.writes.allows_whole(now, limits.writes, 1)
            || !usage.write_bytes.allows_whole(now, limits.write_bytes, size)
        {
            return Err(ErrorCode::ProvisionedThroughputExceeded.error(format!(
                "Rate exceeded for shard {} in stream {name} under account {ACCOUNT}.",
                shard.id
            )));
        }
        usage.writes.spend(now, limits.writes, 1);
        usage.write_bytes.spend(now, limits.write_bytes, size);
        let mut record = Record::new(SequenceNumber::from(0), record.partition_key, record.data);
        record.encryption_type = encryption_type;
        Ok(Placement { sequence_number: shard.append(now, record), shard: shard.id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn service(shards: u32) -> Service {
        let mut service = Service::new();
        service.create_stream(NOW, "s", Some(shards)).unwrap();
        service
    }

    #[test]
    fn the_hash_key_decides_the_shard() {
        let mut service = service(2);
        // The MD5 of "a" starts with 0c, that of "b" with 92.
        for (record, shard) in [
            (NewRecord::new("a", ""), "shardId-000000000000"),
            (NewRecord::new("b", ""), "shardId-000000000001"),
            (NewRecord::new("b", "").with_explicit_hash_key(0), "shardId-000000000000"),
            (NewRecord::new("a", "").with_explicit_hash_key(u128::MAX), "shardId-000000000001"),
            (NewRecord::new("a", "").with_explicit_hash_key(1 << 127), "shardId-000000000001"),
        ] {
            assert_eq!(service.put_record(NOW, "s", record).unwrap().shard, shard);
        }
    }

    #[test]
    fn throttled_entries_fail_alone() {
        let mut service = service(2);
        service.set_limits(Limits { write_bytes: None, writes: Some(2), ..Limits::none() });
        let keys = ["a", "a", "a", "b"];
        let records: Vec<_> = keys.iter().map(|&key| NewRecord::new(key, "x")).collect();
        let results = service.put_records(NOW, "s", records).unwrap();
        let codes: Vec<_> = results.into_iter().map(|result| result.err().map(|error| error.code)).collect();
        assert_eq!(codes, [None, None, Some(ErrorCode::ProvisionedThroughputExceeded), None]);
        let later = NOW + Duration::from_secs(1);
        assert!(service.put_record(later, "s", NewRecord::new("a", "x")).is_ok());
    }

    #[test]
    fn what_is_too_large_is_refused_whole() {
        let mut service = service(1);
        let code = |result: Result<Placement, ServiceError>| result.unwrap_err().code;
        let largest = vec![0; (1 << 20) - 1];
        assert!(service.put_record(NOW, "s", NewRecord::new("k", largest)).is_ok());
        let too_large = NewRecord::new("k", vec![0; 1 << 20]);
        assert_eq!(code(service.put_record(NOW, "s", too_large)), ErrorCode::InvalidArgument);
        for key in [String::new(), "é".repeat(257)] {
            assert_eq!(code(service.put_record(NOW, "s", NewRecord::new(key, ""))), ErrorCode::Validation);
        }
        let too_many = vec![NewRecord::new("k", ""); 501];
        assert_eq!(service.put_records(NOW, "s", too_many).unwrap_err().code, ErrorCode::Validation);
    }
}
