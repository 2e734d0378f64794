//! Seeking: making the plan, and carrying it out while the fleet runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::resolve::Resolver;
use super::seek_plan::{
    Scope, SeekPlan, SeekReason, SeekStep, SeekTo, SoughtStream, StreamFacts, plan_new_shards, plan_stream,
    with_descendants,
};
use super::text::{epoch_millis, utc};
use super::{Admin, CONCURRENT};
use crate::error::{Error, ErrorKind, invalid};
use crate::kinesis::{Shard, ShardFilter, StreamErrorKind};
use crate::lease::origin::{Shards, mismatch};
use crate::lease::{Created, Lease, LeaseWrite, StoreError, WriteOutcome};
use crate::runtime::Backoff;
use crate::types::{Checkpoint, ShardId, StreamId};

/// How often a row may change between looking and writing.
const RACES_MAX: usize = 50;
const RETRIES: usize = 10;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How a step of a seek went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepOutcome {
    /// The lease is where it was to go.
    Moved,
    /// It was moved before, when the plan was carried out for the first time.
    Already,
    /// There is nothing to end: its row is gone.
    Gone,
}

/// A step that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeekProgress<'a> {
    /// The step.
    pub step: &'a SeekStep,
    /// How it went.
    pub outcome: StepOutcome,
    /// How many steps are taken by now.
    pub done: usize,
    /// Of how many.
    pub total: usize,
}

impl Admin {
    /// Plans where the leases in `scope` go so that the application goes on reading at `to`. Writes nothing.
    ///
    /// Times are resolved to sequence numbers here, by reading each shard that was open then: one or a few of the five
    /// reads per second that a shard allows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the time lies in the future or before what the stream keeps, the position is of another
    /// shard, the rows are of another stream, they do not say of which ([`with_stream`](Self::with_stream)), the table
    /// has no leases, or permissions are missing; [`ErrorKind::Unavailable`] if AWS does not answer.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await point.
    pub async fn plan_seek(&self, to: SeekTo, scope: Scope) -> Result<SeekPlan, Error> {
        let scan = self.scan().await?;
        let now = self.clock.wall();
        if let SeekTo::Time(time) = to
            && time > now
        {
            return Err(invalid(format!(
                "{} UTC lies in the future; to read only what arrives from now on, seek to now",
                utc(time)
            )));
        }
        if scan.leases.is_empty() {
            return Err(invalid(format!(
                "the table {} has no leases to move; start the application once, or check the names",
                self.table
            )));
        }
        if let Some(row) = scan.unreadable.first() {
            return Err(invalid(format!("{row}; put it right before you seek")));
        }
        let streams = self.streams_of(&scan.leases, &scope)?;
        let mut plan = SeekPlan {
            id: format!("{}-{:04x}", epoch_millis(now), self.seeds.seed() & 0xFFFF),
            application: self.application.clone(),
            target: describe(&to, now),
            steps: Vec::new(),
            left: Vec::new(),
            warnings: warnings(&scan.leases),
            streams: Vec::new(),
        };
        for stream in streams {
            self.plan_one(&stream, &to, &scope, &scan.leases, now, &mut plan).await?;
        }
        plan.steps.sort_by(|a, b| (a.wave, &a.lease).cmp(&(b.wave, &b.lease)));
        if let Scope::Shards(asked) = &scope {
            let planned: BTreeSet<&ShardId> = plan.steps.iter().map(|step| &step.shard).collect();
            let known = |shard: &&ShardId| plan.streams.iter().any(|stream| stream.shards.contains(*shard));
            if let Some(unknown) = asked.iter().find(|shard| !planned.contains(shard) && !known(shard)) {
                return Err(invalid(format!("the stream has no shard {unknown}; check its name")));
            }
        }
        Ok(plan)
    }

