//! A handoff neither loses nor repeats a record. While it lasts, nobody but the old owner works on the
//! lease; the old owner gives it back only after its processor was asked and has returned, or was given
//! its time; afterwards that processor gets nothing more, and the next owner starts at the last
//! checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kinesis_consumer::lease::Lease;
use kinesis_consumer::{Checkpoint, ExtendedSequenceNumber};

use super::RESOLUTION;
use crate::history::{By, History, Life, Processor, ProcessorId, What};

/// A lease that was given back in a handoff.
struct Given<'a> {
    by: &'a Life,
    to: &'a str,
    at: &'a Checkpoint,
    /// The processor that goes on.
    next: Option<ProcessorId>,
}

struct Watch<'a> {
    history: &'a History,
    processors: BTreeMap<ProcessorId, Processor>,
    rates: BTreeMap<&'a Life, f64>,
    /// Since when leases are in handoff.
    began: BTreeMap<&'a str, Duration>,
    given: BTreeMap<&'a str, Given<'a>>,
    alive: BTreeSet<ProcessorId>,
    busy: BTreeSet<ProcessorId>,
    asked: BTreeSet<ProcessorId>,
    /// Of each worker and lease, when a write of its own last landed.
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
        asked: BTreeSet::new(),
        renewed: BTreeMap::new(),
    };
    let mut broken = Vec::new();
    for event in &history.events {
        let found = match &event.what {
            What::Row { key, before: Some(before), after: Some(after), by: Some(by) } => {
                let found = watch.written(event.at, before, after, by);
                if before.counter != after.counter {
                    watch.renewed.insert((&by.life.worker, key.as_str()), event.at);
                }
                found
            }
            What::Delivered { processor, positions } => {
                watch.busy.insert(*processor);
                watch.delivered(*processor, positions.first())
            }
            What::ShutdownRequested { processor } => {
                watch.busy.insert(*processor);
                watch.asked.insert(*processor);
                None
            }
            What::Initialized { processor, life, shard, from } => {
                watch.alive.insert(*processor);
                watch.initialized(*processor, life, shard.as_str(), from)
            }
            What::ShardEnded { processor } => {
                watch.busy.insert(*processor);
                None
            }
            What::Returned { processor, panicked } => {
                watch.busy.remove(processor);
                if *panicked {
                    watch.alive.remove(processor);
                }
                None
            }
            What::LeaseLost { processor } => {
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
        // It may be passed on before anybody has gone on with it.
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
        if is_owners && before.counter != after.counter && *old != *by.life.worker {
            return Some(format!("{} worked on {key} while {old} handed it over", by.life));
        }
        let rate = self.rates.get(&by.life).copied().unwrap_or(1.0);
        let alive_at = self.renewed.get(&(old.as_str(), key)).copied().unwrap_or_default();
        let is_alive = by.sent.saturating_sub(alive_at).mul_f64(rate) + RESOLUTION < self.history.failover;
        if by.operation == "TakeLease" && is_alive && *old != *by.life.worker {
            return Some(format!("{} took {key} while {old} handed it over", by.life));
        }
        if by.operation != "FinishHandoff" {
            return None;
        }
        let to = after.owner.as_ref()?.as_str();
        self.given.insert(key, Given { by: &by.life, to, at: &after.checkpoint, next: None });
        let began = self.began.get(key).copied().unwrap_or_default();
        let is_overdue =
            by.sent.saturating_sub(began).mul_f64(rate) + RESOLUTION >= self.history.leading.handoff_timeout;
        if is_overdue || before.checkpoint.is_shard_end() {
            return None;
        }
        let of = |processor: &&ProcessorId| {
            let of = &self.processors[processor];
            of.life == by.life && of.shard.as_str() == key
        };
        let unfinished = self
            .alive
            .iter()
            .filter(of)
            .find(|processor| !self.asked.contains(processor) || self.busy.contains(processor));
        unfinished.map(|processor| format!("{} gave {key} away before p{processor} had let go", by.life))
    }

    fn initialized(
        &mut self,
        processor: ProcessorId,
        life: &Life,
        shard: &str,
        from: &Checkpoint,
    ) -> Option<String> {
        let given =
            self.given.get_mut(shard).filter(|given| given.to == life.worker && given.next.is_none())?;
        given.next = Some(processor);
        (from != given.at)
            .then(|| format!("{shard} was handed over at {}, but {life} starts from {from}", given.at))
    }

    fn delivered(&self, processor: ProcessorId, first: Option<&ExtendedSequenceNumber>) -> Option<String> {
        let of = self.processors.get(&processor)?;
        let given = self.given.get(of.shard.as_str())?;
        if of.life == *given.by && given.next != Some(processor) {
            return Some(format!(
                "p{processor} of {} went on with {} after giving it away",
                of.life, of.shard
            ));
        }
        let is_repeated = given.next == Some(processor) && first <= given.at.position();
        is_repeated
            .then(|| format!("p{processor} of {} repeats what was checkpointed before {}", of.life, of.shard))
    }
}
