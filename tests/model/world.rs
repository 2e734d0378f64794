//! A lease table, what each worker knows of it and holds: as small as the rules allow.
//!
//! - Of a counter only its distance to the row's counts: writes ask for equality, or for one ahead.
//! - What a version of a row was is not stored again with each copy, except for its owner.
//! - Time goes in ticks, the failover time is one and a half: a holder acts at ages 0 and 1, and an
//!   observer waits for age 2, at which all ages end. An age nobody looks at is 0.
//! - A crash is to forget everything. How long a worker stays dead needs no state, as each may be idle.

use crate::explore::Renaming;

pub(crate) const WORKERS: usize = 3;
pub(crate) const LEASES: usize = 3;
pub(crate) const PARENT: usize = 0;
/// The code of a checkpoint at the end; 0 is `TRIM_HORIZON`, others are positions.
pub(crate) const END: u8 = 3;
pub(crate) const AGE_MAX: u8 = 2;
/// The owner nobody. The owner `n` is the worker `n - 1`.
pub(crate) const NOBODY: u8 = 0;

/// A row, and who owned it before the last write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) exists: bool,
    pub(crate) owner: u8,
    pub(crate) checkpoint: u8,
    /// Whether it was written since it was created.
    pub(crate) is_written: bool,
    pub(crate) owner_before: u8,
}

/// Which version of a row a worker has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Version {
    #[default]
    Never,
    Older,
    /// As it was before the last write.
    Before,
    Present,
}

/// A row as a worker knows it, and for how long its counter has stood still.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) version: Version,
    pub(crate) owner: u8,
    pub(crate) ended: bool,
    pub(crate) age: u8,
}

/// A lease a worker believes to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    /// Versions between its own and the row; 2 is two or more.
    pub(crate) behind: u8,
    /// Ticks since the last write that is known to have landed was sent.
    pub(crate) age: u8,
    pub(crate) doubted: Option<u8>,
    /// Whether records are processed: of a child, not before its parent ended.
    pub(crate) started: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Worker {
    pub(crate) seen: [Seen; LEASES],
    pub(crate) held: [Option<Held>; LEASES],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) rows: [Row; LEASES],
    pub(crate) workers: [Worker; WORKERS],
    pub(crate) crashes_left: u8,
    /// Answers that may still be lost; [`UNLIMITED`] is never used up.
    pub(crate) losses_left: u8,
    pub(crate) stale_left: u8,
}

pub(crate) const UNLIMITED: u8 = 3;

/// A world in so few bits that it can be looked up exactly.
pub(crate) type Code = [u64; 4];

impl World {
    /// What must hold in every state.
    pub(crate) fn check(&self) -> Result<(), String> {
        for lease in 0..LEASES {
            let holders =
                self.workers.iter().filter(|worker| worker.held[lease].is_some_and(|held| held.behind == 0));
            if holders.count() > 1 {
                return Err("one holder: two workers hold the same lease at the same counter".into());
            }
        }
        if self.rows[PARENT].checkpoint == END {
            if (1..LEASES).any(|child| !self.rows[child].exists) {
                return Err("coverage: the parent ended, and a child has no lease".into());
            }
        } else if self
            .workers
            .iter()
            .any(|worker| (1..LEASES).any(|child| worker.held[child].is_some_and(|held| held.started)))
        {
            return Err("parents first: a child has started, and its parent has not ended".into());
        }
        Ok(())
    }

    /// A row was written: what was the present version no longer is.
    pub(crate) fn outdate(&mut self, lease: usize) {
        for worker in &mut self.workers {
            let seen = &mut worker.seen[lease];
            seen.version = match seen.version {
                Version::Never => Version::Never,
                Version::Older | Version::Before => Version::Older,
                Version::Present => Version::Before,
            };
            if let Some(held) = &mut worker.held[lease] {
                held.behind = (held.behind + 1).min(2);
            }
        }
    }

    /// The same world, as one of those that differ only in names and in what nobody looks at.
    pub(crate) fn canonical(mut self) -> (Self, Renaming) {
        self.forget_what_does_not_matter();
        let mut leases: [u8; LEASES] = [0, 1, 2];
        if self.rows[1].exists || self.rows[2].exists {
            let sides = [1, 2].map(|lease| self.lease_signature(lease));
            if sides[0] > sides[1] {
                leases = [0, 2, 1];
                self.rows.swap(1, 2);
                for worker in &mut self.workers {
                    worker.seen.swap(1, 2);
                    worker.held.swap(1, 2);
                }
            }
        }
        let mut order: [usize; WORKERS] = [0, 1, 2];
        let signatures = [0, 1, 2].map(|worker| self.worker_signature(worker));
        order.sort_by_key(|&worker| std::cmp::Reverse(signatures[worker]));
        let mut workers = [0; WORKERS];
        for (new, &old) in (0..).zip(&order) {
            workers[old] = new;
        }
        if order != [0, 1, 2] {
            let renamed =
                |owner: u8| if owner == NOBODY { NOBODY } else { workers[usize::from(owner) - 1] + 1 };
            self.workers = order.map(|worker| self.workers[worker]);
            for row in &mut self.rows {
                row.owner = renamed(row.owner);
                row.owner_before = renamed(row.owner_before);
            }
            for worker in &mut self.workers {
                for seen in &mut worker.seen {
                    seen.owner = renamed(seen.owner);
                }
            }
        }
        (self, Renaming { workers, leases })
    }