    /// The streams whose leases are meant.
    fn streams_of(&self, leases: &[Lease], scope: &Scope) -> Result<Vec<StreamId>, Error> {
        let mut streams = self.streams(leases);
        if let Scope::Stream(wanted) = scope {
            streams.retain(|stream| stream.may_be(wanted));
            if streams.is_empty() {
                return Err(invalid(format!("the table {} has no leases of stream {wanted}", self.table)));
            }
        }
        let is_single = streams.iter().all(|stream| stream.serialized().is_none());
        match streams.len() {
            0 => Err(invalid(format!(
                "the rows of table {} do not say which stream they are of, as those of Java KCL do not; give the stream",
                self.table
            ))),
            2.. if is_single => Err(invalid(format!(
                "the table {} has leases of several streams whose keys do not say which; they cannot be moved together",
                self.table
            ))),
            _ => Ok(streams),
        }
    }

    async fn plan_one(
        &self,
        stream: &StreamId,
        to: &SeekTo,
        scope: &Scope,
        leases: &[Lease],
        now: SystemTime,
        plan: &mut SeekPlan,
    ) -> Result<(), Error> {
        let shards = self.list(stream, None).await?;
        refuse_rows_of_others(stream, leases, &shards)?;
        let ids =
            |shards: Vec<Shard>| -> BTreeSet<ShardId> { shards.into_iter().map(|shard| shard.id).collect() };
        let mut positions = BTreeMap::new();
        let mut begun_after = BTreeSet::new();
        let mut asked = match scope {
            Scope::Shards(shards) => Some(shards.clone()),
            _ => None,
        };
        let reason =
            if matches!(to, SeekTo::Position(..)) { SeekReason::AsAsked } else { SeekReason::OpenThen };
        match to {
            SeekTo::Oldest => {
                positions.extend(shards.iter().map(|shard| (shard.id.clone(), Checkpoint::TrimHorizon)));
            }
            SeekTo::Position(id, position) => {
                let Some(shard) = shards.iter().find(|shard| shard.id == *id) else {
                    return Err(invalid(format!("stream {stream} has no shard {id}; check its name")));
                };
                self.resolver(stream, shard).check_position(position).await?;
                positions.insert(id.clone(), Checkpoint::Sequence(position.clone()));
                let of = BTreeSet::from([id.clone()]);
                begun_after = with_descendants(&shards, &of);
                begun_after.remove(id);
                asked = asked.or(Some(of));
            }
            SeekTo::Now | SeekTo::Time(_) => {
                let open = match to {
                    SeekTo::Time(time) => {
                        self.check_retention(stream, *time, now, &mut plan.warnings).await?;
                        let open = ids(self.list(stream, Some(ShardFilter::AtTimestamp(*time))).await?);
                        begun_after = ids(self.list(stream, Some(ShardFilter::FromTimestamp(*time))).await?);
                        begun_after.retain(|shard| !open.contains(shard));
                        open
                    }
                    // By the service's clock, not by this one.
                    _ => ids(shards.iter().filter(|shard| shard.is_open()).cloned().collect()),
                };
                let selected = asked.as_ref().map(|asked| with_descendants(&shards, asked));
                let is_meant = |id: &ShardId| selected.as_ref().is_none_or(|selected| selected.contains(id));
                let open = shards.iter().filter(|shard| open.contains(&shard.id) && is_meant(&shard.id));
                positions = stream::iter(open.cloned().collect::<Vec<_>>())
                    .map(|shard| async move {
                        let resolver = self.resolver(stream, &shard);
                        let position = match to {
                            SeekTo::Time(time) => resolver.last_before(*time).await?,
                            _ => resolver.newest(now).await?,
                        };
                        Ok::<_, Error>((shard.id, position))
                    })
                    .buffer_unordered(CONCURRENT)
                    .try_collect()
                    .await?;
            }
        }
        let facts = StreamFacts {
            stream,
            shards: &shards,
            positions: &positions,
            begun_after: &begun_after,
            others_ended: !matches!(to, SeekTo::Position(..)),
            leases,
            scope: asked.as_ref(),
            reason,
        };
        let (steps, left) = plan_stream(&facts);
        plan.steps.extend(steps);
        plan.left.extend(left);
        plan.streams.push(SoughtStream { stream: stream.clone(), shards: ids(shards) });
        Ok(())
    }

