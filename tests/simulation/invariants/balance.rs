//! Once faults have stopped, within a stated time every lease is owned by a running worker, no worker
//! has more than its share or two fewer, and everything is delivered and checkpointed. After that,
//! leases stay where they are.

use std::time::Duration;

use crate::history::{EventKind, History};

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let end = history.events.last().map_or(Duration::ZERO, |event| event.at);
    match &history.healed {
        None => return Vec::new(),
        Some(Err(what)) => return vec![(end, format!("not healed: {what}"))],
        Some(Ok(_)) => {}
    }
    let mut broken = Vec::new();
    let mut settled = false;
    for event in &history.events {
        match &event.kind {
            EventKind::Settled => settled = true,
            EventKind::StopRequested { .. } | EventKind::Killed { .. } => settled = false,
            EventKind::Row { key, before: Some(before), after: Some(after), .. }
                if settled && before.owner != after.owner =>
            {
                let what = format!("{key} went from {:?} to {:?} for no reason", before.owner, after.owner);
                broken.push((event.at, what));
            }
            _ => {}
        }
    }
    broken
}
