//! Handlers that fail: what is tried again, what becomes of the rest, and how soon they stop.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kinesis_consumer::{
    Attempt, BatchFailure, BatchHandler, BoxError, Checkpoint, Concurrency, ConsumerBuilder, DeadLetter,
    DeadLetters, ErrorPolicy, Event, Events, Failure, Health, Isolate, KinesisClientRecord, ShardId,
};

use crate::world::{FAILOVER, STREAM, World, start, until};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The payloads a handler was called with, in order.
type Calls = Arc<Mutex<Vec<String>>>;

fn text(record: &KinesisClientRecord) -> String {
    String::from_utf8_lossy(&record.record.data).into_owned()
}

fn calls(calls: &Calls) -> Vec<String> {
    calls.lock().expect("not poisoned").clone()
}

/// A stream of one shard with these payloads.
fn world(payloads: &[&'static str]) -> World {
    let world = World::new(1);
    for payload in payloads {
        world.kinesis.put(STREAM, "key", *payload).expect("written");
    }
    world
}

fn worker(world: &World) -> ConsumerBuilder {
    world.worker_without_code("a").stream(STREAM)
}

/// The events so far.
async fn events(events: &mut Events) -> Vec<Event> {
    let mut seen = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(1), events.next()).await {
        seen.push(event);
    }
    seen
}

/// Keeps letters, except while it is down.
#[derive(Debug, Clone, Default)]
struct Letters {
    kept: Arc<Mutex<Vec<DeadLetter>>>,
    is_down: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
}

impl Letters {
    fn kept(&self) -> Vec<String> {
        let kept = self.kept.lock().expect("not poisoned");
        kept.iter().map(|letter| String::from_utf8_lossy(&letter.payload).into_owned()).collect()
    }
}

