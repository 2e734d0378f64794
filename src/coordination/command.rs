//! What coordination wants done, as data.

use std::fmt;

use super::assign::claim_attempts::ClaimAttempts;
use super::assign::independent::AssignmentPlan;
use super::assign::leader::{AssignReason, LeaderPlan, LeaseAssignment};
use super::worker_metrics::WorkerStats;
use crate::events::Event;
use crate::lease::{Lease, LeaseWrite};
use crate::metrics::{Metric, Operation, Outcome, names};
use crate::types::{HashKeyRange, LeaseKey, Moment, WorkerId};

/// One thing that the coordinator wants done. The executor carries commands out in their order, except that
/// writes are under way together.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    /// Read the whole table.
    Scan,
    /// Read the rows that name this worker, and that it does not hold.
    ReadOwned,
    /// Write to a lease of the stream of this generation.
    Write(Box<PlannedWrite>, u64),
    /// Go on with this when all that was commanded before is answered.
    Then(Step),
    /// Process the shard of a lease that is this worker's by a request that was sent at `sent`.
    StartConsumer {
        lease: Box<Lease>,
        previous_owner: Option<WorkerId>,
        sent: Moment,
    },
    /// Stop the consumer of a lease that this row shows to be another worker's.
    StopConsumer(Box<Lease>),
    /// Start no consumer for the stream of this generation any more.
    CloseStream(u64),
    /// Delete the row of a shard that has ended.
    DeleteRow(LeaseKey),
    /// Delete the row of a worker that is long gone, if it is still as it was read.
    DeleteWorkerRow(Box<WorkerStats>),
    /// Let another worker lead.
    Resign,
    /// Report what was planned.
    Report(PlanReport),
    /// Report what is known of the health of the fleet.
    Note(Note),
    Emit(Event),
}

/// What a round does once the table has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Compare the leases with the shards, and create those that are missing.
    SyncShards,
    /// Start consumers for leases that were assigned to this worker.
    AcceptAssignments,
    /// Plan who should hold what.
    Plan,
    /// Delete the rows of shards that have ended.
    CleanUp,
    /// A leader has done all that its run consists of.
    EndRun,
}

/// The numbers behind a plan.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PlanReport {
    /// Of a worker that takes for itself.
    Claims(AssignmentPlan),
    /// Of a leader.
    Assignments(LeaderPlan),
}

/// Something for the health of the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    /// The number of leases that nobody renews, with one of them as an example.
    Unread { count: usize, example: Option<LeaseKey> },
    /// There is no lease that this worker could renew.
    NothingToRenew,
    /// Whether another worker has this one's name.
    NameTaken(bool),
    /// A round begins whose worker needs no other to lead it.
    Led,
}

/// A conditional write to a lease, and why.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlannedWrite {
    /// The row by which it was planned.
    pub(super) row: Lease,
    pub(super) write: LeaseWrite,
    pub(super) why: WriteReason,
}

/// Why coordination writes to a lease.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "commands hold planned writes in boxes")]
pub(super) enum WriteReason {
    /// This worker takes it.
    Claim(ClaimAttempts),
    /// The leader assigned it to this worker.
    Accept,
    /// This worker is the leader.
    Assign { to: WorkerId, reason: AssignReason, is_graceful: bool },
    /// It was assigned to this worker, which does not read its stream.
    NotRead,
    /// It was assigned to this worker, which stops.
    Stopping,
    /// It is of an earlier stream.
    StartOver,
    /// It does not say which hash keys it covers.
    HashRange,
    /// It does not say where it comes from.
    Origin,
}

impl PlannedWrite {
    pub(super) fn claim(attempts: &ClaimAttempts, worker: &WorkerId, latest_since: u64) -> Self {
        let write = attempts.next_write(worker).with_latest_since(attempts.row(), latest_since);
        Self { row: attempts.row().clone(), write, why: WriteReason::Claim(attempts.clone()) }
    }

    /// A renewal, because only a write shows that a lease is still this worker's.
    pub(super) fn accept(lease: &Lease, latest_since: u64) -> Self {
        let write = LeaseWrite::renew(lease, None).with_latest_since(lease, latest_since);
        Self { row: lease.clone(), write, why: WriteReason::Accept }
    }

    pub(super) fn assign(assignment: &LeaseAssignment, latest_since: u64) -> Self {
        let LeaseAssignment { lease, to, reason, is_graceful } = assignment;
        let why = WriteReason::Assign { to: to.clone(), reason: *reason, is_graceful: *is_graceful };
        let write = assignment.to_write().with_latest_since(lease, latest_since);
        Self { row: lease.clone(), write, why }
    }