    /// Makes worlds equal that the rules cannot distinguish, or of which one can do all that the other can.
    pub(crate) fn forget_what_does_not_matter(&mut self) {
        let is_past_over = self.stale_left == 0;
        for lease in 0..LEASES {
            let row = &mut self.rows[lease];
            if is_past_over {
                // Only stale scans show what was before.
                (row.is_written, row.owner_before) = (false, NOBODY);
            }
            let is_held = self.workers.iter().any(|worker| worker.held[lease].is_some());
            if row.checkpoint == END && !is_held {
                // Nobody will write to it.
                row.owner = NOBODY;
            }
            for (name, worker) in (1..).zip(&mut self.workers) {
                let seen = &mut worker.seen[lease];
                if is_past_over && seen.version == Version::Before {
                    seen.version = Version::Older;
                }
                if let Some(held) = &mut worker.held[lease] {
                    // Each of its writes will be refused, whatever else happens.
                    if held.behind > 0 && row.owner != name {
                        held.behind = 2;
                    }
                    // It is counted by being held, and learned anew when that ends.
                    if seen.owner == name {
                        seen.version = Version::Older;
                    }
                }
                if seen.ended {
                    // Plans pass it by.
                    seen.owner = NOBODY;
                }
                if seen.owner == NOBODY || seen.owner == name {
                    seen.age = 0;
                }
            }
        }
    }

    /// The same for worlds that differ in names only, as are all signatures.
    fn worker_signature(&self, worker: usize) -> u64 {
        let name = u8::try_from(worker).expect("few") + 1;
        (0..LEASES).fold(0, |bits, lease| {
            let (row, seen) = (&self.rows[lease], &self.workers[worker].seen[lease]);
            let relation = |owner: u8| {
                if owner == NOBODY {
                    0
                } else if owner == name {
                    1
                } else {
                    2
                }
            };
            let seen = Seen { owner: relation(seen.owner), ..*seen };
            let owners = u64::from(row.owner == name) << 1 | u64::from(row.owner_before == name);
            bits << 17 | owners << 15 | cell(seen, self.workers[worker].held[lease])
        })
    }

    fn lease_signature(&self, lease: usize) -> u64 {
        let row = self.rows[lease];
        let of_row = u64::from(row.exists) << 4
            | u64::from(row.checkpoint) << 2
            | u64::from(row.owner != NOBODY) << 1
            | u64::from(row.is_written);
        let of_workers = self.workers.iter().fold(0_u64, |sum, worker| {
            let seen = Seen { owner: u8::from(worker.seen[lease].owner != NOBODY), ..worker.seen[lease] };
            sum.wrapping_add(cell(seen, worker.held[lease]).wrapping_mul(0x9E37_79B9_7F4A_7C15))
        });
        of_row << 59 | of_workers >> 5
    }

    pub(crate) fn code(&self) -> Code {
        let mut table =
            u64::from(self.crashes_left) << 4 | u64::from(self.losses_left) << 2 | u64::from(self.stale_left);
        for row in &self.rows {
            table = table << 8
                | u64::from(row.exists) << 7
                | u64::from(row.is_written) << 6
                | u64::from(row.owner) << 4
                | u64::from(row.owner_before) << 2
                | u64::from(row.checkpoint);
        }
        let [a, b, c] = self.workers.map(|worker| {
            (0..LEASES).fold(0, |bits, lease| bits << 15 | cell(worker.seen[lease], worker.held[lease]))
        });
        [table, a, b, c]
    }
}

/// What a worker knows and has of one lease, in 15 bits.
fn cell(seen: Seen, held: Option<Held>) -> u64 {
    let seen = (seen.version as u64) << 5
        | u64::from(seen.owner) << 3
        | u64::from(seen.ended) << 2
        | u64::from(seen.age);
    let held = held.map_or(0, |held| {
        1 << 7
            | u64::from(held.behind) << 5
            | u64::from(held.age) << 3
            | u64::from(held.doubted.map_or(0, |age| age + 1)) << 1
            | u64::from(held.started)
    });
    seen << 8 | held
}
