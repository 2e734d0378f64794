use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::fake_shard::{FakeShard, Script};
use super::*;
use crate::kinesis::{IteratorPosition, StreamErrorKind};
use crate::types::{Checkpoint, HashKeyRange, Moment, SequenceNumber};

const MINUTE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// A shard, and the parts of a consumer that read it.
pub(super) struct Bench {
    pub(super) clock: Clock,
    pub(super) shard: FakeShard,
    pub(super) budget: Arc<WorkerBudget>,
    pub(super) config: RetrievalConfig,
    pub(super) checkpoint: Checkpoint,
    /// What the lease stores about its shard besides the checkpoint.
    pub(super) lease: Lease,
    pub(super) on_recreated_stream: OnRecreatedStream,
    pub(super) limit: u32,
    pub(super) empty_batches: bool,
    pub(super) seen: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let clock = Clock::simulated(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30), 1.0);
        Self {
            shard: FakeShard::new(&clock),
            clock,
            budget: Arc::new(WorkerBudget::new(128 * MIB)),
            config: RetrievalConfig::default(),
            checkpoint: Checkpoint::TrimHorizon,
            lease: Lease::new("shard-0", Checkpoint::TrimHorizon),
            on_recreated_stream: OnRecreatedStream::default(),
            limit: 10_000,
            empty_batches: false,
            seen: Arc::default(),
        }
    }

    pub(super) fn start(&self) -> Retrieval {
        let seen = Arc::clone(&self.seen);
        let observer = move |event: FetchEvent<'_>| {
            let text = match event {
                FetchEvent::Fetched { .. } => return,
                FetchEvent::Failed { error, .. } => error.to_string(),
                FetchEvent::TimestampMissing => "timestamp missing".to_owned(),
                FetchEvent::Restarted { first } => format!("restarted: {first}"),
                FetchEvent::Refused { refusal, .. } => format!("refused: {refusal}"),
                FetchEvent::Expired { oldest } => {
                    format!("expired: {:?}", oldest.map(|record| record.sequence_number.to_string()))
                }
                other => format!("{other:?}"),
            };
            seen.lock().expect("not poisoned").push(text);
        };
        Retrieval::start(RetrievalSpec {
            source: Source::Polling,
            api: Arc::new(self.shard.clone()),
            stream: "orders".parse().expect("a name"),
            shard: "shard-0".into(),
            start: StartPosition {
                checkpoint: self.checkpoint.clone(),
                latest_since: self.clock.wall(),
                timestamp: None,
            },
            lease: Lease { checkpoint: self.checkpoint.clone(), ..self.lease.clone() },
            on_recreated_stream: self.on_recreated_stream,
            limit: self.limit,
            config: self.config.clone(),
            empty_batches: self.empty_batches,
            budget: Arc::clone(&self.budget),
            clock: self.clock.clone(),
            seed: 7,
            metrics: Metrics::disabled(),
            observer: Arc::new(observer),
        })
    }

    /// The events seen by the observer, except for pages.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("not poisoned").clone()
    }

    pub(super) fn opened(&self) -> Vec<IteratorPosition> {
        self.shard.state().opened.clone()
    }

    fn reads(&self) -> usize {
        self.shard.state().reads.len()
    }
}

/// The next delivery; panics if there is none within a day.
pub(super) async fn next(retrieval: &mut Retrieval) -> Delivery {
    Clock::system().timeout(24 * 60 * MINUTE, retrieval.next()).await.expect("a delivery")
}

/// The numbers of the records of the next delivery, which is a batch.
pub(super) async fn batch(retrieval: &mut Retrieval) -> Vec<SequenceNumber> {
    match next(retrieval).await {
        Delivery::Batch(batch) => batch.records.into_iter().map(|record| record.sequence_number).collect(),
        other => panic!("expected a batch, got {other:?}"),
    }
}

/// The numbers of all records up to the end of the shard, and the children.
pub(super) async fn drain(retrieval: &mut Retrieval) -> (Vec<SequenceNumber>, Vec<ChildShard>) {
    let mut numbers = Vec::new();
    loop {
        match next(retrieval).await {
            Delivery::Batch(batch) => {
                numbers.extend(batch.records.into_iter().map(|record| record.sequence_number));
            }
            Delivery::ShardEnd { children } => return (numbers, children),
            other => panic!("expected records or the end, got {other:?}"),
        }
    }
}

