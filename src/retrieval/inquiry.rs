//! Finds out why the service refused a shard or position, from the list of shards, and remembers earlier
//! findings.

use std::time::Duration;

use super::gap::{Gap, gap};
use super::observe::FetchEvent;
use super::position::Position;
use super::refusal::{Cause, Refusal, Verdict, judge, judge_restart};
use super::{ReadOutcome, RetrievalSpec};
use crate::config::OnRecreatedStream;
use crate::kinesis::list::list_shards;
use crate::kinesis::{Shard, StreamErrorKind};
use crate::lease::Lease;
use crate::lease::origin::{Mismatch, lease_of};
use crate::retrieval::OnRefusedCheckpoint;
use crate::types::{Checkpoint, Record};

/// The minimum timeout for listing the shards, even if the request timeout is shorter: a stream may have
/// many.
const LISTING_MIN: Duration = Duration::from_secs(30);

/// The refusals of one shard reader.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    /// The verdict on the last refusal, if no page was accepted since.
    suspected: Option<Verdict>,
    /// Whether the last records were at or before those already read.
    is_below: bool,
    /// Whether the shards were listed because sequence numbers restarted.
    has_listed: bool,
}

/// What to do about a refusal.
#[derive(Debug)]
pub(super) enum Finding {
    /// Reading has ended.
    Finished(ReadOutcome),
    /// The service will refuse again until the lease or the settings are changed.
    Refused(Box<Refusal>),
    /// Retry.
    Unexplained,
}

impl Inquiry {
    /// A page was accepted: these records, perhaps none, from `position`. `is_end` says whether it is
    /// the last of the shard.
    pub(super) fn accepted(
        &mut self,
        spec: &RetrievalSpec,
        position: &Position,
        records: &[Record],
        is_end: bool,
    ) {
        self.suspected = None;
        match gap(position, &spec.lease.checkpoint, records, is_end) {
            Some(Gap::Expired { oldest }) => spec.observer.observe(FetchEvent::Expired { oldest }),
            Some(Gap::Restarted { first }) => {
                if !std::mem::replace(&mut self.is_below, true) {
                    spec.observer.observe(FetchEvent::Restarted { first });
                }
            }
            None if records.is_empty() => {}
            None => self.is_below = false,
        }
    }

    /// Whether sequence numbers have restarted and not yet passed those read before.
    pub(super) fn is_below(&self) -> bool {
        self.is_below
    }

    /// Nothing follows `position` at the moment. If sequence numbers have restarted and the settings
    /// allow it, the shard is read again from its oldest record, unless it is the same shard as the one
    /// of the lease.
    pub(super) async fn caught_up(
        &mut self,
        spec: &RetrievalSpec,
        position: &Position,
    ) -> Option<ReadOutcome> {
        let is_wanted = spec.config.on_refused_checkpoint == OnRefusedCheckpoint::ReadFromOldest
            || spec.on_recreated_stream == OnRecreatedStream::StartOver;
        if !self.is_below || !is_wanted || self.has_listed {
            return None;
        }
        let shards = list(spec).await?;
        self.has_listed = true;
        judge_restart(position, &spec.lease, &spec.stream, &shards)?;
        fresh(spec, Some(&shards)).map(|fresh| ReadOutcome::StartOver(Box::new(fresh)))
    }

    /// The service refused to open the shard at `position`, or did not find it when reading on. A single
    /// refusal only decides what is certain; otherwise the next refusal must lead to the same verdict.
    pub(super) async fn refused(
        &mut self,
        spec: &RetrievalSpec,
        position: &Position,
        kind: StreamErrorKind,
    ) -> Finding {
        let shards = list(spec).await;
        let verdict = match &shards {
            Some(shards) => judge(kind, position, &spec.lease, &spec.stream, shards),
            None => Verdict::Unexplained,
        };
        let is_certain = matches!(verdict, Verdict::AtEnd { .. }) && position.is_fetched();
        let before = self.suspected.replace(verdict.clone());
        if !is_certain && before.as_ref() != Some(&verdict) {
            return Finding::Unexplained;
        }
        let cause = match verdict {
            Verdict::Unexplained => return Finding::Unexplained,
            Verdict::Expired => {
                spec.observer.observe(FetchEvent::Expired { oldest: None });
                return Finding::Finished(ReadOutcome::ShardEnd(Vec::new()));
            }
            Verdict::AtEnd { children } => return Finding::Finished(ReadOutcome::ShardEnd(children)),
            Verdict::OtherStream(mismatch) => Cause::OtherStream(mismatch),
            Verdict::RefusedPosition => Cause::Position,
        };
        match fresh(spec, shards.as_deref()).filter(|_| starts_over(spec, &cause)) {
            Some(fresh) => Finding::Finished(ReadOutcome::StartOver(Box::new(fresh))),
            None => Finding::Refused(Box::new(Refusal::new(cause, position, &spec.lease, &spec.stream))),
        }
    }
}

/// Whether the settings discard the position of a lease because of `cause`.
fn starts_over(spec: &RetrievalSpec, cause: &Cause) -> bool {
    let from_oldest = spec.config.on_refused_checkpoint == OnRefusedCheckpoint::ReadFromOldest;
    let is_recreated = spec.on_recreated_stream == OnRecreatedStream::StartOver;
    match cause {
        Cause::Position => from_oldest,
        Cause::OtherStream(Mismatch::CheckpointOutside) => from_oldest || is_recreated,
        Cause::OtherStream(_) => is_recreated,
    }
}

/// The lease of the shard as if it had never been read.
fn fresh(spec: &RetrievalSpec, shards: Option<&[Shard]>) -> Option<Lease> {
    let shard = shards?.iter().find(|shard| shard.id == spec.shard)?;
    Some(lease_of(shard, Checkpoint::TrimHorizon).in_stream(&spec.stream))
}

/// All shards of the stream; `None` if they cannot be listed.
async fn list(spec: &RetrievalSpec) -> Option<Vec<Shard>> {
    let RetrievalSpec { api, stream, clock, config, seed, .. } = spec;
    let patience = config.kinesis_request_timeout.max(LISTING_MIN);
    let listed = clock.timeout(patience, list_shards(&**api, clock, stream, None, *seed)).await;
    match listed {
        Ok(Ok(shards)) => Some(shards),
        Ok(Err(error)) => {
            tracing::debug!(%stream, %error, "cannot list the shards to diagnose a refusal");
            None
        }
        Err(elapsed) => {
            tracing::debug!(%stream, %elapsed, "cannot list the shards to diagnose a refusal");
            None
        }
    }
}
