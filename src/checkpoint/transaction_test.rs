use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::checkpoint::interruption::StoppedReason;
use crate::checkpoint::{Checkpointer, CheckpointerParts};
use crate::error::ErrorKind;
use crate::events::EventSink;
use crate::lease::{
    Attribute, Fault, FaultyLeaseStore, HeldLease, Lease, LeaseStore, LeaseWrite, MemoryLeaseStore,
    Requirement, WriteOutcome, WritePacer,
};
use crate::metrics::Metrics;
use crate::runtime::Clock;
use crate::types::LeaseKey;

const FAILOVER: Duration = Duration::from_secs(10);

/// The table and a checkpointer that was given records up to 100; its next requests go as `faults` say, then well.
struct Fixture {
    table: MemoryLeaseStore,
    held: Arc<HeldLease>,
    checkpointer: Checkpointer,
    /// The faults left, and how many requests there were.
    faults: Arc<Mutex<(VecDeque<Fault>, usize)>>,
}

async fn fixture() -> Fixture {
    let table = MemoryLeaseStore::default();
    table.create_user_table("totals", &["id"]);
    let fresh = Lease::new("shardId-0", Checkpoint::TrimHorizon);
    table.create(&fresh).await.unwrap();
    let clock = Clock::system();
    let taken = clock.now();
    let outcome = table.apply(&LeaseWrite::take(&fresh, &"me".into())).await.unwrap();
    let WriteOutcome::Applied(lease) = outcome else { panic!("{outcome:?}") };
    let faults = Arc::new(Mutex::new((VecDeque::new(), 0)));
    let hook = {
        let faults = Arc::clone(&faults);
        Arc::new(move |_: &'static str, _: Option<&LeaseKey>| {
            let mut faults = faults.lock();
            faults.1 += 1;
            faults.0.pop_front().unwrap_or_default()
        })
    };
    let events = EventSink::new();
    let pacer = Arc::new(WritePacer::new(clock.clone(), FAILOVER, events.clone(), &"me".into()));
    let store = Arc::new(FaultyLeaseStore::new(table.clone(), hook));
    let held = HeldLease::new(store, pacer, clock.clone(), "me".into(), FAILOVER, *lease, taken, 1);
    let held = Arc::new(held);
    let checkpointer = Checkpointer::new(CheckpointerParts {
        held: Arc::clone(&held),
        stream: "orders".parse().unwrap(),
        application: "test".into(),
        events,
        metrics: Metrics::disabled(),
        clock,
        worker: "me".into(),
        stopping: CancellationToken::new(),
        stopped: StoppedReason::default(),
        seed: 1,
    });
    checkpointer.deliver(at(100));
    Fixture { table, held, checkpointer, faults }
}

fn at(number: u128) -> ExtendedSequenceNumber {
    ExtendedSequenceNumber::new(number.into(), 0)
}

fn key(id: &str) -> ItemKey {
    ItemKey::new("totals").with("id", id)
}

