//! The leases of a worker that leaves are taken in the next round of the others, not after the failover
//! time. Those of a worker that dies, leader or not, are taken within the time needed to notice. A fleet
//! that is ready for a leader gets one.

use std::time::Duration;

use crate::history::{EventKind, History};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let late = history.events.iter().filter_map(|event| match &event.kind {
        EventKind::HandedOver { after, limit } if after.is_none_or(|after| after > *limit) => {
            Some((event.at, format!("the leases of one that left were idle for more than {limit:?}")))
        }
        EventKind::TakenOver { after: None, limit, was_leader } => {
            let who = if *was_leader { "the leader" } else { "a worker" };
            Some((event.at, format!("the leases of {who} that died were idle for more than {limit:?}")))
        }
        EventKind::Migrated { after: None } => Some((event.at, "the fleet is still not led".to_owned())),
        _ => None,
    });
    late.collect()
}
