use std::time::{Duration, SystemTime};

use super::budget::{cost, payload};
use super::buffer::BatchSender;
use super::estimate::PageEstimate;
use super::inquiry::{Finding, Inquiry};
use super::observe::{FetchEvent, FetchMetrics};
use super::pacing::{Backoff, Pacer, PageSummary};
use super::position::Position;
use super::{Batch, MemoryPermit, ReadOutcome, RetrievalSpec};
use crate::kinesis::{
    IteratorPosition, RecordsPage, ShardIterator, StreamError, StreamErrorKind, ends_consistently,
};
use crate::planted::{Bug, planted};
use crate::runtime::Elapsed;
use crate::types::Moment;

const GET_RECORDS: &str = "GetRecords";
const GET_SHARD_ITERATOR: &str = "GetShardIterator";

/// Iterators expire after 300 s. One that is nearly that old, because the processor was slow, is
/// replaced before use.
const ITERATOR_AGE_MAX: Duration = Duration::from_secs(270);

/// How long memory is held for a page. The largest one takes a few hundred milliseconds; a response that
/// takes longer is kept only if there is memory for it then, and read again otherwise.
const HOLD_MAX: Duration = Duration::from_secs(1);

/// After this many consecutive unexplained refusals, the back-off is long.
pub(super) const UNEXPLAINED_MAX: u32 = 5;

/// Reads a shard with GetRecords.
pub(super) struct Poller<'a> {
    spec: &'a RetrievalSpec,
    metrics: FetchMetrics,
    rng: fastrand::Rng,
    position: Position,
    pacer: Pacer,
    estimate: PageEstimate,
    /// The iterator that continues from `position`, and when it was obtained.
    iterator: Option<(ShardIterator, Moment)>,
    inquiry: Inquiry,
    /// Whether the last page was at the tip.
    is_at_tip: bool,
}

/// Why [`Poller::run_until`] stopped.
pub(super) enum PollerExit {
    Finished(ReadOutcome),
    /// The time is up; this is the position reached.
    TimeUp(Position),
}

impl<'a> Poller<'a> {
    /// A poller that reads from `position` on.
    pub(super) fn new(spec: &'a RetrievalSpec, position: Position) -> Self {
        Self {
            metrics: FetchMetrics::new(spec),
            rng: fastrand::Rng::with_seed(spec.seed),
            position,
            pacer: Pacer::new(&spec.config),
            estimate: PageEstimate::new(spec.limit),
            iterator: None,
            inquiry: Inquiry::default(),
            is_at_tip: false,
            spec,
        }
    }

    /// Reads to the end of the shard.
    pub(super) async fn run(mut self, sender: &BatchSender) -> ReadOutcome {
        loop {
            if let Some(outcome) = self.step(sender).await {
                return outcome;
            }
        }
    }

    /// Reads until the shard ends or the time is `until`; stops between two pages.
    pub(super) async fn run_until(mut self, until: Moment, sender: &BatchSender) -> PollerExit {
        loop {
            if let Some(outcome) = self.step(sender).await {
                return PollerExit::Finished(outcome);
            }
            if self.spec.clock.now() >= until {
                return PollerExit::TimeUp(self.position);
            }
        }
    }

    /// Tries to read one page. Returns the outcome if reading has ended.
    async fn step(&mut self, sender: &BatchSender) -> Option<ReadOutcome> {
        sender.room().await;
        self.spec.clock.sleep_until(self.pacer.next_read()).await;
        // Memory is reserved last, and released while backing off, so that other shards can use it.
        let wanted = self.estimate.bytes();
        let spec = self.spec;
        let mut memory = spec.budget.reserve(wanted).await;
        let asked = spec.clock.wall();
        let answer = memory.held_for(self.read(), HOLD_MAX, &spec.clock).await;
        match answer.and_then(|page| self.accept(page, asked, memory, sender)) {
            Ok(None) if self.is_at_tip => self.inquiry.caught_up(self.spec, &self.position).await,
            Ok(outcome) => outcome,
            Err(error) => self.recover(&error).await,
        }
    }

    /// One GetRecords request, preceded by GetShardIterator if necessary.
    async fn read(&mut self) -> Result<RecordsPage, StreamError> {
        let iterator = self.iterator().await?;
        let RetrievalSpec { api, stream, limit, clock, .. } = self.spec;
        let sent = clock.now();
        self.pacer.read_started(sent);
        let answer = clock
            .timeout(self.spec.config.kinesis_request_timeout, api.records(stream, &iterator, *limit))
            .await;
        let answer = self.unless_elapsed(GET_RECORDS, answer);
        self.metrics.records(answer.is_ok(), self.spec.clock.now().since(sent));
        answer
    }

    /// The current iterator if it is still valid, otherwise a new one.
    async fn iterator(&mut self) -> Result<ShardIterator, StreamError> {
        let now = self.spec.clock.now();
        if let Some((iterator, obtained)) = &self.iterator
            && now.since(*obtained) < ITERATOR_AGE_MAX
        {
            return Ok(iterator.clone());
        }
        self.iterator = None;
        let wanted = self.position.next_iterator();
        let iterator = match self.open(&wanted).await {
            Err(error) if error.kind() == StreamErrorKind::InvalidArgument => {
                match self.position.alternative() {
                    Some(position) => self.open(&position).await?,
                    None => return Err(error),
                }
            }
            opened => opened?,
        };
        self.iterator = Some((iterator.clone(), self.spec.clock.now()));
        Ok(iterator)
    }

