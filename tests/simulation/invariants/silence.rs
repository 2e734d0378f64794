//! A worker that has not reported metrics for a minute is assigned nothing. The time counts, on the
//! leader's clock, from when the leader first read the whole table with the last report.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::faults::STALE_MAX;
use crate::history::{By, EventKind, History, Incarnation};

/// A worker without a report for longer is not known to be alive (KCL's).
const FRESH: Duration = Duration::from_secs(60);
/// Reports contain whole seconds.
const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn check(history: &History) -> Vec<(Duration, String)> {
    let rates = history.rates();
    // A scan may show the table as it was this long ago.
    let age_max = STALE_MAX + history.failover / 3;
    let spread = {
        let highest = rates.values().copied().fold(1.0, f64::max);
        let lowest = rates.values().copied().fold(1.0, f64::min);
        highest - lowest
    };
    let mut broken = Vec::new();
    let mut readings: BTreeMap<&Incarnation, Vec<Duration>> = BTreeMap::new();
    // When a worker reported; false if it withdrew its report.
    let mut reported: BTreeMap<&str, Vec<(Duration, bool)>> = BTreeMap::new();
    for event in &history.events {
        match &event.kind {
            EventKind::Scanned { incarnation } => readings.entry(incarnation).or_default().push(event.at),
            EventKind::MetricsReported { worker, updated, .. } => {
                reported.entry(worker).or_default().push((event.at, updated.is_some()));
            }
            EventKind::Row {
                key, after: Some(after), by: Some(By { incarnation, operation, sent }), ..
            } if matches!(*operation, "AssignLease" | "StartHandoff") => {
                let Some(to) = &after.owner else { continue };
                let readings = readings.get(incarnation).map(Vec::as_slice).unwrap_or_default();
                let Some(last) = readings.iter().rev().copied().find(|at| at <= sent) else {
                    broken.push((
                        event.at,
                        format!("{incarnation} assigned {key} without having read the table"),
                    ));
                    continue;
                };
                let reported = reported.get(to.as_str()).map(Vec::as_slice).unwrap_or_default();
                let reported = reported
                    .iter()
                    .rev()
                    .find(|(at, is_there)| *at <= last && (*is_there || *at + age_max <= last));
                let Some((reported, true)) = reported else {
                    broken.push((
                        event.at,
                        format!("{incarnation} assigned {key} to {to}, which has reported nothing"),
                    ));
                    continue;
                };
                let first_read =
                    readings.iter().copied().find(|at| *at >= *reported + age_max).unwrap_or(last);
                let silent =
                    last.saturating_sub(first_read).mul_f64(rates.get(incarnation).copied().unwrap_or(1.0));
                // A new leader judges by the times in the rows, which are by the clocks of others.
                let clocks = event.at.mul_f64(spread);
                if silent > FRESH + SECOND + clocks {
                    let what =
                        format!("{incarnation} assigned {key} to {to}, which has been silent for {silent:?}");
                    broken.push((event.at, what));
                }
            }
            _ => {}
        }
    }
    broken
}
