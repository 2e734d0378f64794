//! Asks the stream what a refusal means, and keeps what the answers so far amount to.

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

/// The least time that listing the shards may take, however short requests may be: there may be many.
const LISTING_MIN: Duration = Duration::from_secs(30);

/// The inquiries of one who reads a shard.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    /// What the last refusal seemed to mean, if nothing was answered since.
    suspected: Option<Verdict>,
    /// Whether the last records lay before those that were read already.
    is_below: bool,
    /// Whether the stream was asked why.
    has_asked: bool,
}

/// What to do about a refusal.
#[derive(Debug)]
pub(super) enum Finding {
    /// Reading is over.
    Finished(ReadOutcome),
    /// It will be the same until somebody has done something.
    Refused(Box<Refusal>),
    /// Try again.
    Unexplained,
}

impl Inquiry {
    /// These records were fetched from `position`, perhaps none, and are the last of the shard or not.
    pub(super) fn answered(
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

    /// Whether sequence numbers have begun again, and have not caught up with those read before.
    pub(super) fn is_below(&self) -> bool {
        self.is_below
    }

    /// Nothing follows `position` at the moment. If sequence numbers have begun again and the settings say
    /// so, the shard is to be read anew, unless it is the very shard of the lease.
    pub(super) async fn caught_up(
        &mut self,
        spec: &RetrievalSpec,
        position: &Position,
    ) -> Option<ReadOutcome> {
        let is_wanted = spec.config.on_refused_checkpoint == OnRefusedCheckpoint::ReadFromOldest
            || spec.on_recreated_stream == OnRecreatedStream::StartOver;
        if !self.is_below || !is_wanted || self.has_asked {
            return None;
        }
        let shards = list(spec).await?;
        self.has_asked = true;
        judge_restart(position, &spec.lease, &spec.stream, &shards)?;
        fresh(spec, Some(&shards)).map(|fresh| ReadOutcome::StartOver(Box::new(fresh)))
    }

    /// A request to open the shard at `position` was refused, or one to read on did not find it. A single
    /// refusal decides nothing that is not certain: the next one has to mean the same.
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

/// Whether the settings give up what a lease says because of `cause`.
fn starts_over(spec: &RetrievalSpec, cause: &Cause) -> bool {
    let from_oldest = spec.config.on_refused_checkpoint == OnRefusedCheckpoint::ReadFromOldest;
    let is_recreated = spec.on_recreated_stream == OnRecreatedStream::StartOver;
    match cause {
        Cause::Position => from_oldest,
        Cause::OtherStream(Mismatch::CheckpointOutside) => from_oldest || is_recreated,
        Cause::OtherStream(_) => is_recreated,
    }
}

/// The lease of the shard as if nobody had read it yet.
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
            tracing::debug!(%stream, %error, "cannot list the shards to see what a refusal means");
            None
        }
        Err(elapsed) => {
            tracing::debug!(%stream, %elapsed, "cannot list the shards to see what a refusal means");
            None
        }
    }
}
