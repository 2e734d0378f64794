//! Which record of a shard is the last one before a time.

use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use super::text::{arrival_of, utc};
use crate::aggregation::Deaggregator;
use crate::error::{Error, ErrorKind, invalid};
use crate::kinesis::{
    IteratorPosition, RecordsPage, Shard, ShardIterator, StreamApi, StreamError, StreamErrorKind,
};
use crate::runtime::{Backoff, Clock};
use crate::types::{Checkpoint, ExtendedSequenceNumber, Record, StreamId};

/// Reading begins so long before the time, then four times as long, and so on.
const WINDOW_FIRST: Duration = Duration::from_secs(1);
const WINDOW_FACTOR: u32 = 4;
/// Longer than the service keeps records.
const WINDOW_MAX: Duration = Duration::from_secs(400 * 24 * 3600);
/// Clocks of the service need not agree to the second.
const SLACK: Duration = Duration::from_secs(60);
/// The service allows five reads a second and shard, and consumers want some, too.
const READ_PAUSE: Duration = Duration::from_millis(250);
/// Reads of one shard, before it is given up.
const READS_MAX: usize = 1000;
const RECORDS_PER_READ: u32 = 10_000;
const RETRIES: usize = 10;
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Reads one shard to find a position in it.
pub(super) struct Resolver<'a> {
    pub(super) api: &'a dyn StreamApi,
    pub(super) clock: &'a Clock,
    pub(super) stream: &'a StreamId,
    pub(super) shard: &'a Shard,
    pub(super) seed: u64,
}

impl Resolver<'_> {
    /// The checkpoint after which the first record is read that arrived at `time` or later: the last record before, or
    /// `TRIM_HORIZON` if the stream has none.
    ///
    /// That is by the order of the shard: what stands behind the first record of `time` or later is not before it, even
    /// if its arrival time is.
    pub(super) async fn last_before(&self, time: SystemTime) -> Result<Checkpoint, Error> {
        self.last(time, Some(time)).await
    }

    /// The checkpoint after which what arrives from now on is read: the newest record, or `TRIM_HORIZON` if the stream
    /// has none. `now` may be wrong: it only says where to begin to look.
    pub(super) async fn newest(&self, now: SystemTime) -> Result<Checkpoint, Error> {
        self.last(now, None).await
    }

    async fn last(&self, time: SystemTime, before: Option<SystemTime>) -> Result<Checkpoint, Error> {
        let began = arrival_of(&self.shard.starting_sequence_number);
        let began = began.and_then(|began| began.checked_sub(SLACK)).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut window = WINDOW_FIRST;
        let mut reads = 0;
        loop {
            let from = time.checked_sub(window).unwrap_or(SystemTime::UNIX_EPOCH);
            let is_all = from <= began || window > WINDOW_MAX;
            let position =
                if is_all { IteratorPosition::TrimHorizon } else { IteratorPosition::AtTimestamp(from) };
            match self.last_from(&position, before, &mut reads).await? {
                Some(last) => return Ok(Checkpoint::Sequence(position_of(last))),
                None if is_all => return Ok(Checkpoint::TrimHorizon),
                None => window *= WINDOW_FACTOR,
            }
        }
    }

    /// Whether a shard has this position.
    pub(super) async fn check_position(&self, position: &ExtendedSequenceNumber) -> Result<(), Error> {
        let number = &position.sequence_number;
        let (start, end) = (&self.shard.starting_sequence_number, &self.shard.ending_sequence_number);
        let (stream, shard) = (self.stream, &self.shard.id);
        let not_in_shard = |why: String| {
            invalid(format!(
                "{position} is no position in shard {shard} of stream {stream}: {why}. Sequence numbers belong to one \
                 shard; take one from a record or a checkpoint of this one"
            ))
        };
        if number < start {
            return Err(not_in_shard(format!("the shard begins at {start}")));
        }
        if let Some(end) = end.as_ref().filter(|end| number > *end) {
            return Err(not_in_shard(format!("the shard ends at {end}")));
        }
        match self.open(&IteratorPosition::At(number.clone())).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == StreamErrorKind::InvalidArgument => {
                Err(not_in_shard("the service refuses it".to_owned()).with_source(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The last record before a time, or of all, reading from `position`.
    async fn last_from(
        &self,
        position: &IteratorPosition,
        before: Option<SystemTime>,
        reads: &mut usize,
    ) -> Result<Option<Record>, Error> {
        let mut iterator = match (self.open(position).await, position) {
            (Ok(iterator), _) => iterator,
            // This clock is ahead of the service's, for which the time has not come yet.
            (Err(error), IteratorPosition::AtTimestamp(_))
                if error.kind() == StreamErrorKind::InvalidArgument =>
            {
                return Ok(None);
            }
            (Err(error), _) => return Err(error.into()),
        };
        let mut last = None;
        loop {
            *reads += 1;
            if *reads > READS_MAX {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "the last record{} in shard {} of stream {} was not found in {READS_MAX} reads; seek to another \
                         time, or to a position",
                        before.map(|time| format!(" before {} UTC", utc(time))).unwrap_or_default(),
                        self.shard.id,
                        self.stream
                    ),
                ));
            }
            let RecordsPage { records, next_iterator, millis_behind_latest, .. } =
                self.read(&iterator).await?;
            let is_tip = millis_behind_latest == Some(0);
            for record in records {
                let is_before =
                    |time| record.approximate_arrival_timestamp.is_some_and(|arrived| arrived < time);
                if !before.is_none_or(is_before) {
                    return Ok(last);
                }
                last = Some(record);
            }
            match next_iterator {
                Some(next) if !is_tip => iterator = next,
                _ => return Ok(last),
            }
            self.clock.sleep(READ_PAUSE).await;
        }
    }

    async fn open(&self, position: &IteratorPosition) -> Result<ShardIterator, StreamError> {
        let mut pauses = self.pauses();
        loop {
            match self.api.shard_iterator(self.stream, &self.shard.id, position).await {
                Err(error) if error.is_retryable() => self.pause(&mut pauses, error).await?,
                answer => return answer,
            }
        }
    }

    async fn read(&self, iterator: &ShardIterator) -> Result<RecordsPage, StreamError> {
        let mut pauses = self.pauses();
        loop {
            match self.api.records(self.stream, iterator, RECORDS_PER_READ).await {
                Err(error) if error.is_retryable() => self.pause(&mut pauses, error).await?,
                answer => return answer,
            }
        }
    }

    fn pauses(&self) -> Backoff {
        Backoff::new(RETRY_MIN, RETRY_MAX, RETRIES, self.seed)
    }

    async fn pause(&self, pauses: &mut Backoff, error: StreamError) -> Result<(), StreamError> {
        match pauses.next() {
            Some(pause) => {
                self.clock.sleep(pause).await;
                Ok(())
            }
            None => Err(error),
        }
    }
}

/// The position of the last user record in `record`.
fn position_of(record: Record) -> ExtendedSequenceNumber {
    let plain = ExtendedSequenceNumber::new(record.sequence_number.clone(), 0);
    let parts = Deaggregator::new(None).deaggregate(vec![record], None, NonZeroUsize::MAX);
    let last = parts.flatten().last().map(|record| record.extended_sequence_number());
    last.unwrap_or(plain)
}
