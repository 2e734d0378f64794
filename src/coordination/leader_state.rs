//! What a leader remembers from run to run, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::assign::leader::{Handoffs, LeaderPlan, LeaderRules, expired_owners, plan_leader_assignment};
use super::assign::load_forecast::LoadForecast;
use super::view::View;
use super::worker_metrics::{WorkerLiveness, WorkerStats, shared_metrics};
use crate::lease::Item;
use crate::types::{LeaseKey, Moment, WorkerId};

/// Failed runs in a row after which a leader lets another worker try.
const FAILURES_MAX: u32 = 3;
/// Runs of KCL's leader, each of twice the failover time, from one rebalancing to the next.
const REBALANCE_RUNS: u32 = 3 * 2;

/// What a leader knows beside the leases.
#[derive(Debug, Default)]
pub(crate) struct LeaderState {
    /// Whether the last round was a leader's.
    is_leader: bool,
    failures: u32,
    handoffs: Handoffs,
    /// The metrics that workers report, as of the last scan.
    workers: Vec<WorkerStats>,
    liveness: WorkerLiveness,
    forecast: LoadForecast,
    /// Workers whose leases expired or were released, with the time of their last report: they get no lease
    /// until they report again. A row in the table outlives its worker by a minute.
    stopped: BTreeMap<WorkerId, u64>,
    /// The workers that were active when leases were last rebalanced, and when that was.
    rebalanced: Option<(BTreeSet<WorkerId>, Moment)>,
}

/// Rows of worker metrics that need attention.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct WorkerRows {
    /// Rows of workers that are long gone: to be deleted.
    pub(crate) abandoned: Vec<WorkerStats>,
    /// Why rows cannot be read.
    pub(crate) invalid: Vec<String>,
}

impl LeaderState {
    /// A leader that has just been elected.
    pub(crate) fn begin() -> Self {
        Self { is_leader: true, ..Self::default() }
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.is_leader
    }

    /// Another worker leads, or none.
    pub(crate) fn follow(&mut self) {
        self.is_leader = false;
    }

    /// The workers that can be given leases.
    pub(crate) fn workers(&self) -> &[WorkerStats] {
        &self.workers
    }

    /// A run ended.
    pub(crate) fn note_run(&mut self, is_successful: bool) {
        self.failures = if is_successful { 0 } else { self.failures + 1 };
    }

