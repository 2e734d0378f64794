//! A lease, given away and handed over by leaders that may all lead at once, taken up, renewed and given
//! back by workers that crash and whose answers get lost.

use std::collections::HashMap;

use kinesis_consumer::AssignmentStrategy;
use kinesis_consumer::internals::{AssignReason, LeaseAssignment};

use super::answers::{
    Write, Wrote, accept_assignments, after_learning, after_scan, carry_out, is_for, is_valid, name, owner,
    plan, plans, written,
};
use super::world::{Held, LedWorld, Owners, Seen, WORKERS, Worker, renamings};
use crate::explore::{Model, Renaming};
use crate::rules::{Answer, use_up};
use crate::world::{AGE_MAX, NOBODY};

#[derive(Debug, Clone, Copy)]
pub(crate) struct LedSetup {
    pub(crate) workers: usize,
    /// How many of them may lead.
    pub(crate) leaders: usize,
    pub(crate) crashes: u8,
    pub(crate) losses: u8,
    pub(crate) stale: u8,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Tick,
    Scan {
        worker: usize,
        stale: bool,
    },
    /// Does one of the things a leader may do that knows what this one does.
    Lead {
        worker: usize,
        number: usize,
        answer: Answer,
    },
    /// Takes up the lease as it was found, perhaps just before a handoff began.
    TakeUp {
        worker: usize,
        early: bool,
        answer: Answer,
    },
    Write {
        worker: usize,
        write: Write,
        answer: Answer,
    },
    Crash {
        worker: usize,
    },
}

/// The row as a scan shows it, this many counts before the present one.
type Shown = (u8, Owners);
/// What a holder writes, and what becomes of the answer.
type Attempt = (Held, usize, Write, Answer);

/// The rules by which these worlds go on: the crate's.
pub(crate) struct LedRules {
    setup: LedSetup,
    renamings: Vec<[u8; WORKERS]>,
    names: Vec<[u8; WORKERS]>,
    plans: HashMap<(Seen, usize), Vec<LeaseAssignment>>,
    /// What a leader does without faults, if these workers are alive.
    calm_plans: HashMap<(Seen, Vec<usize>), Option<LeaseAssignment>>,
    scans: HashMap<(Option<Seen>, Shown), Option<Seen>>,
    writes: HashMap<(Owners, Attempt), Result<Wrote, String>>,
}

impl LedRules {
    pub(crate) fn new(setup: LedSetup) -> Self {
        Self {
            setup,
            renamings: renamings(setup.workers, setup.leaders),
            names: renamings(setup.workers, setup.workers),
            plans: HashMap::new(),
            calm_plans: HashMap::new(),
            scans: HashMap::new(),
            writes: HashMap::new(),
        }
    }

    fn plans(&mut self, seen: Option<Seen>, leader: usize) -> &[LeaseAssignment] {
        let Some(seen) = seen else { return &[] };
        let (workers, names) = (self.setup.workers, &self.names);
        self.plans.entry((seen, leader)).or_insert_with(|| plans(seen, leader, workers, names))
    }

    fn calm_plan(&mut self, seen: Seen, alive: &[usize]) -> Option<LeaseAssignment> {
        let (strategy, names) = (AssignmentStrategy::WorkerUtilizationAware, self.names[0]);
        let planned = || plan(seen, alive[0], alive, None, strategy, names, 0);
        self.calm_plans.entry((seen, alive.to_vec())).or_insert_with(planned).clone()
    }

    fn tick(world: &mut LedWorld) {
        let older = |age: u8| (age + 1).min(AGE_MAX);
        for (name, worker) in (1..).zip(&mut world.workers) {
            if let Some(seen) = &mut worker.seen {
                seen.age = (seen.age + 1).min(Seen::age_max(seen.is_acknowledged));
                seen.scanned = older(seen.scanned);
                seen.handoff = seen.handoff.map(older);
            }
            let Some(held) = &mut worker.held else { continue };
            (held.age, held.doubted) = (older(held.age), held.doubted.map(older));
            // A holder stops by its own clock.
            if !is_valid(held.age) {
                let row = if held.next == NOBODY { (name, NOBODY) } else { (held.next, name) };
                let behind = held.behind;
                worker.held = None;
                worker.seen = worker.seen.and_then(|seen| after_learning(seen, (behind, row), false));
            }
        }
    }

