use crate::planted::{Bug, planted};
use crate::types::{Checkpoint, ExtendedSequenceNumber};

/// What one processor may checkpoint: pure bookkeeping of what was delivered to it and what is
/// stored (KCL's `ShardRecordProcessorCheckpointer`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tracker {
    stored: Checkpoint,
    delivered: Checkpoint,
    at_end: bool,
}

/// What to do about a checkpoint that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Write it.
    Store(Checkpoint),
    /// It is stored already: nothing to do.
    AlreadyStored,
}

/// Why a checkpoint is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{asked} is behind the stored checkpoint {stored}; checkpoints never move backwards")]
    Backwards { asked: ExtendedSequenceNumber, stored: Checkpoint },
    #[error("{asked} was not delivered yet; the last delivered position is {delivered}")]
    NotDelivered { asked: ExtendedSequenceNumber, delivered: Checkpoint },
    #[error("the shard has not ended; call end() only from shard_ended()")]
    NotAtEnd,
}

impl Tracker {
    /// A tracker for a processor that starts from `initial`.
    pub(crate) fn new(initial: Checkpoint) -> Self {
        Self { delivered: initial.clone(), stored: initial, at_end: false }
    }

    /// Everything up to and including `position` is about to be delivered.
    pub(crate) fn deliver(&mut self, position: ExtendedSequenceNumber) {
        self.delivered = self.delivered.clone().max(position.into());
    }

    /// Every record of the shard was delivered.
    pub(crate) fn reach_end(&mut self) {
        self.at_end = true;
    }

    /// `checkpoint` is in the table now.
    pub(crate) fn store(&mut self, checkpoint: Checkpoint) {
        self.stored = self.stored.clone().max(checkpoint);
    }

    /// What is in the table as far as this processor knows.
    pub(crate) fn stored(&self) -> &Checkpoint {
        &self.stored
    }

    /// How far a checkpoint may go: the last delivered position, or at the end of the shard the whole of it.
    pub(crate) fn delivered(&self) -> Checkpoint {
        if self.at_end { Checkpoint::ShardEnd } else { self.delivered.clone() }
    }

    /// What a checkpoint of everything comes to that was delivered when `delivered` was read. Nothing is
    /// behind: what is stored already covers it.
    pub(crate) fn decide_delivered(&self, delivered: &Checkpoint) -> Decision {
        if *delivered <= self.stored { Decision::AlreadyStored } else { Decision::Store(delivered.clone()) }
    }

    /// What a checkpoint at `asked` comes to. At the end of the shard, the last delivered position
    /// means the whole shard.
    pub(crate) fn decide(&self, asked: ExtendedSequenceNumber) -> Result<Decision, Refusal> {
        let wanted = Checkpoint::from(asked.clone());
        if self.at_end && wanted == self.delivered {
            return self.decide_end();
        }
        if wanted < self.stored && !planted(Bug::AllowsBackwards) {
            return Err(Refusal::Backwards { asked, stored: self.stored.clone() });
        }
        if wanted > self.delivered && !planted(Bug::AllowsUndelivered) {
            return Err(Refusal::NotDelivered { asked, delivered: self.delivered.clone() });
        }
        Ok(if wanted == self.stored { Decision::AlreadyStored } else { Decision::Store(wanted) })
    }

    /// What a checkpoint at the end of the shard comes to.
    pub(crate) fn decide_end(&self) -> Result<Decision, Refusal> {
        match (self.at_end, &self.stored) {
            (false, _) if !planted(Bug::AllowsEarlyEnd) => Err(Refusal::NotAtEnd),
            (_, Checkpoint::ShardEnd) => Ok(Decision::AlreadyStored),
            (_, _) => Ok(Decision::Store(Checkpoint::ShardEnd)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u128, sub: u64) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(sequence.into(), sub)
    }

    fn delivered_up_to(position: ExtendedSequenceNumber) -> Tracker {
        let mut tracker = Tracker::new(Checkpoint::TrimHorizon);
        tracker.deliver(position);
        tracker
    }

    #[test]
    fn anything_delivered_and_not_behind_may_be_stored() {
        let mut tracker = delivered_up_to(at(9, 3));
        assert_eq!(tracker.decide(at(5, 0)), Ok(Decision::Store(at(5, 0).into())));
        tracker.store(at(9, 1).into());
        assert_eq!(tracker.decide(at(9, 3)), Ok(Decision::Store(at(9, 3).into())));
        assert_eq!(tracker.decide(at(9, 1)), Ok(Decision::AlreadyStored));
    }

    #[test]
    fn nothing_is_stored_backwards_or_ahead() {
        let mut tracker = delivered_up_to(at(9, 3));
        tracker.store(at(9, 1).into());
        assert!(matches!(tracker.decide(at(9, 0)), Err(Refusal::Backwards { .. })));
        assert!(matches!(tracker.decide(at(9, 4)), Err(Refusal::NotDelivered { .. })));
        assert!(matches!(tracker.decide(at(10, 0)), Err(Refusal::NotDelivered { .. })));
    }

    #[test]
    fn nothing_can_be_stored_before_the_first_delivery() {
        let tracker = Tracker::new(Checkpoint::Latest);
        assert!(matches!(tracker.decide(at(1, 0)), Err(Refusal::NotDelivered { .. })));
    }

    #[test]
    fn what_was_delivered_is_stored_once_and_up_to_where_it_was_when_asked() {
        let mut tracker = Tracker::new(Checkpoint::Latest);
        assert_eq!(tracker.decide_delivered(&tracker.delivered()), Decision::AlreadyStored, "nothing yet");
        tracker.deliver(at(9, 3));
        let asked = tracker.delivered();
        tracker.deliver(at(12, 0));
        assert_eq!(tracker.decide_delivered(&asked), Decision::Store(at(9, 3).into()));
        tracker.store(at(12, 0).into());
        assert_eq!(tracker.decide_delivered(&asked), Decision::AlreadyStored);
        tracker.reach_end();
        assert_eq!(tracker.decide_delivered(&asked), Decision::AlreadyStored, "asked before the end");
        assert_eq!(tracker.decide_delivered(&tracker.delivered()), Decision::Store(Checkpoint::ShardEnd));
    }

    #[test]
    fn the_end_is_stored_only_at_the_end() {
        let mut tracker = delivered_up_to(at(9, 3));
        assert_eq!(tracker.decide_end(), Err(Refusal::NotAtEnd));
        tracker.reach_end();
        assert_eq!(tracker.decide_end(), Ok(Decision::Store(Checkpoint::ShardEnd)));
        tracker.store(Checkpoint::ShardEnd);
        assert_eq!(tracker.decide_end(), Ok(Decision::AlreadyStored));
    }

    /// In KCL the second case is a no-op after which `shardEnded` fails.
    #[test]
    fn at_the_end_the_last_record_means_the_whole_shard_even_if_it_was_checkpointed_before() {
        let mut tracker = delivered_up_to(at(9, 3));
        tracker.reach_end();
        assert_eq!(tracker.decide(at(9, 3)), Ok(Decision::Store(Checkpoint::ShardEnd)));
        tracker.store(at(9, 3).into());
        assert_eq!(tracker.decide(at(9, 3)), Ok(Decision::Store(Checkpoint::ShardEnd)));
        assert_eq!(
            tracker.decide(at(9, 4)),
            Err(Refusal::NotDelivered { asked: at(9, 4), delivered: at(9, 3).into() })
        );
    }
}
