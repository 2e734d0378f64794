use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::*;
use crate::kinesis::registration::FanOutRegistration;
use crate::testing::{Fault, SimulatedKinesis};
use crate::types::Checkpoint;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;
const STREAM: &str = "orders";

/// A stream of one shard, and the parts of a consumer that subscribe to it.
struct Bench {
    clock: Clock,
    /// Writes records, without faults.
    writer: SimulatedKinesis,
    reader: SimulatedKinesis,
    budget: Arc<WorkerBudget>,
    fall_back_after: Option<Duration>,
    checkpoint: Checkpoint,
    empty_batches: bool,
    seen: Arc<Mutex<Vec<&'static str>>>,
    written: AtomicUsize,
}

impl Bench {
    fn new() -> Self {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
        let writer = SimulatedKinesis::starting_at(start);
        writer.create_stream(STREAM, 1).expect("a new stream");
        Self {
            clock: Clock::simulated(start, 1.0),
            reader: writer.with_own_faults(),
            writer,
            budget: Arc::new(WorkerBudget::new(128 << 20)),
            fall_back_after: None,
            checkpoint: Checkpoint::TrimHorizon,
            empty_batches: false,
            seen: Arc::default(),
            written: AtomicUsize::new(0),
        }
    }

    fn shard(&self) -> ShardId {
        self.writer.shards(STREAM).expect("the stream")[0].id.clone()
    }

    /// Writes records whose payloads start with their numbers, counted from 0.
    fn put(&self, count: usize, bytes: usize) {
        for _ in 0..count {
            let number = self.written.fetch_add(1, Ordering::Relaxed);
            let mut payload = number.to_string().into_bytes();
            payload.push(b' ');
            payload.resize(bytes.max(payload.len()), b'.');
            self.writer.put(STREAM, "key", payload).expect("written");
        }
    }

    fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    fn start(&self) -> Retrieval {
        let api: Arc<dyn StreamApi> = Arc::new(self.reader.clone());
        let stream: StreamId = STREAM.parse().expect("a name");
        let registration = FanOutRegistration::named(
            Arc::clone(&api),
            self.clock.clone(),
            stream.clone(),
            "application".to_owned(),
            3,
        );
        let seen = Arc::clone(&self.seen);
        let observer = move |event: FetchEvent<'_>| {
            seen.lock().expect("not poisoned").push(match event {
                FetchEvent::Fetched { .. } => "fetched",
                FetchEvent::Failed { .. } => "failed",
                FetchEvent::FellBackToPolling { .. } => "fell back",
                FetchEvent::ReturnedToFanOut => "returned",
                FetchEvent::Restarted { .. } => "restarted",
                FetchEvent::Refused { .. } => "refused",
                FetchEvent::Expired { .. } => "expired",
                FetchEvent::TimestampMissing => "timestamp missing",
            });
        };
        Retrieval::start(RetrievalSpec {
            source: Source::FanOut(FanOut {
                registration: Arc::new(registration),
                fall_back_after: self.fall_back_after,
            }),
            api,
            stream,
            shard: self.shard(),
            start: StartPosition {
                checkpoint: self.checkpoint.clone(),
                latest_since: self.clock.wall(),
                timestamp: None,
            },
            lease: Lease {
                checkpoint: self.checkpoint.clone(),
                ..Lease::new(self.shard().as_str(), Checkpoint::TrimHorizon)
            },
            on_recreated_stream: OnRecreatedStream::default(),
            limit: 10_000,
            config: RetrievalConfig::default(),
            empty_batches: self.empty_batches,
            budget: Arc::clone(&self.budget),
            clock: self.clock.clone(),
            seed: 7,
            metrics: Metrics::disabled(),
            observer: Arc::new(observer),
        })
    }

    fn saw(&self, what: &str) -> usize {
        self.seen.lock().expect("not poisoned").iter().filter(|seen| **seen == what).count()
    }

    /// Makes every `nth` call of an operation fail, from the first on.
    fn every(&self, nth: usize, operation: &'static str, fault: Fault) {
        let mut calls = 0;
        self.reader.set_faults(move |call| {
            (call.operation == operation).then(|| calls += 1)?;
            (calls % nth == 1 % nth).then_some(fault)
        });
    }
}

