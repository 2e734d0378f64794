//! What the coordination thread does between renewals, by the size of the lease table.
//!
//! `cargo bench --bench coordination` prints how long each step takes at its median, in milliseconds, for
//! tables whose shards were never split, were split long ago, and were split just now; and the target for
//! 20,000 rows.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it measures, and prints what it measured"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use kinesis_consumer::internals::{AwaitedEnds, Known, KnownFleet, KnownTable};
use kinesis_consumer::kinesis::Shard;
use kinesis_consumer::lease::Lease;
use kinesis_consumer::{
    Checkpoint, CoordinationConfig, HashKeyRange, LeaseKey, Moment, ShardId, StartStrategy, WorkerId,
};

const SIZES: [usize; 4] = [2_000, 10_000, 20_000, 40_000];
const ROUNDS: usize = 11;
/// For 20,000 rows.
const TARGET: Duration = Duration::from_millis(20);
/// As many as are taken in at a time.
const NEWS: usize = 1024;
const WORKERS: usize = 20;

/// When everything was seen, and when it is planned for: within the failover time.
const SEEN: Moment = Moment::ORIGIN;
const NOW: Moment = Moment::after_origin(Duration::from_secs(1));

fn main() {
    println!("{ROUNDS} rounds, milliseconds at the median, target {} ms for 20,000 rows", TARGET.as_millis());
    for past in [Past::None, Past::Long, Past::Now] {
        print!("{:<44}", past.name());
        SIZES.iter().for_each(|size| print!("{size:>10}"));
        println!();
        let tables = SIZES.map(|rows| Table::new(rows, past));
        row("a scan is taken in", &tables, Table::observe_scan);
        row("cleanup", &tables, Table::clean_up);
        row("shard sync, one lease is missing", &tables, Table::sync_shards);
        row("audit", &tables, Table::audit);
        row("1,024 consumers end, all others wait", &tables, Table::end_consumers);
        row("1,024 news of renewals", &tables, Table::take_news);
        row("plan of a worker for itself", &tables, Table::plan_for_itself);
        row("plan of a leader", &tables, Table::plan_as_leader);
        row("who leads by the rules of 2.x", &tables, Table::lead);
    }
}

fn row(step: &str, tables: &[Table], measure: fn(&Table) -> Duration) {
    print!("  {step:<42}");
    for table in tables {
        let mut times: Vec<Duration> = (0..ROUNDS).map(|_| measure(table)).collect();
        times.sort_unstable();
        print!("{:>10.2}", times[ROUNDS / 2].as_secs_f64() * 1000.0);
    }
    println!();
}

fn timed<R>(step: impl FnOnce() -> R) -> Duration {
    let begun = Instant::now();
    let done = black_box(step());
    let took = begun.elapsed();
    drop(done);
    took
}

/// What the shards of a table have behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Past {
    /// They were there from the beginning.
    None,
    /// They were split once, long ago: each names a parent whose row is gone.
    Long,
    /// They were split just now: a third of the rows are ended parents.
    Now,
}

impl Past {
    fn name(self) -> &'static str {
        match self {
            Self::None => "never split",
            Self::Long => "split long ago",
            Self::Now => "split just now",
        }
    }
}

struct Table {
    shards: Vec<Shard>,
    leases: Vec<Lease>,
}

impl Table {
    fn new(rows: usize, past: Past) -> Self {
        let parents = if past == Past::Now { rows / 3 } else { 0 };
        let children = rows - parents;
        let running = Checkpoint::parse("49664278173267300915430104980456137376422334137622331394", 0);
        let running = running.expect("a checkpoint");
        let shard = |index: usize| {
            let child = index.checked_sub(parents);
            let range = child.map_or_else(|| range(index, parents), |child| range(child, children));
            let mut shard = Shard::new(id(index), range, (index as u128).into());
            shard.ending_sequence_number = child.is_none().then(|| (rows as u128).into());
            let parent = |child: usize| match past {
                Past::None => None,
                Past::Long => Some(ShardId::from(format!("shardId-old{child:09}"))),
                Past::Now => Some(id((child / 2).min(parents - 1))),
            };
            shard.parents = child.and_then(parent).into_iter().collect();
            shard
        };
        let shards: Vec<Shard> = (0..rows).map(shard).collect();
        let lease = |(index, shard): (usize, &Shard)| {
            let is_ended = !shard.is_open();
            let checkpoint = if is_ended { Checkpoint::ShardEnd } else { running.clone() };
            let mut lease = Lease::new(shard.id.as_str(), checkpoint);
            lease.hash_key_range = Some(shard.hash_key_range);
            lease.parents = shard.parents.clone();
            lease.owner = Some(name(index % WORKERS));
            lease.counter = 7;
            if is_ended {
                lease.children = [id(parents + 2 * index), id(parents + 2 * index + 1)].into();
            }
            lease
        };
        let mut leases: Vec<Lease> = shards.iter().enumerate().map(lease).collect();
        // As a scan shows them.
        fastrand::Rng::with_seed(1).shuffle(&mut leases);
        Self { shards, leases }
    }

