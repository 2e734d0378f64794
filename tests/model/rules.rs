//! Everything that can happen next, by the crate's own plans, writes and rules of holding. These are
//! pure, so each is asked only once about the same thing.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use kinesis_consumer::LeaseKey;
use kinesis_consumer::internals::{
    ClaimReason, EndingStep, EndingSteps, Known, LeaseClaim, LeaseHold, learn, lets_children_start,
    observe_scan, plan_takes,
};

use crate::answers::{
    NOW, ago, carry_out, carry_out_take, children, key, known, lease, lease_of, name, owner, row, seen_again,
};
use crate::explore::{Model, Renaming};
use crate::world::{
    AGE_MAX, Code, END, Held, LEASES, NOBODY, PARENT, Row, Seen, UNLIMITED, Version, WORKERS, Worker, World,
};

/// One and a half ticks.
pub(crate) const FAILOVER: Duration = Duration::from_secs(3);
/// Enough to see every order of three leases.
const SEEDS: u64 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    OneLease,
    /// Of shards that do not depend on each other any more, because their parent has ended.
    TwoLeases,
    /// A parent that ends in two children.
    Split,
}

/// Which small world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) workers: usize,
    pub(crate) shape: Shape,
    /// Checkpoints before the end.
    pub(crate) positions: u8,
    pub(crate) crashes: u8,
    /// Answers that are lost, before or after the write; at most two, or [`UNLIMITED`].
    pub(crate) losses: u8,
    /// Scans that show the rows as they were before their last writes.
    pub(crate) stale: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    Renew,
    Checkpoint,
    End,
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Comes,
    /// The write lands all the same.
    Lost,
    /// The write never lands, but who sent it cannot know.
    NotSent,
}

impl Answer {
    /// How a sentence about the request ends.
    pub(crate) fn fate(self) -> &'static str {
        match self {
            Self::Comes => "",
            Self::Lost => ", and the answer is lost",
            Self::NotSent => ", which never arrives and seems to be under way",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Tick,
    Scan { worker: usize, stale: bool },
    Take { worker: usize, lease: usize, answer: Answer },
    Write { worker: usize, lease: usize, write: Write, answer: Answer },
    Start { worker: usize, lease: usize },
    CreateChild { worker: usize, lease: usize },
    Crash { worker: usize },
}

/// A row's owner and checkpoint.
pub(crate) type Content = (u8, u8);
/// A row as a scan shows it, and whether that is how it was before.
type Shown = (Content, bool);
/// What a write came to, or why it must not have been possible.
type Judged<T> = Result<T, String>;
/// What a holder writes, and what becomes of the answer.
type Attempt = (Held, usize, Write, Answer);
/// Leases a worker may take next.
type Plan = Vec<(usize, LeaseClaim)>;

/// The rules, and what they have answered before.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) setup: Setup,
    /// Whether a holder of that age may act.
    valid: [bool; 4],
    /// What comes next at the end of the parent, if the left child has a lease, and the right one.
    ending: [[Ending; 2]; 2],
    scans: HashMap<(Seen, usize, Option<Shown>, usize), Seen>,
    learned: HashMap<(Seen, usize, u8, Content, usize), Seen>,
    plans: HashMap<(usize, [Seen; LEASES], [bool; LEASES]), Plan>,
    takes: HashMap<(usize, Content, LeaseClaim, usize), Judged<Option<Content>>>,
    writes: HashMap<(usize, Content, Attempt), Judged<Wrote>>,
}

/// What the holder of a parent that has been read to its end does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Create(usize),
    StoreEnd,
    Wait,
}

/// What a holder's write came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrote {
    /// What the row is now, if it was written.
    pub(crate) row: Option<Content>,
    pub(crate) held: Option<Held>,
    /// The row as it was last seen by who holds it no longer: versions behind, and what it was.
    pub(crate) last_seen: (u8, Content),
}

