use std::collections::VecDeque;
use std::time::SystemTime;

use async_trait::async_trait;

use super::*;
use crate::kinesis::{
    IteratorPosition, RecordsPage, ShardIterator, ShardPage, ShardPageRequest, StreamConsumerDescription,
    StreamDescription,
};
use crate::types::ShardId;

const ARN: &str = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders";

type Answers = std::sync::Mutex<VecDeque<Result<StreamConsumerDescription, StreamErrorKind>>>;

/// Answers with what it was given, in that order, and then no more.
#[derive(Debug, Default)]
struct Script {
    described: Answers,
    registered: Answers,
}

fn next(answers: &Answers, operation: &'static str) -> Result<StreamConsumerDescription, StreamError> {
    let answer = answers.lock().unwrap().pop_front().unwrap_or_else(|| panic!("{operation}: no answer left"));
    answer.map_err(|kind| StreamError::new(kind, operation, "the consumer"))
}

#[async_trait]
impl StreamApi for Script {
    async fn describe_stream(&self, _: &StreamId) -> Result<StreamDescription, StreamError> {
        Ok(StreamDescription::new(ARN, 0, SystemTime::UNIX_EPOCH))
    }

    async fn list_shards(&self, _: &StreamId, _: &ShardPageRequest) -> Result<ShardPage, StreamError> {
        panic!("not asked for")
    }

    async fn shard_iterator(
        &self,
        _: &StreamId,
        _: &ShardId,
        _: &IteratorPosition,
    ) -> Result<ShardIterator, StreamError> {
        panic!("not asked for")
    }

    async fn records(&self, _: &StreamId, _: &ShardIterator, _: u32) -> Result<RecordsPage, StreamError> {
        panic!("not asked for")
    }

    async fn describe_consumer(
        &self,
        stream: &str,
        name: &str,
    ) -> Result<StreamConsumerDescription, StreamError> {
        assert_eq!((stream, name), (ARN, "fraud"));
        next(&self.described, "DescribeStreamConsumer")
    }

    async fn register_consumer(
        &self,
        stream: &str,
        name: &str,
    ) -> Result<StreamConsumerDescription, StreamError> {
        assert_eq!((stream, name), (ARN, "fraud"));
        next(&self.registered, "RegisterStreamConsumer")
    }
}

fn is(arn: &str, status: StreamConsumerStatus) -> Result<StreamConsumerDescription, StreamErrorKind> {
    Ok(StreamConsumerDescription::new(arn, status))
}

struct Fixture {
    script: Arc<Script>,
    clock: Clock,
    registration: FanOutRegistration,
}

fn fixture(
    described: impl IntoIterator<Item = Result<StreamConsumerDescription, StreamErrorKind>>,
    registered: impl IntoIterator<Item = Result<StreamConsumerDescription, StreamErrorKind>>,
) -> Fixture {
    let script = Arc::new(Script {
        described: Answers::new(described.into_iter().collect()),
        registered: Answers::new(registered.into_iter().collect()),
    });
    let (api, clock) = (Arc::clone(&script), Clock::system());
    let stream = "orders".parse().expect("a name");
    let registration = FanOutRegistration::named(api, clock.clone(), stream, "fraud".to_owned(), 7);
    Fixture { script, clock, registration }
}

impl Fixture {
    /// The ARN that is found, or why none is; all that the service had to say must have been asked for.
    async fn find(&self) -> Result<String, StreamErrorKind> {
        let found = self.registration.arn().await;
        assert_eq!(self.script.described.lock().unwrap().len(), 0, "descriptions nobody asked for");
        assert_eq!(self.script.registered.lock().unwrap().len(), 0, "registrations nobody asked for");
        found.map(|arn| arn.as_str().to_owned()).map_err(|error| error.kind())
    }
}

use StreamConsumerStatus::{Active, Creating, Deleting};
use StreamErrorKind::{Denied, InUse, NotFound, Throttled, Unavailable};

#[tokio::test(start_paused = true)]
async fn a_consumer_is_used_once_it_is_active() {
    for status in [Creating, Deleting] {
        let fixture = fixture([is("ours", status), is("ours", status), is("ours", Active)], []);
        let since = fixture.clock.now();
        assert_eq!(fixture.find().await, Ok("ours".to_owned()), "{status:?}");
        assert_eq!(fixture.clock.now().since(since), 2 * STATUS_POLL, "{status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_deleted_meanwhile_is_registered_again() {
    let described = [is("old", Deleting), is("old", Deleting), Err(NotFound), is("new", Active)];
    let fixture = fixture(described, [is("new", Creating)]);
    assert_eq!(fixture.find().await, Ok("new".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_registering_returns_is_used_only_if_it_is_active() {
    let at_once = fixture([Err(NotFound)], [is("ours", Active)]);
    assert_eq!(at_once.find().await, Ok("ours".to_owned()));
    for status in [Creating, Deleting] {
        let later = fixture([Err(NotFound), is("ours", Active)], [is("not this", status)]);
        assert_eq!(later.find().await, Ok("ours".to_owned()), "{status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_another_worker_registered_first_is_used() {
    let fixture = fixture([Err(NotFound), is("theirs", Active)], [Err(InUse)]);
    assert_eq!(fixture.find().await, Ok("theirs".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn requests_are_repeated_only_if_that_can_help() {
    let passing = [Err(Throttled), Err(Unavailable), Err(NotFound), is("ours", Active)];
    let fixture_of_passing = fixture(passing, [Err(Unavailable), is("ours", Creating)]);
    assert_eq!(fixture_of_passing.find().await, Ok("ours".to_owned()));
    for kind in [Denied, InUse, StreamErrorKind::InvalidArgument, StreamErrorKind::Malformed] {
        assert_eq!(fixture([Err(kind)], []).find().await, Err(kind));
    }
    let throttled = fixture(vec![Err(Throttled); RETRIES + 1], []);
    assert_eq!(throttled.find().await, Err(Throttled));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_does_not_become_active_is_an_error_after_a_minute() {
    let fixture = fixture(vec![is("ours", Creating); STATUS_POLLS_MAX], []);
    let since = fixture.clock.now();
    assert_eq!(fixture.find().await, Err(InUse));
    assert_eq!(fixture.clock.now().since(since).as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_nobody_asks_again_for_five_seconds() {
    let fixture = fixture([Err(Denied)], []);
    assert_eq!(fixture.find().await, Err(Denied));
    fixture.clock.sleep(FAILURE_LASTS - Duration::from_millis(1)).await;
    assert_eq!(fixture.find().await, Err(Denied), "the service is not asked");
    fixture.clock.sleep(Duration::from_millis(1)).await;
    fixture.script.described.lock().unwrap().push_back(is("ours", Active));
    assert_eq!(fixture.find().await, Ok("ours".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_was_found_is_kept_until_it_is_forgotten() {
    let fixture = fixture([is("ours", Active)], []);
    assert_eq!(fixture.find().await, Ok("ours".to_owned()));
    fixture.registration.forget(&"another".into()).await;
    assert_eq!(fixture.find().await, Ok("ours".to_owned()), "the service is not asked");
    fixture.registration.forget(&"ours".into()).await;
    fixture.script.described.lock().unwrap().push_back(is("new", Active));
    assert_eq!(fixture.find().await, Ok("new".to_owned()));
}
