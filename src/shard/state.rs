use std::fmt;

use crate::lease::Lease;
use crate::planted::{Bug, planted};

/// Where the consumer of one shard is in its life (KCL's `ConsumerStates`).
///
/// ```text
///  WaitingOnParentShards ──► Initializing ──► Processing ──► ShardEnding ──┐
///            │                    │   ▲            │ │             │       │
///            │                    │   └── Failed ◄─┘ │             │       │
///            │                    ▼                  ▼             ▼       ▼
///            └──────────────► ShuttingDown ◄── ShutdownRequested       Complete
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ShardState {
    /// A parent shard has records that are not processed yet.
    WaitingOnParentShards,
    /// The processor is being made.
    Initializing,
    /// Records are fetched and handed to the processor.
    Processing,
    /// A callback panicked; the shard waits a little and starts again from its last checkpoint.
    Failed,
    /// The worker stops, or is not to read the stream any more: the processor is notified while the lease is still held.
    ShutdownRequested,
    /// Every record was delivered: the processor is notified, until it has stored the end.
    ShardEnding,
    /// The lease is gone: the processor, if there is one, is notified.
    ShuttingDown,
    /// Nothing more will happen.
    Complete,
}

/// What can happen to the consumer of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Input {
    /// Every parent has ended or is not in the lease table.
    ParentsEnded,
    /// There is a processor.
    Initialized,
    /// The last record was delivered.
    LastRecordDelivered,
    /// A callback panicked.
    Panicked,
    /// The pause after a panic has passed.
    PauseOver,
    /// The worker stops.
    ShutdownRequested,
    /// The lease is lost or was given back.
    LeaseGone,
    /// The last call of the processor has returned.
    FinalCallbackReturned,
}

impl ShardState {
    /// The state after `input`. Losing the lease goes before everything else, then the end of the
    /// shard, then a requested shutdown (KCL's `ShutdownReason`).
    pub(crate) fn next(self, input: Input) -> Self {
        match (self, input) {
            (Self::ShuttingDown, Input::FinalCallbackReturned) => Self::Complete,
            (Self::Complete | Self::ShuttingDown, _) => self,
            (_, Input::LeaseGone) => Self::ShuttingDown,
            (Self::WaitingOnParentShards, Input::ParentsEnded) => Self::Initializing,
            (
                Self::WaitingOnParentShards | Self::Initializing | Self::Failed | Self::Processing,
                Input::ShutdownRequested,
            ) => Self::ShutdownRequested,
            (Self::Initializing, Input::Initialized) => Self::Processing,
            (Self::Processing, Input::LastRecordDelivered) => Self::ShardEnding,
            (Self::ShardEnding, Input::FinalCallbackReturned) => Self::Complete,
            (Self::ShardEnding, Input::ShutdownRequested) => Self::ShutdownRequested,
            (Self::Initializing | Self::Processing, Input::Panicked) => Self::Failed,
            (Self::Failed, Input::PauseOver) => Self::Initializing,
            _ => self,
        }
    }
}

/// Whether a child may start as far as this parent of it goes, whose row was just read consistently.
pub(crate) fn lets_children_start(parent: Option<&Lease>) -> bool {
    parent.is_none_or(|lease| lease.checkpoint.is_shard_end()) || planted(Bug::ChildrenStartEarly)
}

impl fmt::Display for ShardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::WaitingOnParentShards => "waiting on parent shards",
            Self::Initializing => "initializing",
            Self::Processing => "processing",
            Self::Failed => "restarting after a panic",
            Self::ShutdownRequested => "asked to shut down",
            Self::ShardEnding => "at the end of the shard",
            Self::ShuttingDown => "shutting down",
            Self::Complete => "complete",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [ShardState; 8] = [
        ShardState::WaitingOnParentShards,
        ShardState::Initializing,
        ShardState::Processing,
        ShardState::Failed,
        ShardState::ShutdownRequested,
        ShardState::ShardEnding,
        ShardState::ShuttingDown,
        ShardState::Complete,
    ];

    fn run(inputs: &[Input]) -> ShardState {
        inputs.iter().fold(ShardState::WaitingOnParentShards, |state, input| state.next(*input))
    }

    #[test]
    fn the_usual_life_ends_with_the_shard() {
        use Input::{FinalCallbackReturned, Initialized, LastRecordDelivered, ParentsEnded};
        assert_eq!(run(&[ParentsEnded, Initialized]), ShardState::Processing);
        assert_eq!(
            run(&[ParentsEnded, Initialized, LastRecordDelivered, FinalCallbackReturned]),
            ShardState::Complete
        );
    }

    #[test]
    fn a_lost_lease_leads_to_shutting_down_from_everywhere() {
        for state in STATES {
            let after = state.next(Input::LeaseGone);
            let expected = if state == ShardState::Complete { state } else { ShardState::ShuttingDown };
            assert_eq!(after, expected, "from {state}");
        }
    }

    #[test]
    fn nothing_is_processed_before_the_parents_ended() {
        for input in
            [Input::Initialized, Input::LastRecordDelivered, Input::PauseOver, Input::FinalCallbackReturned]
        {
            assert_eq!(run(&[input]), ShardState::WaitingOnParentShards);
        }
    }

    #[test]
    fn a_panic_starts_over() {
        use Input::{Initialized, Panicked, ParentsEnded, PauseOver};
        assert_eq!(run(&[ParentsEnded, Initialized, Panicked]), ShardState::Failed);
        assert_eq!(
            run(&[ParentsEnded, Initialized, Panicked, PauseOver, Initialized]),
            ShardState::Processing
        );
    }
}