impl Rules {
    pub(crate) fn new(setup: Setup) -> Self {
        let valid = [0, 1, 2, 3].map(|age| {
            let lease = lease(PARENT, 0, NOBODY, 0);
            LeaseHold::new(lease, name(0), FAILOVER, ago(age)).is_held(NOW)
        });
        Self {
            setup,
            valid,
            ending: [false, true].map(|left| [false, true].map(|right| ending([left, right]))),
            scans: HashMap::new(),
            learned: HashMap::new(),
            plans: HashMap::new(),
            takes: HashMap::new(),
            writes: HashMap::new(),
        }
    }

    fn tick(&mut self, world: &mut World) {
        for worker in 0..self.setup.workers {
            for lease in 0..LEASES {
                let seen = &mut world.workers[worker].seen[lease];
                if seen.version != Version::Never {
                    seen.age = (seen.age + 1).min(AGE_MAX);
                }
                let Some(held) = &mut world.workers[worker].held[lease] else { continue };
                held.age = (held.age + 1).min(AGE_MAX);
                held.doubted = held.doubted.map(|age| (age + 1).min(AGE_MAX));
                // A holder stops by its own clock.
                if !self.valid[usize::from(held.age)] {
                    let behind = held.behind;
                    let checkpoint = if behind == 0 { world.rows[lease].checkpoint } else { 0 };
                    world.workers[worker].held[lease] = None;
                    self.learn(world, worker, lease, (behind, (owner(worker), checkpoint)));
                }
            }
        }
    }

    fn take(&mut self, world: &mut World, worker: usize, lease: usize, answer: Answer) -> Result<(), String> {
        let plan = self.plan(&world.workers[worker], worker);
        let Some((_, take)) = plan.iter().find(|(planned, _)| *planned == lease) else { return Ok(()) };
        let take = take.clone();
        let from_the_dead = matches!(take.reason, ClaimReason::Expired { .. } | ClaimReason::VeryOld);
        let present = world.rows[lease];
        let asked = (lease, (present.owner, present.checkpoint), take, worker);
        let taken = match self.takes.get(&asked) {
            Some(taken) => taken.clone(),
            None => {
                let taken = carry_out_take(&lease_of(lease, present), &asked.2, worker);
                self.takes.insert(asked, taken.clone());
                taken
            }
        }?;
        if answer != Answer::Comes {
            use_up(&mut world.losses_left);
        }
        if taken.is_some() && from_the_dead && world.workers.iter().any(|other| other.held[lease].is_some()) {
            return Err("expiry: a lease was taken for expired from a worker that still holds it".into());
        }
        if let Some(row) = taken {
            put(world, lease, row);
        }
        if answer == Answer::Comes {
            if taken.is_some() {
                let started = lease == PARENT;
                world.workers[worker].held[lease] = Some(Held { behind: 0, age: 0, doubted: None, started });
            }
            let now = world.rows[lease];
            self.learn(world, worker, lease, (0, (now.owner, now.checkpoint)));
        }
        Ok(())
    }

    fn write(
        &mut self,
        world: &mut World,
        worker: usize,
        lease: usize,
        write: Write,
        answer: Answer,
    ) -> Result<(), String> {
        let Some(held) = world.workers[worker].held[lease] else { return Ok(()) };
        let present = world.rows[lease];
        let asked = (lease, (present.owner, present.checkpoint), (held, worker, write, answer));
        let wrote = match self.writes.get(&asked) {
            Some(wrote) => wrote.clone(),
            None => {
                let wrote = carry_out(&lease_of(lease, present), lease, held, worker, write, answer);
                self.writes.insert(asked, wrote.clone());
                wrote
            }
        }?;
        if answer != Answer::Comes {
            use_up(&mut world.losses_left);
        }
        if let Some(row) = wrote.row {
            put(world, lease, row);
        }
        world.workers[worker].held[lease] = wrote.held;
        if wrote.held.is_none() {
            self.learn(world, worker, lease, wrote.last_seen);
        }
        Ok(())
    }

