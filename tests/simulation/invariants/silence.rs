//! A worker that has told nothing for a minute is assigned nothing: counted, on the leader's clock, from
//! when it first read the whole table with what the worker told last.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::faults::STALE_MAX;
use crate::history::{By, History, Life, What};

/// A worker that has told nothing for longer is not known to be alive (KCL's).
const FRESH: Duration = Duration::from_secs(60);
/// What is told, is told in whole seconds.
const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let rates = history.rates();
    // A reading shows the table as it was so long ago.
    let age_max = STALE_MAX + history.failover / 3;
    let spread = {
        let highest = rates.values().copied().fold(1.0, f64::max);
        let lowest = rates.values().copied().fold(1.0, f64::min);
        highest - lowest
    };
    let mut broken = Vec::new();
    let mut readings: BTreeMap<&Life, Vec<Duration>> = BTreeMap::new();
    // When a worker told something; false if it took that back.
    let mut told: BTreeMap<&str, Vec<(Duration, bool)>> = BTreeMap::new();
    for event in &history.events {
        match &event.what {
            What::Scanned { life } => readings.entry(life).or_default().push(event.at),
            What::Stats { worker, updated, .. } => {
                told.entry(worker).or_default().push((event.at, updated.is_some()));
            }
            What::Row { key, after: Some(after), by: Some(By { life, operation, sent }), .. }
                if matches!(*operation, "AssignLease" | "StartHandoff") =>
            {
                let Some(to) = &after.owner else { continue };
                let readings = readings.get(life).map(Vec::as_slice).unwrap_or_default();
                let Some(last) = readings.iter().rev().copied().find(|at| at <= sent) else {
                    broken.push((event.at, format!("{life} assigned {key} without having read the table")));
                    continue;
                };
                let told = told.get(to.as_str()).map(Vec::as_slice).unwrap_or_default();
                let told = told
                    .iter()
                    .rev()
                    .find(|(at, is_there)| *at <= last && (*is_there || *at + age_max <= last));
                let Some((told, true)) = told else {
                    broken.push((event.at, format!("{life} assigned {key} to {to}, which has told nothing")));
                    continue;
                };
                let heard = readings.iter().copied().find(|at| *at >= *told + age_max).unwrap_or(last);
                let silent = last.saturating_sub(heard).mul_f64(rates.get(life).copied().unwrap_or(1.0));
                // Who leads anew goes by what the rows say of the time, by the clocks of others.
                let clocks = event.at.mul_f64(spread);
                if silent > FRESH + SECOND + clocks {
                    let what = format!("{life} assigned {key} to {to}, which has been silent for {silent:?}");
                    broken.push((event.at, what));
                }
            }
            _ => {}
        }
    }
    broken
}
