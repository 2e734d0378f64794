//! The leases of a worker that leaves are taken at the next round of the others, not after the failover
//! time.

use std::time::Duration;

use crate::history::{History, What};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let late = history.events.iter().filter_map(|event| match &event.what {
        What::HandedOver { after, limit } if after.is_none_or(|after| after > *limit) => {
            Some((event.at, format!("leases were free for {after:?}, more than {limit:?}")))
        }
        _ => None,
    });
    late.collect()
}
