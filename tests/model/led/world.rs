//! A lease that a leader assigns; what each worker knows of it and holds. As in the other worlds, only
//! distances between counters count, time goes in ticks, of which one and a half are the failover time,
//! and all ages end at 2.

use crate::explore::Renaming;
use crate::world::{AGE_MAX, NOBODY};

pub(crate) const WORKERS: usize = 3;

/// `leaseOwner`, and `checkpointOwner`: who still works on a lease in handoff.
pub(crate) type Owners = (u8, u8);

/// The row before it was last written, and whether that left the counter alone.
pub(crate) type Before = (Owners, bool);

/// The row as a leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seen {
    /// Counts between what was seen and the row; 2 is two or more.
    pub(crate) behind: u8,
    pub(crate) owners: Owners,
    /// For how long its counter has stood still.
    pub(crate) age: u8,
    /// Whether its owner has written to it, as far as is known: not since it was assigned to that owner.
    pub(crate) is_acknowledged: bool,
    /// Since the table was scanned.
    pub(crate) scanned: u8,
    /// Since the handoff became known.
    pub(crate) handoff: Option<u8>,
}

impl Seen {
    /// The age at which its age ends: a leader waits longer for an owner that may not have found the lease.
    pub(crate) fn age_max(is_acknowledged: bool) -> u8 {
        if is_acknowledged { AGE_MAX } else { AGE_MAX + 1 }
    }

    pub(crate) fn acknowledge(&mut self) {
        self.is_acknowledged = true;
        self.age = self.age.min(AGE_MAX);
    }
}

/// The lease, as a worker believes to hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Held {
    pub(crate) behind: u8,
    /// Ticks since the last write that is known to have landed was sent.
    pub(crate) age: u8,
    pub(crate) doubted: Option<u8>,
    /// Who is to follow, once a handoff is known to have begun.
    pub(crate) next: u8,
    /// A leader has given the lease to another on purpose, as the handoff took too long. Nobody acts by
    /// this; it distinguishes such an overlap from one that must not be.
    pub(crate) is_overruled: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Worker {
    pub(crate) held: Option<Held>,
    pub(crate) seen: Option<Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LedWorld {
    pub(crate) row: Owners,
    pub(crate) before: Option<Before>,
    pub(crate) workers: [Worker; WORKERS],
    pub(crate) crashes_left: u8,
    pub(crate) losses_left: u8,
    pub(crate) stale_left: u8,
}

impl LedWorld {
    /// What must hold in every state.
    pub(crate) fn check(&self) -> Result<(), String> {
        let held = || self.workers.iter().filter_map(|worker| worker.held);
        if held().filter(|held| held.behind == 0).count() > 1 {
            return Err("one holder: two workers hold the lease at the same counter".into());
        }
        if held().filter(|held| !held.is_overruled).count() > 1 {
            return Err("one holder: two workers deliver from the shard, and no leader wanted it so".into());
        }
        Ok(())
    }

    pub(crate) fn put(&mut self, row: Owners, is_same_counter: bool) {
        self.before = Some((self.row, is_same_counter));
        self.row = row;
        if is_same_counter {
            return;
        }
        for worker in &mut self.workers {
            let seen = worker.seen.iter_mut().map(|seen| &mut seen.behind);
            for behind in worker.held.iter_mut().map(|held| &mut held.behind).chain(seen) {
                *behind = (*behind + 1).min(2);
            }
        }
    }

    pub(crate) fn forget_what_does_not_matter(&mut self) {
        let is_past_over = self.stale_left == 0;
        // Besides stale scans, a worker may have read the row just before the leader wrote to it.
        self.before = self.before.filter(|(_, is_same_counter)| !is_past_over || *is_same_counter);
        let seen = self.workers.iter_mut().filter_map(|worker| worker.seen.as_mut());
        // Nobody waits for the owner of a lease that has none.
        seen.filter(|seen| seen.owners.0 == NOBODY).for_each(Seen::acknowledge);
        for held in self.workers.iter_mut().filter_map(|worker| worker.held.as_mut()) {
            if held.behind == 2 {
                // All of its writes by the counter will be refused.
                held.doubted = None;
            }
        }
    }

    /// The same world with other names: the worker `n` becomes `names[n]`.
    pub(crate) fn renamed(&self, names: [u8; WORKERS]) -> Self {
        let name = |owner: u8| if owner == NOBODY { NOBODY } else { names[usize::from(owner) - 1] + 1 };
        let owners = |(owner, old): Owners| (name(owner), name(old));
        let mut renamed = *self;
        renamed.row = owners(self.row);
        renamed.before = self.before.map(|(row, is_same_counter)| (owners(row), is_same_counter));
        for (worker, &new) in self.workers.iter().zip(&names) {
            renamed.workers[usize::from(new)] = Worker {
                held: worker.held.map(|held| Held { next: name(held.next), ..held }),
                seen: worker.seen.map(|seen| Seen { owners: owners(seen.owners), ..seen }),
            };
        }
        renamed
    }

    /// The first of all worlds that differ in the names only.
    pub(crate) fn canonical(mut self, renamings: &[[u8; WORKERS]]) -> (Self, Renaming) {
        self.forget_what_does_not_matter();
        let worlds = renamings.iter().map(|&names| (self.renamed(names), names));
        let (world, workers) = worlds.min().expect("a world is one of them");
        (world, Renaming { workers, leases: [0, 1, 2] })
    }
}

/// Every way to swap names among the first `leaders` of `workers`, and among the others.
pub(crate) fn renamings(workers: usize, leaders: usize) -> Vec<[u8; WORKERS]> {
    let all = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let group = |worker: usize| usize::from(worker >= leaders) + usize::from(worker >= workers);
    let keeps_groups =
        |names: &[u8; WORKERS]| (0..WORKERS).all(|worker| group(worker) == group(names[worker].into()));
    all.into_iter().filter(keeps_groups).collect()
}