    fn scan(&mut self, seen: Seen, lease: usize, row: &Row, stale: bool, worker: usize) -> Seen {
        let shown = match (row.exists, stale) {
            (false, _) => None,
            (true, false) => Some(((row.owner, row.checkpoint), false)),
            // The end is the last write, so it was not there before.
            (true, true) => row.is_written.then_some(((row.owner_before, 0), true)),
        };
        *self.scans.entry((seen, lease, shown, worker)).or_insert_with(|| {
            let shown = shown.map(|((owner, checkpoint), stale)| {
                crate::answers::lease(lease, u64::from(stale), owner, checkpoint)
            });
            seen_again(&observe_scan(known(lease, seen), shown.into_iter().collect(), NOW))
        })
    }

    fn learn(
        &mut self,
        world: &mut World,
        worker: usize,
        lease: usize,
        (behind, (owner, checkpoint)): (u8, Content),
    ) {
        let seen = &mut world.workers[worker].seen[lease];
        *seen =
            *self.learned.entry((*seen, lease, behind, (owner, checkpoint), worker)).or_insert_with(|| {
                let row = crate::answers::lease(lease, u64::from(behind), owner, checkpoint);
                seen_again(&learn(known(lease, *seen), row, NOW))
            });
    }

    fn plan(&mut self, state: &Worker, worker: usize) -> &[(usize, LeaseClaim)] {
        let held = state.held.map(|held| held.is_some());
        self.plans.entry((worker, state.seen, held)).or_insert_with(|| {
            let known: Known = (0..LEASES).flat_map(|lease| known(lease, state.seen[lease])).collect();
            let held: BTreeSet<LeaseKey> = (0..LEASES).filter(|&lease| held[lease]).map(key).collect();
            let mut takes: Vec<(usize, LeaseClaim)> = Vec::new();
            for seed in 0..SEEDS {
                for take in plan_takes(known.clone(), &held, &name(worker), FAILOVER, NOW, seed) {
                    let lease = (0..LEASES).find(|&lease| key(lease) == take.lease.key).expect("known");
                    if !takes.iter().any(|(known, _)| *known == lease) {
                        takes.push((lease, take));
                    }
                }
            }
            takes
        })
    }

    fn ending(&self, world: &World) -> Ending {
        let [left, right] = [1, 2].map(|child| usize::from(world.rows[child].exists));
        self.ending[left][right]
    }

    /// One round of each of the workers in `alive` without faults, then a tick. Whether any of them
    /// took a lease.
    fn go_round(&mut self, mut world: World, alive: &[usize]) -> Result<(World, bool), String> {
        let mut has_taken = false;
        for &worker in alive {
            world = self.apply(world, Action::Scan { worker, stale: false })?;
            for _ in 0..LEASES {
                let Some(&(lease, _)) = self.plan(&world.workers[worker], worker).first() else { break };
                world = self.apply(world, Action::Take { worker, lease, answer: Answer::Comes })?;
                has_taken = true;
            }
            for lease in 0..LEASES {
                world = self.apply(
                    world,
                    Action::Write { worker, lease, write: Write::Renew, answer: Answer::Comes },
                )?;
                let Some(held) = world.workers[worker].held[lease] else { continue };
                if lease == PARENT && self.setup.shape == Shape::Split {
                    while let Ending::Create(lease) = self.ending(&world) {
                        world = self.apply(world, Action::CreateChild { worker, lease })?;
                    }
                    if self.ending(&world) == Ending::StoreEnd {
                        world = self.apply(
                            world,
                            Action::Write { worker, lease, write: Write::End, answer: Answer::Comes },
                        )?;
                    }
                } else if !held.started && lets_children_start(Some(&row(&world, PARENT))) {
                    world = self.apply(world, Action::Start { worker, lease })?;
                }
            }
        }
        Ok((self.apply(world, Action::Tick)?, has_taken))
    }

