//! Whether a worker reports its CPU, and by which metrics a fleet is judged.
//!
//! A leader of KCL 3.x compares workers by the metrics they report, and those that report none by their
//! throughput; between the two it cannot compare, so a fleet in which only some report their CPU is never
//! balanced. Java's workers report it on EC2, ECS and EKS only, this crate wherever it can be read. So a
//! worker of this crate reports it if the others do.

use std::collections::BTreeSet;

use super::stats::{CPU, WorkerStats};

/// Looks in a row that must show that nobody is in the way before a worker reports its CPU again.
const LOOKS: u32 = 3;

/// The metrics by which all of these workers can be compared. If there is none, their throughput is all
/// there is.
pub(crate) fn shared_metrics(workers: &[WorkerStats]) -> BTreeSet<&str> {
    let mut metrics = workers.iter().map(|stats| {
        let known = stats.samples.keys().filter(|metric| stats.value(metric).is_some());
        known.map(String::as_str).collect::<BTreeSet<_>>()
    });
    let first = metrics.next().unwrap_or_default();
    metrics.fold(first, |shared, metrics| &shared & &metrics)
}

/// Whether this worker withholds its CPU because other workers do not report theirs.
#[derive(Debug, Default)]
pub(crate) struct CpuAgreement {
    withholds: bool,
    /// Looks in a row in which nobody was in the way.
    agreeing: u32,
}

impl CpuAgreement {
    /// What the rows of `others` say, which have changed lately: all other workers for a leader, the leader
    /// for those that follow. Without any, all stays as it is.
    pub(crate) fn look<'a>(&mut self, others: impl IntoIterator<Item = &'a WorkerStats>, is_leader: bool) {
        let (mut any, mut opposed) = (false, false);
        for stats in others {
            any = true;
            // Workers of this crate follow their leader, so theirs says nothing to it.
            let follows = is_leader && stats.withholds_cpu;
            opposed |= stats.value(CPU).is_none() && !follows;
        }
        if opposed {
            (self.withholds, self.agreeing) = (true, 0);
        } else if any || is_leader {
            self.agreeing = self.agreeing.saturating_add(1);
            self.withholds &= self.agreeing < LOOKS;
        }
    }

    pub(crate) fn withholds(&self) -> bool {
        self.withholds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a@` reports its CPU, `b` does not, `c-` withholds it.
    fn workers(text: &str) -> Vec<WorkerStats> {
        let worker = |name: &str| {
            let mut stats = WorkerStats::new(name.trim_matches(['@', '-']).into());
            if name.ends_with('@') {
                stats.push(CPU, Some(20.0), 100.0);
            }
            stats.withholds_cpu = name.ends_with('-');
            stats
        };
        text.split_whitespace().map(worker).collect()
    }

    #[test]
    fn a_fleet_is_judged_by_what_all_of_its_workers_report() {
        for (fleet, shared) in [
            ("", &[][..]),
            ("a@", &[CPU]),
            ("a@ b@ c@", &[CPU]),
            ("a@ b", &[]),
            ("a b@", &[]),
            ("a b", &[]),
            ("a@ b-", &[]),
        ] {
            assert_eq!(
                shared_metrics(&workers(fleet)),
                BTreeSet::from_iter(shared.iter().copied()),
                "{fleet}"
            );
        }
        let mut failing = workers("a@ b@");
        failing[1].samples.insert(CPU.to_owned(), vec![-1.0]);
        assert_eq!(shared_metrics(&failing), BTreeSet::new(), "it has no value");
    }

    #[test]
    fn the_cpu_is_reported_if_others_report_theirs() {
        // What a leader sees look after look, and whether it withholds its own then.
        for (looks, withheld) in [
            (&[""][..], "."),
            (&["a@", "a@ b@"], ".."),
            (&["a", "a"], "WW"),
            (&["a@ b", "a@ b"], "WW"),
            // Those that follow it do not keep it from reporting.
            (&["j c-", "c-", "c-", "c-", "c@"], "WWW.."),
            (&["j", "", "", ""], "WWW."),
            // Nobody goes to and fro with one that does.
            (&["j", "j@", "j", "j@", "j@", "j", "j@", "j@", "j@"], "WWWWWWWW."),
        ] {
            let mut agreement = CpuAgreement::default();
            let seen: String = looks
                .iter()
                .map(|look| {
                    agreement.look(&workers(look), true);
                    if agreement.withholds() { 'W' } else { '.' }
                })
                .collect();
            assert_eq!(seen, withheld, "{looks:?}");
        }
    }

    #[test]
    fn followers_do_as_their_leader() {
        let mut agreement = CpuAgreement::default();
        let mut look = |leader: &str| {
            agreement.look(&workers(leader), false);
            agreement.withholds()
        };
        assert!(!look("") && !look("l@") && look("l-"));
        assert!(look("") && look("") && look("") && look(""), "no news changes nothing");
        assert!(look("l@") && look("l@") && !look("l@"));
        assert!(look("l"));
    }
}
