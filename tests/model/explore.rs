//! Goes through every state that can be reached, the nearest first, so that the way to whatever is
//! wrong is as short as possible.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fmt::Write as _;

use crate::answers::{key, name};
use crate::rules::{Action, Answer, Rules, Setup, Write};
use crate::world::{Code, Renaming, World};

/// How a state was first reached: from which, by which of the actions there.
type Step = (u32, u8);

/// How many states there are, each of them safe and able to recover. Looks at `states_max` at most.
///
/// # Errors
///
/// What is wrong, and the shortest way to it.
pub(crate) fn explore(setup: Setup, states_max: usize) -> Result<String, String> {
    let mut rules = Rules::new(setup);
    let start = rules.start().canonical().0;
    let survivors = survivors(setup.workers);
    let mut healing: HashSet<Code> = HashSet::new();
    let mut seen: HashSet<Code> = HashSet::from([start.code()]);
    let mut steps: Vec<Step> = vec![(0, 0)];
    let mut todo: VecDeque<(u32, World)> = VecDeque::from([(0, start)]);
    while let Some((index, world)) = todo.pop_front() {
        for alive in &survivors {
            if let Err(error) = rules.recovers(world, alive, &mut healing) {
                return Err(told(&mut rules, &steps, index, None, &error));
            }
        }
        for (number, action) in (0..).zip(rules.actions(&world)) {
            let next = match rules.apply(world, action) {
                Ok(next) => next.canonical().0,
                Err(error) => return Err(told(&mut rules, &steps, index, Some(number), &error)),
            };
            if seen.insert(next.code()) {
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

/// Who is left when the faults are over: everybody, or one of them.
fn survivors(workers: usize) -> Vec<Vec<usize>> {
    let mut survivors: Vec<Vec<usize>> = (0..workers).map(|worker| vec![worker]).collect();
    survivors.push((0..workers).collect());
    survivors
}

/// The way to what is wrong, with the names everything had at the start.
fn told(rules: &mut Rules, steps: &[Step], mut index: u32, last: Option<u8>, error: &str) -> String {
    let mut way: Vec<u8> = last.into_iter().collect();
    while index != 0 {
        let (from, action) = steps[index as usize];
        way.push(action);
        index = from;
    }
    let mut text = format!("{error}\n");
    let (mut world, mut names) = rules.start().canonical();
    names = Renaming { workers: inverse(names.workers), leases: inverse(names.leases) };
    for number in way.into_iter().rev() {
        let action = rules.actions(&world)[usize::from(number)];
        let _ = writeln!(text, "  {}", sentence(action, names));
        let Ok(next) = rules.apply(world, action) else { break };
        let (next, renaming) = next.canonical();
        let (workers, leases) = (inverse(renaming.workers), inverse(renaming.leases));
        names = Renaming {
            workers: workers.map(|old| names.workers[usize::from(old)]),
            leases: leases.map(|old| names.leases[usize::from(old)]),
        };
        world = next;
    }
    for (lease, row) in world.rows.iter().enumerate().filter(|(_, row)| row.exists) {
        let _ = writeln!(text, "  leaves {}: {row:?}", key(names.leases[lease].into()));
    }
    text
}

fn inverse<const N: usize>(renaming: [u8; N]) -> [u8; N] {
    let mut inverse = [0; N];
    for (old, &new) in (0..).zip(&renaming) {
        inverse[usize::from(new)] = old;
    }
    inverse
}

fn sentence(action: Action, names: Renaming) -> String {
    let who = |worker: usize| name(names.workers[worker].into());
    let what = |lease: usize| key(names.leases[lease].into());
    let fate = |answer: Answer| match answer {
        Answer::Comes => "",
        Answer::Lost => ", and the answer is lost",
        Answer::NotSent => ", which never arrives and seems to be under way",
    };
    match action {
        Action::Tick => "two thirds of the failover time go by".to_owned(),
        Action::Scan { worker, stale } => {
            format!("{} scans the table{}", who(worker), if stale { " and sees it as it was" } else { "" })
        }
        Action::Take { worker, lease, answer } => {
            format!("{} tries to take {}{}", who(worker), what(lease), fate(answer))
        }
        Action::Write { worker, lease, write, answer } => {
            let verb = match write {
                Write::Renew => "renew",
                Write::Checkpoint => "checkpoint",
                Write::End => "store the end of",
                Write::Release => "release",
            };
            format!("{} tries to {verb} {}{}", who(worker), what(lease), fate(answer))
        }
        Action::Start { worker, lease } => format!("{} starts processing {}", who(worker), what(lease)),
        Action::CreateChild { worker, lease } => {
            format!("{} creates the lease of {}", who(worker), what(lease))
        }
        Action::Crash { worker } => format!("{} crashes", who(worker)),
    }
}

/// Whether nothing is hidden by forgetting: whatever can happen in a world can also happen in the one
/// that stands for it.
///
/// # Errors
///
/// Two worlds that do not.
pub(crate) fn compare_merged(setup: Setup) -> Result<usize, String> {
    let mut rules = Rules::new(setup);
    let start = rules.start().canonical().0;
    let mut seen: HashSet<Code> = HashSet::from([start.code()]);
    let mut todo: Vec<World> = vec![start];
    while let Some(world) = todo.pop() {
        for action in rules.actions(&world) {
            let next = rules.apply(world, action)?;
            let mut merged = next;
            merged.forget_what_does_not_matter();
            if !followers(&mut rules, &next)?.is_subset(&followers(&mut rules, &merged)?) {
                return Err(format!("{next:?}\nis not covered by\n{merged:?}"));
            }
            let (merged, _) = next.canonical();
            if seen.insert(merged.code()) {
                todo.push(merged);
            }
        }
    }
    Ok(seen.len())
}

fn followers(rules: &mut Rules, world: &World) -> Result<BTreeSet<Code>, String> {
    let actions = rules.actions(world);
    actions.into_iter().map(|action| Ok(rules.apply(*world, action)?.canonical().0.code())).collect()
}