    /// Whether each lease that has not ended is held and processed by its owner and nobody else, and
    /// nobody has more than a fair share.
    fn is_well(&self, world: &World, alive: &[usize]) -> bool {
        let leases: Vec<usize> = (0..LEASES)
            .filter(|&lease| world.rows[lease].exists && world.rows[lease].checkpoint != END)
            .collect();
        let is_held = |worker: usize, lease: usize| {
            world.rows[lease].owner == owner(worker)
                && world.workers[worker].held[lease].is_some_and(|held| held.behind == 0 && held.started)
        };
        let fair = leases.len().div_ceil(alive.len());
        (self.setup.shape != Shape::Split || world.rows[PARENT].checkpoint == END)
            && leases.iter().all(|&lease| alive.iter().any(|&worker| is_held(worker, lease)))
            && world.workers.iter().flat_map(|worker| worker.held).flatten().all(|held| held.behind == 0)
            && alive
                .iter()
                .all(|&worker| leases.iter().filter(|&&lease| is_held(worker, lease)).count() <= fair)
    }
}

impl Model for Rules {
    type World = World;
    type Code = Code;
    type Action = Action;

    const ROUNDS_MAX: usize = 10;
    const REST: usize = 1;

    fn start(&self) -> World {
        let mut rows = [Row::default(); LEASES];
        rows[PARENT].exists = true;
        if self.setup.shape == Shape::TwoLeases {
            rows[PARENT].checkpoint = END;
            rows[1].exists = true;
            rows[2].exists = true;
        }
        let Setup { crashes, losses, stale, .. } = self.setup;
        World {
            rows,
            workers: [Worker::default(); WORKERS],
            crashes_left: crashes,
            losses_left: losses,
            stale_left: stale,
        }
    }

    fn actions(&mut self, world: &World) -> Vec<Action> {
        let mut actions = vec![Action::Tick];
        for worker in 0..self.setup.workers {
            let state = &world.workers[worker];
            actions.push(Action::Scan { worker, stale: false });
            if world.stale_left > 0 {
                actions.push(Action::Scan { worker, stale: true });
            }
            let is_lossy = world.losses_left > 0;
            for (lease, _) in self.plan(state, worker) {
                actions.push(Action::Take { worker, lease: *lease, answer: Answer::Comes });
                if is_lossy {
                    actions.push(Action::Take { worker, lease: *lease, answer: Answer::Lost });
                }
            }
            for lease in 0..LEASES {
                let Some(held) = state.held[lease] else { continue };
                let mut write = |write, answer| actions.push(Action::Write { worker, lease, write, answer });
                write(Write::Renew, Answer::Comes);
                write(Write::Release, Answer::Comes);
                if is_lossy {
                    write(Write::Renew, Answer::NotSent);
                    write(Write::Renew, Answer::Lost);
                    write(Write::Release, Answer::Lost);
                }
                if held.started && world.rows[lease].checkpoint < self.setup.positions {
                    write(Write::Checkpoint, Answer::Comes);
                    if is_lossy {
                        write(Write::Checkpoint, Answer::Lost);
                    }
                }
                if self.setup.shape == Shape::Split && lease == PARENT {
                    match self.ending(world) {
                        Ending::Create(lease) => actions.push(Action::CreateChild { worker, lease }),
                        Ending::StoreEnd => {
                            write(Write::End, Answer::Comes);
                            if is_lossy {
                                write(Write::End, Answer::Lost);
                            }
                        }
                        Ending::Wait => {}
                    }
                } else if !held.started && lets_children_start(Some(&row(world, PARENT))) {
                    actions.push(Action::Start { worker, lease });
                }
            }
            if world.crashes_left > 0 && *state != Worker::default() {
                actions.push(Action::Crash { worker });
            }
        }
        actions
    }

    fn apply(&mut self, mut world: World, action: Action) -> Result<World, String> {
        match action {
            Action::Tick => self.tick(&mut world),
            Action::Scan { worker, stale } => {
                for lease in 0..LEASES {
                    let seen = world.workers[worker].seen[lease];
                    world.workers[worker].seen[lease] =
                        self.scan(seen, lease, &world.rows[lease], stale, worker);
                }
                if stale {
                    use_up(&mut world.stale_left);
                }
            }
            Action::Take { worker, lease, answer } => self.take(&mut world, worker, lease, answer)?,
            Action::Write { worker, lease, write, answer } => {
                self.write(&mut world, worker, lease, write, answer)?
            }
            Action::Start { worker, lease } => {
                if let Some(held) = &mut world.workers[worker].held[lease] {
                    held.started = true;
                }
            }
            Action::CreateChild { lease, .. } => world.rows[lease].exists = true,
            Action::Crash { worker } => {
                world.workers[worker] = Worker::default();
                world.crashes_left -= 1;
            }
        }
        world.check()?;
        Ok(world)
    }

