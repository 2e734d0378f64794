//! The leases of a worker that leaves are taken up at the next round of the others, not after the failover
//! time; those of one that dies, leader or not, within what it takes to notice; and a fleet that is ready
//! to be run by a leader comes to be.

use std::time::Duration;

use crate::history::{History, What};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let late = history.events.iter().filter_map(|event| match &event.what {
        What::HandedOver { after, limit } if after.is_none_or(|after| after > *limit) => {
            Some((event.at, format!("the leases of one that left were idle for more than {limit:?}")))
        }
        What::TakenOver { after: None, limit, was_leader } => {
            let who = if *was_leader { "the leader" } else { "a worker" };
            Some((event.at, format!("the leases of {who} that died were idle for more than {limit:?}")))
        }
        What::Migrated { after: None } => Some((event.at, "the fleet is still not led".to_owned())),
        _ => None,
    });
    late.collect()
}
