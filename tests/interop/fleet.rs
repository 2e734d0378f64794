//! A fleet of processes, Java and Rust, that reads a stream.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use kinesis_consumer::aggregation::{Added, Aggregator};
use kinesis_consumer::testing::{NewRecord, SimulatedKinesis};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::task::AbortOnDropHandle;

use crate::journal::{Delivered, Entry, Journal};
use crate::lab::{ENVIRONMENT, Lab, java};
use crate::proxy::CountingProxy;

/// Keys that records are put with.
const KEYS: usize = 24;
/// A put every so often, while there is traffic.
const PUT_PERIOD: Duration = Duration::from_millis(50);
const START_MAX: Duration = Duration::from_secs(60);
/// The Java library may wait for a lease to run out before it notifies its processors of the shutdown.
const STOP_MAX: Duration = Duration::from_secs(90);

/// Which library, and how it shares leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Java KCL 3.5.1.
    Kcl3,
    /// The same, in a fleet that comes from 2.x.
    Kcl3CompatibleWith2x,
    /// Java KCL 2.7.2.
    Kcl2,
    Leader,
    CompatibleWith2x,
    Independent,
}

impl Kind {
    fn command(self) -> Command {
        match self {
            Self::Kcl3 | Self::Kcl3CompatibleWith2x => java("kcl3", "interop.Main"),
            Self::Kcl2 => java("kcl2", "interop.Main"),
            Self::Leader | Self::CompatibleWith2x | Self::Independent => {
                let mut command = Command::new(std::env::current_exe().expect("this program"));
                command.arg("worker").envs(ENVIRONMENT).kill_on_drop(true);
                command
            }
        }
    }

    fn mode(self) -> &'static str {
        match self {
            Self::Kcl3 | Self::Leader => "leader",
            Self::Kcl3CompatibleWith2x | Self::CompatibleWith2x => "compatible-with-2x",
            Self::Kcl2 | Self::Independent => "independent",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) shards: u32,
    pub(crate) failover: Duration,
    pub(crate) fan_out: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { shards: 6, failover: Duration::from_secs(4), fan_out: false }
    }
}

/// The fleet of an application, and its stream.
pub(crate) struct Fleet<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) name: String,
    pub(crate) settings: Settings,
    pub(crate) journal: Journal,
    workers: BTreeMap<String, Worker>,
    put: Put,
    traffic: Option<AbortOnDropHandle<()>>,
}

/// How many records of each key were put.
type Put = Arc<Mutex<BTreeMap<String, u64>>>;

struct Worker {
    child: Child,
    proxy: CountingProxy,
    _reading: AbortOnDropHandle<()>,
}

/// A lease as the table has it.
#[derive(Debug, Clone)]
pub(crate) struct LeaseRow {
    pub(crate) key: String,
    pub(crate) owner: Option<String>,
    pub(crate) checkpoint: String,
    pub(crate) checkpoint_owner: Option<String>,
}

impl<'a> Fleet<'a> {
    /// Makes a stream, and nothing else.
    pub(crate) fn new(lab: &'a Lab, name: &str, settings: Settings) -> Self {
        // Names of tables have three characters at least.
        let name = format!("interop-{name}");
        lab.local.kinesis().create_stream(&name, settings.shards).expect("a new stream");
        Self {
            lab,
            name,
            settings,
            journal: Journal::default(),
            workers: BTreeMap::new(),
            put: Put::default(),
            traffic: None,
        }
    }

    pub(crate) fn kinesis(&self) -> &SimulatedKinesis {
        self.lab.local.kinesis()
    }

    /// Starts a worker and waits until it says so.
    pub(crate) async fn start(&mut self, kind: Kind, worker: &str) {
        self.start_with(kind, worker, &[]).await;
    }

