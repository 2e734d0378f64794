#![expect(clippy::disallowed_methods, reason = "measures the paused time of the test")]

use std::collections::VecDeque;
use std::time::UNIX_EPOCH;

use tokio::task::JoinHandle;

use super::*;
use crate::metrics::{Metrics, Operation, names};

/// How the fake answers a request.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Take,
    TakeAfter(Duration),
    Fail,
    Refuse,
    Hang,
}

/// A CloudWatch with scripted responses, which accepts everything after them.
#[derive(Debug, Clone, Default)]
struct FakeCloudWatch(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Answer>,
    forever: Option<Answer>,
    requests: Vec<tokio::time::Instant>,
    taken: Vec<Vec<Datum>>,
    namespaces: Vec<String>,
}

#[async_trait]
impl PutMetricData for FakeCloudWatch {
    async fn put(&self, namespace: &str, data: &[Datum]) -> Result<(), PutError> {
        let answer = {
            let mut state = self.state();
            state.requests.push(tokio::time::Instant::now());
            let forever = state.forever.unwrap_or(Answer::Take);
            state.answers.pop_front().unwrap_or(forever)
        };
        match answer {
            Answer::Take => {}
            Answer::TakeAfter(delay) => Clock::system().sleep(delay).await,
            Answer::Fail => return Err(PutError::Unavailable("503".into())),
            Answer::Refuse => return Err(PutError::Refused("InvalidParameterValue".into())),
            Answer::Hang => std::future::pending().await,
        }
        let mut state = self.state();
        state.taken.push(data.to_vec());
        state.namespaces.push(namespace.to_owned());
        Ok(())
    }
}

impl FakeCloudWatch {
    fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let fake = Self::default();
        fake.state().answers = answers.into_iter().collect();
        fake
    }

    fn always(answer: Answer) -> Self {
        let fake = Self::default();
        fake.state().forever = Some(answer);
        fake
    }

    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.0.lock()
    }

    fn sizes(&self) -> Vec<usize> {
        self.state().taken.iter().map(Vec::len).collect()
    }

    /// The sum over everything that was taken.
    fn sum(&self) -> f64 {
        self.state().taken.iter().flatten().map(|datum| datum.statistics.sum).sum()
    }
}

/// A publisher at work.
struct Running {
    metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<()>,
    started: tokio::time::Instant,
}

fn run(cloudwatch: &FakeCloudWatch, config: &MetricsConfig) -> Running {
    let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(600), 1.0);
    let (publisher, buffer) = Publisher::new(config, "order-notifications", clock, cloudwatch.clone());
    let stop = CancellationToken::new();
    Running {
        metrics: Metrics::new(config, "worker-1".into(), vec![buffer]),
        task: tokio::spawn(publisher.run(stop.clone())),
        stop,
        started: tokio::time::Instant::now(),
    }
}

impl Running {
    fn records(&self, shards: std::ops::Range<usize>, count: u32) {
        for shard in shards {
            let shard = format!("shardId-{shard:012}").into();
            self.metrics.operation(Operation::ProcessTask).shard(&shard).add(names::RECORDS_PROCESSED, count);
        }
    }

    async fn until(&self, seconds: u64) {
        tokio::time::sleep_until(self.started + Duration::from_secs(seconds)).await;
        // Let the publisher, woken at the same moment, go first.
        tokio::task::yield_now().await;
    }

