//! A lease table, what each worker knows of it and holds, and everything that can happen next. Plans
//! and writes are the crate's own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt;
use kinesis_consumer::internals::{Known, learn, observe_scan, plan_takes};
use kinesis_consumer::lease::{Lease, LeaseStore, LeaseWrite, MemoryLeaseStore, WriteOutcome};
use kinesis_consumer::{Checkpoint, ExtendedSequenceNumber, LeaseKey, Moment, WorkerId};

/// Time goes in ticks.
const TICK: Duration = Duration::from_secs(1);
const FAILOVER: u32 = 2;
/// Ages beyond this make no difference.
const AGE_MAX: u32 = FAILOVER + 1;
/// Now, in every state: only ages count.
const NOW: Moment = Moment::after_origin(Duration::from_secs(1000));
const CHECKPOINT_MAX: u128 = 1;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct World {
    pub(crate) rows: BTreeMap<LeaseKey, Lease>,
    /// The rows before the last write: what a stale scan shows.
    earlier: BTreeMap<LeaseKey, Lease>,
    pub(crate) workers: Vec<Worker>,
    crashes_left: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Worker {
    pub(crate) is_alive: bool,
    known: Known,
    pub(crate) held: BTreeMap<LeaseKey, Held>,
}

/// A lease as its holder last wrote it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Held {
    pub(crate) lease: Lease,
    /// Ticks since the last write that is known to have landed was sent.
    age: u32,
    in_doubt: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Action {
    Tick,
    Scan {
        worker: usize,
        stale: bool,
    },
    Take {
        worker: usize,
        seed: u64,
        answer_lost: bool,
    },
    Renew {
        worker: usize,
        key: LeaseKey,
        answer_lost: bool,
    },
    Checkpoint {
        worker: usize,
        key: LeaseKey,
    },
    /// Stores the end of the parent, whose children get leases before.
    End {
        worker: usize,
        key: LeaseKey,
    },
    Release {
        worker: usize,
        key: LeaseKey,
    },
    Crash {
        worker: usize,
    },
    Restart {
        worker: usize,
    },
}

pub(crate) fn name(worker: usize) -> WorkerId {
    WorkerId::from(["a", "b", "c", "d"][worker])
}

impl World {
    pub(crate) fn new(workers: usize, leases: &[&str], crashes: u32) -> Self {
        let row = |id: &&str| (LeaseKey::from(*id), Lease::new(*id, Checkpoint::TrimHorizon));
        let rows: BTreeMap<_, _> = leases.iter().map(row).collect();
        let worker = Worker { is_alive: true, known: Vec::new(), held: BTreeMap::new() };
        Self { earlier: rows.clone(), rows, workers: vec![worker; workers], crashes_left: crashes }
    }

    /// Everything that can happen next.
    pub(crate) fn actions(&self) -> Vec<Action> {
        let mut actions = vec![Action::Tick];
        let alive = self.workers.iter().filter(|worker| worker.is_alive).count();
        for (worker, state) in self.workers.iter().enumerate() {
            if !state.is_alive {
                actions.push(Action::Restart { worker });
                continue;
            }
            actions.extend([false, true].map(|stale| Action::Scan { worker, stale }));
            let seeds = if self.rows.len() > 1 { 2 } else { 1 };
            for seed in 0..seeds {
                actions.extend([false, true].map(|lost| Action::Take { worker, seed, answer_lost: lost }));
            }
            for (key, held) in &state.held {
                let key = || key.clone();
                actions.extend([false, true].map(|lost| Action::Renew {
                    worker,
                    key: key(),
                    answer_lost: lost,
                }));
                if held.lease.checkpoint < number(CHECKPOINT_MAX) {
                    actions.push(Action::Checkpoint { worker, key: key() });
                }
                if key().as_str() == "parent" {
                    actions.push(Action::End { worker, key: key() });
                }
                actions.push(Action::Release { worker, key: key() });
            }
            if self.crashes_left > 0 && alive > 1 {
                actions.push(Action::Crash { worker });
            }
        }
        actions
    }

    /// Lets something happen; an error if it must not have been possible.
    pub(crate) fn apply(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Tick => self.tick(),
            Action::Scan { worker, stale } => {
                let rows = if *stale { &self.earlier } else { &self.rows };
                let scan = rows.values().cloned().collect();
                let state = &mut self.workers[*worker];
                state.known = observe_scan(std::mem::take(&mut state.known), scan, NOW);
            }
            Action::Take { worker, seed, answer_lost } => self.take(*worker, *seed, *answer_lost)?,
            Action::Renew { worker, key, answer_lost } => {
                self.write_held(*worker, key, *answer_lost, |lease| LeaseWrite::renew(lease, None))?;
            }
            Action::Checkpoint { worker, key } => {
                let next = |lease: &Lease| match &lease.checkpoint {
                    Checkpoint::Sequence(position)
                        if *position == ExtendedSequenceNumber::new(0.into(), 0) =>
                    {
                        1
                    }
                    _ => 0,
                };
                self.write_held(*worker, key, false, |lease| {
                    LeaseWrite::checkpoint(lease, &number(next(lease)))
                })?;
            }
            Action::End { worker, key } => {
                for child in ["left", "right"] {
                    let mut lease = Lease::new(child, Checkpoint::TrimHorizon);
                    lease.parents = BTreeSet::from(["parent".into()]);
                    self.rows.entry(child.into()).or_insert(lease);
                }
                self.write_held(*worker, key, false, |lease| {
                    LeaseWrite::checkpoint(lease, &Checkpoint::ShardEnd)
                })?;
                self.workers[*worker].held.remove(key);
            }
            Action::Release { worker, key } => {
                let id = name(*worker);
                self.write_held(*worker, key, false, |lease| LeaseWrite::release(lease, &id))?;
                self.workers[*worker].held.remove(key);
            }
            Action::Crash { worker } => {
                self.workers[*worker] = Worker { is_alive: false, known: Vec::new(), held: BTreeMap::new() };
                self.crashes_left -= 1;
            }
            Action::Restart { worker } => self.workers[*worker].is_alive = true,
        }
        self.check()?;
        self.normalize();
        Ok(())
    }

    fn tick(&mut self) {
        for worker in &mut self.workers {
            for (_, changed) in &mut worker.known {
                *changed = changed.map(|changed| before(age(changed) + 1));
            }
            // A holder stops by its own clock.
            worker.held.retain(|_, held| {
                held.age += 1;
                held.age < FAILOVER
            });
        }
    }

    fn take(&mut self, worker: usize, seed: u64, answer_lost: bool) -> Result<(), String> {
        let state = &self.workers[worker];
        let held: BTreeSet<LeaseKey> = state.held.keys().cloned().collect();
        let plan = plan_takes(state.known.clone(), &held, &name(worker), TICK * FAILOVER, NOW, seed);
        for (lease, from_the_dead) in plan {
            let outcome = self.write(&LeaseWrite::take(&lease, &name(worker)))?;
            if answer_lost {
                continue;
            }
            let state = &mut self.workers[worker];
            if let WriteOutcome::Applied(row) | WriteOutcome::Refused(Some(row)) = &outcome {
                state.known = learn(std::mem::take(&mut state.known), (**row).clone(), NOW);
            }
            if let WriteOutcome::Applied(row) = outcome {
                state.held.insert(row.key.clone(), Held { lease: *row, age: 0, in_doubt: false });
                let others = self.workers.iter().enumerate().filter(|(other, _)| *other != worker);
                if from_the_dead && others.clone().any(|(_, other)| other.held.contains_key(&lease.key)) {
                    return Err(format!("{} was taken from a worker that still holds it", lease.key));
                }
            }
        }
        Ok(())
    }

    /// A write of a holder, as `HeldLease` makes it.
    fn write_held(
        &mut self,
        worker: usize,
        key: &LeaseKey,
        answer_lost: bool,
        build: impl Fn(&Lease) -> LeaseWrite,
    ) -> Result<(), String> {
        for _ in 0..2 {
            let Some(held) = self.workers[worker].held.get(key).cloned() else { return Ok(()) };
            let outcome = self.write(&build(&held.lease))?;
            let state = &mut self.workers[worker];
            let held = state.held.get_mut(key).expect("held");
            match outcome {
                _ if answer_lost => held.in_doubt = true,
                WriteOutcome::Applied(row) => *held = Held { lease: *row, age: 0, in_doubt: false },
                WriteOutcome::Refused(Some(row))
                    if held.in_doubt
                        && row.owner == Some(name(worker))
                        && row.counter == held.lease.counter + 1 =>
                {
                    (held.lease, held.in_doubt) = (*row, false);
                    continue;
                }
                WriteOutcome::Refused(row) => {
                    state.held.remove(key);
                    if let Some(row) = row {
                        state.known = learn(std::mem::take(&mut state.known), *row, NOW);
                    }
                }
            }
            return Ok(());
        }
        Ok(())
    }

    /// Carries a write out by the rules of the table in memory.
    fn write(&mut self, write: &LeaseWrite) -> Result<WriteOutcome, String> {
        let table = MemoryLeaseStore::default();
        let before = self.rows.get(&write.key).cloned();
        if let Some(row) = &before {
            table.create(row).now_or_never().expect("at once").expect("created");
        }
        let outcome = table.apply(write).now_or_never().expect("at once").expect("well-formed");
        if let (WriteOutcome::Applied(row), Some(before)) = (&outcome, before) {
            if row.counter != before.counter + 1 {
                return Err(format!(
                    "{}: the counter went from {} to {}",
                    row.key, before.counter, row.counter
                ));
            }
            if row.checkpoint < before.checkpoint {
                return Err(format!("{}: back from {} to {}", row.key, before.checkpoint, row.checkpoint));
            }
            self.earlier = self.rows.clone();
            self.rows.insert(row.key.clone(), (**row).clone());
        }
        Ok(outcome)
    }

    /// At most one holder per (lease, counter).
    fn check(&self) -> Result<(), String> {
        let mut holders = BTreeSet::new();
        for held in self.workers.iter().flat_map(|worker| worker.held.values()) {
            if !holders.insert((&held.lease.key, held.lease.counter)) {
                return Err(format!("two workers hold {} at {}", held.lease.key, held.lease.counter));
            }
        }
        Ok(())
    }

    /// Without faults, every lease soon has an owner that lives and knows of it.
    pub(crate) fn recovers(mut self) -> Result<(), String> {
        for _ in 0..2 * FAILOVER + 4 {
            for worker in
                (0..self.workers.len()).filter(|&worker| self.workers[worker].is_alive).collect::<Vec<_>>()
            {
                self.apply(&Action::Scan { worker, stale: false })?;
                self.apply(&Action::Take { worker, seed: 0, answer_lost: false })?;
                for key in self.workers[worker].held.keys().cloned().collect::<Vec<_>>() {
                    self.apply(&Action::Renew { worker, key, answer_lost: false })?;
                }
            }
            self.tick();
        }
        for row in self.rows.values().filter(|row| !row.checkpoint.is_shard_end()) {
            let is_held = (0..self.workers.len()).any(|worker| {
                row.owner == Some(name(worker)) && self.workers[worker].held.contains_key(&row.key)
            });
            if !is_held {
                return Err(format!("{} stays with {:?}, who does not hold it", row.key, row.owner));
            }
        }
        Ok(())
    }

    /// Makes states equal that behave alike: of counters only the order and small differences count,
    /// of times only the age up to a limit.
    fn normalize(&mut self) {
        let mut counters: BTreeMap<LeaseKey, BTreeMap<u64, u64>> = BTreeMap::new();
        self.each_lease(|lease| {
            counters.entry(lease.key.clone()).or_default().insert(lease.counter, 0);
        });
        for counters in counters.values_mut() {
            let (mut last, mut next) = (0, 0);
            for (counter, short) in counters {
                next += (counter - last).min(2);
                (last, *short) = (*counter, next);
            }
        }
        self.each_lease(|lease| {
            lease.counter = counters[&lease.key][&lease.counter];
            lease.owner_switches = 0;
        });
        for worker in &mut self.workers {
            for (_, changed) in &mut worker.known {
                *changed = changed.map(|changed| before(age(changed).min(AGE_MAX)));
            }
        }
    }

    fn each_lease(&mut self, mut visit: impl FnMut(&mut Lease)) {
        self.rows.values_mut().chain(self.earlier.values_mut()).for_each(&mut visit);
        for worker in &mut self.workers {
            worker.known.iter_mut().for_each(|(lease, _)| visit(lease));
            worker.held.values_mut().for_each(|held| visit(&mut held.lease));
        }
    }
}

fn number(number: u128) -> Checkpoint {
    ExtendedSequenceNumber::new(number.into(), 0).into()
}

fn age(changed: Moment) -> u32 {
    u32::try_from(NOW.since(changed).as_secs()).expect("a small world")
}

fn before(age: u32) -> Moment {
    Moment::after_origin(Duration::from_secs(1000 - u64::from(age)))
}
