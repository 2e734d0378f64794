#![cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "seen only by the model"))]

use super::independent::LeaseClaim;
use crate::lease::{Lease, LeaseWrite, WriteOutcome};
use crate::types::WorkerId;

/// The attempts to take one lease: one, and another if the first was refused for a reason that does not
/// matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimAttempts {
    claim: LeaseClaim,
    /// The row as it was last seen.
    row: Lease,
    is_retry: bool,
}

/// What became of an attempt to take a lease.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum AfterClaim {
    /// The lease is this worker's, and its row is this.
    Won(Box<Lease>),
    /// Try again, with the row as it is now.
    Again,
    /// It is not, and its row is this (`None`: gone, or unreadable).
    Lost(Option<Box<Lease>>),
}

impl ClaimAttempts {
    /// Attempts to take what `claim` names.
    #[must_use]
    pub fn new(claim: LeaseClaim) -> Self {
        Self { row: claim.lease.clone(), claim, is_retry: false }
    }

    /// What is taken, and why.
    #[must_use]
    pub fn claim(&self) -> &LeaseClaim {
        &self.claim
    }

    /// The row that the next attempt changes.
    #[must_use]
    pub fn row(&self) -> &Lease {
        &self.row
    }

    /// The write of the next attempt.
    #[must_use]
    pub fn next_write(&self, worker: &WorkerId) -> LeaseWrite {
        LeaseWrite::take(&self.row, worker)
    }

    /// The table answered it.
    pub fn on_outcome(&mut self, outcome: WriteOutcome) -> AfterClaim {
        match outcome {
            WriteOutcome::Applied(lease) => AfterClaim::Won(lease),
            WriteOutcome::Refused(Some(row)) if !self.is_retry && self.claim.is_worth_a_retry(&row) => {
                self.is_retry = true;
                self.row = *row;
                AfterClaim::Again
            }
            WriteOutcome::Refused(row) => AfterClaim::Lost(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::independent::ClaimReason;
    use super::*;
    use crate::types::Checkpoint;

    fn row(owner: &str, counter: u64) -> Lease {
        let mut lease = Lease::new("shardId-0", Checkpoint::TrimHorizon);
        (lease.owner, lease.counter) = (Some(owner.into()), counter);
        lease
    }

    fn refused(owner: &str, counter: u64) -> WriteOutcome {
        WriteOutcome::Refused(Some(Box::new(row(owner, counter))))
    }

    #[test]
    fn only_a_steal_is_tried_again_and_once_only() {
        let expired = ClaimReason::Expired { owner: "a".into() };
        let steal = ClaimReason::Steal { owner: "a".into() };
        for (reason, answers, outcomes) in [
            (&expired, vec![refused("a", 6)], "lost 6"),
            (&steal, vec![refused("b", 6)], "lost 6"),
            (&steal, vec![WriteOutcome::Refused(None)], "gone"),
            (&steal, vec![refused("a", 6), refused("a", 7)], "again 6, lost 7"),
            (&steal, vec![refused("a", 6), WriteOutcome::Applied(Box::new(row("me", 7)))], "again 6, won 7"),
        ] {
            let claim = LeaseClaim { lease: row("a", 5), reason: reason.clone() };
            let mut attempts = ClaimAttempts::new(claim);
            let story: Vec<String> = answers
                .into_iter()
                .map(|answer| {
                    assert_eq!(
                        attempts.next_write(&"me".into()),
                        LeaseWrite::take(attempts.row(), &"me".into())
                    );
                    match attempts.on_outcome(answer) {
                        AfterClaim::Won(row) => format!("won {}", row.counter),
                        AfterClaim::Again => format!("again {}", attempts.row().counter),
                        AfterClaim::Lost(Some(row)) => format!("lost {}", row.counter),
                        AfterClaim::Lost(None) => "gone".to_owned(),
                    }
                })
                .collect();
            assert_eq!(story.join(", "), outcomes, "{reason}");
        }
    }
}