    pub(super) fn give_back(lease: &Lease, worker: &WorkerId, why: WriteReason) -> Self {
        Self { row: lease.clone(), write: LeaseWrite::release(lease, worker), why }
    }

    pub(super) fn start_over(lease: &Lease, fresh: &Lease) -> Self {
        Self { row: lease.clone(), write: LeaseWrite::reset(lease, fresh), why: WriteReason::StartOver }
    }

    pub(super) fn fill_in_range(lease: &Lease, range: HashKeyRange) -> Self {
        let write = LeaseWrite::update_hash_range(&lease.key, range);
        Self { row: lease.clone(), write, why: WriteReason::HashRange }
    }

    pub(super) fn store_origin(lease: &Lease, origin: &Lease) -> Self {
        let write = LeaseWrite::update_origin(&lease.key, origin);
        Self { row: lease.clone(), write, why: WriteReason::Origin }
    }

    /// Whether other workers of this process are notified of the row after it: the one that loses the lease, and
    /// those that may take it.
    pub(super) fn is_news(&self, after: &Lease) -> bool {
        match self.why {
            WriteReason::Claim(_) => self.row.owner.is_some(),
            WriteReason::Assign { .. } | WriteReason::NotRead | WriteReason::Stopping => true,
            // One that ends is deleted next.
            WriteReason::StartOver => !after.checkpoint.is_shard_end(),
            WriteReason::Accept | WriteReason::HashRange | WriteReason::Origin => false,
        }
    }
}

impl WriteReason {
    /// What failed if the write did, as in [`Event::CoordinationFailed`](crate::Event::CoordinationFailed).
    pub(super) fn step(&self) -> &'static str {
        match self {
            Self::Claim(_) => "TakeLease",
            Self::Accept => "TakeUpLease",
            Self::Assign { .. } => "AssignLease",
            Self::NotRead | Self::Stopping => "ReleaseLease",
            Self::StartOver => "ResetLease",
            Self::HashRange => "UpdateHashRange",
            Self::Origin => "UpdateLease",
        }
    }

    /// Whether it waits for its turn while the table throttles. The others are few, or not to be held up by the
    /// renewals of a worker that leads.
    pub(super) fn is_paced(&self) -> bool {
        matches!(self, Self::Claim(_))
    }

    /// Whether only a worker that leads may send it.
    pub(super) fn needs_leadership(&self) -> bool {
        matches!(self, Self::Assign { .. })
    }

    /// Whether an answer shows that this worker can renew leases.
    pub(super) fn is_like_a_renewal(&self) -> bool {
        matches!(self, Self::Claim(_) | Self::Accept)
    }

    /// Under which names it is counted and timed.
    pub(super) fn metric(&self) -> Option<(Operation, Outcome)> {
        matches!(self, Self::Claim(_)).then_some((Operation::TakeLeases, names::TAKE_LEASE))
    }

    /// Under which names it is counted if it is refused.
    pub(super) fn refusal_metric(&self) -> Option<(Operation, Metric)> {
        matches!(self, Self::Accept).then_some((Operation::LeaseDiscovery, names::OWNER_MISMATCH))
    }
}

impl fmt::Display for PlannedWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.write.operation, self.row.key, self.why)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scan => f.write_str("scan"),
            Self::ReadOwned => f.write_str("read what is owned"),
            Self::Write(planned, _) => planned.fmt(f),
            Self::Then(step) => write!(f, "then {step}"),
            Self::StartConsumer { lease, .. } => write!(f, "start {}", lease.key),
            Self::StopConsumer(lease) => write!(f, "stop {}", lease.key),
            Self::CloseStream(generation) => write!(f, "close stream {generation}"),
            Self::DeleteRow(key) => write!(f, "delete {key}"),
            Self::DeleteWorkerRow(stats) => write!(f, "delete worker {}", stats.worker),
            Self::Resign => f.write_str("resign"),
            Self::Report(PlanReport::Claims(plan)) => {
                write!(f, "report {} of {} leases wanted", plan.needed, plan.leases)
            }
            Self::Report(PlanReport::Assignments(plan)) => {
                write!(f, "report {} leases of {} workers", plan.leases, plan.workers)
            }
            Self::Note(note) => note.fmt(f),
            Self::Emit(event) => write!(f, "emit {event:?}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SyncShards => "sync shards",
            Self::AcceptAssignments => "accept assignments",
            Self::Plan => "plan",
            Self::CleanUp => "clean up",
            Self::EndRun => "end the run",
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread { count, .. } => write!(f, "note {count} unread"),
            Self::NothingToRenew => f.write_str("note nothing to renew"),
            Self::NameTaken(is_taken) => write!(f, "note name taken: {is_taken}"),
            Self::Led => f.write_str("note led"),
        }
    }
}

