//! The lock of the leader, read and put by workers that crash and whose answers get lost.

use kinesis_consumer::internals::{ElectionAction, LockRow, LockView, Version, item_after};
use kinesis_consumer::lease::Item;

use super::answers::{FAILOVER, NOW, age, ago, name, owner};
use super::world::{WORKERS, renamings};
use crate::answers::number;
use crate::explore::{Model, Renaming};
use crate::rules::{Answer, use_up};
use crate::world::{AGE_MAX, NOBODY};

#[derive(Debug, Clone, Copy)]
pub(crate) struct LockSetup {
    pub(crate) workers: usize,
    pub(crate) crashes: u8,
    pub(crate) losses: u8,
}

/// The row as a worker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seen {
    owner: u8,
    /// Whether the row still has that version.
    is_present: bool,
    /// Ticks since it was first seen.
    age: u8,
    /// While the worker holds the lock: ticks since it sent the last heartbeat it knows to have landed.
    held: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LockWorld {
    /// Who has put the row, if it is there.
    row: u8,
    seen: [Option<Seen>; WORKERS],
    crashes_left: u8,
    losses_left: u8,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Tick,
    /// Reads the row.
    Look {
        worker: usize,
    },
    /// Acquires the lock or sends a heartbeat.
    Put {
        worker: usize,
        answer: Answer,
    },
    Resign {
        worker: usize,
        answer: Answer,
    },
    Crash {
        worker: usize,
    },
}

pub(crate) struct LockRules {
    setup: LockSetup,
    renamings: Vec<[u8; WORKERS]>,
}

fn version(is_present: bool) -> Version {
    Version::new(u128::from(is_present))
}

/// A version nobody has seen.
fn next_version() -> Version {
    Version::new(2)
}

fn item(owner: u8, is_present: bool) -> Item {
    let put = LockView::default().plan(&name(usize::from(owner) - 1), FAILOVER, version(is_present), NOW);
    let ElectionAction::Acquire(write) = put else { unreachable!("nobody holds it") };
    item_after(&write, None).expect("it is well-formed").expect("there is no row")
}

fn lock_row(owner: u8, is_present: bool) -> LockRow {
    LockRow::from_item(&item(owner, is_present)).expect("a lock")
}

fn view(seen: Option<Seen>) -> LockView {
    let Some(seen) = seen else { return LockView::default() };
    let row = (lock_row(seen.owner, seen.is_present), ago(seen.age));
    LockView::from_parts(Some(row), seen.held.map(ago))
}

fn seen(view: LockView) -> Option<Seen> {
    let (row, held) = view.into_parts();
    let (row, since) = row?;
    let is_present = row.version == version(true);
    Some(Seen { owner: number(&row.owner), is_present, age: age(since), held: held.map(age) })
}

impl LockWorld {
    fn table(&self) -> Option<Item> {
        (self.row != NOBODY).then(|| item(self.row, true))
    }

    /// The row was put, or deleted: nobody has seen what it is now.
    fn put(&mut self, owner: u8) {
        self.row = owner;
        self.seen.iter_mut().flatten().for_each(|seen| seen.is_present = false);
    }

    fn may_assign(&self, worker: usize) -> bool {
        view(self.seen[worker]).may_assign(NOW)
    }

    fn check(&self) -> Result<(), String> {
        if (0..WORKERS).filter(|&worker| self.may_assign(worker)).count() > 1 {
            return Err("one leader: two workers lead".into());
        }
        Ok(())
    }

    fn renamed(&self, names: [u8; WORKERS]) -> Self {
        let name = |owner: u8| if owner == NOBODY { NOBODY } else { names[usize::from(owner) - 1] + 1 };
        let mut renamed = Self { row: name(self.row), ..*self };
        for (seen, &new) in self.seen.iter().zip(&names) {
            renamed.seen[usize::from(new)] = seen.map(|seen| Seen { owner: name(seen.owner), ..seen });
        }
        renamed
    }
}

impl LockRules {
    pub(crate) fn new(setup: LockSetup) -> Self {
        Self { setup, renamings: renamings(setup.workers, setup.workers) }
    }

    fn put(world: &mut LockWorld, worker: usize, answer: Answer) -> Result<(), String> {
        let mut view = view(world.seen[worker]);
        let (ElectionAction::Acquire(write) | ElectionAction::Heartbeat(write)) =
            view.plan(&name(worker), FAILOVER, next_version(), NOW)
        else {
            return Ok(());
        };
        let after = item_after(&write, world.table().as_ref())?;
        if answer != Answer::Comes {
            use_up(&mut world.losses_left);
        }
        if after.is_some() {
            world.put(owner(worker));
        }
        if answer == Answer::Comes {
            match &after {
                Some(row) => view.written(LockRow::from_item(row).ok_or("not a lock")?, NOW),
                None => view.observe(world.table().as_ref().and_then(LockRow::from_item), NOW),
            }
            world.seen[worker] = seen(view);
            if let (Some(seen), true) = (&mut world.seen[worker], after.is_some()) {
                seen.is_present = true;
            }
        }
        Ok(())
    }