/// The numbers of the records that arrive within `time`, and the children if the shard ends.
async fn take(retrieval: &mut Retrieval, time: Duration) -> (Vec<usize>, Option<usize>) {
    let (mut numbers, clock) = (Vec::new(), Clock::system());
    let end = clock.now() + time;
    loop {
        let left = end.since(clock.now());
        match clock.timeout(left, retrieval.next()).await {
            Err(_) => return (numbers, None),
            Ok(Delivery::Batch(batch)) => numbers.extend(batch.records.iter().map(number)),
            Ok(Delivery::ShardEnd { children }) => return (numbers, Some(children.len())),
            Ok(other) => panic!("expected records or the end, got {other:?}"),
        }
    }
}

fn number(record: &Record) -> usize {
    let text = std::str::from_utf8(&record.data).expect("text");
    text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

fn up_to(count: usize) -> Vec<usize> {
    (0..count).collect()
}

#[tokio::test(start_paused = true)]
async fn renewals_neither_skip_nor_repeat_records() {
    let bench = Bench::new();
    let mut retrieval = bench.start();
    let mut numbers = Vec::new();
    // Four subscriptions, with records at every moment.
    for _ in 0..18 * 60 {
        bench.put(1, 100);
        numbers.extend(take(&mut retrieval, SECOND).await.0);
    }
    assert_eq!(numbers, up_to(bench.written()));
    assert_eq!(bench.saw("failed"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_is_delivered_as_soon_as_it_is_written() {
    let bench = Bench::new();
    let mut retrieval = bench.start();
    take(&mut retrieval, 10 * SECOND).await;
    bench.put(1, 100);
    assert_eq!(take(&mut retrieval, Duration::from_millis(10)).await.0, [0]);
}

#[tokio::test(start_paused = true)]
async fn broken_subscriptions_neither_lose_nor_repeat_records() {
    use StreamErrorKind::{Denied, InUse, Throttled, Unavailable};
    for (nth, operation, fault) in [
        (3, "SubscribeToShardEvent", Fault::Error(Unavailable)),
        (2, "SubscribeToShardEvent", Fault::Error(InUse)),
        (4, "SubscribeToShardEvent", Fault::Delay(40 * SECOND)),
        (2, "SubscribeToShard", Fault::Error(InUse)),
        (2, "SubscribeToShard", Fault::Error(Throttled)),
        (2, "SubscribeToShard", Fault::NoAnswer(2 * SECOND)),
        (3, "SubscribeToShard", Fault::Error(Denied)),
        (2, "DescribeStreamConsumer", Fault::Error(Throttled)),
        (2, "RegisterStreamConsumer", Fault::NoAnswer(SECOND)),
    ] {
        let bench = Bench::new();
        bench.every(nth, operation, fault);
        bench.put(10, 100);
        let mut retrieval = bench.start();
        let mut numbers = Vec::new();
        for _ in 0..20 {
            bench.put(10, 100);
            numbers.extend(take(&mut retrieval, 30 * SECOND).await.0);
        }
        bench.reader.clear_faults();
        numbers.extend(take(&mut retrieval, 2 * MINUTE).await.0);
        assert_eq!(numbers, up_to(bench.written()), "{operation} {fault:?}");
        assert_eq!(bench.saw("fell back"), 0, "{operation} {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_stolen_by_another_consumer_is_regained() {
    let bench = Bench::new();
    let mut retrieval = bench.start();
    bench.put(1, 100);
    assert_eq!(take(&mut retrieval, 10 * SECOND).await.0, [0]);
    let api: &dyn StreamApi = &bench.writer;
    let arn = bench.writer.stream_arn(STREAM);
    let consumer = api.describe_consumer(&arn, "application").await.expect("registered").arn;
    let position = crate::kinesis::IteratorPosition::Latest;
    let thief =
        bench.writer.subscribe(consumer.as_str(), &bench.shard(), &position).expect("five seconds on");
    bench.put(5, 100);
    let (numbers, _) = take(&mut retrieval, 30 * SECOND).await;
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert!(bench.saw("failed") > 0);
    drop(thief);
}

#[tokio::test(start_paused = true)]
async fn a_slow_processor_stalls_the_subscription_and_memory_stays_bounded() {
    let mut bench = Bench::new();
    bench.budget = Arc::new(WorkerBudget::new(16 << 20));
    bench.put(200, MIB / 2);
    let mut retrieval = bench.start();
    let Delivery::Batch(first) = retrieval.next().await else { panic!("no batch") };
    // For longer than a subscription lasts.
    bench.clock.sleep(12 * MINUTE).await;
    let fetched = bench.saw("fetched");
    assert!(fetched <= 12, "{fetched} events of a megabyte were taken for a budget of 16");
    let mut numbers: Vec<_> = first.records.iter().map(number).collect();
    drop(first);
    numbers.extend(take(&mut retrieval, 5 * MINUTE).await.0);
    assert_eq!(numbers, up_to(200));
    drop(retrieval);
    bench.clock.sleep(SECOND).await;
    assert_eq!(bench.budget.free(), 16 << 20);
}

#[tokio::test(start_paused = true)]
async fn an_idle_shard_reserves_no_memory() {
    let bench = Bench::new();
    let mut retrieval = bench.start();
    bench.put(10, MIB - 100);
    take(&mut retrieval, MINUTE).await;
    assert_eq!(bench.budget.free(), 128 << 20);
}

#[tokio::test(start_paused = true)]
async fn shards_that_wait_for_the_service_leave_the_memory_to_those_with_records() {
    let budget = Arc::new(WorkerBudget::new(4 << 20));
    let on_budget = |bench: Bench| Bench { budget: Arc::clone(&budget), ..bench };
    for is_silent in [false, true] {
        let mut waiting = Vec::new();
        for _ in 0..8 {
            let bench = on_budget(Bench::new());
            // The first event takes all that was written or, of a silent shard, leaves some behind.
            bench.put(if is_silent { 4 } else { 2 }, MIB / 2 - 100);
            if is_silent {
                let mut events = 0;
                bench.reader.set_faults(move |call| {
                    (call.operation == "SubscribeToShardEvent").then(|| events += 1)?;
                    (events > 1).then_some(Fault::Delay(20 * SECOND))
                });
            }
            let mut retrieval = bench.start();
            let Delivery::Batch(batch) = retrieval.next().await else { panic!("no records") };
            assert_eq!(batch.records.len(), 2);
            waiting.push((bench, retrieval));
        }
        let behind = on_budget(Bench::new());
        behind.put(100, MIB / 2 - 100);
        let mut retrieval = behind.start();
        assert_eq!(take(&mut retrieval, SECOND).await.0, up_to(100), "silent: {is_silent}");
        assert_eq!(budget.free(), 4 << 20);
        drop(waiting);
    }
}

#[tokio::test(start_paused = true)]
async fn the_shard_is_polled_until_fan_out_works_again() {
    let mut bench = Bench::new();
    bench.fall_back_after = Some(20 * SECOND);
    bench.every(1, "SubscribeToShard", Fault::Error(StreamErrorKind::Throttled));
    let mut retrieval = bench.start();
    bench.put(10, 100);
    let (mut numbers, _) = take(&mut retrieval, 50 * SECOND).await;
    assert_eq!((numbers.len(), bench.saw("fell back")), (10, 1));
    for _ in 0..20 {
        bench.put(10, 100);
        numbers.extend(take(&mut retrieval, 30 * SECOND).await.0);
    }
    assert_eq!((numbers.len(), bench.saw("fell back"), bench.saw("returned")), (210, 1, 0));
    bench.reader.clear_faults();
    for _ in 0..20 {
        bench.put(10, 100);
        numbers.extend(take(&mut retrieval, 30 * SECOND).await.0);
    }
    assert_eq!((bench.saw("fell back"), bench.saw("returned")), (1, 1));
    assert_eq!(numbers, up_to(bench.written()));

    // It may be lost once more.
    bench.every(1, "SubscribeToShardEvent", Fault::Error(StreamErrorKind::Unavailable));
    bench.put(10, 100);
    numbers.extend(take(&mut retrieval, 2 * MINUTE).await.0);
    assert_eq!((bench.saw("fell back"), bench.saw("returned")), (2, 1));
    assert_eq!(numbers, up_to(bench.written()));
}

#[tokio::test(start_paused = true)]
async fn a_missing_stream_consumer_delays_polling_no_longer_than_configured() {
    for fault in [Fault::Error(StreamErrorKind::Throttled), Fault::NoAnswer(30 * SECOND)] {
        let mut bench = Bench::new();
        bench.fall_back_after = Some(2 * SECOND);
        bench.every(1, "DescribeStreamConsumer", fault);
        bench.put(10, 100);
        let mut retrieval = bench.start();
        let (mut numbers, _) = take(&mut retrieval, 20 * SECOND).await;
        assert_eq!((numbers.len(), bench.saw("fell back")), (10, 1), "{fault:?}");
        // Nor do the attempts to return to fan-out.
        for _ in 0..60 {
            bench.put(1, 100);
            let (more, _) = take(&mut retrieval, 10 * SECOND).await;
            assert_eq!(more.len(), 1, "{fault:?}");
            numbers.extend(more);
        }
        assert_eq!(numbers, up_to(70));
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_shard_comes_with_its_children() {
    let bench = Bench::new();
    let mut retrieval = bench.start();
    bench.put(3, 100);
    assert_eq!(take(&mut retrieval, SECOND).await, (up_to(3), None));
    let shard = bench.shard();
    bench.writer.split(STREAM, &shard).expect("split");
    assert_eq!(take(&mut retrieval, SECOND).await, (vec![], Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_has_expired_ends_without_children() {
    let bench = Bench::new();
    let mut retrieval = bench.start();
    take(&mut retrieval, SECOND).await;
    // The end of the shard is sent too late.
    bench.every(1, "SubscribeToShardEvent", Fault::Error(StreamErrorKind::Unavailable));
    take(&mut retrieval, 10 * MINUTE).await;
    bench.writer.split(STREAM, &bench.shard()).expect("split");
    assert_eq!(take(&mut retrieval, 23 * 60 * MINUTE).await, (vec![], None));
    assert_eq!(take(&mut retrieval, 2 * 60 * MINUTE).await, (vec![], Some(0)));
    assert_eq!(bench.saw("expired"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_gone_ends_no_shard() {
    let bench = Bench::new();
    let mut retrieval = bench.start();
    take(&mut retrieval, SECOND).await;
    bench.writer.delete_stream(STREAM).expect("deleted");
    assert_eq!(take(&mut retrieval, 60 * MINUTE).await, (vec![], None));
    assert!(bench.saw("failed") > 10);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_was_deregistered_is_registered_again() {
    let bench = Bench::new();
    let mut retrieval = bench.start();
    take(&mut retrieval, 10 * SECOND).await;
    let api: &dyn StreamApi = &bench.writer;
    let arn = bench.writer.stream_arn(STREAM);
    let first = api.describe_consumer(&arn, "application").await.expect("registered").arn;
    bench.writer.deregister_consumer(first.as_str()).expect("deregistered");
    bench.put(3, 100);
    assert_eq!(take(&mut retrieval, MINUTE).await, (up_to(3), None));
    assert!(api.describe_consumer(&arn, "application").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_aggregate_that_is_half_processed_is_delivered_whole_however_often_it_is_reopened() {
    let mut bench = Bench::new();
    bench.put(2, 100);
    let stored = bench.writer.stored_records(STREAM, &bench.shard()).expect("the shard");
    bench.checkpoint = crate::types::ExtendedSequenceNumber::new(stored[0].sequence_number.clone(), 3).into();
    bench.every(2, "SubscribeToShardEvent", Fault::Error(StreamErrorKind::Unavailable));
    let mut retrieval = bench.start();
    assert_eq!(take(&mut retrieval, MINUTE).await.0, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn records_written_after_the_start_are_delivered_at_latest() {
    let mut bench = Bench::new();
    bench.put(5, 100);
    bench.clock.sleep(SECOND).await;
    bench.checkpoint = Checkpoint::Latest;
    bench.every(1, "SubscribeToShard", Fault::Error(StreamErrorKind::Unavailable));
    let mut retrieval = bench.start();
    bench.put(5, 100);
    take(&mut retrieval, MINUTE).await;
    bench.reader.clear_faults();
    assert_eq!(take(&mut retrieval, MINUTE).await.0, [5, 6, 7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn events_without_records_are_batches_only_if_wanted() {
    for empty_batches in [false, true] {
        let bench = Bench { empty_batches, ..Bench::new() };
        let mut retrieval = bench.start();
        let came = Clock::system().timeout(MINUTE, retrieval.next()).await.is_ok();
        assert_eq!(came, empty_batches);
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_larger_than_an_event_is_delivered_whole() {
    let bench = Bench::new();
    let change = bench.writer.change(|service, now| {
        service.update_stream(now, STREAM, |stream| stream.record_bytes_max = 10 * MIB)
    });
    change.expect("a stream of large records");
    bench.put(1, 10 * MIB - 10);
    let mut retrieval = bench.start();
    assert_eq!(take(&mut retrieval, MINUTE).await.0, [0]);
}