    fn lead(
        world: &mut LedWorld,
        worker: usize,
        moved: &LeaseAssignment,
        answer: Answer,
    ) -> Result<(), String> {
        let outcome = written(&moved.to_write(), world.row)?;
        if answer != Answer::Comes {
            use_up(&mut world.losses_left);
        }
        let Some((row, is_same_counter)) = outcome else {
            if answer == Answer::Comes {
                Self::learn(world, worker, world.row, false);
            }
            return Ok(());
        };
        if is_same_counter != moved.is_graceful {
            return Err(format!("counter: it shows whether to `{moved}` was done"));
        }
        let is_held = world.workers.iter().any(|worker| worker.held.is_some_and(|held| !held.is_overruled));
        match moved.reason {
            AssignReason::Unassigned | AssignReason::Expired if is_held => {
                return Err("expiry: a lease was given away that a worker still holds".into());
            }
            AssignReason::Overdue => {
                let held = world.workers.iter_mut().filter_map(|worker| worker.held.as_mut());
                held.for_each(|held| held.is_overruled = true);
            }
            _ => {}
        }
        world.put(row, is_same_counter);
        if answer == Answer::Comes {
            Self::learn(world, worker, row, moved.is_graceful);
            let state = &mut world.workers[worker];
            if !moved.is_graceful && row.0 == owner(worker) && state.held.is_none() {
                // As good as a write that takes it up.
                state.held = Some(fresh());
                state.seen.iter_mut().for_each(Seen::acknowledge);
            }
        }
        Ok(())
    }

    fn learn(world: &mut LedWorld, worker: usize, row: Owners, begins: bool) {
        let seen = &mut world.workers[worker].seen;
        *seen = seen.and_then(|seen| after_learning(seen, (0, row), begins));
    }

    fn accept_assignments(
        world: &mut LedWorld,
        worker: usize,
        early: bool,
        answer: Answer,
    ) -> Result<(), String> {
        let Some(found) = Self::found(world, worker, early) else { return Ok(()) };
        if answer != Answer::Comes {
            use_up(&mut world.losses_left);
        }
        if let Some((row, is_same_counter)) = written(&accept_assignments(found), world.row)? {
            world.put(row, is_same_counter);
            if answer == Answer::Comes {
                world.workers[worker].held = Some(fresh());
            }
        }
        Ok(())
    }

    /// The row as a worker finds it that is to take it up.
    fn found(world: &LedWorld, worker: usize, early: bool) -> Option<Owners> {
        let found =
            if early { world.before.filter(|(_, is_same_counter)| *is_same_counter)?.0 } else { world.row };
        (world.workers[worker].held.is_none() && is_for(worker, found)).then_some(found)
    }

    fn write(
        &mut self,
        world: &mut LedWorld,
        worker: usize,
        write: Write,
        answer: Answer,
    ) -> Result<(), String> {
        let Some(held) = world.workers[worker].held else { return Ok(()) };
        let wrote = self
            .writes
            .entry((world.row, (held, worker, write, answer)))
            .or_insert_with(|| carry_out(world.row, held, worker, write, answer))
            .clone()?;
        if answer != Answer::Comes {
            use_up(&mut world.losses_left);
        }
        if let Some(row) = wrote.row {
            world.put(row, false);
        }
        let state = &mut world.workers[worker];
        state.held = wrote.held;
        if wrote.held.is_none() {
            state.seen = state.seen.and_then(|seen| after_learning(seen, wrote.last_seen, false));
        }
        Ok(())
    }

    /// Whether the owner holds the lease, and nobody else does.
    fn is_well(world: &LedWorld, alive: &[usize]) -> bool {
        let holds = |worker: usize| world.workers[worker].held.is_some_and(|held| held.behind == 0);
        let held = world.workers.iter().filter(|worker| worker.held.is_some()).count();
        world.row.1 == NOBODY
            && held == 1
            && alive.iter().any(|&worker| world.row.0 == owner(worker) && holds(worker))
    }
}

fn fresh() -> Held {
    Held { behind: 0, age: 0, doubted: None, next: NOBODY, is_overruled: false }
}

impl Model for LedRules {
    type World = LedWorld;
    type Code = LedWorld;
    type Action = Action;

    const ROUNDS_MAX: usize = 11;
    const REST: usize = 3;

    fn start(&self) -> LedWorld {
        let LedSetup { crashes, losses, stale, .. } = self.setup;
        LedWorld {
            row: (NOBODY, NOBODY),
            before: None,
            workers: [Worker::default(); WORKERS],
            crashes_left: crashes,
            losses_left: losses,
            stale_left: stale,
        }
    }

    fn actions(&mut self, world: &LedWorld) -> Vec<Action> {
        let is_lossy = world.losses_left > 0;
        let fates = || [Answer::Comes].into_iter().chain(is_lossy.then_some(Answer::Lost));
        let mut actions = vec![Action::Tick];
        for worker in 0..self.setup.workers {
            let state = &world.workers[worker];
            if worker < self.setup.leaders {
                actions.push(Action::Scan { worker, stale: false });
                if world.stale_left > 0 && world.before.is_some() {
                    actions.push(Action::Scan { worker, stale: true });
                }
                for number in 0..self.plans(state.seen, worker).len() {
                    actions.extend(fates().map(|answer| Action::Lead { worker, number, answer }));
                }
            }
            for early in [false, true] {
                if Self::found(world, worker, early).is_some() {
                    actions.extend(fates().map(|answer| Action::TakeUp { worker, early, answer }));
                }
            }
            if state.held.is_some() {
                for write in [Write::Renew, Write::Release] {
                    actions.extend(fates().map(|answer| Action::Write { worker, write, answer }));
                }
                if is_lossy {
                    actions.push(Action::Write { worker, write: Write::Renew, answer: Answer::NotSent });
                }
            }
            if world.crashes_left > 0 && *state != Worker::default() {
                actions.push(Action::Crash { worker });
            }
        }
        actions
    }

