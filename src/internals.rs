//! Private parts for this crate's own tests and benches; outside semver.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::Client;
use bytes::Bytes;

use crate::admin::Admin;
use crate::config::CoordinationConfig;
use crate::consumer::{ConsumerBuilder, Environment};
use crate::coordination::assign::independent::{Rules, plan_assignment};
use crate::coordination::assign::leader::{LeaderRules, plan_leader_assignment};
use crate::coordination::assign::load_forecast::LoadForecast;
use crate::coordination::leader_state::LeaderState;
use crate::coordination::migration::leads;
use crate::coordination::view::{Observed, View};
use crate::coordination::worker_metrics::{CPU, WorkerStats};
use crate::kinesis::{RecordsPage, Shard, SubscriptionEvent};
use crate::lease::{DynamoDbLeaseStore, Item, Lease, LeaseStore, LeaseWrite, WriteOutcome, row_after};
use crate::lease::{LocalLeaseNotifier, OpenLeases};
use crate::runtime::Clock;
use crate::shard_sync::{Audit, HoleTracker, plan_cleanup, plan_shard_sync};
use crate::types::{LeaseKey, Moment, StartStrategy, WorkerId};

pub use crate::coordination::assign::claim_attempts::{AfterClaim, ClaimAttempts};
pub use crate::coordination::assign::independent::{ClaimReason, LeaseClaim};
pub use crate::coordination::assign::leader::{AssignReason, Handoffs, LeaseAssignment};
pub use crate::coordination::election::lock::{ElectionAction, LockRow, LockView, Version};
pub use crate::lease::hold::{
    AfterFailure, AfterWrite, InFlightWrite, LeaseHold, LeaseLoss, NextWrite, WriteRequest,
};
pub use crate::planted::{Bug, plant};
pub use crate::shard::ending_steps::{EndingStep, EndingSteps};
pub use crate::shard_sync::child_leases::ChildError;

/// A page of records from the body of a response in CBOR, if it is one.
#[must_use]
pub fn records_page(response: &Bytes) -> Option<RecordsPage> {
    crate::kinesis::page_from_cbor(response)
}

/// The events in CBOR in the frames of an event stream that arrives in these pieces, up to the first fault, and
/// whether there was none.
#[must_use]
pub fn events_from_frames(pieces: impl IntoIterator<Item = Bytes>) -> (Vec<SubscriptionEvent>, bool) {
    crate::kinesis::events_from_frames(pieces)
}

/// The lease table in DynamoDB as the consumer uses it; `segments` scan it at once. With an
/// `application`, rows that are no leases are where its fleet has them.
#[must_use]
pub fn dynamodb_lease_store(
    client: &Client,
    table: &str,
    application: Option<&str>,
    segments: Option<u32>,
    request_timeout: Duration,
) -> Arc<dyn LeaseStore> {
    let mut store = DynamoDbLeaseStore::new(client, table, Clock::system());
    if let Some(application) = application {
        store = store.with_legacy_tables_of(application);
    }
    Arc::new(store.with_scan_segments(segments).with_request_timeout(request_timeout))
}

/// Puts a consumer into a simulated world: its clock shows `wall` now, follows tokio's clock at
/// `rate`, and everything it does at random follows from `seed`. Coordination runs on the current
/// runtime, and other workers of the process are as far away as if they were on other machines.
pub fn in_simulation(builder: ConsumerBuilder, wall: SystemTime, rate: f64, seed: u64) -> ConsumerBuilder {
    builder.world(Environment {
        clock: Some(Clock::simulated(wall, rate)),
        seed: Some(seed),
        notifier: Some(LocalLeaseNotifier::isolated()),
        on_current_runtime: true,
    })
}

/// Puts an operator into a simulated world, as [`in_simulation`] does with a consumer.
#[must_use]
pub fn admin_in_simulation(admin: Admin, wall: SystemTime, rate: f64, seed: u64) -> Admin {
    admin.in_simulation(Clock::simulated(wall, rate), seed)
}

/// Has a fleet run by a leader once it has been ready for so long, instead of KCL's ten minutes.
pub fn move_on_after(coordination: &mut CoordinationConfig, ready_for: Duration) {
    coordination.leader.ready_for = ready_for;
}

