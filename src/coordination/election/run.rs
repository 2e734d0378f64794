use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::lock::{ElectionAction, LockRow, LockView, Version, key};
use crate::coordination::Purpose;
use crate::coordination::Worker;
use crate::coordination::migration::Protocol;
use crate::error::with_causes;
use crate::events::Event;
use crate::lease::{EntityKind, EntityOutcome, LeaseWrite, StoreError, StoreErrorKind};
use crate::types::{Moment, WorkerId};

/// Heartbeats in the time for which a lock is good.
const HEARTBEATS: u32 = 4;
/// The least time between two looks at the lock.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// This worker's part in the election of a leader.
#[derive(Debug, Default)]
pub(crate) struct Election {
    state: Mutex<State>,
    /// Held while a request about the lock is under way.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    lock: LockView,
    /// No candidate before this.
    abstains_until: Option<Moment>,
}

impl Election {
    /// Whether this worker is the leader, however long the process was suspended.
    pub(crate) fn leads(&self, now: Moment) -> bool {
        self.state.lock().lock.leads(now)
    }

    /// Whether this worker may still carry out what it planned as the leader.
    pub(crate) fn may_assign(&self, now: Moment) -> bool {
        self.state.lock().lock.may_assign(now)
    }

    /// The leader as far as this worker knows.
    pub(crate) fn leader(&self) -> Option<WorkerId> {
        self.state.lock().lock.leader().cloned()
    }
}

/// The leader as far as this worker knows or, if it does not, the lock says.
pub(crate) async fn current_leader(worker: &Worker) -> Result<Option<WorkerId>, StoreError> {
    if let Some(leader) = worker.election.leader() {
        return Ok(Some(leader));
    }
    let row = worker.context.store.entity(EntityKind::Leader, &key()).await?;
    Ok(row.as_ref().and_then(LockRow::from_item).map(|row| row.owner))
}

/// Stands for election, and shows that it is alive while it is the leader, for as long as it is polled
/// and the fleet is run by a leader.
pub(crate) async fn run(worker: Arc<Worker>) {
    let mut rng = worker.context.seeds.rng();
    loop {
        if worker.protocol.get() != Protocol::Led {
            // The fleet was rolled back.
            resign(&worker, None).await;
            worker.health.answered(Purpose::Leading);
        }
        worker.protocol.until_led().await;
        if worker.context.stopping.is_cancelled() {
            // Nothing is acquired any more; what is held is given up by `resign`.
            return std::future::pending().await;
        }
        let now = worker.context.clock.now();
        worker.health.sent(Purpose::Leading, now);
        let next = match stand(&worker, &mut rng).await {
            Ok(next) => {
                worker.health.answered(Purpose::Leading);
                next
            }
            Err(error) => {
                worker.health.failed(Purpose::Leading, with_causes(&error));
                tracing::warn!(%error, "cannot reach the leader's lock; trying again");
                worker.context.coordination_failed("LeaderLock", &error);
                now + heartbeat(&worker) / 2
            }
        };
        let pause = next.since(worker.context.clock.now()).max(PAUSE_MIN);
        let _ = worker.context.stopping.run_until_cancelled(worker.context.clock.sleep(pause)).await;
    }
}

fn heartbeat(worker: &Worker) -> Duration {
    worker.context.coordination.leader_lease_duration() / HEARTBEATS
}

/// One look at the lock, and what follows from it. Returns when to look again.
async fn stand(worker: &Worker, rng: &mut fastrand::Rng) -> Result<Moment, StoreError> {
    let election = &worker.election;
    let _writing = election.writing.lock().await;
    let was_leader = election.state.lock().lock.leads_until().is_some();
    let since = worker.context.clock.now();
    if election.state.lock().abstains_until.is_some_and(|until| since < until) {
        return Ok(since + heartbeat(worker));
    }
    if !was_leader {
        let row = match worker.context.store.entity(EntityKind::Leader, &key()).await? {
            Some(row) => Some(LockRow::from_item(&row).ok_or_else(unreadable)?),
            None => None,
        };
        election.state.lock().lock.observe(row, worker.context.clock.now());
    }
    let mut next = since + heartbeat(worker);
    // A heartbeat that landed unnoticed is refused the next time, and the lock taken back at once.
    for _ in 0..2 {
        let sent = worker.context.clock.now();
        let duration = worker.context.coordination.leader_lease_duration();
        let version = Version::new(rng.u128(..));
        let planned = election.state.lock().lock.plan(&worker.context.id, duration, version, sent);
        match planned {
            ElectionAction::Acquire(write) | ElectionAction::Heartbeat(write) => {
                if put(worker, &write, sent).await? {
                    break;
                }
            }
            ElectionAction::Wait => {
                // There is nothing to see before, unless the leader resigns.
                if let Some(expires) = election.state.lock().lock.expires().filter(|expires| *expires > sent)
                {
                    next = next.min(expires + PAUSE_MIN);
                }
                break;
            }
        }
    }
    emit_change(worker, was_leader);
    Ok(next)
}

/// Nobody can lead as long as it is there.
fn unreadable() -> StoreError {
    StoreError::new(StoreErrorKind::Malformed, "GetEntity", key().as_str())
        .with_detail("the row of the leader's lock cannot be read; delete it, and a leader will be elected")
}

/// Whether this worker is the leader now.
async fn put(worker: &Worker, write: &LeaseWrite, sent: Moment) -> Result<bool, StoreError> {
    let row = match worker.context.store.apply_to_entity(EntityKind::Leader, write).await? {
        EntityOutcome::Applied(row) => LockRow::from_item(&row),
        EntityOutcome::Refused(row) => {
            let row = row.as_ref().and_then(LockRow::from_item);
            worker.election.state.lock().lock.observe(row, worker.context.clock.now());
            return Ok(false);
        }
    };
    if let Some(row) = row {
        worker.election.state.lock().lock.written(row, sent);
    }
    Ok(true)
}

fn emit_change(worker: &Worker, was_leader: bool) {
    let is_leader = worker.election.state.lock().lock.leads_until().is_some();
    if is_leader && !was_leader {
        tracing::info!("this worker is the leader now");
        worker.context.events.emit(Event::LeadershipGained);
        worker.wake.notify_one();
    } else if was_leader && !is_leader {
        tracing::info!("this worker is the leader no longer");
        worker.context.events.emit(Event::LeadershipLost);
    }
}

/// Gives the lock up if this worker holds it, so that another can lead at once, and stands for no
/// election before `abstains_until`. If the request fails, the lock runs out.
pub(crate) async fn resign(worker: &Worker, abstains_until: Option<Moment>) {
    let election = &worker.election;
    election.state.lock().abstains_until = abstains_until;
    let _writing = election.writing.lock().await;
    let resigned = election.state.lock().lock.resign(&worker.context.id);
    let Some(conditions) = resigned else { return };
    worker.context.events.emit(Event::LeadershipLost);
    match worker.context.store.delete_entity(EntityKind::Leader, &key(), &conditions).await {
        Ok(()) => tracing::info!("gave leadership up"),
        Err(error) => {
            tracing::warn!(%error, "cannot give leadership up; it runs out by itself");
            worker.context.coordination_failed("ReleaseLock", &error);
        }
    }
}
