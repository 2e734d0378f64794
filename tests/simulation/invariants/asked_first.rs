//! A leader that hands leases off takes none from a worker that renews it, except for one whose handoff
//! has taken longer than allowed. Leases that were not renewed for the failover time can be taken.

use std::collections::BTreeMap;
use std::time::Duration;

use super::RESOLUTION;
use crate::history::{EventKind, History};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    if !history.leader_rules.asks_first {
        return Vec::new();
    }
    let rates = history.rates();
    let mut broken = Vec::new();
    // When the owner last renewed a lease, and when its handoff began.
    let (mut renewed, mut began) = (BTreeMap::new(), BTreeMap::new());
    for event in &history.events {
        let EventKind::Row { key, before, after: Some(after), by: Some(by) } = &event.kind else { continue };
        match before {
            Some(before) if by.operation == "AssignLease" && before.owner.is_some() => {
                let rate = rates.get(&by.incarnation).copied().unwrap_or(1.0);
                let since = |times: &BTreeMap<_, Duration>| {
                    let at = times.get(key).copied().unwrap_or_default();
                    by.sent.saturating_sub(at).mul_f64(rate) + RESOLUTION
                };
                let may_take = history.leader_rules.handoff_timeout + history.failover;
                let is_overdue = before.checkpoint_owner.is_some() && since(&began) >= may_take;
                if since(&renewed) < history.failover && !is_overdue {
                    let owner = before.actual_owner();
                    broken.push((
                        event.at,
                        format!("{} took {key} from {owner:?}, which had renewed it", by.incarnation),
                    ));
                }
            }
            _ => {}
        }
        if by.operation == "StartHandoff" {
            began.insert(key, event.at);
        }
        let is_owners = after.actual_owner().is_some_and(|owner| *owner == *by.incarnation.worker);
        if is_owners && before.as_ref().is_none_or(|before| before.counter != after.counter) {
            renewed.insert(key, event.at);
        }
    }
    broken
}
