use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::shuffle::leads;
use super::state::{ClientVersion, MigrationState, initial_version, key, store};
use crate::config::CoordinationMode;
use crate::coordination::Worker;
use crate::coordination::worker_metrics::WorkerStats;
use crate::lease::{EntityKind, EntityOutcome, Item, Lease, StoreError, StoreErrorKind};
use crate::metrics::{Operation, names};
use crate::types::{Moment, WorkerId};

/// How often the row is looked at (KCL's `ClientVersionChangeMonitor`, `MigrationReadyMonitor`).
const PERIOD: Duration = Duration::from_secs(60);
/// Workers that start together lose races for the row.
const TRIES: usize = 10;

/// Finds out where the fleet is, and stores that it has moved on if this worker is to say so.
///
/// # Errors
///
/// If the row cannot be read or stored, or names a version that this crate does not know.
pub(crate) async fn initialize(worker: &Worker) -> Result<ClientVersion, StoreError> {
    for _ in 0..TRIES {
        let stored = stored(worker).await?;
        let mode = worker.context.coordination.mode;
        let (version, must_store) = initial_version(mode, stored.as_ref().map(|stored| stored.version));
        if !must_store || change(worker, stored.as_ref(), version).await? {
            worker.protocol.set(version.protocol());
            return Ok(version);
        }
    }
    Err(StoreError::new(StoreErrorKind::Unavailable, "UpdateMigrationState", key().as_str())
        .with_detail("the row changes all the time; try again"))
}

/// Follows the fleet from one protocol to another, and moves it on when it is ready and this worker
/// leads it, for as long as it is polled.
pub(crate) async fn run(worker: Arc<Worker>, version: ClientVersion) {
    if worker.context.coordination.mode == CoordinationMode::Independent {
        return std::future::pending().await;
    }
    let mut version = version;
    let mut ready_since: Option<Moment> = None;
    let first = PERIOD.mul_f64(0.5 * worker.context.seeds.rng().f64());
    worker.context.clock.sleep(first).await;
    while version.may_change() {
        match stored(&worker).await {
            Ok(Some(state)) if state.version != version => {
                tracing::info!(from = %version, to = %state.version, "the fleet changes its protocol");
                version = state.version;
                ready_since = None;
                worker.protocol.set(version.protocol());
                worker.wake.notify_one();
            }
            Ok(Some(state)) if version == ClientVersion::UpgradeFrom2x => {
                match is_ready(&worker).await {
                    Ok(ready) => {
                        let now = worker.context.clock.now();
                        let since = *ready_since.get_or_insert(now);
                        if !ready {
                            ready_since = None;
                        } else if now.since(since) >= worker.context.coordination.leader.ready_for {
                            match change(&worker, Some(&state), ClientVersion::V3xWithRollback).await {
                                // Noticed like anybody else's change.
                                Ok(_) => continue,
                                Err(error) => {
                                    worker.context.coordination_failed("UpdateMigrationState", &error)
                                }
                            }
                        }
                    }
                    Err(error) => {
                        // It may have been unready meanwhile.
                        ready_since = None;
                        worker.context.coordination_failed("MigrationReadiness", &error);
                    }
                }
            }
            Ok(_) => {}
            Err(error) => worker.context.coordination_failed("GetMigrationState", &error),
        }
        worker.context.clock.sleep(PERIOD).await;
    }
    std::future::pending().await
}

async fn stored(worker: &Worker) -> Result<Option<MigrationState>, StoreError> {
    let row = worker.context.store.entity(EntityKind::ClientVersionMigration, &key()).await?;
    row.map(MigrationState::from_item).transpose().map_err(|reason| {
        StoreError::new(StoreErrorKind::Malformed, "GetMigrationState", key().as_str()).with_detail(reason)
    })
}

/// Whether it was stored; if not, somebody else was faster.
async fn change(
    worker: &Worker,
    previous: Option<&MigrationState>,
    version: ClientVersion,
) -> Result<bool, StoreError> {
    let now = worker.context.clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let write = store(previous, version, &worker.context.id, millis);
    let outcome = worker.context.store.apply_to_entity(EntityKind::ClientVersionMigration, &write).await?;
    let is_stored = matches!(outcome, EntityOutcome::Applied(_));
    if is_stored {
        tracing::info!(%version, "stored how far the fleet has come");
    }
    Ok(is_stored)
}

/// Whether this worker leads the fleet by the rules of 2.x and finds it ready to be run by a leader:
/// the index of owners can be read, and every owner reports how busy it is.
async fn is_ready(worker: &Worker) -> Result<bool, StoreError> {
    let scan = worker.context.store.scan().await?;
    // The rows of shards that have ended may name workers that are long gone.
    let running: Vec<&Lease> = scan.leases.iter().filter(|lease| !lease.checkpoint.is_shard_end()).collect();
    let owners: BTreeSet<&WorkerId> = running.iter().filter_map(|lease| lease.owner.as_ref()).collect();
    // Java counts the owners of all rows. Who leads by either count may say that the fleet is ready.
    let of_all = scan.leases.iter().filter_map(|lease| lease.owner.as_ref());
    if !leads(&worker.context.id, owners.iter().copied()) && !leads(&worker.context.id, of_all) {
        return Ok(false);
    }
    let has_index = worker.context.store.ensure_owner_index().await?;
    // A lease that nobody owns keeps a fleet from being ready, as in KCL.
    let report = running.iter().all(|lease| lease.owner.is_some())
        && all_report(&scan.entities, &owners, worker.context.clock.wall());
    worker
        .context
        .metrics
        .operation(Operation::Migration)
        .add(names::GSI_READY, u64::from(has_index))
        .add(names::WORKER_METRICS_READY, u64::from(report));
    Ok(has_index && report)
}

/// Whether all of `owners` have reported lately how busy they are.
fn all_report(entities: &[Item], owners: &BTreeSet<&WorkerId>, wall: SystemTime) -> bool {
    let reporting: BTreeSet<WorkerId> = entities
        .iter()
        .filter_map(|row| WorkerStats::from_item(row).ok().flatten())
        .filter(|stats| stats.age(wall) < PERIOD && stats.is_valid())
        .map(|stats| stats.worker)
        .collect();
    owners.iter().all(|owner| reporting.contains(*owner))
}
