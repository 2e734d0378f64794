//! Bugs that can be switched on, to show that the simulation would notice them.
//!
//! Each is one wrong step at the place that asks [`planted`]. Without the feature `internals` the
//! answer is constantly false, and the compiler removes all of it.

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the simulation"))]
pub enum Bug {
    /// A lease is taken whatever its counter has become.
    TakeIgnoresCounter,
    /// A lease is taken without raising its counter.
    TakeKeepsCounter,
    /// A lease is renewed whatever its counter has become.
    RenewIgnoresCounter,
    /// A checkpoint is stored by a worker that no longer holds the lease.
    CheckpointIgnoresCounter,
    /// Effects are committed by a worker that no longer holds the lease.
    CommitIgnoresCounter,
    /// Effects are committed whatever checkpoint they go on from.
    CommitForgetsBase,
    /// Each attempt at a commit has a token of its own.
    NewTokenPerAttempt,
    /// A renewal that landed unnoticed is taken for the commit that followed it.
    RenewalTakenForCommit,
    /// A number that was set and then added to is only added to.
    FoldsSetsAsAdds,
    /// A lease is released by a worker that does not hold it.
    ReleaseIgnoresOwner,
    /// A refused write is taken for an earlier one of ours that landed, whatever the row shows.
    RefusalTakenForOurs,
    /// A lease never runs out on the worker that holds it.
    NeverExpires,
    /// Records are handed on without looking whether the lease is held.
    DeliversWithoutLease,
    /// Leases count as expired after a quarter of the failover time.
    TakesTooEarly,
    /// Leases are stolen from workers that have just their share.
    StealsFromEqual,
    /// Leases are never stolen.
    NeverSteals,
    /// Leases that were released are not taken before they are very old.
    ForgetsFree,
    /// Children do not wait for their parents.
    ChildrenStartEarly,
    /// A parent's end is stored before its children have leases.
    EndsWithoutChildren,
    /// Reading goes on after the checkpointed Kinesis record, instead of at it.
    ResumesAfter,
    /// User records before the checkpoint inside an aggregate come again.
    RepeatsAggregate,
    /// After an expired iterator, reading goes on at the tip.
    ExpiredIteratorSkips,
    /// A page without records counts as the last one.
    EmptyPageEndsShard,
    /// The batch in which a processor panicked is skipped.
    PanicSkipsBatch,
    /// A processor may checkpoint behind what is stored.
    AllowsBackwards,
    /// A processor may checkpoint what it was not given.
    AllowsUndelivered,
    /// A processor may end a shard that has not ended.
    AllowsEarlyEnd,
    /// Holes in the hash key space are not looked for.
    NeverAudits,
    /// Memory is not reserved before records are fetched.
    IgnoresBudget,
    /// A subscription that has run out is renewed at the tip.
    RenewsAtTheTip,
    /// A subscription without events is waited for forever.
    WaitsForeverForEvents,
    /// An event without a continuation ends the shard, whether it names children or not.
    TrustsAnyShardEnd,
    /// A shard that is polled because fan-out is not available is opened at the tip.
    FallbackForgetsPosition,
    /// A take from an owner that turns out to have renewed is tried again with the row as it is.
    RetakesFromTheLiving,
    /// The end of a shard is stored by a worker that no longer holds the lease, with a counter that is right.
    EndIgnoresCounter,
    /// The leader's lock is taken after an eighth of the time it is good for.
    LeadsTooEarly,
    /// The leader's lock is taken whatever its version.
    LockIgnoresVersion,
    /// A lease in handoff is taken up by its next owner before the old one has given it back.
    TakesUpBeforeHandoff,
    /// Leases are assigned to workers that have not reported for long.
    AssignsToTheSilent,
    /// A lease in handoff is released before its processor was asked to shut down.
    HandsOverUnasked,
    /// A worker that is the leader no longer goes on assigning.
    LeadsForever,
    /// A lease whose owner seemed dead is given away even if it has been renewed since.
    GivesAwayTheRenewed,
}

#[cfg(feature = "internals")]
impl Bug {
    /// Every bug that fleets show soon enough; all others are found in the model.
    pub const ALL: [Self; 34] = [
        Self::TakeIgnoresCounter,
        Self::TakeKeepsCounter,
        Self::RenewIgnoresCounter,
        Self::CheckpointIgnoresCounter,
        Self::ReleaseIgnoresOwner,
        Self::RefusalTakenForOurs,
        Self::NeverExpires,
        Self::DeliversWithoutLease,
        Self::TakesTooEarly,
        Self::StealsFromEqual,
        Self::NeverSteals,
        Self::ForgetsFree,
        Self::ChildrenStartEarly,
        Self::EndsWithoutChildren,
        Self::ResumesAfter,
        Self::RepeatsAggregate,
        Self::ExpiredIteratorSkips,
        Self::EmptyPageEndsShard,
        Self::PanicSkipsBatch,
        Self::AllowsBackwards,
        Self::AllowsUndelivered,
        Self::AllowsEarlyEnd,
        Self::NeverAudits,
        Self::IgnoresBudget,
        Self::RenewsAtTheTip,
        Self::WaitsForeverForEvents,
        Self::TrustsAnyShardEnd,
        Self::FallbackForgetsPosition,
        Self::LeadsTooEarly,
        Self::LockIgnoresVersion,
        Self::TakesUpBeforeHandoff,
        Self::AssignsToTheSilent,
        Self::HandsOverUnasked,
        Self::LeadsForever,
    ];
}

/// Whether `bug` is planted on this thread.
#[cfg(feature = "internals")]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether `bug` is planted: never.
#[cfg(not(feature = "internals"))]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "internals")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// From now on `bug`, and no other, is planted on this thread.
#[cfg(feature = "internals")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
