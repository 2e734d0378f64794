use std::fmt;

use crate::lease::Lease;
use crate::lease::origin::{Mismatch, Shards, mismatch};
use crate::types::StreamId;

/// Rows that an operator is shown.
const SHOWN_MAX: usize = 3;

/// Looks for leases that are not of the stream, and remembers how often it found some that may only look so
/// because the list of shards was old.
#[derive(Debug)]
pub(crate) struct OriginTracker {
    threshold: u32,
    suspected: u32,
}

/// What a look at the leases of a stream says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Origins {
    /// All of them are of the stream, as far as can be seen.
    Fit,
    /// Some do not seem to be: look again with a newer list.
    Suspected,
    /// These are not.
    Foreign(Vec<ForeignLease>),
}

/// A lease that is not of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignLease {
    pub(crate) lease: Lease,
    pub(crate) mismatch: Mismatch,
}

impl OriginTracker {
    /// A tracker that believes in what an old list might explain when it has seen it `threshold` times in a
    /// row.
    pub(crate) fn new(threshold: u32) -> Self {
        Self { threshold, suspected: 0 }
    }

    /// Holds leases against the shards of their stream. `is_older` says that the list was made before the
    /// leases were read.
    pub(crate) fn check<'a>(
        &mut self,
        leases: impl IntoIterator<Item = &'a Lease>,
        stream: &StreamId,
        shards: &Shards<'_>,
        is_older: bool,
    ) -> Origins {
        let foreign = |lease: &Lease| {
            let mismatch = mismatch(lease, stream, shards)?;
            Some(ForeignLease { lease: lease.clone(), mismatch })
        };
        let found: Vec<ForeignLease> = leases.into_iter().filter_map(foreign).collect();
        let is_certain = found.iter().any(|foreign| !foreign.mismatch.may_be_an_old_list());
        if found.is_empty() {
            self.suspected = 0;
            return Origins::Fit;
        }
        self.suspected += u32::from(!is_older);
        // One that certainly is of another stream explains the others too.
        if is_certain || self.suspected >= self.threshold {
            return Origins::Foreign(found);
        }
        Origins::Suspected
    }
}

/// What is wrong and what to do, in words.
pub(crate) fn describe(foreign: &[ForeignLease]) -> String {
    let count = foreign.len();
    let shown: Vec<String> = foreign.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    format!(
        "{count} lease(s) do not belong to this stream: {}{}. It was deleted and created again, or the lease table \
         was used for another stream. Their shards are not read. To read the stream from its oldest record, set \
         CoordinationConfig::on_recreated_stream to StartOver, or stop all workers and delete these rows; if the \
         table is another stream's, give this consumer another application name",
        shown.join("; "),
        if count > shown.len() { "; …" } else { "" },
    )
}

impl fmt::Display for ForeignLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ({})", self.lease.key, self.lease.checkpoint, self.mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinesis::Shard;
    use crate::types::{Checkpoint, HashKeyRange};

    fn leases(starts: &[Option<u128>]) -> Vec<Lease> {
        let lease = |(index, start): (usize, &Option<u128>)| {
            let mut lease = Lease::new(format!("{index}"), Checkpoint::ShardEnd);
            lease.starting_sequence_number = start.map(Into::into);
            lease
        };
        starts.iter().enumerate().map(lease).collect()
    }

    fn check(tracker: &mut OriginTracker, starts: &[Option<u128>], is_older: bool) -> Origins {
        let shards = ["0", "1"].map(|id| Shard::new(id, HashKeyRange::FULL, 5_u128.into()));
        let stream = "orders".parse().expect("a name");
        tracker.check(&leases(starts), &stream, &Shards::new(&shards), is_older)
    }

    fn found(origins: &Origins) -> usize {
        match origins {
            Origins::Foreign(foreign) => foreign.len(),
            Origins::Fit | Origins::Suspected => 0,
        }
    }

    #[test]
    fn a_row_of_another_shard_is_believed_at_once_and_explains_the_others() {
        let mut tracker = OriginTracker::new(3);
        assert_eq!(check(&mut tracker, &[Some(5), Some(5)], false), Origins::Fit);
        assert_eq!(found(&check(&mut tracker, &[Some(4), None], true)), 2);
    }

    #[test]
    fn what_an_old_list_may_explain_is_believed_when_newer_lists_say_the_same() {
        let mut tracker = OriginTracker::new(2);
        for is_older in [true, true, true, false] {
            assert_eq!(check(&mut tracker, &[Some(5), None], is_older), Origins::Suspected);
        }
        assert_eq!(check(&mut tracker, &[Some(5), Some(5)], false), Origins::Fit);
        assert_eq!(check(&mut tracker, &[Some(5), None], false), Origins::Suspected);
        assert_eq!(found(&check(&mut tracker, &[Some(5), None], false)), 1);
    }

    #[test]
    fn the_problem_names_leases_and_what_to_do() {
        let mut tracker = OriginTracker::new(1);
        let Origins::Foreign(foreign) = check(&mut tracker, &[Some(4), None], false) else {
            panic!("foreign")
        };
        let text = describe(&foreign);
        assert!(
            text.starts_with("2 lease(s) do not belong to this stream: 0 at SHARD_END (its shard began"),
            "{text}"
        );
        assert!(text.contains("StartOver") && text.contains("another application name"), "{text}");
    }
}