    fn resign(world: &mut LockWorld, worker: usize, answer: Answer) {
        let mut view = view(world.seen[worker]);
        let Some(conditions) = view.resign(&name(worker)) else { return };
        world.seen[worker] = seen(view);
        if answer != Answer::Comes {
            use_up(&mut world.losses_left);
        }
        let holds = |table: &Item| conditions.iter().all(|condition| condition.holds(table));
        if world.table().as_ref().is_some_and(holds) {
            world.put(NOBODY);
        }
    }
}

impl Model for LockRules {
    type World = LockWorld;
    type Code = LockWorld;
    type Action = Action;

    const ROUNDS_MAX: usize = 8;
    const REST: usize = 1;

    fn start(&self) -> LockWorld {
        let LockSetup { crashes, losses, .. } = self.setup;
        LockWorld { row: NOBODY, seen: [None; WORKERS], crashes_left: crashes, losses_left: losses }
    }

    fn actions(&mut self, world: &LockWorld) -> Vec<Action> {
        let is_lossy = world.losses_left > 0;
        let fates = || [Answer::Comes].into_iter().chain(is_lossy.then_some(Answer::Lost));
        let mut actions = vec![Action::Tick];
        for worker in 0..self.setup.workers {
            actions.push(Action::Look { worker });
            actions.extend(fates().map(|answer| Action::Put { worker, answer }));
            if world.seen[worker].is_some_and(|seen| seen.held.is_some()) {
                actions.extend(fates().map(|answer| Action::Resign { worker, answer }));
            }
            if world.crashes_left > 0 && world.seen[worker].is_some() {
                actions.push(Action::Crash { worker });
            }
        }
        actions
    }

    fn apply(&mut self, mut world: LockWorld, action: Action) -> Result<LockWorld, String> {
        match action {
            Action::Tick => {
                for seen in world.seen.iter_mut().flatten() {
                    seen.age = (seen.age + 1).min(AGE_MAX);
                    seen.held = seen.held.map(|age| (age + 1).min(AGE_MAX));
                }
            }
            Action::Look { worker } => {
                let mut view = view(world.seen[worker]);
                if view.leads_until().is_none() {
                    view.observe(world.table().as_ref().and_then(LockRow::from_item), NOW);
                    world.seen[worker] = seen(view);
                }
            }
            Action::Put { worker, answer } => Self::put(&mut world, worker, answer)?,
            Action::Resign { worker, answer } => Self::resign(&mut world, worker, answer),
            Action::Crash { worker } => {
                world.seen[worker] = None;
                world.crashes_left -= 1;
            }
        }
        world.check()?;
        Ok(world)
    }

    /// Nothing: all of it matters.
    fn forget_what_does_not_matter(&self, _world: &mut LockWorld) {}

    fn canonical(&self, world: LockWorld) -> (LockWorld, Renaming) {
        let worlds = self.renamings.iter().map(|&names| (world.renamed(names), names));
        let (world, workers) = worlds.min().expect("a world is one of them");
        (world, Renaming { workers, leases: [0, 1, 2] })
    }

    fn code(world: &LockWorld) -> LockWorld {
        *world
    }

    fn workers(&self) -> (usize, usize) {
        (self.setup.workers, self.setup.workers)
    }

    fn calm_down(&self, world: &mut LockWorld, alive: &[usize]) {
        for worker in (0..WORKERS).filter(|worker| !alive.contains(worker)) {
            world.seen[worker] = None;
        }
        (world.crashes_left, world.losses_left) = (0, 0);
    }

    /// One of those in `alive` becomes the leader and stays it.
    fn round(&mut self, mut world: LockWorld, alive: &[usize]) -> Result<(LockWorld, bool), String> {
        let leader = |world: &LockWorld| alive.iter().copied().find(|&worker| world.may_assign(worker));
        let before = leader(&world);
        for &worker in alive {
            world = self.apply(world, Action::Look { worker })?;
            for _ in 0..2 {
                world = self.apply(world, Action::Put { worker, answer: Answer::Comes })?;
            }
        }
        let is_led = before.is_some() && leader(&world) == before;
        Ok((self.apply(world, Action::Tick)?, is_led))
    }

    fn sentence(&self, action: Action, names: Renaming) -> String {
        let who = |worker: usize| name(names.workers[worker].into());
        match action {
            Action::Tick => "two thirds of the time the lock is good for go by".to_owned(),
            Action::Look { worker } => format!("{} reads the lock", who(worker)),
            Action::Put { worker, answer } => {
                format!("{} tries to put the lock{}", who(worker), answer.fate())
            }
            Action::Resign { worker, answer } => {
                format!("{} gives the lock up{}", who(worker), answer.fate())
            }
            Action::Crash { worker } => format!("{} crashes", who(worker)),
        }
    }

    fn rows(&self, world: &LockWorld, names: Renaming) -> String {
        format!("  leaves the lock to {}\n", world.renamed(names.workers).row)
    }
}
