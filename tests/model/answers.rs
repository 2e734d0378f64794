//! What the crate says to a small world: its rows are spelled out as leases, and the answers cut down
//! again.

use std::collections::BTreeSet;
use std::time::Duration;

use kinesis_consumer::internals::{
    AfterClaim, AfterWrite, ClaimAttempts, Known, LeaseClaim, LeaseHold, NextWrite, WriteRequest, outcome_of,
};
use kinesis_consumer::kinesis::ChildShard;
use kinesis_consumer::lease::{Lease, WriteOutcome};
use kinesis_consumer::{Checkpoint, ExtendedSequenceNumber, HashKeyRange, LeaseKey, Moment, WorkerId};

use crate::rules::{Answer, Content, FAILOVER, Write, Wrote};
use crate::world::{AGE_MAX, END, Held, NOBODY, PARENT, Row, Seen, Version, WORKERS, World};

const TICK: Duration = Duration::from_secs(2);
pub(crate) const NOW: Moment = Moment::after_origin(Duration::from_secs(1000));
/// The present counter of every row.
const COUNTER: u64 = 10;

/// What becomes of an attempt to take a lease, with whatever it does when it is refused.
pub(crate) fn carry_out_take(
    present: &Lease,
    claim: &LeaseClaim,
    worker: usize,
) -> Result<Option<Content>, String> {
    let mut attempts = ClaimAttempts::new(claim.clone());
    loop {
        let outcome = outcome_of(&attempts.next_write(&name(worker)), present)?;
        match attempts.on_outcome(outcome) {
            AfterClaim::Won(row) => return judged(present, &row).map(Some),
            AfterClaim::Again => {}
            AfterClaim::Lost(_) => return Ok(None),
        }
    }
}

/// Serves `request` until it is settled, or until an answer is lost. `applied` is shown the row as the
/// worker had it, as it was and as it is after each write.
pub(crate) fn serve(
    hold: &mut LeaseHold,
    request: &WriteRequest,
    present: &mut Lease,
    answer: Answer,
    mut applied: impl FnMut(&Lease, &Lease, &Lease) -> Result<(), String>,
) -> Result<(), String> {
    // Refused for an earlier write, and once more for a handoff.
    for _ in 0..4 {
        let NextWrite::Send(write) = hold.next_write(request, NOW) else { return Ok(()) };
        let sent = hold.send(NOW);
        if answer == Answer::NotSent {
            return Ok(());
        }
        let outcome = outcome_of(&write, present)?;
        if let WriteOutcome::Applied(after) = &outcome {
            applied(&hold.lease, present, after)?;
            *present = Lease::clone(after);
        }
        if answer == Answer::Lost {
            return Ok(());
        }
        match hold.on_outcome(request, sent, outcome, NOW) {
            AfterWrite::Done | AfterWrite::Lost(_) => return Ok(()),
            AfterWrite::EarlierWritten | AfterWrite::HandoffBegan => {}
        }
    }
    Err("settled: a request goes on after four answers".into())
}

/// A write by the counter landed on the row as the worker had it.
pub(crate) fn written_by_counter(held: &Lease, before: &Lease) -> Result<(), String> {
    if held.counter != before.counter {
        return Err("ownership: a worker wrote to a row that others had written since".into());
    }
    Ok(())
}

/// How many counts of a row are after `known`; 2 is two or more.
pub(crate) fn behind(known: &Lease, present: u64) -> u8 {
    u8::try_from(present.saturating_sub(known.counter)).unwrap_or(2).min(2)
}

/// What becomes of a holder's write.
pub(crate) fn carry_out(
    present: &Lease,
    lease: usize,
    held: Held,
    worker: usize,
    write: Write,
    answer: Answer,
) -> Result<Wrote, String> {
    let me = name(worker);
    let mut present = present.clone();
    let checkpoint = if held.behind == 0 { code(&present.checkpoint) } else { 0 };
    let before = self::lease(lease, u64::from(held.behind), owner(worker), checkpoint);
    let mut hold = LeaseHold::new(before, me.clone(), FAILOVER, ago(held.age));
    hold.indeterminate_since = held.doubted.map(ago);
    let target =
        position(if present.owner.as_ref() == Some(&me) { code(&present.checkpoint) + 1 } else { 1 });
    let request = match write {
        Write::Renew => hold.ask_to_renew(None, NOW),
        Write::Checkpoint => hold.ask_for_checkpoint(&target, NOW),
        Write::End => hold.ask_for_checkpoint(&Checkpoint::ShardEnd, NOW),
        Write::Release => hold.ask_to_release(NOW),
    };
    let mut row = None;
    serve(&mut hold, &request, &mut present, answer, |held, before, after| {
        row = Some(judged(before, after)?);
        written_by_counter(held, before)
    })?;
    if hold.lease.checkpoint_owner.is_some() {
        return Err("takes: a handoff in a fleet without a leader".into());
    }
    let behind = behind(&hold.lease, present.counter);
    let seen = (behind, content(&hold.lease));
    let held = Held {
        behind,
        age: age(hold.renewed),
        doubted: hold.indeterminate_since.map(age),
        started: held.started,
    };
    let ends = hold.loss().is_some() || write == Write::Release || hold.lease.checkpoint.is_shard_end();
    Ok(Wrote { row, held: (!ends).then_some(held), last_seen: seen })
}