#[async_trait]
impl DeadLetters for Letters {
    async fn send(&self, letters: &[DeadLetter]) -> Result<(), BoxError> {
        if self.is_down.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err("the destination is down".into());
        }
        self.kept.lock().expect("not poisoned").extend_from_slice(letters);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_always_fails_is_a_dead_letter_and_the_others_are_handled_once() {
    let world = world(&["one", "bad", "three"]);
    let (seen, letters) = (Calls::default(), Letters::default());
    let log = Arc::clone(&seen);
    let builder = worker(&world)
        .for_each(move |record| {
            let log = Arc::clone(&log);
            async move {
                log.lock().expect("not poisoned").push(text(&record));
                let number = std::str::from_utf8(&record.record.data)?;
                if number == "bad" { Err("cannot be handled".into()) } else { Ok::<_, BoxError>(()) }
            }
        })
        .on_error(ErrorPolicy::attempts(3).dead_letter(letters.clone()));
    let consumer = builder.build().expect("valid");
    let mut listener = consumer.events();
    let handle = consumer.start().await.expect("started");
    until(MINUTE, || calls(&seen).contains(&"three".to_owned()), || format!("{:?}", calls(&seen))).await;
    assert_eq!(calls(&seen), ["one", "bad", "bad", "bad", "three"]);
    assert_eq!(letters.kept(), ["bad"]);
    let letter = letters.kept.lock().expect("not poisoned")[0].clone();
    let shard: ShardId = world.kinesis.shards(STREAM).expect("shards")[0].id.clone();
    assert_eq!((letter.application.as_str(), letter.worker.as_str()), ("fleet-test", "a"));
    assert_eq!((&letter.shard, letter.partition_key.as_str(), letter.attempts), (&shard, "key", 3));
    assert_eq!((letter.error.as_str(), letter.reason.as_str()), ("cannot be handled", "it failed 3 time(s)"));
    assert_eq!(letter.id(), format!("orders/{shard}/{}", letter.position));
    assert!(!format!("{letter:?}").contains("bad"), "{letter:?}");

    until(MINUTE, || world.checkpoint(0) == world.last_position(), || format!("{:?}", world.checkpoint(0)))
        .await;
    let events = events(&mut listener).await;
    let failed: Vec<(u32, bool)> = events
        .iter()
        .filter_map(|event| match event {
            Event::HandlerFailed { attempt, retry_in, .. } => Some((*attempt, retry_in.is_some())),
            _ => None,
        })
        .collect();
    assert_eq!(failed, [(1, true), (2, true), (3, false)]);
    let position = &letter.position;
    assert!(
        events.iter().any(|event| matches!(event, Event::DeadLettered { position: p, .. } if p == position))
    );
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn by_default_a_record_is_tried_until_it_is_handled_and_the_checkpoint_waits_before_it() {
    let world = World::new(1);
    let first = world.kinesis.put(STREAM, "key", "one").expect("written").sequence_number;
    for payload in ["two", "three"] {
        world.kinesis.put(STREAM, "key", payload).expect("written");
    }
    let (attempts, is_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counting, up) = (Arc::clone(&attempts), Arc::clone(&is_up));
    let handle = start(worker(&world).for_each(move |record| {
        let (attempts, is_up) = (Arc::clone(&counting), Arc::clone(&up));
        async move {
            if text(&record) == "two" {
                attempts.fetch_add(1, Ordering::Relaxed);
                if !is_up.load(Ordering::Relaxed) {
                    return Err("the database is down");
                }
            }
            Ok(())
        }
    }))
    .await;
    tokio::time::sleep(30 * MINUTE).await;
    let tried = attempts.load(Ordering::Relaxed);
    assert!((60..=150).contains(&tried), "{tried} attempts in half an hour");
    let before = world.checkpoint(0).and_then(|checkpoint| checkpoint.position().cloned());
    assert_eq!(before.expect("a position").sequence_number, first, "what is done is stored");
    is_up.store(true, Ordering::Relaxed);
    until(MINUTE, || world.checkpoint(0) == world.last_position(), || format!("{:?}", world.checkpoint(0)))
        .await;
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_passed_over_while_the_destination_is_down() {
    let world = world(&["bad", "two"]);
    let (seen, letters) = (Calls::default(), Letters::default());
    letters.is_down.store(true, Ordering::Relaxed);
    let log = Arc::clone(&seen);
    let handle = start(
        worker(&world)
            .for_each(move |record| {
                let log = Arc::clone(&log);
                async move {
                    log.lock().expect("not poisoned").push(text(&record));
                    if text(&record) == "bad" {
                        Err(Failure::poison("bad"))?
                    }
                    Ok::<_, BoxError>(())
                }
            })
            .on_error(ErrorPolicy::default().dead_letter(letters.clone())),
    )
    .await;
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(calls(&seen), ["bad"], "poison is not tried again, and nothing after it is handled");
    assert!(letters.refused.load(Ordering::Relaxed) > 10);
    assert_eq!(world.checkpoint(0), Some(Checkpoint::TrimHorizon));
    letters.is_down.store(false, Ordering::Relaxed);
    until(MINUTE, || calls(&seen).len() == 2, || format!("{:?}", calls(&seen))).await;
    assert_eq!(letters.kept(), ["bad"]);
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_during_a_pause_is_prompt_and_another_worker_goes_on_at_the_record() {
    let world = world(&["one", "two", "three"]);
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let policy = ErrorPolicy::default().pause(MINUTE, 10 * MINUTE);
    let handle = start(
        worker(&world)
            .for_each(move |record| {
                let fails = failing.load(Ordering::Relaxed) && text(&record) == "two";
                async move { if fails { Err("not now") } else { Ok(()) } }
            })
            .on_error(policy),
    )
    .await;
    tokio::time::sleep(5 * SECOND).await;
    let before = tokio::time::Instant::now();
    handle.shutdown().await.expect("stopped");
    assert!(before.elapsed() < Duration::from_millis(100), "{:?}", before.elapsed());

    let seen = Calls::default();
    let log = Arc::clone(&seen);
    let next = world.worker_without_code("b").stream(STREAM).for_each(move |record| {
        log.lock().expect("not poisoned").push(text(&record));
        async { Ok::<_, BoxError>(()) }
    });
    let handle = start(next).await;
    until(MINUTE, || calls(&seen).len() == 2, || format!("{:?}", calls(&seen))).await;
    assert_eq!(calls(&seen), ["two", "three"]);
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn panics_are_attempts_and_skipped_records_are_reported() {
    let world = world(&["one", "two", "three"]);
    let seen = Calls::default();
    let log = Arc::clone(&seen);
    let builder = worker(&world)
        .for_each(move |record| {
            log.lock().expect("not poisoned").push(text(&record));
            // Before there is a future.
            assert_ne!(text(&record), "two", "a handler that panics");
            async { Ok::<_, BoxError>(()) }
        })
        .on_error(ErrorPolicy::attempts(2).skip());
    let consumer = builder.build().expect("valid");
    let mut listener = consumer.events();
    let handle = consumer.start().await.expect("started");
    until(MINUTE, || calls(&seen).len() == 4, || format!("{:?}", calls(&seen))).await;
    assert_eq!(calls(&seen), ["one", "two", "two", "three"]);
    let events = events(&mut listener).await;
    let skipped = events.iter().filter(|event| matches!(event, Event::RecordSkipped { .. })).count();
    let restarts = events.iter().filter(|event| matches!(event, Event::ProcessorPanicked { .. })).count();
    assert_eq!((skipped, restarts), (1, 0));
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_stopped_keeps_its_lease_says_why_and_holds_up_no_other() {
    let world = World::new(4);
    let bad = world.kinesis.put(STREAM, "key-0", "bad").expect("written");
    let placements = (0..160).map(|number| world.kinesis.put(STREAM, number.to_string(), number.to_string()));
    let others =
        placements.filter(|placement| placement.as_ref().expect("written").shard != bad.shard).count();
    let seen = Calls::default();
    let log = Arc::clone(&seen);
    let handle = start(
        worker(&world)
            .for_each(move |record| {
                log.lock().expect("not poisoned").push(text(&record));
                let is_bad = text(&record) == "bad";
                async move { if is_bad { Err(Failure::poison("never")) } else { Ok(()) } }
            })
            .on_error(ErrorPolicy::default().stop_shard()),
    )
    .await;
    tokio::time::sleep(3 * FAILOVER).await;
    let status = handle.status();
    let stopped: Vec<_> = status.shards.iter().filter(|shard| shard.stopped.is_some()).collect();
    assert_eq!((stopped.len(), status.shards.len()), (1, 4), "{status:?}");
    assert_eq!(stopped[0].shard, bad.shard);
    assert!(matches!(status.health, Health::Degraded), "{status:?}");
    assert!(status.problems.iter().any(|problem| problem.contains("never")), "{:?}", status.problems);
    let handled = calls(&seen).iter().filter(|text| *text != "bad").count();
    assert!(handled >= others && others > 50, "{handled} of {others}: the other shards go on");
    handle.shutdown().await.expect("it stops all the same");
}

/// Counts calls, and fails for a batch with a bad record.
struct Batches(Calls);

impl BatchHandler for Batches {
    type Error = BoxError;

    async fn handle(&self, batch: &[KinesisClientRecord], attempt: &Attempt) -> Result<(), BatchFailure> {
        let texts: Vec<String> = batch.iter().map(text).collect();
        self.0.lock().expect("not poisoned").push(format!("{}#{}", texts.join(","), attempt.number));
        if texts.iter().any(|text| text == "bad") {
            return Err(BatchFailure::Batch(Failure::Failed("one of them".into())));
        }
        match texts.iter().position(|text| text == "says-where") {
            Some(index) => Err(BatchFailure::From { index, error: Failure::poison("this one").into() }),
            None => Ok(()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn batches_are_bisected_and_go_on_from_where_they_say() {
    let world = world(&["1", "2", "bad", "4", "5", "says-where", "7"]);
    let (seen, letters) = (Calls::default(), Letters::default());
    let builder = worker(&world).batch_handler(Batches(Arc::clone(&seen)));
    let handle = start(builder.on_error(ErrorPolicy::attempts(1).dead_letter(letters.clone()))).await;
    until(
        MINUTE,
        || letters.kept().len() == 2 && world.checkpoint(0) == world.last_position(),
        || format!("{:?}", calls(&seen)),
    )
    .await;
    assert_eq!(letters.kept(), ["bad", "says-where"]);
    let seen = calls(&seen);
    assert!(seen.contains(&"bad#1".to_owned()) && seen.contains(&"7#1".to_owned()), "{seen:?}");
    assert!(seen.len() <= 12, "{seen:?}");
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn keys_are_handled_in_parallel_and_each_in_order() {
    let world = World::new(1);
    for number in 0..2000_u32 {
        world.kinesis.put(STREAM, format!("key-{}", number % 200), number.to_string()).expect("written");
    }
    let seen = Calls::default();
    let log = Arc::clone(&seen);
    let begun = tokio::time::Instant::now();
    let handle = start(worker(&world).concurrency(Concurrency::per_key(64)).for_each(move |record| {
        let log = Arc::clone(&log);
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            log.lock().expect("not poisoned").push(text(&record));
            Ok::<_, BoxError>(())
        }
    }))
    .await;
    until(MINUTE, || world.checkpoint(0) == world.last_position(), || format!("{:?}", world.checkpoint(0)))
        .await;
    // One by one it would take 20 seconds.
    assert!(begun.elapsed() < 4 * SECOND, "{:?}", begun.elapsed());
    let numbers: Vec<u32> = calls(&seen).iter().map(|text| text.parse().expect("a number")).collect();
    assert_eq!(numbers.len(), 2000, "each once");
    for key in 0..200 {
        let of_key: Vec<u32> = numbers.iter().copied().filter(|number| number % 200 == key).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_fails_holds_up_itself_and_the_checkpoint_only() {
    let world = World::new(1);
    let mut first = None;
    for (key, payload) in [("a", "a1"), ("b", "bad"), ("c", "c1"), ("b", "b2"), ("c", "c2")] {
        let placement = world.kinesis.put(STREAM, key, payload).expect("written");
        first.get_or_insert(placement.sequence_number);
    }
    let (seen, is_up) = (Calls::default(), Arc::new(AtomicBool::new(false)));
    let (log, up) = (Arc::clone(&seen), Arc::clone(&is_up));
    let handle = start(worker(&world).concurrency(Concurrency::per_key(8)).for_each(move |record| {
        let is_handled = text(&record) != "bad" || up.load(Ordering::Relaxed);
        if is_handled {
            log.lock().expect("not poisoned").push(text(&record));
        }
        async move { if is_handled { Ok(()) } else { Err("not now") } }
    }))
    .await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(calls(&seen), ["a1", "c1", "c2"]);
    let stored = world.checkpoint(0).and_then(|checkpoint| checkpoint.position().cloned());
    assert_eq!(stored.map(|position| position.sequence_number), first, "right before the record that fails");
    is_up.store(true, Ordering::Relaxed);
    until(MINUTE, || world.checkpoint(0) == world.last_position(), || format!("{:?}", world.checkpoint(0)))
        .await;
    assert_eq!(calls(&seen), ["a1", "c1", "c2", "bad", "b2"]);
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn what_a_filter_leaves_out_is_done_and_what_is_no_json_is_set_aside() {
    let world = world(&["{\"total\": 1}", "# a comment", "{\"total\": 3}", "total: 4", "# another"]);
    let (totals, letters) = (Arc::new(Mutex::new(Vec::new())), Letters::default());
    let log = Arc::clone(&totals);
    let handle = start(
        worker(&world)
            .filter(|record| !record.record.data.starts_with(b"#"))
            .for_each_json(move |order: serde_json::Value, record| {
                log.lock().expect("not poisoned").push((order["total"].as_u64(), text(&record)));
                async { Ok::<_, BoxError>(()) }
            })
            .on_error(ErrorPolicy::default().dead_letter(letters.clone())),
    )
    .await;
    until(MINUTE, || world.checkpoint(0) == world.last_position(), || format!("{:?}", world.checkpoint(0)))
        .await;
    let expected = [(Some(1), "{\"total\": 1}".to_owned()), (Some(3), "{\"total\": 3}".to_owned())];
    assert_eq!(*totals.lock().expect("not poisoned"), expected);
    assert_eq!(letters.kept(), ["total: 4"]);
    let letter = letters.kept.lock().expect("not poisoned")[0].clone();
    assert_eq!((letter.attempts, letter.error.as_str()), (1, "no JSON, at line 1, column 2"));
    handle.shutdown().await.expect("stopped");
}

/// Claims for every batch that all but an index beyond it is done.
struct Beyond(Arc<AtomicUsize>);

impl BatchHandler for Beyond {
    type Error = BoxError;

    async fn handle(&self, _: &[KinesisClientRecord], _: &Attempt) -> Result<(), BatchFailure> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(BatchFailure::From { index: 1000, error: "the last one".into() })
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_never_gets_further_is_tried_with_pauses() {
    let world = world(&["1", "2", "3"]);
    let calls = Arc::new(AtomicUsize::new(0));
    let handle = start(worker(&world).batch_handler(Beyond(Arc::clone(&calls)))).await;
    tokio::time::sleep(10 * MINUTE).await;
    let calls = calls.load(Ordering::Relaxed);
    assert!((20..=80).contains(&calls), "{calls} calls in ten minutes");
    handle.shutdown().await.expect("stopped");
}

/// Keeps letters one by one, at a pace that does not allow for a whole batch in one call.
#[derive(Debug, Clone, Default)]
struct Slow(Letters);

#[async_trait]
impl DeadLetters for Slow {
    async fn send(&self, letters: &[DeadLetter]) -> Result<(), BoxError> {
        for letter in letters {
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.0.send(std::slice::from_ref(letter)).await?;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_destination_gets_a_large_batch_in_parts() {
    const RECORDS: usize = 5000;
    let world = World::new(1);
    for number in 0..RECORDS {
        world.kinesis.put(STREAM, "key", number.to_string()).expect("written");
    }
    let slow = Slow::default();
    let policy = ErrorPolicy::attempts(1).isolate(Isolate::Off).dead_letter(slow.clone());
    let builder = worker(&world).for_each_batch(|records| async move {
        drop(records);
        Err::<(), BoxError>("none of them".into())
    });
    let handle = start(builder.on_error(policy)).await;
    until(
        2 * MINUTE,
        || world.checkpoint(0) == world.last_position(),
        || format!("{} kept", slow.0.kept().len()),
    )
    .await;
    let expected: Vec<String> = (0..RECORDS).map(|number| number.to_string()).collect();
    assert!(slow.0.kept() == expected, "each once and in order; {} kept", slow.0.kept().len());
    handle.shutdown().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn what_is_done_of_a_batch_that_takes_long_is_stored_meanwhile() {
    let world = World::new(1);
    for number in 0..100_u32 {
        world.kinesis.put(STREAM, "key", number.to_string()).expect("written");
    }
    let seen = Calls::default();
    let log = Arc::clone(&seen);
    let handle = start(worker(&world).for_each(move |record| {
        let log = Arc::clone(&log);
        async move {
            tokio::time::sleep(SECOND).await;
            log.lock().expect("not poisoned").push(text(&record));
            Ok::<_, BoxError>(())
        }
    }))
    .await;
    until(MINUTE, || calls(&seen).len() == 20, || format!("{:?}", calls(&seen))).await;
    let stored = world.checkpoint(0);
    assert_ne!(stored, Some(Checkpoint::TrimHorizon), "nothing is stored after 20 seconds");
    assert_ne!(stored, world.last_position(), "nothing is stored that is not done");
    handle.shutdown().await.expect("stopped");
}

#[test]
fn code_for_records_is_given_once_and_what_does_not_fit_is_refused() {
    let none = |record: KinesisClientRecord| async move {
        drop(record);
        Ok::<_, BoxError>(())
    };
    let batch = |records: Vec<KinesisClientRecord>| async move {
        drop(records);
        Ok::<_, BoxError>(())
    };
    let builder = || kinesis_consumer::Consumer::builder().stream(STREAM).application("handlers");
    for (builder, says) in [
        (builder().for_each(none).for_each_batch(batch), "for_each and for_each_batch were both called"),
        (
            builder().for_each(none).on_error(ErrorPolicy::attempts(3)),
            "dead_letter(..), skip() or stop_shard()",
        ),
        (builder().for_each(none).concurrency(Concurrency::per_key(0)), "1 to 10000"),
        (builder().for_each_batch(batch).concurrency(Concurrency::per_key(8)), "handlers of single records"),
    ] {
        let error = builder.build().expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
}
