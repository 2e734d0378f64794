//! A handoff neither loses nor repeats a record. While it lasts, only the old owner works on the lease.
//! The old owner releases it only after its processor was notified and has returned, or after the
//! timeout. Afterwards that processor gets nothing more, and the next owner starts at the last
//! checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kinesis_consumer::lease::Lease;
use kinesis_consumer::{Checkpoint, ExtendedSequenceNumber};

use super::RESOLUTION;
use crate::history::{By, EventKind, History, Incarnation, Processor, ProcessorId};

/// A lease that was released in a handoff.
struct Given<'a> {
    by: &'a Incarnation,
    to: &'a str,
    at: &'a Checkpoint,
    /// The processor that continues.
    next: Option<ProcessorId>,
}

struct Watch<'a> {
    history: &'a History,
    processors: BTreeMap<ProcessorId, Processor>,
    rates: BTreeMap<&'a Incarnation, f64>,
    /// When the handoffs of leases began.
    began: BTreeMap<&'a str, Duration>,
    given: BTreeMap<&'a str, Given<'a>>,
    alive: BTreeSet<ProcessorId>,
    busy: BTreeSet<ProcessorId>,
    notified: BTreeSet<ProcessorId>,
    /// When a write of each worker to each lease last landed.
    renewed: BTreeMap<(&'a str, &'a str), Duration>,
}

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let mut watch = Watch {
        history,
        processors: history.processors(),
        rates: history.rates(),
        began: BTreeMap::new(),
        given: BTreeMap::new(),
        alive: BTreeSet::new(),
        busy: BTreeSet::new(),
        notified: BTreeSet::new(),
        renewed: BTreeMap::new(),
    };
    let mut broken = Vec::new();
    for event in &history.events {
        let found = match &event.kind {
            EventKind::Row { key, before: Some(before), after: Some(after), by: Some(by) } => {
                let found = watch.written(event.at, before, after, by);
                if before.counter != after.counter {
                    watch.renewed.insert((&by.incarnation.worker, key.as_str()), event.at);
                }
                found
            }
            EventKind::Delivered { processor, positions } => {
                watch.busy.insert(*processor);
                watch.delivered(*processor, positions.first())
            }
            EventKind::ShutdownRequested { processor } => {
                watch.busy.insert(*processor);
                watch.notified.insert(*processor);
                None
            }
            EventKind::Initialized { processor, incarnation, shard, from } => {
                watch.alive.insert(*processor);
                watch.initialized(*processor, incarnation, shard.as_str(), from)
            }
            EventKind::ShardEnded { processor } => {
                watch.busy.insert(*processor);
                None
            }
            EventKind::Returned { processor, panicked } => {
                watch.busy.remove(processor);
                if *panicked {
                    watch.alive.remove(processor);
                }
                None
            }
            EventKind::LeaseLost { processor } => {
                watch.alive.remove(processor);
                None
            }
            _ => None,
        };
        broken.extend(found.map(|what| (event.at, what)));
    }
    broken
}

impl<'a> Watch<'a> {
    fn written(&mut self, at: Duration, before: &'a Lease, after: &'a Lease, by: &'a By) -> Option<String> {
        let key = before.key.as_str();
        // The lease may be passed on before a worker has continued with it.
        if self
            .given
            .get(key)
            .is_some_and(|given| after.actual_owner().is_none_or(|owner| *owner != *given.to))
        {
            self.given.remove(key);
        }
        if by.operation == "StartHandoff" {
            self.began.insert(key, at);
        }
        let old = before.checkpoint_owner.as_ref()?;
        let is_owners =
            matches!(by.operation, "RenewLease" | "UpdateLease" | "ReleaseLease" | "FinishHandoff");
        if is_owners && before.counter != after.counter && *old != *by.incarnation.worker {
            return Some(format!("{} worked on {key} while {old} handed it over", by.incarnation));
        }
        let rate = self.rates.get(&by.incarnation).copied().unwrap_or(1.0);
        let alive_at = self.renewed.get(&(old.as_str(), key)).copied().unwrap_or_default();
        let is_alive = by.sent.saturating_sub(alive_at).mul_f64(rate) + RESOLUTION < self.history.failover;
        if by.operation == "TakeLease" && is_alive && *old != *by.incarnation.worker {
            return Some(format!("{} took {key} while {old} handed it over", by.incarnation));
        }
        if by.operation != "FinishHandoff" {
            return None;
        }
        let to = after.owner.as_ref()?.as_str();
        self.given.insert(key, Given { by: &by.incarnation, to, at: &after.checkpoint, next: None });
        let began = self.began.get(key).copied().unwrap_or_default();
        let is_overdue = by.sent.saturating_sub(began).mul_f64(rate) + RESOLUTION
            >= self.history.leader_rules.handoff_timeout;
        if is_overdue || before.checkpoint.is_shard_end() {
            return None;
        }
        let of = |processor: &&ProcessorId| {
            let of = &self.processors[processor];
            of.incarnation == by.incarnation && of.shard.as_str() == key
        };
        let unfinished = self
            .alive
            .iter()
            .filter(of)
            .find(|processor| !self.notified.contains(processor) || self.busy.contains(processor));
        unfinished
            .map(|processor| format!("{} gave {key} away before p{processor} had returned", by.incarnation))
    }

    fn initialized(
        &mut self,
        processor: ProcessorId,
        incarnation: &Incarnation,
        shard: &str,
        from: &Checkpoint,
    ) -> Option<String> {
        let given = self
            .given
            .get_mut(shard)
            .filter(|given| given.to == incarnation.worker && given.next.is_none())?;
        given.next = Some(processor);
        (from != given.at)
            .then(|| format!("{shard} was handed over at {}, but {incarnation} starts from {from}", given.at))
    }

    fn delivered(&self, processor: ProcessorId, first: Option<&ExtendedSequenceNumber>) -> Option<String> {
        let of = self.processors.get(&processor)?;
        let given = self.given.get(of.shard.as_str())?;
        if of.incarnation == *given.by && given.next != Some(processor) {
            return Some(format!(
                "p{processor} of {} went on with {} after giving it away",
                of.incarnation, of.shard
            ));
        }
        let is_repeated = given.next == Some(processor) && first <= given.at.position();
        is_repeated.then(|| {
            format!("p{processor} of {} repeats what was checkpointed before {}", of.incarnation, of.shard)
        })
    }
}
