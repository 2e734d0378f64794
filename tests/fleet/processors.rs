//! Processors that misbehave.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use kinesis_consumer::aggregation::{Added, Aggregator};
use kinesis_consumer::testing::NewRecord;
use kinesis_consumer::{
    Checkpoint, Checkpointer, Error, ErrorKind, Event, KinesisClientRecord, LifecycleConfig,
    ShardRecordProcessor, ShardRecordProcessorFactory,
};

use crate::world::{CheckpointPolicy, FAILOVER, STREAM, World, start, until};

/// A callback of a scripted processor.
#[derive(Debug, Clone)]
enum Callback {
    Initialize,
    Records(Vec<String>),
    LeaseLost,
    ShardEnded,
    ShutdownRequested,
}

type Script = Arc<dyn Fn(Callback, Checkpointer) -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Clone)]
struct Scripted(Script);

struct ScriptedProcessor(Script, Checkpointer);

impl Scripted {
    fn new<F>(script: impl Fn(Callback, Checkpointer) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(Arc::new(move |callback, checkpointer| Box::pin(script(callback, checkpointer))))
    }
}

/// Creates processors that never return from their first batch.
pub(crate) fn stuck_in_first_batch() -> impl ShardRecordProcessorFactory + 'static {
    Scripted::new(|callback, _| async move {
        if let Callback::Records(_) = callback {
            std::future::pending::<()>().await;
        }
    })
}

#[async_trait]
impl ShardRecordProcessorFactory for Scripted {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        (self.0)(Callback::Initialize, checkpointer.clone()).await;
        Box::new(ScriptedProcessor(Arc::clone(&self.0), checkpointer))
    }
}

#[async_trait]
impl ShardRecordProcessor for ScriptedProcessor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        let texts = records.iter().map(|record| String::from_utf8_lossy(&record.record.data).into_owned());
        (self.0)(Callback::Records(texts.collect()), self.1.clone()).await;
        if let Some(last) = records.last() {
            // Each test checks the outcome itself.
            let _ = self.1.checkpoint(last.extended_sequence_number()).await;
        }
    }
    async fn lease_lost(&self) {
        (self.0)(Callback::LeaseLost, self.1.clone()).await;
    }
    async fn shard_ended(&self) {
        (self.0)(Callback::ShardEnded, self.1.clone()).await;
    }
    async fn shutdown_requested(&self) {
        (self.0)(Callback::ShutdownRequested, self.1.clone()).await;
    }
}

/// A list to which the processors of a test write.
type Seen<T> = Arc<Mutex<Vec<T>>>;

fn see<T>(seen: &Seen<T>, what: T) {
    seen.lock().expect("not poisoned").push(what);
}

fn seen<T: Clone>(seen: &Seen<T>) -> Vec<T> {
    seen.lock().expect("not poisoned").clone()
}

/// Panics without the message of the panic hook, which the test harness would show.
fn panic_quietly() -> ! {
    std::panic::resume_unwind(Box::new("a defect in user code"))
}

