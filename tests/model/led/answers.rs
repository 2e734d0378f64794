//! What the crate says to these worlds: the row is spelled out, and the answers cut down again.

use std::time::Duration;

use kinesis_consumer::internals::{
    Handoffs, Known, LeaseAssignment, LeaseHold, is_given_to, learn, note_handoffs, observe_scan, outcome_of,
    plan_moves,
};
use kinesis_consumer::lease::{Lease, LeaseWrite, WriteOutcome};
use kinesis_consumer::{AssignmentStrategy, Checkpoint, CoordinationConfig, LeaseKey, Moment, WorkerId};

use super::world::{Held, Owners, Seen, WORKERS};
pub(crate) use crate::answers::{NOW, age, ago, name, owner};
use crate::answers::{behind, number, serve, ticks_since, written_by_counter};
use crate::rules::Answer;
pub(crate) use crate::rules::FAILOVER;
use crate::world::{AGE_MAX, NOBODY};

/// A handoff may take the failover time and this.
const HANDOFF_TIMEOUT: Duration = Duration::from_secs(1);
/// The present counter of the row.
const COUNTER: u64 = 10;
/// Enough to see every order of two leases.
const SEEDS: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    Renew,
    /// Gives the lease back or, in a handoff, to the next owner.
    Release,
}

/// What a holder's write came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrote {
    /// The row, if it was written.
    pub(crate) row: Option<Owners>,
    pub(crate) held: Option<Held>,
    /// The row as it was last seen by who holds it no longer.
    pub(crate) last_seen: (u8, Owners),
}

fn key() -> LeaseKey {
    LeaseKey::from("lease")
}

/// A version of the row, this many counts before the present one.
fn lease(behind: u8, (owner, old): Owners) -> Lease {
    let worker = |owner: u8| owner.checked_sub(1).map(|worker| name(worker.into()));
    let mut row = Lease::new(key(), Checkpoint::TrimHorizon);
    row.counter = COUNTER - u64::from(behind);
    row.owner = worker(owner);
    row.checkpoint_owner = worker(old);
    row
}

fn owners(row: &Lease) -> Owners {
    let of = |worker: &Option<WorkerId>| worker.as_ref().map_or(NOBODY, number);
    (of(&row.owner), of(&row.checkpoint_owner))
}

pub(crate) fn is_valid(age: u8) -> bool {
    LeaseHold::new(lease(0, (NOBODY, NOBODY)), name(0), FAILOVER, ago(age)).is_held(NOW)
}

/// Whether a worker that finds this row takes the lease up.
pub(crate) fn is_for(worker: usize, row: Owners) -> bool {
    is_given_to(&name(worker), &lease(0, row))
}

fn known(seen: Option<Seen>) -> Known {
    let known = |seen: Seen| (lease(seen.behind, seen.owners), Some(ago(seen.age)), seen.is_acknowledged);
    seen.map(known).into_iter().collect()
}

fn handoff_ends(begun: u8) -> Moment {
    ago(begun) + HANDOFF_TIMEOUT + FAILOVER
}

fn handoffs(begun: Option<u8>) -> Handoffs {
    let mut handoffs = Handoffs::default();
    if let Some(begun) = begun {
        handoffs.begin(key(), handoff_ends(begun));
    }
    handoffs
}

fn seen(known: Known, scanned: u8, handoffs: &Handoffs) -> Option<Seen> {
    let (row, changed, is_acknowledged) = known.into_iter().next()?;
    let begun = handoffs.until(&key()).filter(|_| row.checkpoint_owner.is_some());
    let handoff = begun.and_then(|until| (0..=AGE_MAX).find(|&begun| handoff_ends(begun) == until));
    let (behind, owners) = (behind(&row, COUNTER), owners(&row));
    let age = changed.map_or(0, |changed| ticks_since(changed).min(Seen::age_max(is_acknowledged)));
    Some(Seen { behind, owners, age, is_acknowledged, scanned, handoff })
}

/// What is known after a scan that shows the row this many counts behind.
pub(crate) fn after_scan(before: Option<Seen>, (behind, row): (u8, Owners)) -> Option<Seen> {
    let known = observe_scan(known(before), vec![lease(behind, row)], NOW);
    let begun = handoffs(before.and_then(|seen| seen.handoff));
    let handoffs = note_handoffs(begun, known.clone(), handoff_ends(0));
    seen(known, 0, &handoffs)
}

/// What a leader knows that has been shown the row, and perhaps has begun to hand it over.
pub(crate) fn after_learning(before: Seen, (behind, row): (u8, Owners), begins: bool) -> Option<Seen> {
    let known = learn(known(Some(before)), lease(behind, row), NOW);
    seen(known, before.scanned, &handoffs(if begins { Some(0) } else { before.handoff }))
}