    fn forget_what_does_not_matter(&self, world: &mut World) {
        world.forget_what_does_not_matter();
    }

    fn canonical(&self, world: World) -> (World, Renaming) {
        world.canonical()
    }

    fn code(world: &World) -> Code {
        world.code()
    }

    fn workers(&self) -> (usize, usize) {
        (self.setup.workers, self.setup.workers)
    }

    fn calm_down(&self, world: &mut World, alive: &[usize]) {
        for worker in (0..WORKERS).filter(|worker| !alive.contains(worker)) {
            world.workers[worker] = Worker::default();
        }
        (world.crashes_left, world.losses_left, world.stale_left) = (0, 0, 0);
    }

    fn round(&mut self, world: World, alive: &[usize]) -> Result<(World, bool), String> {
        let was_well = self.is_well(&world, alive);
        let (next, has_taken) = self.go_round(world, alive)?;
        Ok((next, was_well && !has_taken && self.is_well(&next, alive)))
    }

    fn sentence(&self, action: Action, names: Renaming) -> String {
        let who = |worker: usize| name(names.workers[worker].into());
        let what = |lease: usize| key(names.leases[lease].into());
        match action {
            Action::Tick => "two thirds of the failover time go by".to_owned(),
            Action::Scan { worker, stale } => {
                format!(
                    "{} scans the table{}",
                    who(worker),
                    if stale { " and sees it as it was" } else { "" }
                )
            }
            Action::Take { worker, lease, answer } => {
                format!("{} tries to take {}{}", who(worker), what(lease), answer.fate())
            }
            Action::Write { worker, lease, write, answer } => {
                let verb = match write {
                    Write::Renew => "renew",
                    Write::Checkpoint => "checkpoint",
                    Write::End => "store the end of",
                    Write::Release => "release",
                };
                format!("{} tries to {verb} {}{}", who(worker), what(lease), answer.fate())
            }
            Action::Start { worker, lease } => format!("{} starts processing {}", who(worker), what(lease)),
            Action::CreateChild { worker, lease } => {
                format!("{} creates the lease of {}", who(worker), what(lease))
            }
            Action::Crash { worker } => format!("{} crashes", who(worker)),
        }
    }

    fn rows(&self, world: &World, names: Renaming) -> String {
        let rows = world.rows.iter().enumerate().filter(|(_, row)| row.exists);
        rows.map(|(lease, row)| format!("  leaves {}: {row:?}\n", key(names.leases[lease].into()))).collect()
    }
}

/// A lease that another worker created is as good as one of this worker's.
fn ending(exist: [bool; 2]) -> Ending {
    let mut steps = EndingSteps::new(children().to_vec());
    for (child, _) in children().into_iter().zip(exist).filter(|(_, exists)| *exists) {
        steps.note_lease(child.id, true);
    }
    match steps.next_step(&lease(PARENT, 0, NOBODY, 0)) {
        EndingStep::CreateLeases(leases) => leases
            .first()
            .and_then(|first| (1..LEASES).find(|&lease| key(lease) == first.key))
            .map_or(Ending::Wait, Ending::Create),
        EndingStep::StoreEnd => Ending::StoreEnd,
        EndingStep::LookUpLease(_) | EndingStep::ListShards | EndingStep::Wait(_) => Ending::Wait,
    }
}

fn put(world: &mut World, lease: usize, (owner, checkpoint): Content) {
    let row = &mut world.rows[lease];
    *row = Row { exists: true, owner, checkpoint, is_written: true, owner_before: row.owner };
    world.outdate(lease);
}

pub(crate) fn use_up(left: &mut u8) {
    if *left != UNLIMITED {
        *left = left.saturating_sub(1);
    }
}