#[tokio::test(start_paused = true)]
async fn a_panic_restarts_the_shard_from_its_last_checkpoint_and_leaves_the_others_alone() {
    let world = World::new(2);
    let open = world.kinesis.open_shards(STREAM).expect("a stream");
    let put = |shard: usize, text: &str| {
        let record = NewRecord::new("key", text.to_owned());
        let record = record.with_explicit_hash_key(open[shard].hash_key_range.start());
        world.kinesis.put_record(STREAM, record).expect("put");
    };
    put(0, "first");
    let delivered: Seen<String> = Arc::default();
    let panics = Arc::new(AtomicUsize::new(0));
    let script = {
        let (delivered, panics) = (Arc::clone(&delivered), Arc::clone(&panics));
        Scripted::new(move |callback, _| {
            let (delivered, panics) = (Arc::clone(&delivered), Arc::clone(&panics));
            async move {
                let Callback::Records(texts) = callback else { return };
                if texts.iter().any(|text| text == "poison") && panics.fetch_add(1, Ordering::Relaxed) < 2 {
                    panic_quietly();
                }
                texts.into_iter().for_each(|text| see(&delivered, text));
            }
        })
    };
    let handle = start(world.worker_with("a", script)).await;
    let mut events = handle.events();
    until(FAILOVER, || seen(&delivered) == ["first"], || format!("{:?}", seen(&delivered))).await;
    put(0, "poison");
    put(0, "after");
    put(1, "elsewhere");
    until(FAILOVER, || seen(&delivered).len() == 4, || format!("{:?}", seen(&delivered))).await;
    let order: Vec<_> = seen(&delivered).into_iter().filter(|text| text != "elsewhere").collect();
    assert_eq!(order, ["first", "poison", "after"], "nothing is skipped or repeated");
    assert_eq!(panics.load(Ordering::Relaxed), 3, "it panicked twice and then did not");
    loop {
        match events.next().await.expect("the consumer runs") {
            Event::ProcessorPanicked { shard, callback, .. } => {
                assert_eq!((shard, callback), (open[0].id.clone(), "process_records"));
                break;
            }
            _ => continue,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_initialize_is_retried() {
    let world = World::new(1);
    world.put(1);
    let tries = Arc::new(AtomicUsize::new(0));
    let delivered: Seen<String> = Arc::default();
    let script = {
        let (tries, delivered) = (Arc::clone(&tries), Arc::clone(&delivered));
        Scripted::new(move |callback, _| {
            let (tries, delivered) = (Arc::clone(&tries), Arc::clone(&delivered));
            async move {
                match callback {
                    Callback::Initialize if tries.fetch_add(1, Ordering::Relaxed) < 3 => panic_quietly(),
                    Callback::Records(texts) => texts.into_iter().for_each(|text| see(&delivered, text)),
                    _ => {}
                }
            }
        })
    };
    let _handle = start(world.worker_with("a", script)).await;
    until(FAILOVER, || seen(&delivered) == ["0"], || format!("{:?}", seen(&delivered))).await;
    assert_eq!(tries.load(Ordering::Relaxed), 4);
}

/// The processor panics in its first calls, succeeds once, and panics once more.
#[tokio::test(start_paused = true)]
async fn pauses_after_panics_double_up_to_half_a_minute_until_a_batch_is_processed() {
    const PANICS: usize = 8;
    let world = World::new(1);
    world.put(1);
    let calls: Seen<tokio::time::Instant> = Arc::default();
    let script = {
        let calls = Arc::clone(&calls);
        Scripted::new(move |callback, _| {
            let calls = Arc::clone(&calls);
            async move {
                if let Callback::Records(_) = callback {
                    see(&calls, tokio::time::Instant::now());
                    let count = seen(&calls).len();
                    if count <= PANICS || count == PANICS + 2 {
                        panic_quietly();
                    }
                }
            }
        })
    };
    let _handle = start(world.worker_with("a", script)).await;
    let minutes = Duration::from_secs(180);
    until(minutes, || seen(&calls).len() == PANICS + 1, || format!("{:?}", seen(&calls))).await;
    // One more batch, whose first call panics.
    world.put(1);
    until(minutes, || seen(&calls).len() == PANICS + 3, || format!("{:?}", seen(&calls))).await;
    let mut pauses: Vec<Duration> = seen(&calls).windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The one in which the second record was waited for.
    pauses.remove(PANICS);
    let first = LifecycleConfig::default().task_backoff_time;
    let doubled = (0..PANICS).map(|failures| first * (1 << failures));
    let expected = doubled.chain([first]).map(|pause| pause.min(Duration::from_secs(30)));
    for (pause, expected) in pauses.iter().zip(expected) {
        // Reading begins anew, which takes a moment.
        let is_right = *pause >= expected && *pause < expected + Duration::from_millis(250);
        assert!(is_right, "{pause:?} instead of {expected:?}: {pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_checkpointer_of_a_processor_that_panicked_is_closed() {
    let world = World::new(1);
    world.put(1);
    let kept: Seen<Checkpointer> = Arc::default();
    let script = {
        let kept = Arc::clone(&kept);
        Scripted::new(move |callback, checkpointer| {
            let kept = Arc::clone(&kept);
            async move {
                if let Callback::Records(_) = callback
                    && seen(&kept).is_empty()
                {
                    see(&kept, checkpointer);
                    panic_quietly();
                }
            }
        })
    };
    let _handle = start(world.worker_with("a", script)).await;
    world.all_stored_within(FAILOVER).await;
    let error = seen(&kept)[0].end().await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_a_minute_does_not_cost_the_lease() {
    let world = World::new(1);
    world.put(1);
    let script = Scripted::new(|callback, _| async move {
        if let Callback::Records(_) = callback {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    });
    let _a = start(world.worker_with("a", script)).await;
    let _b = world.start("b").await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(world.owners().get("a"), Some(&1));
    until(Duration::from_secs(20), || world.checkpoint(0) > Some(Checkpoint::Latest), || "stored".into())
        .await;
    assert!(world.log().is_empty(), "b got nothing");
}

#[tokio::test(start_paused = true)]
async fn refused_checkpoints_return_the_kind_that_says_what_to_do() {
    let world = World::new(1);
    world.put(16);
    let kinds: Seen<(&str, Result<(), ErrorKind>)> = Arc::default();
    let script = {
        let kinds = Arc::clone(&kinds);
        Scripted::new(move |callback, checkpointer| {
            let kinds = Arc::clone(&kinds);
            async move {
                let kind = |outcome: Result<(), Error>| outcome.map_err(|error| error.kind());
                match callback {
                    Callback::Records(_) => {
                        see(&kinds, ("end", kind(checkpointer.end().await)));
                        let ahead = kinesis_consumer::ExtendedSequenceNumber::new(u128::MAX.into(), 0);
                        see(&kinds, ("tiny", kind(checkpointer.checkpoint(ahead).await)));
                        let ahead = "9".repeat(60).parse().expect("a number");
                        let ahead = kinesis_consumer::ExtendedSequenceNumber::new(ahead, 0);
                        see(&kinds, ("ahead", kind(checkpointer.checkpoint(ahead).await)));
                    }
                    Callback::ShutdownRequested => {
                        let Some(position) = checkpointer.stored_checkpoint().position().cloned() else {
                            return;
                        };
                        see(&kinds, ("again", kind(checkpointer.checkpoint(position).await)));
                        let behind = kinesis_consumer::ExtendedSequenceNumber::new(1_u128.into(), 0);
                        see(&kinds, ("behind", kind(checkpointer.checkpoint(behind).await)));
                    }
                    Callback::LeaseLost => {
                        let Some(position) = checkpointer.stored_checkpoint().position().cloned() else {
                            return;
                        };
                        see(&kinds, ("lost", kind(checkpointer.checkpoint(position).await)));
                    }
                    _ => {}
                }
            }
        })
    };
    let handle = start(world.worker_with("a", script)).await;
    world.all_stored_within(FAILOVER).await;
    handle.shutdown().await.expect("processors return");
    let kinds = seen(&kinds);
    let of = |name| kinds.iter().find(|(asked, _)| *asked == name).map(|(_, kind)| *kind);
    assert_eq!(of("end"), Some(Err(ErrorKind::Invalid)));
    assert_eq!(of("ahead"), Some(Err(ErrorKind::Invalid)));
    assert_eq!(of("again"), Some(Ok(())), "what is stored already succeeds");
    assert_eq!(of("behind"), Some(Err(ErrorKind::Invalid)));
    assert_eq!(of("lost"), Some(Err(ErrorKind::LeaseLost)));
}

#[tokio::test(start_paused = true)]
async fn shard_ended_is_called_again_until_the_end_is_stored() {
    let world = World::new(1);
    let end_calls = Arc::new(AtomicUsize::new(0));
    let script = {
        let end_calls = Arc::clone(&end_calls);
        Scripted::new(move |callback, checkpointer| {
            let end_calls = Arc::clone(&end_calls);
            async move {
                if let Callback::ShardEnded = callback
                    && checkpointer.lease_key().as_str() == "shardId-000000000000"
                    && end_calls.fetch_add(1, Ordering::Relaxed) >= 2
                {
                    checkpointer.end().await.expect("the shard has ended");
                }
            }
        })
    };
    let _handle = start(world.worker_with("a", script)).await;
    let open = world.kinesis.open_shards(STREAM).expect("a stream");
    world.kinesis.split(STREAM, &open[0].id).expect("split");
    until(FAILOVER * 2, || world.checkpoint(0) == Some(Checkpoint::ShardEnd), || "ended".into()).await;
    assert_eq!(end_calls.load(Ordering::Relaxed), 3);
    assert_eq!(world.leases()[0].children.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_prepared_checkpoint_is_found_by_the_next_processor() {
    let world = World::new(1);
    world.put(1);
    let script = Scripted::new(|callback, checkpointer| async move {
        if let Callback::ShutdownRequested = callback
            && let Some(position) = checkpointer.stored_checkpoint().position().cloned()
        {
            // Stored already, so nothing is prepared.
            drop(checkpointer.prepare(position, None).await.expect("allowed"));
        }
    });
    let a = start(world.worker_with("a", script)).await;
    world.all_stored_within(FAILOVER).await;
    a.shutdown().await.expect("processors return");
    assert_eq!(world.leases()[0].pending_checkpoint, None);

    world.put(1);
    struct Preparing;
    struct Prepared(Checkpointer);
    #[async_trait]
    impl ShardRecordProcessorFactory for Preparing {
        async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
            Box::new(Prepared(checkpointer))
        }
    }
    #[async_trait]
    impl ShardRecordProcessor for Prepared {
        async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
            let position = records[records.len() - 1].extended_sequence_number();
            drop(self.0.prepare(position, Some("state".into())).await.expect("delivered"));
        }
        async fn lease_lost(&self) {}
        async fn shard_ended(&self) {}
        async fn shutdown_requested(&self) {}
    }
    let b = start(world.worker_with("b", Preparing)).await;
    until(FAILOVER, || world.leases()[0].pending_checkpoint.is_some(), || "prepared".into()).await;
    b.shutdown().await.expect("processors return");

    let pending: Seen<Option<Vec<u8>>> = Arc::default();
    let script = {
        let pending = Arc::clone(&pending);
        Scripted::new(move |callback, checkpointer| {
            let pending = Arc::clone(&pending);
            async move {
                if let Callback::Initialize = callback {
                    let state = checkpointer.pending_checkpoint().and_then(|pending| pending.state.clone());
                    see(&pending, state.map(Vec::from));
                }
            }
        })
    };
    let _c = start(world.worker_with("c", script)).await;
    // The prepared record is delivered again, and checkpointing it discards the pending checkpoint.
    until(FAILOVER, || world.leases()[0].pending_checkpoint.is_none(), || "discarded".into()).await;
    assert_eq!(seen(&pending), [Some(b"state".to_vec())]);
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_never_returns_does_not_hold_up_the_shutdown_for_ever() {
    let world = World::new(2);
    world.put(32);
    let script = Scripted::new(|callback, checkpointer| async move {
        if let Callback::Records(_) = callback
            && checkpointer.shard_id().as_str() == "shardId-000000000000"
        {
            std::future::pending::<()>().await;
        }
    });
    let lifecycle = LifecycleConfig::default().with_shutdown_timeout(Duration::from_secs(5));
    let handle = start(world.worker_with("a", script).lifecycle(lifecycle)).await;
    until(FAILOVER, || world.checkpoint(1) > Some(Checkpoint::Latest), || "stored".into()).await;
    let asked = tokio::time::Instant::now();
    let error = handle.shutdown().await.expect_err("one processor hangs");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("1 processor"), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(7), "{:?}", asked.elapsed());
    assert_eq!(world.leases()[0].owner.as_ref().map(AsRef::as_ref), Some("a"), "its lease is not given away");
    assert_eq!(world.leases()[1].owner, None);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_aggregate_is_delivered_as_the_plain_record_it_is() {
    let world = World::new(1);
    let mut aggregator = Aggregator::new();
    for text in ["0", "1"] {
        assert_eq!(aggregator.add("key-0", None, text.as_bytes()), Added::Yes);
    }
    let aggregate = aggregator.finish().expect("two records");
    let mut damaged = aggregate.data.to_vec();
    *damaged.last_mut().expect("not empty") ^= 1;
    world.kinesis.put(STREAM, "key-0", damaged.clone()).expect("put");
    world.kinesis.put(STREAM, "key-0", aggregate.data).expect("put");
    let delivered: Seen<usize> = Arc::default();
    let script = {
        let delivered = Arc::clone(&delivered);
        Scripted::new(move |callback, _| {
            let delivered = Arc::clone(&delivered);
            async move {
                if let Callback::Records(texts) = callback {
                    texts.iter().for_each(|text| see(&delivered, text.len()));
                }
            }
        })
    };
    let _handle = start(world.worker_with("a", script)).await;
    until(FAILOVER, || seen(&delivered).len() == 3, || format!("{:?}", seen(&delivered))).await;
    let damaged = String::from_utf8_lossy(&damaged).len();
    assert_eq!(seen(&delivered), [damaged, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn without_checkpoints_everything_is_processed_and_nothing_stored() {
    let world = World::new(1);
    world.put(100);
    let _a = start(world.worker("a", CheckpointPolicy::Never)).await;
    world.all_delivered_within(FAILOVER).await;
    tokio::time::sleep(FAILOVER * 10).await;
    assert_eq!(world.check_order(), 0, "and nothing comes again while the lease is held");
    assert_eq!(world.leases()[0].checkpoint, Checkpoint::TrimHorizon);
}

/// The least a processor can be.
struct Checkpoints(Checkpointer);

#[async_trait]
impl ShardRecordProcessor for Checkpoints {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        assert!(!records.is_empty());
        self.0.checkpoint_delivered().await.expect("the lease is held");
    }

    async fn shard_ended(&self) {
        self.0.checkpoint_delivered().await.expect("the lease is held");
    }
}

#[tokio::test(start_paused = true)]
async fn a_closure_makes_processors_that_checkpoint_what_they_were_handed() {
    let world = World::new(1);
    let handle = start(world.worker_with("a", Checkpoints)).await;
    world.put(160);
    until(FAILOVER, || world.checkpoint(0) == world.last_position(), || format!("{:?}", world.leases()))
        .await;
    let open = world.kinesis.open_shards(STREAM).expect("a stream");
    world.kinesis.split(STREAM, &open[0].id).expect("split");
    world.put(160);
    let checkpoints = || world.leases().into_iter().map(|lease| lease.checkpoint).collect::<Vec<_>>();
    let expected = || [vec![Checkpoint::ShardEnd], world.last_positions()[1..].to_vec()].concat();
    until(FAILOVER, || checkpoints() == expected(), || format!("{:?}", checkpoints())).await;
    handle.shutdown().await.expect("processors return");
}

/// A processor that panics with its first batch, and again when it is dropped because of that.
struct PanicsTwice {
    calls: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl ShardRecordProcessorFactory for PanicsTwice {
    async fn initialize(&self, _: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        Box::new(Self { calls: Arc::clone(&self.calls), seen: Arc::clone(&self.seen) })
    }
}

#[async_trait]
impl ShardRecordProcessor for PanicsTwice {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        assert!(self.calls.fetch_add(1, Ordering::Relaxed) > 0, "the first batch");
        let texts = records.iter().map(|record| String::from_utf8_lossy(&record.record.data).into_owned());
        self.seen.lock().expect("not poisoned").extend(texts);
    }

    async fn lease_lost(&self) {}
    async fn shard_ended(&self) {}
    async fn shutdown_requested(&self) {}
}

impl Drop for PanicsTwice {
    fn drop(&mut self) {
        assert!(self.calls.fetch_add(1, Ordering::Relaxed) != 1, "dropped after the first batch");
    }
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_panics_when_it_is_dropped_does_not_keep_its_lease() {
    let world = World::new(1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let factory = PanicsTwice { calls: Arc::default(), seen: Arc::clone(&seen) };
    let handle = start(world.worker_with("a", factory)).await;
    let mut events = handle.events();
    world.put(10);
    let count = || seen.lock().expect("not poisoned").len();
    until(FAILOVER * 3, || count() >= 10, || format!("{:?}", world.leases())).await;
    let is_reported = async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::CoordinationFailed { operation: "RunShardConsumer", .. }) {
                return;
            }
        }
    };
    tokio::time::timeout(FAILOVER, is_reported).await.expect("an event reports it");
    handle.shutdown().await.expect("processors return");
}