/// What `leader` does that knows this: if these workers are active and one of them has another lease
/// besides, with other names, as of equally busy workers the first by name is given a lease.
pub(crate) fn plan(
    seen: Seen,
    leader: usize,
    active: &[usize],
    busy: Option<usize>,
    strategy: AssignmentStrategy,
    names: [u8; WORKERS],
    seed: u64,
) -> Option<LeaseAssignment> {
    let called = |worker: usize| usize::from(names[worker]);
    let renamed =
        |owner: u8| owner.checked_sub(1).map_or(NOBODY, |worker| self::owner(called(worker.into())));
    let row = (renamed(seen.owners.0), renamed(seen.owners.1));
    let mut known = known(Some(Seen { owners: row, ..seen }));
    if let Some(worker) = busy {
        let mut other = Lease::new("other", Checkpoint::TrimHorizon);
        other.owner = Some(name(called(worker)));
        known.push((other, Some(NOW), true));
    }
    let active: Vec<WorkerId> = active.iter().map(|&worker| name(called(worker))).collect();
    let (handoffs, then) = (handoffs(seen.handoff), ago(seen.scanned));
    let mut coordination = CoordinationConfig::default();
    coordination.failover_time = FAILOVER;
    coordination.leader.assignment_strategy = strategy;
    let moves = plan_moves(known, &name(called(leader)), &active, &handoffs, &coordination, then, seed);
    let mut moved = moves.into_iter().find(|moved| moved.lease.key == key())?;
    let to = (0..WORKERS).find(|&worker| name(called(worker)) == moved.to).expect("one of them");
    moved.lease = lease(seen.behind, seen.owners);
    moved.to = name(to);
    Some(moved)
}

/// Everything that `leader` might do, whichever workers are active.
pub(crate) fn plans(
    seen: Seen,
    leader: usize,
    workers: usize,
    names: &[[u8; WORKERS]],
) -> Vec<LeaseAssignment> {
    let mut all = Vec::new();
    let sets =
        (1..1_usize << workers).map(|set| (0..workers).filter(|worker| set >> worker & 1 == 1).collect());
    for active in sets.collect::<Vec<Vec<usize>>>() {
        for busy in (0..workers).map(Some).chain([None]) {
            for strategy in [AssignmentStrategy::WorkerUtilizationAware, AssignmentStrategy::LeaseCountBased]
            {
                for &names in names {
                    for seed in 0..SEEDS {
                        let planned = plan(seen, leader, &active, busy, strategy, names, seed);
                        all.extend(planned.filter(|moved| !all.contains(moved)));
                    }
                }
            }
        }
    }
    all
}

/// A leader's write, or the renewal by which a worker takes up the lease, to the row as it is: what
/// becomes of it, and whether its counter stays.
pub(crate) fn written(write: &LeaseWrite, present: Owners) -> Result<Option<(Owners, bool)>, String> {
    match outcome_of(write, &lease(0, present))? {
        WriteOutcome::Applied(row) if row.counter == COUNTER || row.counter == COUNTER + 1 => {
            Ok(Some((owners(&row), row.counter == COUNTER)))
        }
        WriteOutcome::Applied(row) => {
            Err(format!("counter: a write made it {} after {COUNTER}", row.counter))
        }
        WriteOutcome::Refused(_) => Ok(None),
    }
}

/// The write by which a worker takes up what it has found.
pub(crate) fn accept_assignments(found: Owners) -> LeaseWrite {
    LeaseWrite::renew(&lease(0, found), None)
}

/// What becomes of a holder's write.
pub(crate) fn carry_out(
    present: Owners,
    held: Held,
    worker: usize,
    write: Write,
    answer: Answer,
) -> Result<Wrote, String> {
    let me = name(worker);
    let mut present = lease(0, present);
    let of = if held.next == NOBODY { (owner(worker), NOBODY) } else { (held.next, owner(worker)) };
    let mut hold = LeaseHold::new(lease(held.behind, of), me, FAILOVER, ago(held.age));
    hold.indeterminate_since = held.doubted.map(ago);
    let request = match write {
        Write::Renew => hold.ask_to_renew(None, NOW),
        Write::Release => hold.ask_to_release(NOW),
    };
    let mut row = None;
    serve(&mut hold, &request, &mut present, answer, |held, before, after| {
        row = Some(owners(after));
        if after.counter != before.counter + 1 {
            return Err(format!("counter: a write made it {} after {}", after.counter, before.counter));
        }
        // The end of a handoff goes by the owners.
        let finishes = write == Write::Release && held.checkpoint_owner.is_some();
        if finishes { Ok(()) } else { written_by_counter(held, before) }
    })?;
    let (next, old) = owners(&hold.lease);
    let behind = behind(&hold.lease, present.counter);
    let after = Held {
        behind,
        age: age(hold.renewed),
        doubted: hold.indeterminate_since.map(age),
        next: if old == owner(worker) { next } else { NOBODY },
        is_overruled: held.is_overruled,
    };
    Ok(Wrote {
        row,
        held: (hold.loss().is_none() && write != Write::Release).then_some(after),
        last_seen: (behind, owners(&hold.lease)),
    })
}
