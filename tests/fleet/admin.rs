//! What an operator sees of a fleet, and does to it, from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kinesis_consumer::admin::{Admin, LeaseState};
use kinesis_consumer::internals::admin_in_simulation;
use kinesis_consumer::lease::{Fault, Lease, LeaseStore};
use kinesis_consumer::{Checkpoint, ErrorKind};

use crate::world::{CheckpointPolicy, FAILOVER, STREAM, World, start, until};

/// An operator of the fleet of `world`.
pub(crate) fn operator(world: &World) -> Admin {
    let admin = Admin::new(world.table.clone(), world.kinesis.clone(), "fleet-test");
    admin_in_simulation(admin, world.now(), 1.0, 99)
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_fleet_shows_who_reads_what_and_how_far_it_is_behind() {
    let world = World::new(4);
    let admin = operator(&world);
    world.put(100);
    let one = world.start("one").await;
    let two = world.start("two").await;
    world.all_delivered_within(FAILOVER * 3).await;
    until(FAILOVER * 3, || world.owners().len() == 2, || format!("{:?}", world.owners())).await;
    // A renewal later, owners have written how far they are behind.
    tokio::time::sleep(FAILOVER).await;
    let status = admin.status().await.expect("readable");
    assert_eq!(status.problems, Vec::<String>::new());
    assert_eq!(status.streams, [STREAM]);
    assert_eq!((status.leases.len(), status.ended, status.unread.len()), (4, 0, 0));
    for lease in &status.leases {
        assert_eq!((lease.state, lease.behind_latest), (LeaseState::Held, Some(Duration::ZERO)), "{lease:?}");
        assert!(lease.checkpoint_arrived.is_some_and(|at| at <= world.now()), "{lease:?}");
    }
    let workers: Vec<_> = status
        .workers
        .iter()
        .map(|worker| (worker.worker.as_str(), worker.leases, worker.is_of_this_crate))
        .collect();
    assert_eq!(workers, [("one", 2, Some(true)), ("two", 2, Some(true))]);

    // A worker that dies, and nobody to take over.
    two.shutdown().await.expect("stops");
    until(FAILOVER * 3, || world.owners().get("one") == Some(&4), || format!("{:?}", world.owners())).await;
    assert_eq!(admin.status().await.expect("readable").problems, Vec::<String>::new());
    drop(one);
    tokio::time::sleep(FAILOVER * 2).await;
    let problems = admin.status().await.expect("readable").problems;
    assert!(problems.len() == 1 && problems[0].starts_with("4 lease(s) are not renewed"), "{problems:?}");
}

#[tokio::test(start_paused = true)]
async fn lag_is_written_without_extra_writes() {
    let writes = Arc::new(AtomicUsize::new(0));
    let run = |policy| {
        let writes = Arc::clone(&writes);
        async move {
            let world = World::new(1);
            writes.store(0, Ordering::Relaxed);
            let counted = Arc::clone(&writes);
            let store = world.unreliable_table(Arc::new(move |operation, _| {
                if ["RenewLease", "UpdateLease"].contains(&operation) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                Fault::default()
            }));
            world.put(1);
            let handle = start(world.worker("one", policy).lease_store(store)).await;
            tokio::time::sleep(FAILOVER * 6).await;
            let lease = world.leases().remove(0);
            handle.shutdown().await.expect("stops");
            assert_eq!(lease.behind_latest_now(), Some(Duration::ZERO), "{lease:?}");
            writes.load(Ordering::Relaxed)
        }
    };
    // A renewal every third of the failover time, and the one checkpoint.
    let renewals = run(CheckpointPolicy::Never).await;
    assert!((16..=19).contains(&renewals), "{renewals}");
    assert!(run(CheckpointPolicy::EveryBatch).await <= renewals + 1);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_shows_nothing_of_this_crate_is_described_all_the_same() {
    let world = World::new(2);
    let admin = operator(&world);
    // As Java KCL 2.x writes it.
    let mut lease = Lease::new("shardId-000000000000", Checkpoint::TrimHorizon);
    lease.owner = Some("java".into());
    world.table.create(&lease).await.expect("created");
    let status = admin.status().await.expect("readable");
    assert_eq!(
        (status.leases.len(), status.streams.len(), status.unread.len()),
        (1, 0, 0),
        "the stream is not known"
    );
    assert_eq!(status.workers[0].is_of_this_crate, None);
    let status =
        operator(&world).with_stream(STREAM.parse().expect("a name")).status().await.expect("readable");
    assert_eq!(status.unread.len(), 1, "{status}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_an_error_or_a_problem() {
    let world = World::new(1);
    let denied = world.unreliable_table(Arc::new(|_, _| Fault::never_sent()));
    let admin = Admin::new(denied, world.kinesis.clone(), "fleet-test");
    assert_eq!(admin.status().await.expect_err("nothing can be read").kind(), ErrorKind::Unavailable);

    let admin = operator(&world).with_stream("no-such-stream".parse().expect("a name"));
    let problems = admin.status().await.expect("the table is readable").problems;
    assert!(problems[0].contains("no-such-stream") && problems[0].contains("no such stream"), "{problems:?}");
}