impl fmt::Display for WriteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(attempts) => attempts.claim().reason.fmt(f),
            Self::Accept => f.write_str("assigned to this worker"),
            Self::Assign { to, reason, is_graceful: false } => write!(f, "to {to}, {reason}"),
            Self::Assign { to, reason, is_graceful: true } => write!(f, "to {to} by handoff, {reason}"),
            Self::NotRead => f.write_str("its stream is not read here"),
            Self::Stopping => f.write_str("this worker stops"),
            Self::StartOver => f.write_str("of an earlier stream"),
            Self::HashRange => f.write_str("without hash keys"),
            Self::Origin => f.write_str("without origin"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::assign::independent::{ClaimReason, LeaseClaim};
    use super::*;
    use crate::types::Checkpoint;

    fn row(owner: Option<&str>) -> Lease {
        let mut lease = Lease::new("0", Checkpoint::TrimHorizon);
        (lease.owner, lease.counter) = (owner.map(Into::into), 5);
        lease
    }

    fn claim(owner: Option<&str>, reason: ClaimReason) -> PlannedWrite {
        let attempts = ClaimAttempts::new(LeaseClaim { lease: row(owner), reason });
        PlannedWrite::claim(&attempts, &"us".into(), 0)
    }

    fn assign(is_graceful: bool) -> PlannedWrite {
        let (lease, to, reason) = (row(Some("a")), "b".into(), AssignReason::Rebalance);
        PlannedWrite::assign(&LeaseAssignment { lease, to, reason, is_graceful }, 0)
    }

    #[test]
    fn writes_say_what_and_why_and_who_is_notified() {
        let steal = ClaimReason::Steal { owner: "a".into() };
        for (planned, text, step, is_news) in [
            (claim(None, ClaimReason::Free), "TakeLease 0: free", "TakeLease", false),
            (claim(Some("a"), steal), "TakeLease 0: a has more than its share", "TakeLease", true),
            (
                PlannedWrite::accept(&row(Some("us")), 0),
                "RenewLease 0: assigned to this worker",
                "TakeUpLease",
                false,
            ),
            (assign(false), "AssignLease 0: to b, its owner is busier than others", "AssignLease", true),
            (
                assign(true),
                "StartHandoff 0: to b by handoff, its owner is busier than others",
                "AssignLease",
                true,
            ),
            (
                PlannedWrite::give_back(&row(Some("us")), &"us".into(), WriteReason::Stopping),
                "ReleaseLease 0: this worker stops",
                "ReleaseLease",
                true,
            ),
            (
                PlannedWrite::start_over(&row(Some("a")), &row(None)),
                "ResetLease 0: of an earlier stream",
                "ResetLease",
                true,
            ),
            (
                PlannedWrite::fill_in_range(&row(None), HashKeyRange::FULL),
                "UpdateLease 0: without hash keys",
                "UpdateHashRange",
                false,
            ),
            (
                PlannedWrite::store_origin(&row(None), &row(None)),
                "UpdateLease 0: without origin",
                "UpdateLease",
                false,
            ),
        ] {
            let outcome = (planned.to_string(), planned.why.step(), planned.is_news(&row(None)));
            assert_eq!(outcome, (text.to_owned(), step, is_news));
        }
        let ended = Lease { checkpoint: Checkpoint::ShardEnd, ..row(None) };
        let deleted_next = PlannedWrite::start_over(&row(Some("a")), &ended);
        assert!(!deleted_next.is_news(&ended));
    }

    #[test]
    fn only_the_leader_assigns_and_only_claims_wait_for_their_turn() {
        let claim = claim(None, ClaimReason::Free).why;
        let assign = assign(false).why;
        assert!(assign.needs_leadership() && !assign.is_paced() && !assign.is_like_a_renewal());
        assert!(claim.is_paced() && claim.is_like_a_renewal() && !claim.needs_leadership());
        assert!(WriteReason::Accept.is_like_a_renewal() && !WriteReason::Accept.is_paced());
    }
}
