//! A shard for the tests in this module: records with arrival times, iterators that expire, and scripted
//! responses.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::kinesis::{
    ChildShard, IteratorPosition, RecordsPage, Shard, ShardIterator, ShardPage, ShardPageRequest, StreamApi,
    StreamDescription, StreamError, StreamErrorKind,
};
use crate::runtime::Clock;
use crate::types::{HashKeyRange, Moment, Record, SequenceNumber, ShardId, StreamId};

/// The scripted response of a request.
pub(super) enum Script {
    Fail(StreamErrorKind),
    /// No response at all.
    Hang,
    Panic,
    /// The real page, modified.
    Change(fn(&mut RecordsPage)),
}

/// The last sequence number of the shard once it is closed.
pub(super) const END: u128 = 1000;

#[derive(Clone)]
pub(super) struct FakeShard {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

pub(super) struct State {
    records: Vec<Record>,
    /// Records written so far.
    written: u128,
    children: Option<Vec<ChildShard>>,
    /// Empty pages that the service returns before the first record.
    pub(super) empty_pages: usize,
    /// The maximum payload of a page.
    pub(super) page_bytes: usize,
    pub(super) latency: Duration,
    /// How far the clock of the service is behind that of the consumer.
    pub(super) service_lag: Duration,
    pub(super) iterator_scripts: VecDeque<Script>,
    pub(super) records_scripts: VecDeque<Script>,
    /// The response of ListShards; `None` for the shard and its children.
    pub(super) listed: Option<Result<Vec<Shard>, StreamErrorKind>>,
    /// Whether numbers beyond the records open it at the oldest.
    pub(super) is_lenient: bool,
    /// How often the shards were listed.
    pub(super) lists: usize,
    /// Requested positions, in order.
    pub(super) opened: Vec<IteratorPosition>,
    /// When records were requested.
    pub(super) reads: Vec<Moment>,
}

impl State {
    /// The shard, whose first sequence number is 0, and its children. Its last one is 1000.
    pub(super) fn shards(&self) -> Vec<Shard> {
        let mut shard = Shard::new("shard-0", HashKeyRange::FULL, SequenceNumber::from(0));
        shard.ending_sequence_number = self.children.as_ref().map(|_| SequenceNumber::from(END));
        let children = self.children.iter().flatten().map(|child| {
            let mut shard = Shard::new(child.id.clone(), child.hash_key_range, SequenceNumber::from(END + 1));
            shard.parents = child.parents.clone();
            shard
        });
        std::iter::once(shard).chain(children).collect()
    }
}

impl FakeShard {
    pub(super) fn new(clock: &Clock) -> Self {
        let state = State {
            records: Vec::new(),
            written: 0,
            children: None,
            empty_pages: 0,
            page_bytes: 10 << 20,
            latency: Duration::from_millis(10),
            service_lag: Duration::ZERO,
            iterator_scripts: VecDeque::new(),
            records_scripts: VecDeque::new(),
            listed: None,
            is_lenient: false,
            lists: 0,
            opened: Vec::new(),
            reads: Vec::new(),
        };
        Self { clock: clock.clone(), state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// The time of the service.
    fn wall(&self) -> SystemTime {
        self.clock.wall() - self.state().service_lag
    }

    /// Writes `count` records of `bytes` each. The n-th record has sequence number n, from 1.
    pub(super) fn put(&self, count: usize, bytes: usize) {
        let now = self.wall();
        let mut state = self.state();
        for _ in 0..count {
            state.written += 1;
            let number = SequenceNumber::from(state.written);
            let mut record = Record::new(number, "key", vec![0; bytes]);
            record.approximate_arrival_timestamp = Some(now);
            state.records.push(record);
        }
    }

    /// Expires the oldest records.
    pub(super) fn expire(&self, count: usize) {
        self.state().records.drain(..count);
    }

    /// Closes the shard by a split.
    pub(super) fn close(&self) {
        let child = |id: &str| ChildShard::new(id, ["shard-0".into()], HashKeyRange::FULL);
        self.state().children = Some(vec![child("shard-1"), child("shard-2")]);
    }

    fn index(&self, position: &IteratorPosition) -> Option<usize> {
        let now = self.wall();
        let state = self.state();
        let records = &state.records;
        let last = records.last().map(|record| &record.sequence_number);
        Some(match position {
            IteratorPosition::At(number) if state.is_lenient && Some(number) > last => 0,
            IteratorPosition::TrimHorizon => 0,
            IteratorPosition::Latest => records.len(),
            IteratorPosition::AtTimestamp(time) if *time > now => return None,
            IteratorPosition::AtTimestamp(time) => {
                records.partition_point(|record| record.approximate_arrival_timestamp < Some(*time))
            }
            IteratorPosition::At(number) => {
                records.partition_point(|record| record.sequence_number < *number)
            }
            IteratorPosition::After(number) => {
                records.partition_point(|record| record.sequence_number <= *number)
            }
        })
    }

    /// Iterators are `<index> <empty pages passed> <milliseconds at which it was issued>`.
    fn issue(&self, index: usize, passed: usize) -> ShardIterator {
        let issued = self.clock.now().since(Moment::ORIGIN).as_millis();
        format!("{index} {passed} {issued}").into()
    }

    fn page(&self, iterator: &ShardIterator, limit: u32) -> Result<RecordsPage, StreamErrorKind> {
        let mut parts = iterator.as_str().split(' ').map(|part| part.parse::<usize>().expect("a number"));
        let mut part = || parts.next().expect("three parts");
        let (index, passed, issued) = (part(), part(), part());
        let issued = Moment::after_origin(Duration::from_millis(issued as u64));
        if self.clock.now().since(issued) >= Duration::from_secs(300) {
            return Err(StreamErrorKind::ExpiredIterator);
        }
        let mut page = RecordsPage::default();
        let state = self.state();
        let total = state.records.len();
        let (mut end, mut bytes) = (index, 0);
        if passed >= state.empty_pages {
            while end < total
                && end - index < limit as usize
                && (end == index || bytes + state.records[end].data.len() <= state.page_bytes)
            {
                bytes += state.records[end].data.len();
                end += 1;
            }
        }
        page.records = state.records[index..end].to_vec();
        page.millis_behind_latest = Some(if end < total { 1000 } else { 0 });
        match &state.children {
            Some(children) if end == total => page.child_shards = children.clone(),
            _ => {
                drop(state);
                page.next_iterator = Some(self.issue(end, passed + 1));
            }
        }
        Ok(page)
    }
}

#[async_trait]
impl StreamApi for FakeShard {
    async fn describe_stream(&self, _: &StreamId) -> Result<StreamDescription, StreamError> {
        unreachable!("retrieval does not ask")
    }

    async fn list_shards(&self, _: &StreamId, _: &ShardPageRequest) -> Result<ShardPage, StreamError> {
        let mut state = self.state();
        state.lists += 1;
        match state.listed.clone().unwrap_or_else(|| Ok(state.shards())) {
            Ok(shards) => Ok(ShardPage::new(shards, None)),
            Err(kind) => Err(StreamError::new(kind, "ListShards", "orders")),
        }
    }

    async fn shard_iterator(
        &self,
        _: &StreamId,
        _: &ShardId,
        position: &IteratorPosition,
    ) -> Result<ShardIterator, StreamError> {
        let error = |kind| StreamError::new(kind, "GetShardIterator", "shard-0");
        let latency = self.state().latency;
        self.clock.sleep(latency).await;
        self.state().opened.push(position.clone());
        let script = self.state().iterator_scripts.pop_front();
        match script {
            Some(Script::Fail(kind)) => Err(error(kind)),
            Some(Script::Hang) => std::future::pending().await,
            Some(Script::Panic) => panic!("as scripted"),
            Some(Script::Change(_)) | None => {
                let index = self.index(position).ok_or_else(|| error(StreamErrorKind::InvalidArgument))?;
                Ok(self.issue(index, 0))
            }
        }
    }

    async fn records(
        &self,
        _: &StreamId,
        iterator: &ShardIterator,
        limit: u32,
    ) -> Result<RecordsPage, StreamError> {
        let error = |kind| StreamError::new(kind, "GetRecords", "shard-0");
        self.state().reads.push(self.clock.now());
        let latency = self.state().latency;
        self.clock.sleep(latency).await;
        let script = self.state().records_scripts.pop_front();
        let page = self.page(iterator, limit).map_err(error);
        match script {
            None => page,
            Some(Script::Fail(kind)) => Err(error(kind)),
            Some(Script::Hang) => std::future::pending().await,
            Some(Script::Panic) => panic!("as scripted"),
            Some(Script::Change(change)) => page.map(|mut page| {
                change(&mut page);
                page
            }),
        }
    }
}

impl fmt::Debug for FakeShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeShard")
    }
}