    fn known(&self) -> KnownTable {
        let mut known = KnownTable::default();
        known.observe_scan(self.leases.clone(), SEEN);
        known
    }

    fn fleet(&self) -> KnownFleet {
        let known: Known = self.leases.iter().map(|lease| (lease.clone(), Some(SEEN), true)).collect();
        KnownFleet::new(known, (0..WORKERS).map(|worker| (name(worker), 30.0)))
    }

    fn renewed(&self) -> Vec<Lease> {
        let mut renewed = self.leases.clone();
        renewed.iter_mut().for_each(|lease| lease.counter += 1);
        renewed
    }

    /// The consumers of children wait for their parents.
    fn wait<'a>(&self, awaited: &'a AwaitedEnds) -> impl Sized + use<'a> {
        let parents = self.leases.iter().filter(|lease| !lease.parents.is_empty());
        let keys = |lease: &Lease| lease.parents.iter().map(|id| LeaseKey::from(id.as_str())).collect();
        parents.map(|lease| awaited.wait_for(keys(lease))).collect::<Vec<_>>()
    }

    fn observe_scan(&self) -> Duration {
        let mut known = self.known();
        let awaited = known.awaited();
        let _waiting = self.wait(&awaited);
        let scan = self.renewed();
        timed(|| known.observe_scan(scan, NOW))
    }

    fn clean_up(&self) -> Duration {
        let known = self.known();
        timed(|| known.plan_cleanup())
    }

    fn sync_shards(&self) -> Duration {
        let mut known = KnownTable::default();
        known.observe_scan(self.leases[1..].to_vec(), SEEN);
        timed(|| known.plan_shard_sync(&self.shards, StartStrategy::Oldest))
    }

    fn audit(&self) -> Duration {
        let known = self.known();
        timed(|| assert!(known.is_covered()))
    }

    fn end_consumers(&self) -> Duration {
        let mut known = self.known();
        let awaited = known.awaited();
        let _waiting = self.wait(&awaited);
        let mut ended = self.renewed();
        ended.truncate(NEWS);
        ended.iter_mut().for_each(|lease| lease.checkpoint = Checkpoint::ShardEnd);
        timed(|| ended.into_iter().for_each(|lease| known.learn(lease, NOW)))
    }

    fn take_news(&self) -> Duration {
        let mut known = self.known();
        let awaited = known.awaited();
        let _waiting = self.wait(&awaited);
        let mut news = self.renewed();
        news.truncate(NEWS);
        timed(|| news.into_iter().for_each(|lease| known.learn(lease, NOW)))
    }

    fn plan_for_itself(&self) -> Duration {
        let (fleet, worker) = (self.fleet(), name(0));
        let held = self.leases.iter().filter(|lease| lease.owner.as_ref() == Some(&worker));
        let held = held.map(|lease| lease.key.clone()).collect();
        timed(|| fleet.plan_for_itself(&worker, &held, &CoordinationConfig::default(), NOW, 1))
    }

    fn plan_as_leader(&self) -> Duration {
        let fleet = self.fleet();
        timed(|| fleet.plan_as_leader(&CoordinationConfig::default(), NOW, 1))
    }

    fn lead(&self) -> Duration {
        let known = self.known();
        timed(|| known.leads(&name(0), Duration::from_secs(10), NOW))
    }
}

fn id(index: usize) -> ShardId {
    format!("shardId-{index:012}").into()
}

fn name(worker: usize) -> WorkerId {
    format!("ip-10-0-0-{worker}.eu-west-1.compute.internal:{worker:08x}").into()
}

fn range(index: usize, of: usize) -> HashKeyRange {
    let size = u128::MAX / of as u128;
    let end = if index + 1 == of { u128::MAX } else { size * (index as u128 + 1) - 1 };
    HashKeyRange::new(size * index as u128, end).expect("a range")
}