    /// Stops the publisher and returns how long that took.
    async fn stop(self) -> Duration {
        let asked = tokio::time::Instant::now();
        self.stop.cancel();
        self.task.await.unwrap();
        asked.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn values_are_gathered_for_the_buffer_time_and_sent_in_one_request() {
    let cloudwatch = FakeCloudWatch::default();
    let running = run(&cloudwatch, &MetricsConfig::default());
    running.until(1).await;
    for _ in 0..50 {
        running.records(0..3, 2);
    }
    running.until(9).await;
    assert_eq!(cloudwatch.sizes(), [0; 0]);
    running.until(11).await;
    assert_eq!(cloudwatch.sizes(), [3]);
    assert_eq!(cloudwatch.sum(), 300.0);
    assert_eq!(cloudwatch.state().namespaces, ["order-notifications"]);
    running.until(60).await;
    assert_eq!(cloudwatch.state().requests.len(), 1, "nothing is sent when there is nothing");
}

#[tokio::test(start_paused = true)]
async fn many_series_go_in_requests_of_a_thousand() {
    let cloudwatch = FakeCloudWatch::default();
    let running = run(&cloudwatch, &MetricsConfig::default());
    running.records(0..2500, 1);
    running.until(11).await;
    assert_eq!(cloudwatch.sizes(), [1000, 1000, 500]);
}

#[tokio::test(start_paused = true)]
async fn a_buffer_half_full_is_sent_at_once() {
    let cloudwatch = FakeCloudWatch::default();
    let running = run(&cloudwatch, &MetricsConfig { max_queue_size: 200, ..MetricsConfig::default() });
    running.until(1).await;
    running.records(0..150, 1);
    running.until(2).await;
    assert_eq!(cloudwatch.sizes(), [150]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_while_cloudwatch_fails_and_each_minute_keeps_its_values() {
    let cloudwatch = FakeCloudWatch::answering([Answer::Fail, Answer::Hang, Answer::Fail]);
    let running = run(&cloudwatch, &MetricsConfig::default());
    for second in 0..150 {
        running.until(second).await;
        running.records(0..1, 1);
    }
    assert_eq!(running.stop().await, Duration::ZERO);
    assert_eq!(cloudwatch.sum(), 150.0);
    let mut by_minute = [0.0; 3];
    for datum in cloudwatch.state().taken.iter().flatten() {
        let minute = datum.series.time().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60 - 10;
        by_minute[usize::try_from(minute).expect("few")] += datum.statistics.sum;
    }
    assert_eq!(by_minute, [60.0, 60.0, 30.0]);
}

#[tokio::test(start_paused = true)]
async fn tries_become_rarer_down_to_one_a_minute() {
    let cloudwatch = FakeCloudWatch::always(Answer::Hang);
    let running = run(&cloudwatch, &MetricsConfig::default());
    running.records(0..1, 1);
    running.until(300).await;
    let times: Vec<u64> =
        cloudwatch.state().requests.iter().map(|at| (*at - running.started).as_secs()).collect();
    // 5 s each for the request that hangs, and pauses of 10, 20, 40, 60 and 60 s.
    assert_eq!(times, [10, 35, 80, 145, 210, 275]);
}

#[tokio::test(start_paused = true)]
async fn the_buffer_keeps_to_its_bound_and_to_the_newest_minutes() {
    let cloudwatch = FakeCloudWatch::answering([Answer::Fail; 6]);
    let running = run(&cloudwatch, &MetricsConfig { max_queue_size: 100, ..MetricsConfig::default() });
    for minute in 0..5 {
        running.until(minute * 60).await;
        running.records(0..40, 1);
    }
    running.until(400).await;
    assert_eq!(cloudwatch.sizes(), [100]);
    let times: Vec<u64> = {
        let state = cloudwatch.state();
        let data = state.taken[0].iter();
        data.map(|datum| datum.series.time().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60 - 10)
            .collect()
    };
    assert_eq!([2, 3, 4].map(|minute| times.iter().filter(|time| **time == minute).count()), [20, 40, 40]);
}

#[tokio::test(start_paused = true)]
async fn what_cloudwatch_refuses_does_not_hold_up_the_rest() {
    let cloudwatch = FakeCloudWatch::answering([Answer::Refuse]);
    let running = run(&cloudwatch, &MetricsConfig::default());
    running.records(0..1500, 1);
    running.until(60).await;
    assert_eq!(cloudwatch.sizes(), [500]);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_sent_when_the_worker_stops() {
    let cloudwatch = FakeCloudWatch::answering([Answer::TakeAfter(Duration::from_secs(2))]);
    let running = run(&cloudwatch, &MetricsConfig::default());
    running.records(0..1500, 1);
    running.until(3).await;
    assert_eq!(running.stop().await, Duration::from_secs(2));
    assert_eq!(cloudwatch.sizes(), [1000, 500]);
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_is_awaited_before_the_last_ones() {
    let cloudwatch = FakeCloudWatch::answering([Answer::TakeAfter(Duration::from_secs(3))]);
    let running = run(&cloudwatch, &MetricsConfig::default());
    running.records(0..1, 1);
    running.until(11).await;
    running.records(0..1, 5);
    assert_eq!(running.stop().await, Duration::from_secs(2));
    assert_eq!(cloudwatch.sum(), 6.0);
}

#[tokio::test(start_paused = true)]
async fn a_cloudwatch_that_hangs_delays_the_stop_by_five_seconds_at_most() {
    let cloudwatch = FakeCloudWatch::always(Answer::Hang);
    let running = run(&cloudwatch, &MetricsConfig::default());
    running.records(0..1, 1);
    running.until(13).await;
    assert_eq!(running.stop().await, Duration::from_secs(5));
}
