//! Goes through every state that can be reached, the nearest first, so that the way to whatever is
//! wrong is as short as possible.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fmt::Write as _;
use std::hash::Hash;

use crate::answers::name;

/// A small world, and the rules by which it goes on.
pub(crate) trait Model {
    type World: Copy + std::fmt::Debug;
    /// A world in so few bits that it can be looked up exactly.
    type Code: Eq + Ord + Hash;
    type Action: Copy;

    /// Recovery takes no more rounds.
    const ROUNDS_MAX: usize;
    /// This many quiet rounds in a row show that all is well.
    const REST: usize;

    fn start(&self) -> Self::World;

    /// Everything that can happen next.
    fn actions(&mut self, world: &Self::World) -> Vec<Self::Action>;

    /// Lets something happen; an error if it must not have been possible.
    fn apply(&mut self, world: Self::World, action: Self::Action) -> Result<Self::World, String>;

    /// Makes worlds equal that the rules cannot distinguish, or of which one can do all that the other can.
    fn forget_what_does_not_matter(&self, world: &mut Self::World);

    /// The same world, as one of those that differ only in names and in what nobody looks at.
    fn canonical(&self, world: Self::World) -> (Self::World, Renaming);

    fn code(world: &Self::World) -> Self::Code;

    /// How many workers there are, and how many of them, the first ones, must be able to set everything
    /// right alone.
    fn workers(&self) -> (usize, usize);

    /// The end of all faults: workers not in `alive` have crashed.
    fn calm_down(&self, world: &mut Self::World, alive: &[usize]);

    /// One round of each of the workers in `alive` without faults, and a tick. Whether all was well and
    /// was left as it was.
    fn round(&mut self, world: Self::World, alive: &[usize]) -> Result<(Self::World, bool), String>;

    /// What an action is, said with the names at the start.
    fn sentence(&self, action: Self::Action, names: Renaming) -> String;

    /// What is in the table, one line each.
    fn rows(&self, world: &Self::World, names: Renaming) -> String;
}

/// Which worker and which lease became which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Renaming {
    pub(crate) workers: [u8; 3],
    pub(crate) leases: [u8; 3],
}

/// How a state was first reached: from which, by which of the actions there.
type Step = (u32, u16);

/// How many states there are, each of them safe and able to recover. Looks at `states_max` at most.
///
/// # Errors
///
/// What is wrong, and the shortest way to it.
pub(crate) fn explore<M: Model>(rules: &mut M, states_max: usize) -> Result<String, String> {
    let start = rules.canonical(rules.start()).0;
    let survivors = survivors(rules.workers());
    let mut healing = Healing::<M>::new();
    let mut seen: HashSet<M::Code> = HashSet::from([M::code(&start)]);
    let mut steps: Vec<Step> = vec![(0, 0)];
    let mut todo: VecDeque<(u32, M::World)> = VecDeque::from([(0, start)]);
    while let Some((index, world)) = todo.pop_front() {
        for alive in &survivors {
            if let Err(error) = recovers(rules, world, alive, &mut healing) {
                return Err(describe(rules, &steps, index, None, &error));
            }
        }
        for (number, action) in (0..).zip(rules.actions(&world)) {
            let next = match rules.apply(world, action) {
                Ok(next) => rules.canonical(next).0,
                Err(error) => return Err(describe(rules, &steps, index, Some(number), &error)),
            };
            if seen.insert(M::code(&next)) {
                if steps.len() == states_max {
                    return Ok(format!("the first {states_max} states"));
                }
                todo.push_back((u32::try_from(steps.len()).expect("fewer"), next));
                steps.push((index, number));
            }
        }
    }
    Ok(format!("{} states, all there are", steps.len()))
}

/// Worlds that are known to recover, each with who is left in it.
type Healing<M> = HashSet<(<M as Model>::Code, u8)>;

/// Who may be left when the faults are over: one of those that can do it alone, or everybody.
fn survivors((workers, alone): (usize, usize)) -> Vec<Vec<usize>> {
    let alone = (0..alone).map(|worker| vec![worker]);
    alone.chain([(0..workers).collect()]).collect()
}

