//! A leader that asks before it moves a lease takes none from a worker that renews it: only one that has
//! not been renewed for the failover time, or a handoff that has taken longer than it may.

use std::collections::BTreeMap;
use std::time::Duration;

use super::RESOLUTION;
use crate::history::{History, What};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    if !history.leading.asks_first {
        return Vec::new();
    }
    let rates = history.rates();
    let mut broken = Vec::new();
    // When the owner last renewed a lease, and when its handoff began.
    let (mut renewed, mut began) = (BTreeMap::new(), BTreeMap::new());
    for event in &history.events {
        let What::Row { key, before, after: Some(after), by: Some(by) } = &event.what else { continue };
        match before {
            Some(before) if by.operation == "AssignLease" && before.owner.is_some() => {
                let rate = rates.get(&by.life).copied().unwrap_or(1.0);
                let since = |times: &BTreeMap<_, Duration>| {
                    let at = times.get(key).copied().unwrap_or_default();
                    by.sent.saturating_sub(at).mul_f64(rate) + RESOLUTION
                };
                let may_take = history.leading.handoff_timeout + history.failover;
                let is_overdue = before.checkpoint_owner.is_some() && since(&began) >= may_take;
                if since(&renewed) < history.failover && !is_overdue {
                    let owner = before.actual_owner();
                    broken.push((
                        event.at,
                        format!("{} took {key} from {owner:?}, which had renewed it", by.life),
                    ));
                }
            }
            _ => {}
        }
        if by.operation == "StartHandoff" {
            began.insert(key, event.at);
        }
        let is_owners = after.actual_owner().is_some_and(|owner| *owner == *by.life.worker);
        if is_owners && before.as_ref().is_none_or(|before| before.counter != after.counter) {
            renewed.insert(key, event.at);
        }
    }
    broken
}
