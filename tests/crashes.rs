//! A record that ends the process: real processes, one after the other, until it is set aside.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_config::BehaviorVersion;
use kinesis_consumer::testing::LocalAws;
use kinesis_consumer::{
    BoxError, Consumer, ErrorPolicy, KinesisDeadLetters, ManagementConfig, StartStrategy,
};

const STREAM: &str = "orders";
const LETTERS: &str = "orders-dead";
const RECORDS: usize = 300;
/// The record that ends the process.
const KILLER: usize = 137;
/// Everything happens within this time.
const SOON: Duration = Duration::from_secs(120);

/// What a worker process does.
#[tokio::test]
#[ignore = "run by the test below, in a process of its own"]
async fn worker() {
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let letters = KinesisDeadLetters::stream(aws_sdk_kinesis::Client::new(&config), LETTERS);
    let consumer = Consumer::builder()
        .stream(STREAM)
        .application("crashes")
        .worker_id(std::env::var("WORKER").expect("set"))
        .aws_config(&config)
        .for_each(|record| async move {
            let number: usize = std::str::from_utf8(&record.record.data)?.parse()?;
            if number == KILLER {
                std::process::abort();
            }
            println!("handled {number}");
            Ok::<_, BoxError>(())
        })
        .on_error(ErrorPolicy::default().dead_letter(letters))
        .management(ManagementConfig::default().with_start_strategy(StartStrategy::Oldest))
        .build()
        .expect("valid");
    // Until it is killed.
    consumer.start().await.expect("started").wait().await.expect("stopped");
}

/// A worker process.
struct Worker(Child);

impl Worker {
    fn start(aws: &LocalAws, name: &str) -> Self {
        let child = Command::new(std::env::current_exe().expect("a path"))
            .args(["worker", "--exact", "--ignored", "--nocapture"])
            .env("AWS_ENDPOINT_URL", aws.endpoint_url())
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "us-east-1")
            .env("WORKER", name)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        Self(child)
    }

    /// What it handles until it ends by itself, or has handled the last record.
    fn handled(&mut self) -> (BTreeSet<usize>, bool) {
        let output = BufReader::new(self.0.stdout.take().expect("piped"));
        let mut handled = BTreeSet::new();
        for line in output.lines() {
            let line = line.expect("text");
            if let Some((_, number)) = line.split_once("handled ") {
                let number = number.parse().expect("a number");
                handled.insert(number);
                if number == RECORDS - 1 {
                    return (handled, true);
                }
            }
        }
        (handled, false)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn deaths(names: &[&str]) {
    let aws = LocalAws::start().await.expect("endpoints");
    aws.kinesis().create_stream(STREAM, 1).expect("new");
    aws.kinesis().create_stream(LETTERS, 1).expect("new");
    for number in 0..RECORDS {
        aws.kinesis().put(STREAM, "key", number.to_string()).expect("written");
    }
    let since = Instant::now();
    let (mut deaths, mut handled) = (0, BTreeSet::new());
    loop {
        assert!(since.elapsed() < SOON && deaths < 20, "{deaths} deaths");
        let mut worker = Worker::start(&aws, names[deaths % names.len()]);
        let (of_worker, is_through) =
            tokio::task::spawn_blocking(move || worker.handled()).await.expect("no panic");
        handled.extend(of_worker);
        if is_through {
            break;
        }
        deaths += 1;
    }
    assert!((3..=5).contains(&deaths), "{deaths} deaths");
    let missing: Vec<_> = (0..RECORDS).filter(|number| !handled.contains(number)).collect();
    assert_eq!(missing, [KILLER], "nothing else is lost");
    let shard = aws.kinesis().shards(LETTERS).expect("a stream")[0].id.clone();
    let letters = aws.kinesis().stored_records(LETTERS, &shard).expect("a shard");
    let letters: Vec<_> =
        letters.iter().map(|letter| String::from_utf8_lossy(&letter.data).into_owned()).collect();
    assert_eq!(letters, [KILLER.to_string()]);
    aws.shutdown().await;
}

/// As a supervisor restarts a worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_ends_the_process_is_set_aside_after_a_few_restarts() {
    deaths(&["w"]).await;
}