/// Without faults, and with the others silent, those in `alive` set everything right, and then leave it
/// as it is. Adds the worlds that were gone through to those known to recover.
fn recovers<M: Model>(
    rules: &mut M,
    mut world: M::World,
    alive: &[usize],
    healing: &mut Healing<M>,
) -> Result<(), String> {
    rules.calm_down(&mut world, alive);
    let mask = alive.iter().map(|worker| 1 << worker).sum();
    let mut path = Vec::new();
    let mut rest = 0;
    for _ in 0..M::ROUNDS_MAX {
        let code = (M::code(&world), mask);
        if healing.contains(&code) {
            healing.extend(path);
            return Ok(());
        }
        path.push(code);
        let (next, is_quiet) =
            rules.round(world, alive).map_err(|error| format!("{error}, when all faults are over"))?;
        rest = if is_quiet { rest + 1 } else { 0 };
        if rest == M::REST {
            healing.extend(path);
            return Ok(());
        }
        world = next;
    }
    let alive: Vec<String> = alive.iter().map(|&worker| name(worker).to_string()).collect();
    let (alive, rounds) = (alive.join(" and "), M::ROUNDS_MAX);
    Err(format!("recovery: {alive} do not set things right in {rounds} rounds without faults"))
}

/// The way to what is wrong, with the names everything had at the start.
fn describe<M: Model>(
    rules: &mut M,
    steps: &[Step],
    mut index: u32,
    last: Option<u16>,
    error: &str,
) -> String {
    let mut way: Vec<u16> = last.into_iter().collect();
    while index != 0 {
        let (from, action) = steps[index as usize];
        way.push(action);
        index = from;
    }
    let mut text = format!("{error}\n");
    let (mut world, mut names) = rules.canonical(rules.start());
    names = Renaming { workers: inverse(names.workers), leases: inverse(names.leases) };
    for number in way.into_iter().rev() {
        let action = rules.actions(&world)[usize::from(number)];
        let _ = writeln!(text, "  {}", rules.sentence(action, names));
        let Ok(next) = rules.apply(world, action) else { break };
        let (next, renaming) = rules.canonical(next);
        let (workers, leases) = (inverse(renaming.workers), inverse(renaming.leases));
        names = Renaming {
            workers: workers.map(|old| names.workers[usize::from(old)]),
            leases: leases.map(|old| names.leases[usize::from(old)]),
        };
        world = next;
    }
    text.push_str(&rules.rows(&world, names));
    text
}

fn inverse<const N: usize>(renaming: [u8; N]) -> [u8; N] {
    let mut inverse = [0; N];
    for (old, &new) in (0..).zip(&renaming) {
        inverse[usize::from(new)] = old;
    }
    inverse
}

/// Whether nothing is hidden by forgetting: whatever can happen in a world can also happen in the one
/// that stands for it.
///
/// # Errors
///
/// Two worlds that do not.
pub(crate) fn compare_merged<M: Model>(rules: &mut M) -> Result<usize, String> {
    let start = rules.canonical(rules.start()).0;
    let mut seen: HashSet<M::Code> = HashSet::from([M::code(&start)]);
    let mut todo: Vec<M::World> = vec![start];
    while let Some(world) = todo.pop() {
        for action in rules.actions(&world) {
            let next = rules.apply(world, action)?;
            let mut merged = next;
            rules.forget_what_does_not_matter(&mut merged);
            if !followers(rules, &next)?.is_subset(&followers(rules, &merged)?) {
                return Err(format!("{next:?}\nis not covered by\n{merged:?}"));
            }
            let (merged, _) = rules.canonical(next);
            if seen.insert(M::code(&merged)) {
                todo.push(merged);
            }
        }
    }
    Ok(seen.len())
}

fn followers<M: Model>(rules: &mut M, world: &M::World) -> Result<BTreeSet<M::Code>, String> {
    let actions = rules.actions(world);
    actions
        .into_iter()
        .map(|action| {
            let next = rules.apply(*world, action)?;
            Ok(M::code(&rules.canonical(next).0))
        })
        .collect()
}