    /// One GetShardIterator request.
    async fn open(&self, position: &IteratorPosition) -> Result<ShardIterator, StreamError> {
        let RetrievalSpec { api, stream, shard, clock, .. } = self.spec;
        let sent = clock.now();
        let answer = clock
            .timeout(self.spec.config.kinesis_request_timeout, api.shard_iterator(stream, shard, position))
            .await;
        let answer = self.unless_elapsed(GET_SHARD_ITERATOR, answer);
        self.metrics.shard_iterator(answer.is_ok(), clock.now().since(sent));
        answer
    }

    /// Accepts a page and advances, or rejects it without any change.
    fn accept(
        &mut self,
        page: RecordsPage,
        asked: SystemTime,
        mut memory: MemoryPermit,
        sender: &BatchSender,
    ) -> Result<Option<ReadOutcome>, StreamError> {
        if !ends_consistently(page.next_iterator.is_none(), &page.child_shards) {
            return Err(self.error(StreamErrorKind::Malformed, GET_RECORDS));
        }
        let now = self.spec.clock.now();
        let RecordsPage { records, next_iterator, millis_behind_latest, child_shards } = page;
        let is_at_tip = millis_behind_latest == Some(0);
        let millis_behind_latest = millis_behind_latest.unwrap_or(0);
        self.is_at_tip = is_at_tip;
        let summary = PageSummary {
            payload_bytes: records.iter().map(payload).sum(),
            has_records: !records.is_empty(),
            is_behind: millis_behind_latest > 0 || records.len() >= self.spec.limit as usize,
        };
        let cost = cost(&records);
        self.estimate.page_read(cost, summary.is_behind);
        if !memory.try_resize(cost) {
            // The same iterator returns the same page once there is room for it.
            self.pacer.page_read(now, PageSummary { is_behind: true, ..summary });
            return Ok(None);
        }

        self.pacer.page_read(now, summary);
        self.inquiry.accepted(self.spec, &self.position, &records, next_iterator.is_none());
        match records.last() {
            Some(last) => self.position.advance(&last.sequence_number),
            None if is_at_tip => self.position.nothing_until(asked),
            None => {}
        }
        let is_below = self.inquiry.is_below();
        let fetched = FetchEvent::Fetched { records: records.len(), millis_behind_latest, is_below };
        self.spec.observer.observe(fetched);
        if summary.has_records || self.spec.empty_batches {
            sender.push(Batch { records, millis_behind_latest, permit: memory });
        }
        match next_iterator {
            Some(_) if planted(Bug::EmptyPageEndsShard) && !summary.has_records && !is_at_tip => {
                Ok(Some(ReadOutcome::ShardEnd(child_shards)))
            }
            Some(iterator) => {
                self.iterator = Some((iterator, now));
                Ok(None)
            }
            None => Ok(Some(ReadOutcome::ShardEnd(child_shards))),
        }
    }

    /// Prepares a retry after a failure, unless the failure means the end of the shard.
    async fn recover(&mut self, error: &StreamError) -> Option<ReadOutcome> {
        let mut backoff = Backoff::after(error.kind());
        let mut refusal = None;
        let is_opening = self.iterator.is_none();
        match error.kind() {
            StreamErrorKind::ExpiredIterator => {
                self.metrics.expired_iterator();
                self.iterator = None;
                if planted(Bug::ExpiredIteratorSkips) {
                    self.position = Position::Start(IteratorPosition::Latest);
                }
            }
            // Refused because of the iterator, not the position.
            StreamErrorKind::InvalidArgument if !is_opening => self.iterator = None,
            kind @ (StreamErrorKind::InvalidArgument | StreamErrorKind::NotFound) => {
                self.iterator = None;
                match self.inquiry.refused(self.spec, &self.position, kind).await {
                    Finding::Finished(outcome) => return Some(outcome),
                    Finding::Refused(refused) => {
                        backoff = Backoff::PERSISTENT;
                        refusal = Some(refused);
                    }
                    Finding::Unexplained if self.pacer.failures() >= UNEXPLAINED_MAX => {
                        backoff = Backoff::PERSISTENT;
                    }
                    Finding::Unexplained => {}
                }
            }
            _ => {}
        }
        let retry_in = self.pacer.read_failed(self.spec.clock.now(), backoff, &mut self.rng);
        let failures = self.pacer.failures();
        let at_checkpoint = is_opening && !self.position.is_fetched();
        self.spec.observer.observe(match &refusal {
            Some(refusal) => FetchEvent::Refused { refusal, failures, retry_in },
            None => FetchEvent::Failed { error, failures, retry_in, at_checkpoint },
        });
        None
    }

    fn unless_elapsed<T>(
        &self,
        operation: &'static str,
        answer: Result<Result<T, StreamError>, Elapsed>,
    ) -> Result<T, StreamError> {
        answer.unwrap_or_else(|elapsed| {
            Err(self.error(StreamErrorKind::Unavailable, operation).with_source(elapsed))
        })
    }

    fn error(&self, kind: StreamErrorKind, operation: &'static str) -> StreamError {
        self.spec.error(kind, operation)
    }
}