/// What a worker knows of the lease table: each lease, when its counter was last seen to change, and whether
/// its owner has acknowledged it.
pub type Known = Vec<(Lease, Option<Moment>, bool)>;

/// What a worker knows after a scan that was complete at `now`.
#[must_use]
pub fn observe_scan(known: Known, scan: Vec<Lease>, now: Moment) -> Known {
    let mut view = View::from_parts(known);
    view.observe_scan(scan, now);
    view.into_parts().collect()
}

/// What a worker knows after it has seen one row as it is at `now`.
#[must_use]
pub fn learn(known: Known, lease: Lease, now: Moment) -> Known {
    let mut view = View::from_parts(known);
    view.learn(lease, now);
    view.into_parts().collect()
}

/// The leases `worker` would take by the rules of KCL 2.x.
#[must_use]
pub fn plan_takes(
    known: Known,
    held: &BTreeSet<LeaseKey>,
    worker: &WorkerId,
    failover_time: Duration,
    now: Moment,
    seed: u64,
) -> Vec<LeaseClaim> {
    takes(&View::from_parts(known), held, worker, failover_time, now, seed)
}

fn takes(
    view: &View,
    held: &BTreeSet<LeaseKey>,
    worker: &WorkerId,
    failover_time: Duration,
    now: Moment,
    seed: u64,
) -> Vec<LeaseClaim> {
    let rules = Rules {
        worker: worker.clone(),
        max_leases: usize::MAX,
        leases_to_acquire: 1,
        failover_time,
        priority_lease_assignment: false,
        barred: BTreeSet::new(),
    };
    plan_assignment(view, held, &rules, now, &mut fastrand::Rng::with_seed(seed)).takes
}

/// A fleet as a worker of it knows it, to plan for.
#[derive(Debug)]
pub struct KnownFleet {
    view: View,
    workers: Vec<WorkerStats>,
}

impl KnownFleet {
    /// A fleet of these workers, each with how busy its CPU is in percent.
    #[must_use]
    pub fn new(known: Known, workers: impl IntoIterator<Item = (WorkerId, f64)>) -> Self {
        let reported = |(worker, cpu)| {
            let mut stats = WorkerStats::new(worker);
            stats.push(CPU, Some(cpu), 100.0);
            stats
        };
        Self { view: View::from_parts(known), workers: workers.into_iter().map(reported).collect() }
    }

    /// How many leases a leader would move at `now`.
    #[must_use]
    pub fn plan_as_leader(&self, coordination: &CoordinationConfig, now: Moment, seed: u64) -> usize {
        let rules = LeaderRules::new(coordination, usize::MAX);
        let mut rng = fastrand::Rng::with_seed(seed);
        let plan = plan_leader_assignment(
            &self.view,
            &self.workers,
            &mut LoadForecast::default(),
            &Handoffs::default(),
            &rules,
            true,
            now,
            &mut rng,
        );
        plan.moves.len()
    }

    /// How many leases `worker`, which has those in `held`, would take by the rules of KCL 2.x.
    #[must_use]
    pub fn plan_for_itself(
        &self,
        worker: &WorkerId,
        held: &BTreeSet<LeaseKey>,
        coordination: &CoordinationConfig,
        now: Moment,
        seed: u64,
    ) -> usize {
        takes(&self.view, held, worker, coordination.failover_time, now, seed).len()
    }
}

/// A lease table as a worker knows it, for the steps that the coordination thread takes between renewals.
#[derive(Debug, Default)]
pub struct KnownTable {
    view: View,
    open_leases: Arc<OpenLeases>,
}

impl KnownTable {
    /// A scan was answered.
    pub fn observe_scan(&mut self, scan: Vec<Lease>, now: Moment) {
        self.view.observe_scan(scan, now);
        let is_running = |seen: &Observed| !seen.lease.checkpoint.is_shard_end();
        self.open_leases.observe(|key| self.view.get(key).is_some_and(is_running));
    }

    /// A consumer ended, or news of a row came from another worker.
    pub fn learn(&mut self, lease: Lease, now: Moment) {
        self.open_leases.learn(&lease.key, !lease.checkpoint.is_shard_end());
        self.view.learn(lease, now);
    }