    /// Whether another worker should try to lead.
    pub(crate) fn must_resign(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// The rows beside the leases, as a scan showed them at `now`, and at `wall` by this worker's clock.
    pub(crate) fn note_workers(&mut self, rows: &[Item], wall: SystemTime, now: Moment) -> WorkerRows {
        // While a fleet moves its tables, a worker may have a row in each; the newer one counts.
        let mut newest: BTreeMap<WorkerId, WorkerStats> = BTreeMap::new();
        let mut found = WorkerRows::default();
        for row in rows {
            match WorkerStats::from_item(row) {
                Ok(Some(stats)) => {
                    let known = newest.get(&stats.worker);
                    if known.is_none_or(|known| known.updated < stats.updated) {
                        newest.insert(stats.worker.clone(), stats);
                    }
                }
                Ok(None) => {}
                Err(reason) => found.invalid.push(reason),
            }
        }
        let (active, silent): (Vec<_>, Vec<_>) =
            newest.into_values().partition(|stats| self.liveness.is_active(stats, wall, now));
        self.workers = active;
        found.abandoned = silent.into_iter().filter(|stats| stats.is_abandoned(wall)).collect();
        found
    }

    /// A handoff that is new in `view` has until `until`; those that ended are forgotten.
    pub(crate) fn note_handoffs(&mut self, view: &View, until: Moment) {
        self.handoffs.note(view, until);
    }

    /// This leader has begun a handoff.
    pub(crate) fn handoff_began(&mut self, lease: LeaseKey, until: Moment) {
        self.handoffs.begin(lease, until);
    }

    /// Plans by a view that was last true at `seen`. `us` is this worker.
    pub(crate) fn plan(
        &mut self,
        view: &mut View,
        us: &WorkerId,
        rules: &LeaderRules,
        seen: Moment,
        now: Moment,
        rng: &mut fastrand::Rng,
    ) -> LeaderPlan {
        self.note_stopped(view, us, rules.failover_time, seen);
        let rebalance = self.is_rebalancing_due(rules.failover_time, now);
        plan_leader_assignment(
            view,
            &self.workers,
            &mut self.forecast,
            &self.handoffs,
            rules,
            rebalance,
            seen,
            rng,
        )
    }

    /// Leaves out workers that stopped since their last report. A worker that releases leases is about to
    /// stop, and would otherwise look the least busy. This worker has not stopped: it plans.
    fn note_stopped(&mut self, view: &mut View, us: &WorkerId, failover_time: Duration, seen: Moment) {
        let mut gone = expired_owners(view, failover_time, seen);
        gone.extend(view.take_released_by());
        gone.remove(us);
        let Self { workers, stopped, .. } = self;
        for stats in workers.iter() {
            if gone.contains(&stats.worker) {
                stopped.insert(stats.worker.clone(), stats.updated);
            }
        }
        workers.retain(|stats| stopped.get(&stats.worker) != Some(&stats.updated));
    }

    /// Whether leases are rebalanced now. A reported CPU shows a move only after a while; the throughput of
    /// leases, and their number, at once.
    fn is_rebalancing_due(&mut self, failover_time: Duration, now: Moment) -> bool {
        let names: BTreeSet<WorkerId> = self.workers.iter().map(|stats| stats.worker.clone()).collect();
        let is_measured = !shared_metrics(&self.workers).is_empty();
        let every = if is_measured { failover_time * REBALANCE_RUNS } else { Duration::ZERO };
        let is_due =
            self.rebalanced.as_ref().is_none_or(|(workers, at)| *workers != names || now.since(*at) >= every);
        if is_due {
            self.rebalanced = Some((names, now));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CoordinationConfig;
    use crate::coordination::worker_metrics::CPU;
    use crate::lease::{Lease, row_after};
    use crate::types::Checkpoint;

    const F: Duration = Duration::from_secs(10);
    const WALL: u64 = 1_000_000;

    fn at(seconds: u64) -> Moment {
        Moment::after_origin(Duration::from_secs(seconds))
    }

    fn wall(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(WALL + seconds)
    }

    /// The row of a worker that reported at `seconds`.
    fn report(worker: &str, seconds: u64, cpu: Option<f64>) -> Item {
        let mut stats = WorkerStats::new(worker.into());
        if cpu.is_some() {
            stats.push(CPU, cpu, 100.0);
        }
        row_after(&stats.to_write(wall(seconds)), None).expect("well formed").expect("no condition")
    }

    fn lease(id: &str, owner: Option<&str>, counter: u64) -> Lease {
        let mut lease = Lease::new(id, Checkpoint::TrimHorizon);
        (lease.owner, lease.counter) = (owner.map(Into::into), counter);
        lease
    }

    /// Assignments as `lease>worker`.
    fn plan(state: &mut LeaderState, view: &mut View, seconds: u64) -> String {
        let rules =
            LeaderRules::new(&CoordinationConfig { failover_time: F, ..Default::default() }, usize::MAX);
        let mut rng = fastrand::Rng::with_seed(1);
        let plan = state.plan(view, &"us".into(), &rules, at(seconds), at(seconds), &mut rng);
        let moves = plan.moves.iter().map(|moved| format!("{}>{}", moved.lease.key, moved.to));
        moves.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_worker_that_released_a_lease_gets_none_until_it_reports_again() {
        let (mut state, mut view) = (LeaderState::begin(), View::default());
        view.observe_scan(vec![lease("0", Some("a"), 1)], at(0));
        view.observe_scan(vec![lease("0", None, 2)], at(1));
        state.note_workers(&[report("a", 0, None)], wall(1), at(1));
        assert_eq!(plan(&mut state, &mut view, 1), "", "a is about to stop, and nobody else is there");
        state.note_workers(&[report("a", 0, None)], wall(2), at(2));
        assert_eq!(plan(&mut state, &mut view, 2), "", "the same report");
        state.note_workers(&[report("a", 3, None)], wall(3), at(3));
        assert_eq!(plan(&mut state, &mut view, 3), "0>a");
    }

    #[test]
    fn a_worker_whose_leases_expired_gets_none_until_it_reports_again() {
        let (mut state, mut view) = (LeaderState::begin(), View::default());
        view.observe_scan(vec![lease("0", Some("a"), 1)], at(0));
        state.note_workers(&[report("a", 0, None), report("b", 0, None)], wall(15), at(15));
        assert_eq!(plan(&mut state, &mut view, 30), "0>b");
    }

    #[test]
    fn a_leader_takes_back_what_it_was_handing_over_to_a_worker_that_died() {
        let (mut state, mut view) = (LeaderState::begin(), View::default());
        let mut handoff = lease("0", Some("dead"), 1);
        handoff.checkpoint_owner = Some("us".into());
        view.observe_scan(vec![handoff], at(0));
        for seconds in [30, 31] {
            state.note_workers(&[report("us", seconds, None)], wall(seconds), at(seconds));
            assert_eq!(plan(&mut state, &mut view, seconds), "0>us");
        }
    }

    #[test]
    fn fleets_that_report_their_cpu_are_rebalanced_now_and_then() {
        let (mut state, mut view) = (LeaderState::begin(), View::default());
        let mut is_due = |seconds, workers: &[Item]| {
            state.note_workers(workers, wall(seconds), at(seconds));
            plan(&mut state, &mut view, seconds);
            state.rebalanced.as_ref().is_some_and(|(_, when)| *when == at(seconds))
        };
        let busy = |names: &[&str], seconds| {
            names.iter().map(|name| report(name, seconds, Some(50.0))).collect::<Vec<_>>()
        };
        assert!(is_due(0, &busy(&["a", "b"], 0)));
        assert!(!is_due(59, &busy(&["a", "b"], 59)));
        assert!(is_due(60, &busy(&["a", "b"], 60)));
        assert!(is_due(61, &busy(&["a", "b", "c"], 61)), "a worker joined");
        let silent = |seconds| [report("a", seconds, None)];
        assert!(is_due(62, &silent(62)) && is_due(63, &silent(63)), "throughput shows a move at once");
    }

    #[test]
    fn rows_of_workers_are_sorted_by_what_they_say() {
        let mut state = LeaderState::begin();
        let mut broken = report("broken", 0, None);
        broken.remove("lut");
        let rows = [report("a", 0, None), report("a", 9, None), report("silent", 0, None), broken];
        let day = 24 * 60 * 60;
        let found = state.note_workers(&rows, wall(61), at(61));
        assert_eq!((found.abandoned.len(), found.invalid.len()), (0, 1));
        assert_eq!(state.workers().iter().map(|stats| stats.updated).collect::<Vec<_>>(), [WALL + 9]);
        let found = state.note_workers(&rows, wall(day + 5), at(day + 5));
        assert_eq!(found.abandoned.iter().map(|stats| stats.worker.as_str()).collect::<Vec<_>>(), ["silent"]);
    }

    #[test]
    fn a_leader_resigns_after_three_failed_runs_in_a_row() {
        let mut state = LeaderState::begin();
        for is_successful in [false, false, true, false, false] {
            state.note_run(is_successful);
            assert!(!state.must_resign());
        }
        state.note_run(false);
        assert!(state.must_resign());
    }
}
