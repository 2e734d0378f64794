//! At most one leader acts. A worker assigns leases only while its last heartbeat known to have landed
//! is, on its own clock, no older than the duration of its lock. The lock is taken from a leader only
//! after its last heartbeat has stood for that long, on the taker's clock. So if all clocks have the
//! same rate, the sender of an assignment holds the lock when it sends it. The request may arrive later:
//! its conditions are on the owners of the row.

use std::collections::BTreeMap;
use std::time::Duration;

use super::RESOLUTION;
use crate::history::{By, EventKind, History, Incarnation, Lock};

/// When a worker's heartbeat was answered, and when it had been sent; `None` when it released the lock.
type Heartbeats<'a> = BTreeMap<&'a Incarnation, Vec<(Duration, Option<Duration>)>>;

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let rates = history.rates();
    let is_one_rate = rates.values().all(|rate| Some(rate) == rates.values().next());
    let mut broken = Vec::new();
    let mut heartbeats = Heartbeats::new();
    let mut owners: Vec<(Duration, Option<&str>)> = Vec::new();
    let mut good_for = Duration::MAX;
    for event in &history.events {
        let rate = |by: &By| rates.get(&by.incarnation).copied().unwrap_or(1.0);
        match &event.kind {
            EventKind::LockRow { before, after, by: Some(by) } => {
                let put = owners.last().map_or(Duration::ZERO, |(put, _)| *put);
                if let (Some(before), Some(after)) = (before, after)
                    && before.owner != after.owner
                    && by.sent.saturating_sub(put).mul_f64(rate(by)) + RESOLUTION < before.duration
                {
                    let what = format!("{} led until {:?} before {} did", before.owner, put, by.incarnation);
                    broken.push((event.at, what));
                }
                good_for = after.as_ref().map_or(good_for, |lock: &Lock| lock.duration);
                owners.push((event.at, after.as_ref().map(|lock| lock.owner.as_str())));
                heartbeats
                    .entry(&by.incarnation)
                    .or_default()
                    .push((event.at, after.as_ref().map(|_| by.sent)));
            }
            EventKind::Row { key, by: Some(by), .. }
                if matches!(by.operation, "AssignLease" | "StartHandoff") =>
            {
                let of = heartbeats.get(&by.incarnation).map(Vec::as_slice).unwrap_or_default();
                let last = of.iter().rev().find(|(at, _)| *at <= by.sent).and_then(|(_, sent)| *sent);
                let leads =
                    last.is_some_and(|last| (by.sent - last).mul_f64(rate(by)) < good_for + RESOLUTION);
                let lock = owners.iter().rev().find(|(at, _)| *at <= by.sent).and_then(|(_, owner)| *owner);
                if !leads {
                    broken.push((
                        event.at,
                        format!("{} assigned {key}, as leader since {last:?}", by.incarnation),
                    ));
                } else if is_one_rate && lock != Some(&by.incarnation.worker) {
                    broken.push((event.at, format!("{} assigned {key} while {lock:?} led", by.incarnation)));
                }
            }
            _ => {}
        }
    }
    broken
}