    /// The ends that consumers wait for.
    #[must_use]
    pub fn awaited(&self) -> AwaitedEnds {
        AwaitedEnds(Arc::clone(&self.open_leases))
    }

    /// How many rows are to be deleted.
    #[must_use]
    pub fn plan_cleanup(&self) -> usize {
        self.view.by_stream().values().map(|leases| plan_cleanup(leases).len()).sum()
    }

    /// How many leases are to be created; `None` if the shards are not consistent.
    #[must_use]
    pub fn plan_shard_sync(&self, shards: &[Shard], strategy: StartStrategy) -> Option<usize> {
        let leases: Vec<&Lease> = self.view.leases().collect();
        plan_shard_sync(shards, &leases, strategy, false).ok().map(|plan| plan.new_leases.len())
    }

    /// Whether all hash keys are covered.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        let by_stream = self.view.by_stream();
        by_stream.values().all(|leases| HoleTracker::new(1).check(leases) == Audit::Covered)
    }

    /// Whether `worker` leads by the rules of KCL 2.x.
    #[must_use]
    pub fn leads(&self, worker: &WorkerId, failover_time: Duration, now: Moment) -> bool {
        leads(worker, self.view.live_owners(failover_time, now))
    }
}

/// The ends of leases that consumers wait for.
#[derive(Debug)]
pub struct AwaitedEnds(Arc<OpenLeases>);

impl AwaitedEnds {
    /// A consumer waits for the ends of these leases until what is returned is dropped.
    #[must_use]
    pub fn wait_for(&self, parents: Vec<LeaseKey>) -> impl Sized + '_ {
        self.0.wait_for(parents)
    }
}

/// What `leader` does that knows this of the table, if the workers in `active` have reported lately. Others
/// whose leases have all expired get nothing.
#[must_use]
pub fn plan_moves(
    known: Known,
    leader: &WorkerId,
    active: &[WorkerId],
    handoffs: &Handoffs,
    coordination: &CoordinationConfig,
    now: Moment,
    seed: u64,
) -> Vec<LeaseAssignment> {
    let rules = LeaderRules::new(coordination, usize::MAX);
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let reports: Vec<Item> = active
        .iter()
        .filter_map(|worker| row_after(&WorkerStats::new(worker.clone()).to_write(wall), None).ok().flatten())
        .collect();
    let mut leading = LeaderState::begin();
    leading.note_workers(&reports, wall, now);
    for (lease, ..) in &known {
        if let Some(until) = handoffs.until(&lease.key) {
            leading.handoff_began(lease.key.clone(), until);
        }
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    leading.plan(&mut View::from_parts(known), leader, &rules, now, now, &mut rng).moves
}

/// The handoffs of a leader that knows this of the table.
#[must_use]
pub fn note_handoffs(mut handoffs: Handoffs, known: Known, until: Moment) -> Handoffs {
    handoffs.note(&View::from_parts(known), until);
    handoffs
}

/// What becomes of a write to a row as it is.
///
/// # Errors
///
/// If the write is malformed.
pub fn outcome_of(write: &LeaseWrite, row: &Lease) -> Result<WriteOutcome, String> {
    let Some(item) = item_after(write, Some(&row.to_item()))? else {
        return Ok(WriteOutcome::Refused(Some(Box::new(row.clone()))));
    };
    let lease = Lease::from_item(&item).map_err(|unreadable| unreadable.to_string())?;
    Ok(WriteOutcome::Applied(Box::new(lease.ok_or("no lease any more")?)))
}

/// What becomes of a row of whatever kind; `None` if a condition does not hold.
///
/// # Errors
///
/// If the write is malformed.
pub fn item_after(write: &LeaseWrite, row: Option<&Item>) -> Result<Option<Item>, String> {
    Ok(row_after(write, row)?)
}

/// Whether `worker` takes up a lease that it finds in the table.
#[must_use]
pub fn is_given_to(worker: &WorkerId, lease: &Lease) -> bool {
    crate::coordination::roles::is_given_to(worker, lease)
}

/// Whether a child may start as far as this parent of it goes, whose row was just read consistently.
#[must_use]
pub fn lets_children_start(parent: Option<&Lease>) -> bool {
    crate::shard::lets_children_start(parent)
}
