//! A fleet of 2.x that migrates to a leader: deployed worker by worker, twice.

use std::time::Duration;

use kinesis_consumer::lease::Attribute;

use super::World;
use crate::coordination::{Protocol, Stage};
use crate::faults::Odds;
use crate::history::EventKind;
use crate::rows::{self, MIGRATION, VERSION};

/// Probability per second that another worker is redeployed.
const DEPLOYS: f64 = 0.2;
/// A fleet without faults is ready after ten minutes, and checks once a minute.
const MIGRATED_WITHIN: Duration = Duration::from_secs(600 + 5 * 60);
const ROLLED_BACK: &str = "CLIENT_VERSION_2X";
const LED: &str = "CLIENT_VERSION_3X";
const MAY_ROLL_BACK: &str = "CLIENT_VERSION_3X_WITH_ROLLBACK";

impl World {
    /// Whether the migration state says that a leader runs the fleet.
    pub(super) fn is_led(&self) -> bool {
        matches!(self.version().as_deref(), Some(LED | MAY_ROLL_BACK))
    }

    fn version(&self) -> Option<String> {
        self.table.items().get(MIGRATION).and_then(|row| rows::text(row, VERSION))
    }

    /// From now on, workers start in the mode of the next stage.
    pub(super) fn next_stage(&mut self) {
        self.stage = match self.stage {
            Stage::Mixed => Stage::Compatible,
            Stage::Compatible | Stage::Led => Stage::Led,
        };
    }

    /// Replaces one worker that is behind, with some probability.
    pub(super) fn deploy(&mut self, seconds: f64) {
        if self.scenario.coordination.protocol == Protocol::Migrating && self.happens(DEPLOYS * seconds) {
            self.deploy_one();
        }
    }

    /// Restarts a worker under its name, or replaces it by another. False if none is behind.
    fn deploy_one(&mut self) -> bool {
        let stage = self.stage;
        let is_behind = |member: &super::Member| member.leave.is_some() && stage.is_behind(member.mode);
        let Some(index) = self.fleet.iter().position(is_behind) else { return false };
        if self.rng.bool() {
            let name = self.fleet[index].incarnation.worker.clone();
            self.kill(index);
            self.free_names.retain(|free| *free != name);
            self.join(Some(name));
        } else {
            self.ask_to_leave(index);
            self.join(None);
        }
        true
    }

    /// Stops all faults, completes the deployment of the current stage, and waits until a leader runs
    /// the fleet.
    pub(super) async fn migrate(&mut self) {
        self.stop_faults();
        while self.deploy_one() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let began = self.log.now();
        let mut after = None;
        while after.is_none() && self.log.now() - began <= MIGRATED_WITHIN {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.replace_finished_workers();
            after = self.is_led().then(|| self.log.now() - began);
        }
        self.log.record(EventKind::Migrated { after });
        let odds = self.scenario.odds.clone();
        self.resume_faults(&odds);
        if self.scenario.coordination.rolls_back && after.is_some() {
            // Some workers have noticed that the fleet is led, others not yet.
            let pause = self.rng.u64(1..120);
            tokio::time::sleep(Duration::from_secs(pause)).await;
            self.roll_back();
        }
    }

    fn resume_faults(&mut self, odds: &Odds) {
        self.log.record(EventKind::FaultsBegan);
        self.faults_stopped.store(false, std::sync::atomic::Ordering::Relaxed);
        self.fleet.iter().for_each(|member| member.faults.change(odds.clone()));
    }

    /// As KCL's migration tool does.
    fn roll_back(&mut self) {
        let row = self.table.items().get(MIGRATION).cloned();
        if let Some(mut row) = row.filter(|_| self.version().as_deref() == Some(MAY_ROLL_BACK)) {
            row.insert(VERSION.to_owned(), Attribute::S(ROLLED_BACK.to_owned()));
            self.table.insert_item(row);
            self.log.record(EventKind::RolledBack);
        }
    }
}