impl Fixture {
    fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.faults.lock() = (faults.into_iter().collect(), 0);
    }

    fn requests(&self) -> usize {
        self.faults.lock().1
    }

    /// Records add their numbers to one total: those after the transaction's base, up to `up_to`.
    fn sum(&self, up_to: u128) -> Transaction {
        let mut transaction = self.checkpointer.transaction();
        let from = transaction.from().clone();
        for number in (1..=up_to).filter(|number| Checkpoint::from(at(*number)) > from) {
            let number = u64::try_from(number).unwrap();
            transaction.add(&key("sum"), "value", Number::from(number)).unwrap();
        }
        transaction
    }

    async fn commit(&self, up_to: u128) -> Result<Committed, Error> {
        self.sum(up_to).commit(at(up_to)).await
    }

    /// The checkpoint, and the total.
    async fn state(&self) -> (Checkpoint, String) {
        let row = self.table.lease(&"shardId-0".into()).await.unwrap().unwrap();
        let items = self.table.user_items("totals");
        let sum = items.iter().find(|item| item.get("id") == Some(&Attribute::from("sum")));
        let value = sum.and_then(|item| item.get("value")).cloned();
        (row.checkpoint, if let Some(Attribute::N(value)) = value { value } else { "0".to_owned() })
    }

    async fn assert_state(&self, up_to: u128) {
        let sum = up_to * (up_to + 1) / 2;
        let checkpoint = if up_to == 0 { Checkpoint::TrimHorizon } else { at(up_to).into() };
        assert_eq!(self.state().await, (checkpoint, sum.to_string()));
    }

    /// Commits, and drops the call when the transaction has landed, before its response comes.
    async fn commit_unanswered(&self, up_to: u128) {
        self.plan([Fault::default().delayed(Duration::ZERO, Duration::from_secs(5))]);
        let commit = Clock::system().timeout(Duration::from_secs(1), self.commit(up_to)).await;
        assert!(commit.is_err(), "{commit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn effects_and_checkpoint_are_written_together() {
    let fixture = fixture().await;
    assert_eq!(fixture.commit(4).await.unwrap(), Committed::Now);
    fixture.assert_state(4).await;
    assert_eq!(fixture.commit(9).await.unwrap(), Committed::Now);
    fixture.assert_state(9).await;
    assert_eq!(
        fixture.checkpointer.transaction().commit(at(12)).await.unwrap(),
        Committed::Now,
        "no effects"
    );
    assert_eq!(fixture.state().await.0, at(12).into());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_response_is_lost_counts_once() {
    commits_with_lost_responses().await;
}

async fn commits_with_lost_responses() {
    for lost in [Fault::answer_lost(), Fault::never_sent(), Fault::refused(StoreErrorKind::Conflict)] {
        let fixture = fixture().await;
        fixture.plan([lost, lost, lost]);
        assert_eq!(fixture.commit(4).await.unwrap(), Committed::Now, "{lost:?}");
        assert_eq!(fixture.requests(), 4);
        fixture.assert_state(4).await;
        // The counter is what this worker expects.
        assert_eq!(fixture.commit(5).await.unwrap(), Committed::Now);
        fixture.assert_state(5).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_records_again_are_committed_earlier() {
    let fixture = fixture().await;
    fixture.commit_unanswered(4).await;
    fixture.assert_state(4).await;
    assert_eq!(fixture.commit(4).await.unwrap(), Committed::Earlier);
    fixture.assert_state(4).await;
}

#[tokio::test(start_paused = true)]
async fn other_boundaries_over_the_same_records_are_refused() {
    commits_other_boundaries().await;
}

async fn commits_other_boundaries() {
    for (landed, then) in [(4, 9), (9, 4)] {
        let fixture = fixture().await;
        fixture.commit_unanswered(landed).await;
        let stored = at(landed).into();
        assert_eq!(fixture.commit(then).await.unwrap(), Committed::Moved { stored }, "{landed} {then}");
        fixture.assert_state(landed).await;
        assert_eq!(fixture.commit(20).await.unwrap(), Committed::Now);
        fixture.assert_state(20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_landed_unnoticed_is_not_the_commit() {
    commits_after_an_unnoticed_renewal().await;
}

async fn commits_after_an_unnoticed_renewal() {
    let fixture = fixture().await;
    fixture.plan([Fault::default().delayed(Duration::ZERO, Duration::from_secs(5))]);
    let renewal = Clock::system().timeout(Duration::from_secs(1), fixture.held.renew(None)).await;
    assert!(renewal.is_err(), "no response yet");
    assert_eq!(fixture.commit(4).await.unwrap(), Committed::Now);
    fixture.assert_state(4).await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_landed_unnoticed_is_settled_by_a_renewal() {
    let fixture = fixture().await;
    fixture.commit_unanswered(4).await;
    fixture.held.renew(None).await.unwrap();
    assert_eq!(fixture.commit(9).await.unwrap(), Committed::Moved { stored: at(4).into() });
    assert_eq!(fixture.commit(9).await.unwrap(), Committed::Now);
    fixture.assert_state(9).await;
}

#[tokio::test(start_paused = true)]
async fn who_has_lost_the_lease_commits_nothing() {
    commits_after_a_theft().await;
}

async fn commits_after_a_theft() {
    let fixture = fixture().await;
    let row = fixture.table.lease(&"shardId-0".into()).await.unwrap().unwrap();
    let _ = fixture.table.apply(&LeaseWrite::take(&row, &"thief".into())).await.unwrap();
    assert_eq!(fixture.commit(4).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    fixture.assert_state(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_effect_writes_nothing() {
    let fixture = fixture().await;
    assert_eq!(fixture.commit(4).await.unwrap(), Committed::Now);
    let mut transaction = fixture.sum(6);
    let missing = Requirement::Exists("id".into());
    transaction.write(Effect::update(key("other")).set("a", "b").only_if(missing)).unwrap();
    assert_eq!(transaction.commit(at(6)).await.unwrap(), Committed::Refused { effect: 1, item: None });
    fixture.assert_state(4).await;
    assert_eq!(fixture.commit(6).await.unwrap(), Committed::Now);
    fixture.assert_state(6).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_table_refuses_is_an_error_that_says_why() {
    let fixture = fixture().await;
    let mut transaction = fixture.sum(4);
    transaction.add(&ItemKey::new("nowhere").with("id", "a"), "n", 1.into()).unwrap();
    let error = transaction.commit(at(4)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(crate::error::with_causes(&error).contains("there is no table nowhere"), "{error}");
    fixture.assert_state(0).await;
    // Positions are checked as those of checkpoints are.
    assert_eq!(fixture.commit(101).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(fixture.commit(4).await.unwrap(), Committed::Now);
    let mut of_no_record = fixture.checkpointer.transaction();
    of_no_record.add(&key("sum"), "value", 1.into()).unwrap();
    let error = of_no_record.commit(at(4)).await.unwrap_err();
    assert!(error.to_string().contains("effects of no record"), "{error}");
    fixture.assert_state(4).await;
}

#[tokio::test(start_paused = true)]
async fn it_is_tried_until_the_lease_runs_out() {
    let fixture = fixture().await;
    fixture.plan(vec![Fault::never_sent(); 10_000]);
    let clock = Clock::system();
    let began = clock.now();
    let error = fixture.commit(4).await.unwrap_err();
    let took = clock.now().since(began);
    assert!(took >= FAILOVER && took < 2 * FAILOVER, "{took:?}");
    assert!(matches!(error.kind(), ErrorKind::LeaseLost | ErrorKind::Unavailable), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_handoff_is_noticed_by_a_commit() {
    let fixture = fixture().await;
    let row = fixture.table.lease(&"shardId-0".into()).await.unwrap().unwrap();
    let announced = LeaseWrite::start_handoff(&row.key, &"me".into(), &"next".into());
    let _ = fixture.table.apply(&announced).await.unwrap();
    assert_eq!(fixture.commit(4).await.unwrap(), Committed::Now);
    assert!(fixture.held.handoff().is_cancelled());
    fixture.assert_state(4).await;
    fixture.held.release().await.unwrap();
    let row = fixture.table.lease(&"shardId-0".into()).await.unwrap().unwrap();
    assert_eq!((row.owner, row.checkpoint_owner), (Some("next".into()), None));
}

#[cfg(feature = "internals")]
#[test]
fn each_planted_bug_is_caught() {
    use crate::planted::{Bug, plant};

    fn fails(bug: Bug, test: impl Future<Output = ()>) -> bool {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        plant(Some(bug));
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(test));
        let failed = std::panic::catch_unwind(run).is_err();
        plant(None);
        failed
    }

    assert!(fails(Bug::CommitIgnoresCounter, commits_after_a_theft()));
    assert!(fails(Bug::CommitForgetsBase, commits_other_boundaries()));
    assert!(fails(Bug::NewTokenPerAttempt, commits_with_lost_responses()));
    assert!(fails(Bug::RenewalTakenForCommit, commits_after_an_unnoticed_renewal()));
}