    fn apply(&mut self, mut world: LedWorld, action: Action) -> Result<LedWorld, String> {
        match action {
            Action::Tick => Self::tick(&mut world),
            Action::Scan { worker, stale } => {
                let shown = match world.before {
                    Some((row, is_same_counter)) if stale => (u8::from(!is_same_counter), row),
                    _ => (0, world.row),
                };
                let seen = &mut world.workers[worker].seen;
                *seen = *self.scans.entry((*seen, shown)).or_insert_with(|| after_scan(*seen, shown));
                if stale {
                    use_up(&mut world.stale_left);
                }
            }
            Action::Lead { worker, number, answer } => {
                let moved = self.plans(world.workers[worker].seen, worker)[number].clone();
                Self::lead(&mut world, worker, &moved, answer)?;
            }
            Action::TakeUp { worker, early, answer } => {
                Self::accept_assignments(&mut world, worker, early, answer)?
            }
            Action::Write { worker, write, answer } => self.write(&mut world, worker, write, answer)?,
            Action::Crash { worker } => {
                world.workers[worker] = Worker::default();
                world.crashes_left -= 1;
            }
        }
        world.check()?;
        Ok(world)
    }

    fn forget_what_does_not_matter(&self, world: &mut LedWorld) {
        world.forget_what_does_not_matter();
    }

    fn canonical(&self, world: LedWorld) -> (LedWorld, Renaming) {
        world.canonical(&self.renamings)
    }

    fn code(world: &LedWorld) -> LedWorld {
        *world
    }

    /// Those that may lead can do it alone.
    fn workers(&self) -> (usize, usize) {
        (self.setup.workers, self.setup.leaders)
    }

    fn calm_down(&self, world: &mut LedWorld, alive: &[usize]) {
        for worker in (0..WORKERS).filter(|worker| !alive.contains(worker)) {
            world.workers[worker] = Worker::default();
        }
        (world.crashes_left, world.losses_left, world.stale_left) = (0, 0, 0);
    }

    /// The first of those in `alive` leads, and all do what they find to do.
    fn round(&mut self, mut world: LedWorld, alive: &[usize]) -> Result<(LedWorld, bool), String> {
        let (leader, owner) = (alive[0], world.row.0);
        world = self.apply(world, Action::Scan { worker: leader, stale: false })?;
        let seen = world.workers[leader].seen;
        if let Some(moved) = seen.and_then(|seen| self.calm_plan(seen, alive)) {
            Self::lead(&mut world, leader, &moved, Answer::Comes)?;
        }
        for &worker in alive {
            let act = |write| Action::Write { worker, write, answer: Answer::Comes };
            world = self.apply(world, act(Write::Renew))?;
            if world.workers[worker].held.is_some_and(|held| held.next != NOBODY) {
                world = self.apply(world, act(Write::Release))?;
            }
            world = self.apply(world, Action::TakeUp { worker, early: false, answer: Answer::Comes })?;
        }
        let world = self.apply(world, Action::Tick)?;
        Ok((world, Self::is_well(&world, alive) && world.row.0 == owner))
    }

    fn sentence(&self, action: Action, names: Renaming) -> String {
        let who = |worker: usize| name(names.workers[worker].into());
        match action {
            Action::Tick => "two thirds of the failover time go by".to_owned(),
            Action::Scan { worker, stale } => {
                format!(
                    "{} scans the table{}",
                    who(worker),
                    if stale { " and sees it as it was" } else { "" }
                )
            }
            Action::Lead { worker, answer, .. } => {
                format!("{} assigns the lease or hands it over{}", who(worker), answer.fate())
            }
            Action::TakeUp { worker, early, answer } => {
                let early = if early { " as it was before a handoff began" } else { "" };
                format!("{} takes the lease up{early}{}", who(worker), answer.fate())
            }
            Action::Write { worker, write, answer } => {
                let verb = match write {
                    Write::Renew => "renew",
                    Write::Release => "give back",
                };
                format!("{} tries to {verb} the lease{}", who(worker), answer.fate())
            }
            Action::Crash { worker } => format!("{} crashes", who(worker)),
        }
    }

    fn rows(&self, world: &LedWorld, names: Renaming) -> String {
        let row = world.renamed(names.workers).row;
        format!("  leaves the owners {row:?}\n")
    }
}