    fn resolver<'a>(&'a self, stream: &'a StreamId, shard: &'a Shard) -> Resolver<'a> {
        Resolver { api: &*self.api, clock: &self.clock, stream, shard, seed: self.seeds.seed() }
    }

    /// Refuses a time before what the stream still has.
    async fn check_retention(
        &self,
        stream: &StreamId,
        time: SystemTime,
        now: SystemTime,
        warnings: &mut Vec<String>,
    ) -> Result<(), Error> {
        let description = match self.api.describe_stream(stream).await {
            Ok(description) => description,
            Err(error) if error.kind() == StreamErrorKind::Denied => {
                warnings.push(format!(
                    "for how long stream {stream} keeps records is not known, because kinesis:DescribeStreamSummary is \
                     not allowed; records older than that are not read again"
                ));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let Some(retention) = description.retention else { return Ok(()) };
        match now.checked_sub(retention) {
            // A stream that is younger has all that it ever had.
            Some(oldest) if time < oldest && description.created < oldest => Err(invalid(format!(
                "{} UTC lies before what stream {stream} keeps: {} hours, since {} UTC; to read all that it has, seek to \
                 the oldest record",
                utc(time),
                retention.as_secs() / 3600,
                utc(oldest)
            ))),
            _ => Ok(()),
        }
    }

    /// Carries `plan` out, while the fleet runs or not. `on_step` is called after each step.
    ///
    /// Each lease is moved by one conditional write that takes it from its owner. Other workers take it within a round,
    /// and go on at the new position.
    ///
    /// # Guarantees
    ///
    /// - Once it has returned, every record from the target on is delivered at least once after its lease was moved, in
    ///   order per key; and nobody stores a checkpoint of before.
    /// - Other applications notice nothing.
    /// - If it fails, or is dropped, the plan is half done: [`FleetStatus::problems`](super::FleetStatus::problems) says
    ///   so, and calling it again with the same plan completes it. What was moved before is not moved again, unless its
    ///   row is gone; at worst records come once more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the plan is of another application, or permissions are missing;
    /// [`ErrorKind::Unavailable`] if DynamoDB does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the plan is half done.
    pub async fn carry_out(
        &self,
        plan: &SeekPlan,
        mut on_step: impl FnMut(SeekProgress<'_>),
    ) -> Result<(), Error> {
        if plan.application != self.application {
            return Err(invalid(format!(
                "the plan is of application {}, not of {}",
                plan.application, self.application
            )));
        }
        let mut done = 0;
        let total = plan.steps.len();
        let half_done = |done: usize, error: Error| {
            let kind = error.kind();
            Error::new(
                kind,
                format!(
                    "the seek is half done: {done} of {total} lease(s) are moved. Carry the same plan out again, or plan \
                     anew with the same target"
                ),
            )
            .with_source(error)
        };
        let under_way = format!("{} ({total} leases)", plan.target);
        let Some((first, rest)) = plan.steps.split_first() else { return Ok(()) };
        // Alone, so that whatever comes after it can be seen to belong to a seek.
        let outcome =
            self.move_lease(first, &plan.id, Some(&under_way)).await.map_err(|error| half_done(0, error))?;
        done += 1;
        on_step(SeekProgress { step: first, outcome, done, total });
        for wave in rest.chunk_by(|a, b| a.wave == b.wave) {
            let mut moves = stream::iter(wave)
                .map(|step| async move { (step, self.move_lease(step, &plan.id, None).await) })
                .buffer_unordered(CONCURRENT);
            while let Some((step, outcome)) = moves.next().await {
                let outcome = outcome.map_err(|error| half_done(done, error))?;
                done += 1;
                on_step(SeekProgress { step, outcome, done, total });
            }
        }
        self.move_new_shards(plan).await.map_err(|error| half_done(done, error))?;
        let finish = LeaseWrite::finish_seek(&first.lease, &plan.id);
        // Refused: another seek has begun, and it is that one's to finish.
        let finished = self.persist(|| self.store.apply(&finish)).await;
        finished.map(drop).map_err(|error| half_done(done, error))?;
        tracing::info!(seek = %plan.id, application = %self.application, target = %plan.target, total, "leases moved");
        Ok(())
    }

    /// Shards that were split or merged after the plan was made may have children whose workers began before their
    /// parents were moved.
    async fn move_new_shards(&self, plan: &SeekPlan) -> Result<(), Error> {
        for stream in &plan.streams {
            let shards = self.list(&stream.stream, None).await?;
            if shards.iter().all(|shard| stream.shards.contains(&shard.id)) {
                continue;
            }
            let scan = self.scan().await?;
            for step in plan_new_shards(stream, plan, &shards, &scan.leases) {
                self.move_lease(&step, &plan.id, None).await?;
            }
        }
        Ok(())
    }

    /// Takes one step.
    async fn move_lease(
        &self,
        step: &SeekStep,
        seek_id: &str,
        under_way: Option<&str>,
    ) -> Result<StepOutcome, Error> {
        let mut row = self.persist(|| self.store.lease(&step.lease)).await?;
        for _ in 0..RACES_MAX {
            let Some(seen) = row else {
                if step.to.is_shard_end() {
                    return Ok(StepOutcome::Gone);
                }
                let new = step.new_row(epoch_millis(self.clock.wall()), seek_id, under_way);
                if self.persist(|| self.store.create(&new)).await? == Created::Now {
                    return Ok(StepOutcome::Moved);
                }
                row = self.persist(|| self.store.lease(&step.lease)).await?;
                continue;
            };
            if seen.seek_id.as_deref() == Some(seek_id) {
                return Ok(StepOutcome::Already);
            }
            if step.to.is_shard_end() && seen.checkpoint.is_shard_end() {
                return Ok(StepOutcome::Already);
            }
            let write = LeaseWrite::seek(&seen, &step.to, seek_id, under_way);
            match self.store.apply(&write).await {
                Ok(WriteOutcome::Applied(_)) => return Ok(StepOutcome::Moved),
                Ok(WriteOutcome::Refused(Some(now))) => row = Some(*now),
                // Gone, or unreadable; or the write may have happened: the row shows it.
                Ok(WriteOutcome::Refused(None)) => {
                    row = self.persist(|| self.store.lease(&step.lease)).await?;
                }
                Err(error) if error.is_retryable() => {
                    self.clock.sleep(RETRY_MIN).await;
                    row = self.persist(|| self.store.lease(&step.lease)).await?;
                }
                Err(error) => return Err(self.explain(error)),
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("lease {} changes faster than it can be written to; try again", step.lease),
        ))
    }

    /// The answer to a request that may be repeated.
    pub(super) async fn persist<T, F>(&self, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut pauses = Backoff::new(RETRY_MIN, RETRY_MAX, RETRIES, self.seeds.seed());
        loop {
            match request().await {
                Err(error) if error.is_retryable() => match pauses.next() {
                    Some(pause) => self.clock.sleep(pause).await,
                    None => return Err(self.explain(error)),
                },
                Err(error) => return Err(self.explain(error)),
                Ok(answer) => return Ok(answer),
            }
        }
    }
}

/// A seek by rows of another stream would move leases to positions of shards that only have the same names.
fn refuse_rows_of_others(stream: &StreamId, leases: &[Lease], shards: &[Shard]) -> Result<(), Error> {
    let shards = Shards::new(shards);
    let own = leases.iter().filter(|lease| lease.stream_name.as_deref() == stream.serialized());
    for lease in own {
        if let Some(why) = mismatch(lease, stream, &shards) {
            return Err(invalid(format!(
                "the lease table is not of stream {stream}: {why} (lease {}). Check the names of application and stream; \
                 if the stream was deleted and created again, delete the rows of the old one",
                lease.key
            )));
        }
    }
    Ok(())
}

fn warnings(leases: &[Lease]) -> Vec<String> {
    let unfinished = leases.iter().find(|lease| lease.seek_under_way.is_some());
    let unfinished = unfinished.map(|lease| {
        format!(
            "seek {} to {} was begun and is not finished; this one replaces it. Make sure that nobody is carrying it out",
            lease.seek_id.as_deref().unwrap_or("?"),
            lease.seek_under_way.as_deref().unwrap_or("?")
        )
    });
    unfinished.into_iter().collect()
}

fn describe(to: &SeekTo, now: SystemTime) -> String {
    match to {
        SeekTo::Oldest => "the oldest record".to_owned(),
        SeekTo::Now => format!("now, {} UTC", utc(now)),
        SeekTo::Time(time) => format!("{} UTC", utc(*time)),
        SeekTo::Position(shard, position) => format!("{position} in {shard}"),
    }
}