/// A row after a write, unless it must not be that.
pub(crate) fn judged(before: &Lease, after: &Lease) -> Result<Content, String> {
    if after.counter != before.counter + 1 {
        let (before, after) = (before.counter, after.counter);
        return Err(format!("counter: a write made it {after} after {before}"));
    }
    if after.checkpoint < before.checkpoint {
        return Err(format!("checkpoints: back from {} to {}", before.checkpoint, after.checkpoint));
    }
    if before.checkpoint.is_shard_end() && after.owner != before.owner && after.owner.is_some() {
        return Err("takes: a shard that has ended was taken".into());
    }
    Ok(content(after))
}

pub(crate) fn content(row: &Lease) -> Content {
    (row.owner.as_ref().map_or(NOBODY, number), code(&row.checkpoint))
}

pub(crate) fn name(worker: usize) -> WorkerId {
    WorkerId::from(["a", "b", "c"][worker])
}

pub(crate) fn owner(worker: usize) -> u8 {
    u8::try_from(worker).expect("few") + 1
}

pub(crate) fn number(name: &WorkerId) -> u8 {
    (0..WORKERS).find(|&worker| self::name(worker) == *name).map_or(NOBODY, owner)
}

pub(crate) fn key(lease: usize) -> LeaseKey {
    LeaseKey::from(["parent", "left", "right"][lease])
}

pub(crate) fn row(world: &World, lease: usize) -> Lease {
    lease_of(lease, world.rows[lease])
}

pub(crate) fn lease_of(lease: usize, row: Row) -> Lease {
    self::lease(lease, 0, row.owner, row.checkpoint)
}

/// A version of a row, this many before the present one.
pub(crate) fn lease(lease: usize, behind: u64, owner: u8, checkpoint: u8) -> Lease {
    let checkpoint = match checkpoint {
        0 => Checkpoint::TrimHorizon,
        END => Checkpoint::ShardEnd,
        number => position(number),
    };
    let mut row = Lease::new(key(lease), checkpoint);
    row.counter = COUNTER - behind;
    row.owner = owner.checked_sub(1).map(|worker| name(worker.into()));
    if lease != PARENT {
        row.parents = BTreeSet::from(["parent".into()]);
    }
    row
}

pub(crate) fn position(number: u8) -> Checkpoint {
    ExtendedSequenceNumber::new(u128::from(number).into(), 0).into()
}

pub(crate) fn code(checkpoint: &Checkpoint) -> u8 {
    (0..END).find(|&number| position(number) == *checkpoint).unwrap_or(if checkpoint.is_shard_end() {
        END
    } else {
        0
    })
}

pub(crate) fn children() -> [ChildShard; 2] {
    let child = |id: &str, (start, end)| {
        ChildShard::new(id, ["parent".into()], HashKeyRange::new(start, end).expect("a range"))
    };
    [child("left", (0, 4)), child("right", (5, 9))]
}

pub(crate) fn ago(age: u8) -> Moment {
    Moment::after_origin(NOW.since(Moment::ORIGIN) - TICK * u32::from(age))
}

pub(crate) fn age(then: Moment) -> u8 {
    ticks_since(then).min(AGE_MAX)
}

pub(crate) fn ticks_since(then: Moment) -> u8 {
    u8::try_from(NOW.since(then).as_secs() / TICK.as_secs()).unwrap_or(u8::MAX)
}

/// What is known of one lease, as the crate keeps it.
pub(crate) fn known(lease: usize, seen: Seen) -> Known {
    let behind = match seen.version {
        Version::Never => return Known::new(),
        Version::Older => 2,
        Version::Before => 1,
        Version::Present => 0,
    };
    let row = self::lease(lease, behind, seen.owner, if seen.ended { END } else { 0 });
    vec![(row, Some(ago(seen.age)), true)]
}

pub(crate) fn seen_again(known: &Known) -> Seen {
    let Some((row, changed, _)) = known.first() else { return Seen::default() };
    Seen {
        version: match COUNTER - row.counter {
            0 => Version::Present,
            1 => Version::Before,
            _ => Version::Older,
        },
        owner: row.owner.as_ref().map_or(NOBODY, number),
        ended: row.checkpoint.is_shard_end(),
        age: changed.map_or(0, age),
    }
}