    pub(crate) async fn start_with(&mut self, kind: Kind, worker: &str, more: &[&str]) {
        let proxy = CountingProxy::start(&self.lab.dynamodb_url).await;
        let log = self.lab.logs.join(format!("{}-{worker}.log", self.name));
        let failover = self.settings.failover.as_millis().to_string();
        let mut child = kind
            .command()
            .args(["--stream", &self.name, "--application", &self.name, "--worker", worker])
            .args(["--kinesis", &self.lab.local.endpoint_url(), "--dynamodb", &proxy.url])
            .args(["--failover-ms", &failover, "--mode", kind.mode()])
            .args(["--retrieval", if self.settings.fan_out { "fan-out" } else { "polling" }])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log).expect("a log file"))
            .spawn()
            .expect("a process");
        let (out, journal) = (child.stdout.take().expect("piped"), self.journal.clone());
        let reading = tokio::spawn(async move {
            let mut lines = BufReader::new(out).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // The last line of a worker that was killed may be cut off.
                if let Ok(entry) = serde_json::from_str::<Entry>(&line) {
                    journal.push(entry);
                }
            }
        });
        let process = Worker { child, proxy, _reading: AbortOnDropHandle::new(reading) };
        self.workers.insert(worker.to_owned(), process);
        let journal = self.journal.clone();
        self.until(START_MAX, &format!("{worker} starts"), async || journal.has(worker, "started")).await;
    }

    /// Stops a worker gracefully.
    pub(crate) async fn stop(&mut self, worker: &str) {
        let mut process = self.workers.remove(worker).expect("a worker");
        let mut commands = process.child.stdin.take().expect("piped");
        commands.write_all(b"stop\n").await.expect("it listens");
        commands.flush().await.expect("it listens");
        let status = tokio::time::timeout(STOP_MAX, process.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("{worker} does not stop")).expect("its status");
        assert!(status.success(), "{worker}: {status}");
    }

    /// As `kill -9` does.
    pub(crate) async fn kill(&mut self, worker: &str) {
        let mut process = self.workers.remove(worker).expect("a worker");
        process.child.kill().await.expect("it dies");
    }

    /// Waits until a worker that was set to die has died.
    pub(crate) async fn dies(&mut self, worker: &str) {
        let mut process = self.workers.remove(worker).expect("a worker");
        // Waiting would close it, which stops the worker.
        let _commands = process.child.stdin.take();
        let status = tokio::time::timeout(START_MAX, process.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("{worker} does not die")).expect("its status");
        assert_eq!(status.code(), Some(3), "{worker}");
    }

    pub(crate) fn proxy(&self, worker: &str) -> &CountingProxy {
        &self.workers[worker].proxy
    }

    /// Puts records all the time from now on.
    pub(crate) fn start_traffic(&mut self) {
        let (kinesis, stream, put) = (self.kinesis().clone(), self.name.clone(), Arc::clone(&self.put));
        self.traffic = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PUT_PERIOD);
            for turn in 0.. {
                ticks.tick().await;
                put_some(&kinesis, &stream, &put, turn);
            }
        })));
    }

    pub(crate) fn stop_traffic(&mut self) {
        self.traffic = None;
    }

    /// Puts one aggregate of `records` records of a key.
    pub(crate) fn put_aggregate(&self, key: &str, records: u64) {
        put_run(self.kinesis(), &self.name, &self.put, key, records);
    }

    /// Polls until something is true, and panics if it is not within a time.
    pub(crate) async fn until(
        &self,
        limit: Duration,
        what: &str,
        condition: impl AsyncFn() -> bool,
    ) -> Duration {
        let since = Instant::now();
        while !condition().await {
            assert!(
                since.elapsed() < limit,
                "{}: not within {limit:?}: {what}; leases: {:?}; leader {:?}",
                self.name,
                self.leases().await,
                self.leader().await
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        since.elapsed()
    }

    /// Waits until every record that was put so far has been delivered.
    pub(crate) async fn all_delivered(&self, limit: Duration) {
        let put = self.put();
        self.until(limit, "all records are delivered", async || self.journal.missing(&put) == 0).await;
    }

    /// Waits until these workers, and nobody else, work on all shards, and each on at least half of its
    /// share: leaders go by throughput, and are content when that differs little.
    pub(crate) async fn shared(&self, limit: Duration, workers: &[&str]) -> Duration {
        let is_shared = async || {
            let leases = self.leases().await;
            let mut counts: BTreeMap<&str, usize> = workers.iter().map(|worker| (*worker, 0)).collect();
            for lease in leases.iter().filter(|lease| lease.checkpoint != "SHARD_END") {
                match lease.owner.as_deref().and_then(|owner| counts.get_mut(owner)) {
                    Some(count) if lease.checkpoint_owner.is_none() => *count += 1,
                    _ => return false,
                }
            }
            let all: usize = counts.values().sum();
            all > 0 && counts.values().all(|count| *count >= all.div_ceil(2 * workers.len()))
        };
        self.until(limit, &format!("{workers:?} share the shards"), is_shared).await
    }

    pub(crate) async fn is_led_by(&self, limit: Duration, worker: &str) -> Duration {
        let what = format!("{worker} leads");
        self.until(limit, &what, async || self.leader().await.as_deref() == Some(worker)).await
    }

    /// Ends the traffic, waits for its last record, stops all workers, and checks what was promised.
    pub(crate) async fn finish(&mut self) -> Delivered {
        self.stop_traffic();
        self.all_delivered(Duration::from_secs(60)).await;
        let workers: Vec<String> = self.workers.keys().cloned().collect();
        for worker in workers {
            self.stop(&worker).await;
        }
        self.check()
    }

    pub(crate) fn check(&self) -> Delivered {
        self.journal.write(&self.lab.logs.join(format!("{}.jsonl", self.name)));
        self.journal.check(&self.put())
    }

    fn put(&self) -> BTreeMap<String, u64> {
        self.put.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn rows(&self) -> Vec<std::collections::HashMap<String, AttributeValue>> {
        let scan = self.lab.dynamodb.scan().table_name(&self.name).consistent_read(true);
        // No table yet, or one page.
        scan.send().await.ok().and_then(|page| page.items).unwrap_or_default()
    }

    pub(crate) async fn leases(&self) -> Vec<LeaseRow> {
        let rows = self.rows().await;
        let text = |row: &std::collections::HashMap<String, AttributeValue>, name: &str| {
            row.get(name).and_then(|value| value.as_s().ok()).cloned()
        };
        let mut leases: Vec<LeaseRow> = rows
            .iter()
            .filter_map(|row| {
                Some(LeaseRow {
                    key: text(row, "leaseKey")?,
                    owner: text(row, "leaseOwner"),
                    checkpoint: text(row, "checkpoint")?,
                    checkpoint_owner: text(row, "checkpointOwner"),
                })
            })
            .collect();
        leases.sort_by(|a, b| a.key.cmp(&b.key));
        leases
    }

    /// A text of a row that is no lease.
    pub(crate) async fn entity(&self, key: &str, attribute: &str) -> Option<String> {
        let rows = self.rows().await;
        let row =
            rows.iter().find(|row| row.get("leaseKey").is_some_and(|k| k.as_s().is_ok_and(|k| k == key)))?;
        row.get(attribute)?.as_s().ok().cloned()
    }

    pub(crate) async fn leader(&self) -> Option<String> {
        self.entity("Leader", "ownerName").await
    }
}

/// A few records of some keys: on their own, or as aggregates.
fn put_some(kinesis: &SimulatedKinesis, stream: &str, put: &Put, turn: usize) {
    for offset in 0..3 {
        let key = format!("key-{}", (turn * 3 + offset) % KEYS);
        let records = if offset == 0 { 5 } else { 1 };
        put_run(kinesis, stream, put, &key, records);
    }
}

/// `records` records of one key; more than one make an aggregate. They have one key so that all of them
/// belong to the shard that the aggregate is put to.
fn put_run(kinesis: &SimulatedKinesis, stream: &str, put: &Put, key: &str, records: u64) {
    let mut put = put.lock().unwrap_or_else(PoisonError::into_inner);
    let count = put.entry(key.to_owned()).or_default();
    let texts = (*count..*count + records).map(|number| format!("{key}:{number}:text"));
    let data = if records == 1 {
        texts.collect::<String>().into_bytes()
    } else {
        let mut aggregator = Aggregator::new();
        for text in texts {
            assert_eq!(aggregator.add(key, None, text.as_bytes()), Added::Yes);
        }
        aggregator.finish().expect("records").data.to_vec()
    };
    kinesis.put_record(stream, NewRecord::new(key, data)).expect("there is room");
    *count += records;
}