pub(super) fn numbers(range: std::ops::RangeInclusive<u128>) -> Vec<SequenceNumber> {
    range.map(SequenceNumber::from).collect()
}

pub(super) fn after(number: u128) -> IteratorPosition {
    IteratorPosition::After(number.into())
}

pub(super) fn at(number: u128) -> IteratorPosition {
    IteratorPosition::At(number.into())
}

#[tokio::test(start_paused = true)]
async fn records_come_in_order_then_the_end_again_and_again() {
    let bench = Bench { limit: 7, ..Bench::new() };
    bench.shard.put(100, 10);
    bench.shard.close();
    let mut retrieval = bench.start();
    for delivered in [numbers(1..=100), Vec::new()] {
        let (records, children) = drain(&mut retrieval).await;
        assert_eq!(records, delivered);
        assert_eq!(
            children.iter().map(|child| child.id.as_str()).collect::<Vec<_>>(),
            ["shard-1", "shard-2"]
        );
    }
    assert_eq!(bench.budget.free(), 128 * MIB);
    assert!(bench.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_finished_lease_ends_without_a_request() {
    let bench = Bench { checkpoint: Checkpoint::ShardEnd, ..Bench::new() };
    assert_eq!(drain(&mut bench.start()).await, (Vec::new(), Vec::new()));
    assert!(bench.opened().is_empty());
}

#[tokio::test(start_paused = true)]
async fn before_the_first_record_a_reopened_lease_still_starts_at_its_checkpoint() {
    let bench = Bench { checkpoint: Checkpoint::parse("3", 1).expect("a number"), ..Bench::new() };
    bench.shard.put(5, 10);
    bench.shard.state().records_scripts.extend([
        Script::Fail(StreamErrorKind::ExpiredIterator),
        Script::Fail(StreamErrorKind::InvalidArgument),
    ]);
    let mut retrieval = bench.start();
    assert_eq!(batch(&mut retrieval).await, numbers(3..=5));
    assert_eq!(bench.opened(), [at(3), at(3), at(3)]);
    assert_eq!(bench.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn after_a_record_a_reopened_shard_continues_after_it() {
    let bench = Bench::new();
    bench.shard.put(5, 10);
    let mut retrieval = bench.start();
    assert_eq!(batch(&mut retrieval).await, numbers(1..=5));
    bench.shard.state().records_scripts.extend([
        Script::Fail(StreamErrorKind::ExpiredIterator),
        Script::Fail(StreamErrorKind::InvalidArgument),
    ]);
    bench.shard.put(2, 10);
    assert_eq!(batch(&mut retrieval).await, numbers(6..=7));
    assert_eq!(bench.opened(), [IteratorPosition::TrimHorizon, after(5), after(5)]);
}

#[tokio::test(start_paused = true)]
async fn transient_failures_keep_the_iterator_and_lose_nothing() {
    let bench = Bench::new();
    bench.shard.put(5, 10);
    bench.shard.state().records_scripts.extend(
        [
            StreamErrorKind::Throttled,
            StreamErrorKind::Unavailable,
            StreamErrorKind::InUse,
            StreamErrorKind::Malformed,
            StreamErrorKind::Denied,
        ]
        .map(Script::Fail),
    );
    bench.shard.close();
    let (records, _) = drain(&mut bench.start()).await;
    assert_eq!(records, numbers(1..=5));
    assert_eq!(bench.opened().len(), 1);
    assert_eq!(bench.seen().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_shard_is_read_less_and_less_often() {
    let bench = Bench::new();
    bench
        .shard
        .state()
        .records_scripts
        .extend(std::iter::repeat_with(|| Script::Fail(StreamErrorKind::Throttled)).take(100));
    let _retrieval = bench.start();
    bench.clock.sleep(10 * MINUTE).await;
    let reads = bench.shard.state().reads.clone();
    assert!((60..=500).contains(&reads.len()), "{}", reads.len());
    for pair in reads.windows(2) {
        let gap = pair[1].since(pair[0]);
        assert!((200..=11_000).contains(&gap.as_millis()), "{gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_response_times_out_and_is_sent_again() {
    let bench = Bench::new();
    bench.shard.put(1, 10);
    bench.shard.state().iterator_scripts.push_back(Script::Hang);
    bench.shard.state().records_scripts.push_back(Script::Hang);
    let mut retrieval = bench.start();
    assert_eq!(batch(&mut retrieval).await, numbers(1..=1));
    let took = bench.clock.now().since(Moment::ORIGIN);
    assert!((60..63).contains(&took.as_secs()), "two timeouts of 30 s: {took:?}");
    assert_eq!(
        bench.seen(),
        [
            "GetShardIterator on orders/shard-0 got no response",
            "GetRecords on orders/shard-0 got no response"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn inconsistent_responses_do_not_end_the_shard() {
    let bench = Bench { limit: 2, ..Bench::new() };
    bench.shard.put(4, 10);
    bench.shard.close();
    bench.shard.state().records_scripts.extend([
        Script::Change(|page| page.next_iterator = None),
        Script::Change(|page| {
            page.child_shards = vec![ChildShard::new("x", ["shard-0".into()], HashKeyRange::FULL)];
        }),
        Script::Change(|_| {}),
        Script::Change(|page| page.child_shards.clear()),
        Script::Change(|page| page.child_shards[0].parents.clear()),
    ]);
    let (records, children) = drain(&mut bench.start()).await;
    assert_eq!((records, children.len()), (numbers(1..=4), 2));
    assert_eq!(bench.seen().len(), 4);
    assert_eq!(bench.opened().len(), 1, "tried again with the same iterator");
}

#[tokio::test(start_paused = true)]
async fn a_denied_read_is_retried_after_a_long_pause() {
    let bench = Bench::new();
    bench.shard.put(1, 10);
    let denied = || Script::Fail(StreamErrorKind::Denied);
    bench.shard.state().iterator_scripts.extend(std::iter::repeat_with(denied).take(10_000));
    let mut retrieval = bench.start();
    bench.clock.sleep(60 * MINUTE).await;
    assert!((60..=200).contains(&bench.opened().len()), "{}", bench.opened().len());
    assert_eq!(bench.seen().len(), bench.opened().len());
    bench.shard.state().iterator_scripts.clear();
    assert_eq!(batch(&mut retrieval).await, numbers(1..=1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_checkpoint_is_neither_skipped_nor_requested_in_a_loop() {
    let bench = Bench { checkpoint: Checkpoint::parse("3", 0).expect("a number"), ..Bench::new() };
    let refused = || Script::Fail(StreamErrorKind::InvalidArgument);
    bench.shard.state().iterator_scripts.extend(std::iter::repeat_with(refused).take(10_000));
    let _retrieval = bench.start();
    bench.clock.sleep(10 * MINUTE).await;
    let opened = bench.opened();
    assert!((10..=120).contains(&opened.len()), "{}", opened.len());
    assert!(opened.iter().all(|position| *position == at(3)));
    assert_eq!(bench.seen().len(), opened.len());
}

#[tokio::test(start_paused = true)]
async fn latest_counts_from_the_start_of_the_consumer() {
    let bench = Bench { checkpoint: Checkpoint::Latest, ..Bench::new() };
    bench.shard.put(3, 10);
    bench.clock.sleep(MINUTE).await;
    bench.shard.state().iterator_scripts.extend(
        [StreamErrorKind::Throttled, StreamErrorKind::Unavailable, StreamErrorKind::Throttled]
            .map(Script::Fail),
    );
    let mut retrieval = bench.start();
    bench.clock.sleep(Duration::from_millis(20)).await;
    bench.shard.put(2, 10);
    assert_eq!(batch(&mut retrieval).await, numbers(4..=5));
}

#[tokio::test(start_paused = true)]
async fn latest_is_reopened_without_missing_records() {
    let bench = Bench { checkpoint: Checkpoint::Latest, ..Bench::new() };
    let started = bench.clock.wall();
    let mut retrieval = bench.start();
    bench.clock.sleep(60 * MINUTE).await;
    bench.shard.state().records_scripts.push_back(Script::Fail(StreamErrorKind::ExpiredIterator));
    bench.shard.put(2, 10);
    assert_eq!(batch(&mut retrieval).await, numbers(1..=2));
    let opened = bench.opened();
    assert_eq!(opened[0], IteratorPosition::AtTimestamp(started));
    let IteratorPosition::AtTimestamp(reopened) = opened[1] else { panic!("{opened:?}") };
    let moved = reopened.duration_since(started).expect("later");
    assert!((54 * MINUTE..56 * MINUTE).contains(&moved), "{moved:?}");
}

#[tokio::test(start_paused = true)]
async fn latest_in_the_future_of_the_service_starts_now() {
    let bench = Bench { checkpoint: Checkpoint::Latest, ..Bench::new() };
    bench.shard.state().service_lag = Duration::from_secs(5);
    bench.shard.put(3, 10);
    let started = bench.clock.wall();
    let mut retrieval = bench.start();
    bench.clock.sleep(Duration::from_millis(50)).await;
    bench.shard.put(2, 10);
    assert_eq!(batch(&mut retrieval).await, numbers(4..=5));
    assert_eq!(bench.opened(), [IteratorPosition::AtTimestamp(started), IteratorPosition::Latest]);
    assert!(bench.seen().is_empty(), "nothing to worry about");
}

#[tokio::test(start_paused = true)]
async fn a_lease_at_a_timestamp_that_is_not_configured_is_read_from_the_oldest_record_with_a_warning() {
    let bench = Bench { checkpoint: Checkpoint::AtTimestamp, ..Bench::new() };
    bench.shard.put(3, 10);
    assert_eq!(batch(&mut bench.start()).await, numbers(1..=3));
    assert_eq!(bench.seen(), ["timestamp missing"]);
}

#[tokio::test(start_paused = true)]
async fn empty_pages_before_records_are_read_as_fast_as_the_budget_allows() {
    for (reads_per_second, seconds) in [(None, 100..=101), (Some(5.0), 2000..=2001)] {
        let mut bench = Bench::new();
        bench.config.reads_per_second = reads_per_second;
        bench.shard.put(1, 10);
        bench.shard.state().empty_pages = 10_000;
        assert_eq!(batch(&mut bench.start()).await, numbers(1..=1));
        let took = bench.clock.now().since(Moment::ORIGIN).as_secs();
        assert!(seconds.contains(&took), "10,000 answers of 10 ms: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_shard_is_read_at_the_idle_interval_and_batches_are_never_empty() {
    let bench = Bench::new();
    let mut retrieval = bench.start();
    assert!(bench.clock.timeout(10 * MINUTE, retrieval.next()).await.is_err());
    assert!((398..=402).contains(&bench.reads()), "{}", bench.reads());
}

#[tokio::test(start_paused = true)]
async fn empty_batches_are_delivered_on_request_but_only_one_is_queued() {
    let bench = Bench { empty_batches: true, ..Bench::new() };
    let mut retrieval = bench.start();
    bench.clock.sleep(MINUTE).await;
    bench.shard.put(1, 10);
    bench.clock.sleep(MINUTE).await;
    assert!(batch(&mut retrieval).await.is_empty());
    assert_eq!(batch(&mut retrieval).await, numbers(1..=1));
    assert!(batch(&mut retrieval).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_is_slow_for_ten_minutes_loses_and_repeats_nothing() {
    let bench = Bench { limit: 10, ..Bench::new() };
    bench.shard.put(100, 10);
    bench.shard.close();
    let mut retrieval = bench.start();
    assert_eq!(batch(&mut retrieval).await, numbers(1..=10));
    bench.clock.sleep(10 * MINUTE).await;
    assert_eq!(bench.reads(), 5, "one batch taken, four waiting");
    assert_eq!(drain(&mut retrieval).await.0, numbers(11..=100));
    assert_eq!(bench.opened(), [IteratorPosition::TrimHorizon, after(50)]);
    assert!(bench.seen().is_empty(), "the old iterator was not even tried");
}

#[tokio::test(start_paused = true)]
async fn each_limit_stops_read_ahead() {
    let default = RetrievalConfig::default;
    let cases = [
        (RetrievalConfig { max_pending_process_records_input: 2, ..default() }, 2),
        (RetrievalConfig { max_records_count: 25, ..default() }, 3),
        // A page counts as 4 KiB.
        (RetrievalConfig { max_byte_size: 5 << 10, ..default() }, 2),
        (RetrievalConfig { max_byte_size: 1, ..default() }, 1),
    ];
    for (config, waiting) in cases {
        let bench = Bench { limit: 10, config, ..Bench::new() };
        bench.shard.put(1000, 10);
        let mut retrieval = bench.start();
        bench.clock.sleep(MINUTE).await;
        assert_eq!(bench.reads(), waiting, "{:?}", bench.config);
        drop(batch(&mut retrieval).await);
        bench.clock.sleep(MINUTE).await;
        assert_eq!(bench.reads(), waiting + 1, "{:?}", bench.config);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_queue_records_are_fetched_only_on_demand() {
    let mut bench = Bench { limit: 10, ..Bench::new() };
    bench.config.max_pending_process_records_input = 0;
    bench.shard.put(1000, 10);
    let mut retrieval = bench.start();
    for reads in 0..3 {
        bench.clock.sleep(MINUTE).await;
        assert_eq!(bench.reads(), reads);
        drop(batch(&mut retrieval).await);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_retrieval_releases_the_memory_of_queued_and_pending_pages() {
    let bench = Bench { limit: 10, ..Bench::new() };
    bench.shard.put(1000, 1000);
    let mut retrieval = bench.start();
    let Delivery::Batch(held) = next(&mut retrieval).await else { panic!("no batch") };
    bench.clock.sleep(MINUTE).await;
    drop(next(&mut retrieval).await);
    bench.shard.state().records_scripts.push_back(Script::Hang);
    bench.clock.sleep(Duration::from_secs(1)).await;
    assert!(bench.budget.free() < 127 * MIB, "a page is under way");
    drop(retrieval);
    tokio::task::yield_now().await;
    assert_eq!(bench.budget.free(), 128 * MIB - held.permit.bytes());
    drop(held);
    assert_eq!(bench.budget.free(), 128 * MIB);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_stream_api_is_reported() {
    let bench = Bench::new();
    bench.shard.state().records_scripts.push_back(Script::Panic);
    let mut retrieval = bench.start();
    assert!(matches!(next(&mut retrieval).await, Delivery::FetchTaskFailed));
    assert!(matches!(next(&mut retrieval).await, Delivery::FetchTaskFailed));
    assert_eq!(bench.budget.free(), 128 * MIB);
}

#[tokio::test(start_paused = true)]
async fn a_page_larger_than_expected_is_read_again_when_there_is_room() {
    let mut bench = Bench::new();
    bench.budget = Arc::new(WorkerBudget::new(16 * MIB));
    bench.shard.put(8, 1 << 20);
    let others = bench.budget.reserve(12 * MIB).await;
    let mut retrieval = bench.start();
    bench.clock.sleep(MINUTE).await;
    assert_eq!(bench.reads(), 1, "waits for room rather than reading in vain");
    drop(others);
    assert_eq!(batch(&mut retrieval).await, numbers(1..=8));
    assert_eq!(bench.opened().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_leaves_its_memory_to_other_shards() {
    let budget = Arc::new(WorkerBudget::new(2 * MIB));
    let hanging = Bench { budget: Arc::clone(&budget), ..Bench::new() };
    for _ in 0..2 {
        hanging.shard.state().records_scripts.push_back(Script::Hang);
    }
    let _retrieval = hanging.start();
    let mut behind = Bench { budget: Arc::clone(&budget), ..Bench::new() };
    behind.config.bytes_per_second = None;
    behind.shard.put(40, 200_000);
    behind.shard.state().page_bytes = 1 << 20;
    hanging.clock.sleep(Duration::from_millis(1)).await;
    let mut retrieval = behind.start();
    let started = hanging.clock.now();
    let mut records = 0;
    while records < 40 {
        records += batch(&mut retrieval).await.len();
    }
    assert!(
        hanging.clock.now().since(started) < Duration::from_secs(5),
        "the other one waits for half a minute"
    );
}

/// Fetch tasks and processors of many shards that share a budget far too small for all of them.
#[tokio::test(start_paused = true)]
async fn many_shards_share_a_small_budget_without_exceeding_it_or_blocking_each_other() {
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let budget = Arc::new(WorkerBudget::new(2 * MIB));
        let held = Arc::new(Mutex::new((0_u64, 0_u64)));
        let mut shards = tokio::task::JoinSet::new();
        for _ in 0..24 {
            let mut bench = Bench { budget: Arc::clone(&budget), ..Bench::new() };
            bench.limit = rng.u32(1..200);
            bench.config.reads_per_second = None;
            bench.config.bytes_per_second = None;
            bench.config.max_pending_process_records_input = rng.usize(0..=5);
            bench.shard.state().page_bytes = rng.usize(1..3 << 20);
            bench.shard.state().latency = Duration::from_millis(rng.u64(1..50));
            let mut total = 0;
            for _ in 0..rng.u32(1..40) {
                let count = rng.usize(1..20);
                total += count as u128;
                bench.shard.put(count, rng.usize(1..60_000));
            }
            for _ in 0..rng.u32(0..10) {
                let kind = rng.choice([StreamErrorKind::Throttled, StreamErrorKind::ExpiredIterator]);
                bench.shard.state().records_scripts.push_back(Script::Fail(kind.expect("two")));
            }
            bench.shard.close();
            let (mut rng, held) = (rng.fork(), Arc::clone(&held));
            shards.spawn(async move {
                let mut retrieval = bench.start();
                let mut delivered = Vec::new();
                while let Delivery::Batch(batch) = retrieval.next().await {
                    let cost = budget::cost(&batch.records).min(2 * MIB);
                    {
                        let mut held = held.lock().expect("not poisoned");
                        held.0 += cost;
                        held.1 = held.1.max(held.0);
                    }
                    bench.clock.sleep(Duration::from_millis(rng.u64(0..500))).await;
                    held.lock().expect("not poisoned").0 -= cost;
                    delivered.extend(batch.records.into_iter().map(|record| record.sequence_number));
                }
                assert_eq!(delivered, numbers(1..=total), "seed {seed}");
            });
        }
        let all = async {
            while let Some(shard) = shards.join_next().await {
                shard.expect("no panic")
            }
        };
        let clock = Clock::system();
        clock.timeout(60 * MINUTE, all).await.expect("blocked");
        let most = held.lock().expect("not poisoned").1;
        assert!(most <= 2 * MIB, "seed {seed}: {most}");
        assert!(most > MIB, "seed {seed}: {most}, the budget was never scarce");
        tokio::task::yield_now().await;
        assert_eq!(budget.free(), 2 * MIB, "seed {seed}");
    }
}

/// Records arrive while requests fail, iterators expire and the processor is slow.
#[tokio::test(start_paused = true)]
async fn latest_delivers_records_after_the_start_once_and_in_order_despite_faults() {
    for seed in 0..50 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let bench = Bench { checkpoint: Checkpoint::Latest, limit: rng.u32(1..20), ..Bench::new() };
        bench.shard.put(10, 10);
        bench.clock.sleep(MINUTE).await;
        let shard = bench.shard.clone();
        let clock = bench.clock.clone();
        let mut retrieval = bench.start();

        let mut writer_rng = rng.fork();
        let writer = async move {
            let mut total = 10;
            for _ in 0..40 {
                clock.sleep(Duration::from_millis(writer_rng.u64(0..60_000))).await;
                let count = writer_rng.usize(0..30);
                total += count as u128;
                shard.put(count, 10);
                for _ in 0..writer_rng.u32(0..3) {
                    let kinds = [
                        StreamErrorKind::ExpiredIterator,
                        StreamErrorKind::InvalidArgument,
                        StreamErrorKind::Throttled,
                        StreamErrorKind::Unavailable,
                    ];
                    let kind = writer_rng.choice(kinds).expect("four");
                    shard.state().records_scripts.push_back(Script::Fail(kind));
                    shard.state().iterator_scripts.push_back(Script::Fail(StreamErrorKind::Throttled));
                }
            }
            shard.close();
            total
        };
        let clock = bench.clock.clone();
        let reader = async {
            let mut delivered = Vec::new();
            while let Delivery::Batch(batch) = next(&mut retrieval).await {
                delivered.extend(batch.records.into_iter().map(|record| record.sequence_number));
                if rng.u8(..) < 25 {
                    clock.sleep(Duration::from_millis(rng.u64(0..600_000))).await;
                }
            }
            delivered
        };
        let (total, delivered) = tokio::join!(writer, reader);
        assert_eq!(delivered, numbers(11..=total), "seed {seed}");
    }
}
