use std::collections::VecDeque;

use super::*;
use crate::events::EventSink;
use crate::lease::{Fault, FaultyLeaseStore, MemoryLeaseStore, StoreErrorKind, WriteOutcome};
use crate::types::ExtendedSequenceNumber;

const F: Duration = Duration::from_secs(10);

struct Fixture {
    table: MemoryLeaseStore,
    clock: Clock,
    held: HeldLease,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

/// A lease that worker `me` has just taken; the next requests go as `faults` say, then well.
async fn fixture(faults: impl IntoIterator<Item = Fault>) -> Fixture {
    let table = MemoryLeaseStore::default();
    let clock = Clock::system();
    table.create(&Lease::new("shardId-0", Checkpoint::TrimHorizon)).await.unwrap();
    let fresh = Lease::new("shardId-0", Checkpoint::TrimHorizon);
    let taken = clock.now();
    let lease = applied(table.apply(&LeaseWrite::take(&fresh, &"me".into())).await.unwrap());
    let faults = Arc::new(Mutex::new(faults.into_iter().collect::<VecDeque<_>>()));
    let queue = Arc::clone(&faults);
    let store = FaultyLeaseStore::new(
        table.clone(),
        Arc::new(move |_, _| queue.lock().pop_front().unwrap_or_default()),
    );
    let pacer = Arc::new(WritePacer::new(clock.clone(), F, EventSink::new(), &"me".into()));
    let held = HeldLease::new(Arc::new(store), pacer, clock.clone(), "me".into(), F, lease, taken, 1);
    Fixture { table, clock, held, faults }
}

fn applied(outcome: WriteOutcome) -> Lease {
    match outcome {
        WriteOutcome::Applied(lease) => *lease,
        WriteOutcome::Refused(row) => panic!("refused: {row:?}"),
    }
}

fn at(number: u128) -> Checkpoint {
    ExtendedSequenceNumber::new(number.into(), 0).into()
}

impl Fixture {
    async fn row(&self) -> Lease {
        self.table.lease(self.held.key()).await.unwrap().expect("a row")
    }

    async fn steal(&self) {
        applied(self.table.apply(&LeaseWrite::take(&self.row().await, &"thief".into())).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn each_write_bumps_the_counter_and_renews() {
    let fixture = fixture([]).await;
    fixture.clock.sleep(F / 2).await;
    fixture.held.renew(None).await.unwrap();
    fixture.held.checkpoint(&at(5)).await.unwrap();
    let row = fixture.row().await;
    assert_eq!((row.counter, row.checkpoint), (3, at(5)));
    fixture.clock.sleep(F - Duration::from_millis(1)).await;
    assert!(fixture.held.is_valid());
}

#[tokio::test(start_paused = true)]
async fn it_is_not_valid_beyond_the_failover_time_and_writes_nothing_then() {
    let fixture = fixture([]).await;
    fixture.clock.sleep(F).await;
    assert!(!fixture.held.is_valid());
    assert!(matches!(fixture.held.checkpoint(&at(5)).await, Err(HeldError::Lost)));
    assert_eq!(fixture.row().await.counter, 1);
}

#[tokio::test(start_paused = true)]
async fn validity_counts_from_when_a_write_was_sent() {
    let slow = Fault::default().delayed(Duration::from_secs(1), Duration::from_secs(2));
    let fixture = fixture([slow]).await;
    fixture.held.renew(None).await.unwrap();
    fixture.clock.sleep(F - Duration::from_secs(3)).await;
    assert!(!fixture.held.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_stolen_lease_is_lost_at_the_next_write() {
    let fixture = fixture([]).await;
    fixture.steal().await;
    assert!(matches!(fixture.held.checkpoint(&at(5)).await, Err(HeldError::Lost)));
    assert!(fixture.held.lost().is_cancelled());
    let row = fixture.row().await;
    assert_eq!((row.owner, row.checkpoint), (Some("thief".into()), Checkpoint::TrimHorizon));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_settled_by_writing_again() {
    for lost in 1..=3 {
        let fixture = fixture(vec![Fault::answer_lost(); lost]).await;
        fixture.held.checkpoint(&at(5)).await.unwrap();
        assert_eq!(fixture.row().await.checkpoint, at(5), "{lost} answers lost");
        fixture.held.renew(None).await.unwrap();
        assert!(fixture.held.is_valid());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_does_not_hide_a_theft() {
    let fixture = fixture([Fault::answer_lost(), Fault::answer_lost()]).await;
    assert!(matches!(fixture.held.renew(None).await, Err(HeldError::Store(_))));
    fixture.steal().await;
    assert!(matches!(fixture.held.renew(None).await, Err(HeldError::Lost)));
}

#[tokio::test(start_paused = true)]
async fn without_a_lost_answer_a_counter_ahead_is_a_loss_whoever_it_names() {
    let fixture = fixture([]).await;
    applied(fixture.table.apply(&LeaseWrite::take(&fixture.row().await, &"me".into())).await.unwrap());
    assert!(matches!(fixture.held.renew(None).await, Err(HeldError::Lost)));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_dropped_half_way_is_indeterminate() {
    let slow = Fault::default().delayed(Duration::ZERO, Duration::from_secs(5));
    let fixture = fixture([slow]).await;
    let dropped = fixture.clock.timeout(Duration::from_secs(1), fixture.held.checkpoint(&at(5))).await;
    assert!(dropped.is_err());
    assert_eq!(fixture.row().await.checkpoint, at(5), "it had landed");
    fixture.held.checkpoint(&at(6)).await.unwrap();
    assert_eq!(fixture.row().await.checkpoint, at(6));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_write_is_tried_again_for_the_failover_time() {
    let throttled = Fault::refused(StoreErrorKind::Throttled);
    let patient = fixture(vec![throttled; 10]).await;
    patient.held.checkpoint(&at(5)).await.unwrap();
    assert_eq!(patient.row().await.checkpoint, at(5));
    let hopeless = fixture(vec![throttled; 1000]).await;
    let since = hopeless.clock.now();
    assert!(matches!(hopeless.held.checkpoint(&at(5)).await, Err(HeldError::Lost)));
    assert_eq!(hopeless.clock.now().since(since).as_secs(), F.as_secs(), "then the lease has run out");
    let attempts = 1000 - hopeless.faults.lock().len();
    assert!(attempts < 60, "{attempts} attempts");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_will_never_succeed_is_sent_once_and_fails_at_once() {
    use StoreErrorKind::{Denied, Malformed, TableMissing, Unsuitable};
    for kind in [Denied, Malformed, TableMissing, Unsuitable] {
        let fixture = fixture(vec![Fault::refused(kind); 10]).await;
        let since = fixture.clock.now();
        let outcome = fixture.held.checkpoint(&at(5)).await;
        assert!(matches!(&outcome, Err(HeldError::Store(error)) if error.kind() == kind), "{outcome:?}");
        assert_eq!(fixture.clock.now(), since, "{kind:?}");
        assert_eq!(fixture.faults.lock().len(), 9, "{kind:?}: one request");
        assert!(fixture.held.is_valid(), "{kind:?}: the lease is held on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_others_keep_waiting_fails_after_the_failover_time() {
    let throttled = Fault::refused(StoreErrorKind::Throttled);
    let fixture = fixture(vec![throttled; 1000]).await;
    fixture.clock.sleep(F / 2).await;
    let checkpoint = async {
        let error = fixture.held.checkpoint(&at(5)).await.unwrap_err();
        assert!(matches!(&error, HeldError::Store(error) if error.kind() == StoreErrorKind::Throttled));
        assert!(error.to_string().contains("on-demand"), "{error}");
    };
    // Another attempt of the same worker keeps the lease.
    let renewed = async {
        fixture.clock.sleep(F / 4).await;
        fixture.held.hold.lock().renewed = fixture.clock.now();
    };
    tokio::join!(checkpoint, renewed);
    assert!(fixture.held.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_waits_for_its_turn_fails_at_once_when_the_lease_is_lost() {
    let throttled = Fault::refused(StoreErrorKind::Throttled);
    let fixture = fixture(vec![throttled; 1000]).await;
    let since = fixture.clock.now();
    let lose = async {
        fixture.clock.sleep(Duration::from_secs(1)).await;
        fixture.held.abandon();
    };
    let checkpoint = at(5);
    let (outcome, ()) = tokio::join!(fixture.held.checkpoint(&checkpoint), lose);
    assert!(matches!(outcome, Err(HeldError::Lost)));
    assert_eq!(fixture.clock.now().since(since), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_newer_checkpoint_replaces_one_that_waits_for_its_turn() {
    let throttled = Fault::refused(StoreErrorKind::Throttled);
    let fixture = fixture(vec![throttled; 10]).await;
    let newer = async {
        fixture.held.want(&at(4));
        fixture.held.want(&at(9));
        fixture.held.want(&at(7));
    };
    let checkpoint = at(5);
    let (outcome, ()) = tokio::join!(fixture.held.checkpoint(&checkpoint), newer);
    outcome.unwrap();
    let row = fixture.row().await;
    assert_eq!((row.checkpoint, row.counter), (at(9), 2), "in one write");
    fixture.held.want(&at(20));
    fixture.held.renew(None).await.unwrap();
    assert_eq!(fixture.row().await.checkpoint, at(9), "nobody waits for it");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_takes_along_the_checkpoint_that_waits() {
    let throttled = Fault::refused(StoreErrorKind::Throttled);
    let fixture = fixture(vec![throttled; 10]).await;
    // The renewal is there first, and the checkpoint comes while it waits.
    let checkpoint = async {
        fixture.clock.sleep(Duration::from_millis(60)).await;
        fixture.held.checkpoint(&at(5)).await
    };
    let (renewed, stored) = tokio::join!(fixture.held.renew(None), checkpoint);
    renewed.unwrap();
    stored.unwrap();
    let row = fixture.row().await;
    assert_eq!((row.checkpoint, row.counter), (at(5), 2), "in one write");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_waits_makes_a_renewal_needless() {
    let throttled = Fault::refused(StoreErrorKind::Throttled);
    let fixture = fixture(vec![throttled; 10]).await;
    let renewal = async {
        fixture.clock.sleep(Duration::from_millis(60)).await;
        fixture.held.renew(None).await
    };
    let checkpoint = at(5);
    let (stored, renewed) = tokio::join!(fixture.held.checkpoint(&checkpoint), renewal);
    stored.unwrap();
    renewed.unwrap();
    let row = fixture.row().await;
    assert_eq!((row.checkpoint, row.counter), (at(5), 2), "in one write");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_is_dropped_while_it_waits_is_not_written_later() {
    let throttled = Fault::refused(StoreErrorKind::Throttled);
    let fixture = fixture(vec![throttled; 10]).await;
    let dropped = fixture.clock.timeout(Duration::from_millis(100), fixture.held.checkpoint(&at(5))).await;
    assert!(dropped.is_err());
    fixture.held.renew(None).await.unwrap();
    assert_eq!(fixture.row().await.checkpoint, Checkpoint::TrimHorizon);
    fixture.held.checkpoint(&at(3)).await.unwrap();
    assert_eq!(fixture.row().await.checkpoint, at(3));
}

#[tokio::test(start_paused = true)]
async fn stored_checkpoints_never_move_backwards() {
    let fixture = fixture([]).await;
    fixture.held.checkpoint(&at(5)).await.unwrap();
    assert!(matches!(fixture.held.checkpoint(&at(4)).await, Err(HeldError::Backwards { .. })));
    assert_eq!(fixture.row().await.checkpoint, at(5));
}

#[tokio::test(start_paused = true)]
async fn children_survive_renewals_until_the_end_is_stored() {
    let fixture = fixture([]).await;
    let children = BTreeSet::from(["shardId-1".into(), "shardId-2".into()]);
    fixture.held.note_children(children.clone());
    fixture.held.renew(None).await.unwrap();
    assert!(fixture.row().await.children.is_empty());
    fixture.held.checkpoint(&Checkpoint::ShardEnd).await.unwrap();
    assert_eq!(fixture.row().await.children, children);
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_answer_is_lost_is_a_release() {
    let fixture = fixture([Fault::answer_lost()]).await;
    assert_eq!(fixture.held.release().await.unwrap().owner, None);
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_free_and_never_written_again() {
    let fixture = fixture([]).await;
    assert_eq!(fixture.held.release().await.unwrap().owner, None);
    assert!(matches!(fixture.held.checkpoint(&at(5)).await, Err(HeldError::Lost)));
    assert_eq!(fixture.row().await.owner, None);
}

impl Fixture {
    async fn start_handoff(&self) {
        let write = LeaseWrite::start_handoff(self.held.key(), &"me".into(), &"next".into());
        applied(self.table.apply(&write).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_handoff_is_noticed_by_a_renewal_and_the_lease_goes_on_being_held() {
    let fixture = fixture([]).await;
    fixture.start_handoff().await;
    assert!(!fixture.held.handoff().is_cancelled());
    fixture.clock.sleep(F / 3).await;
    fixture.held.renew(None).await.unwrap();
    assert!(fixture.held.handoff().is_cancelled() && fixture.held.is_valid());
    assert_eq!(fixture.held.handoff_since(), Some(fixture.clock.now()));
    assert_eq!(fixture.held.renewed(), fixture.clock.now());
    fixture.held.checkpoint(&at(5)).await.unwrap();
    let row = fixture.row().await;
    assert_eq!((row.counter, &row.checkpoint), (3, &at(5)));
    assert_eq!(row.checkpoint_owner, Some("me".into()));
}

#[tokio::test(start_paused = true)]
async fn a_handoff_is_noticed_by_a_checkpoint() {
    let fixture = fixture([]).await;
    fixture.start_handoff().await;
    fixture.held.checkpoint(&at(5)).await.unwrap();
    assert!(fixture.held.handoff().is_cancelled() && fixture.held.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_lease_in_handoff_is_given_to_the_next_owner() {
    let fixture = fixture([]).await;
    fixture.start_handoff().await;
    fixture.held.renew(None).await.unwrap();
    let given = fixture.held.release().await.unwrap();
    assert_eq!((given.owner, given.checkpoint_owner, given.counter), (Some("next".into()), None, 3));
    assert_eq!(given.owner_switches, 0, "a handoff that ends as planned is no switch");
    assert!(!fixture.held.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_handoff_that_began_unnoticed_is_finished_by_a_release() {
    let fixture = fixture([]).await;
    fixture.start_handoff().await;
    let given = fixture.held.release().await.unwrap();
    assert_eq!((given.owner, given.checkpoint_owner), (Some("next".into()), None));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_was_lost_is_known_again_in_a_handoff() {
    let fixture = fixture([Fault::answer_lost()]).await;
    assert!(fixture.held.renew(None).await.is_err() || fixture.held.is_valid());
    fixture.start_handoff().await;
    fixture.held.renew(None).await.unwrap();
    assert!(fixture.held.handoff().is_cancelled() && fixture.held.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_the_leader_took_out_of_a_handoff_is_lost() {
    let fixture = fixture([]).await;
    fixture.start_handoff().await;
    fixture.held.renew(None).await.unwrap();
    let row = fixture.row().await;
    applied(fixture.table.apply(&LeaseWrite::assign(&row, &"third".into())).await.unwrap());
    assert!(matches!(fixture.held.release().await, Err(HeldError::Lost)));
    assert_eq!(fixture.row().await.owner, Some("third".into()));
}

/// The lease before anybody had it, of a shard that began at this number.
fn fresh() -> Lease {
    let mut fresh = Lease::new("shardId-0", Checkpoint::TrimHorizon);
    fresh.starting_sequence_number = Some(7.into());
    fresh
}

#[tokio::test(start_paused = true)]
async fn a_reset_lease_is_free_begins_anew_and_is_never_written_again() {
    for fault in [Fault::default(), Fault::answer_lost()] {
        let fixture = fixture([]).await;
        fixture.held.checkpoint(&at(5)).await.unwrap();
        fixture.faults.lock().push_back(fault);
        let reset = fixture.held.reset(&fresh()).await.unwrap();
        let row = fixture.row().await;
        assert_eq!((&reset, &row.owner), (&row, &None));
        assert_eq!((row.checkpoint, row.counter), (Checkpoint::TrimHorizon, 3));
        assert_eq!(row.starting_sequence_number, fresh().starting_sequence_number);
        assert!(matches!(fixture.held.checkpoint(&at(9)).await, Err(HeldError::Lost)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stolen_lease_is_not_reset() {
    let fixture = fixture([]).await;
    fixture.held.checkpoint(&at(5)).await.unwrap();
    fixture.steal().await;
    assert!(matches!(fixture.held.reset(&fresh()).await, Err(HeldError::Lost)));
    assert_eq!(fixture.row().await.checkpoint, at(5));
}
