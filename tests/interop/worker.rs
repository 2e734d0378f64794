//! The worker under test: reports its callbacks as JSON, one object per line.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use clap::{Args, ValueEnum};
use kinesis_consumer::internals::move_on_after;
use kinesis_consumer::{
    Checkpoint, Checkpointer, Consumer, CoordinationConfig, CoordinationMode, ExtendedSequenceNumber,
    KinesisClientRecord, LeaseConfig, ManagementConfig, ShardRecordProcessor, ShardRecordProcessorFactory,
    StartStrategy,
};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::journal::Entry;

/// As the Java workers take them.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long)]
    stream: String,
    #[arg(long)]
    application: String,
    #[arg(long)]
    worker: String,
    #[arg(long)]
    kinesis: String,
    #[arg(long)]
    dynamodb: String,
    #[arg(long)]
    failover_ms: u64,
    #[arg(long)]
    retrieval: Retrieval,
    #[arg(long)]
    mode: Mode,
    /// Die on purpose after this many records of a shard
    #[arg(long)]
    stop_after: Option<u64>,
    /// Leave all times as the library has them
    #[arg(long)]
    defaults: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Retrieval {
    Polling,
    FanOut,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Independent,
    Leader,
    #[value(name = "compatible-with-2x")]
    CompatibleWith2x,
}

/// Runs until it is asked to stop, or its standard input ends.
pub(crate) async fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let client = |endpoint: &str| {
        aws_config::defaults(aws_config::BehaviorVersion::latest()).endpoint_url(endpoint).load()
    };
    let (kinesis, dynamodb) = (client(&options.kinesis).await, client(&options.dynamodb).await);
    let reporter = Reporter { worker: Arc::from(options.worker.as_str()) };

    let mut coordination = CoordinationConfig::default();
    coordination.failover_time = Duration::from_millis(options.failover_ms);
    coordination.mode = match options.mode {
        Mode::Independent => CoordinationMode::Independent,
        Mode::Leader => CoordinationMode::Leader,
        Mode::CompatibleWith2x => CoordinationMode::CompatibleWith2x,
    };
    coordination.leader.measure_cpu = false;
    let mut management =
        ManagementConfig { start_strategy: StartStrategy::Oldest, ..ManagementConfig::default() };
    if options.defaults != Some(true) {
        coordination.parent_shard_poll_interval = Duration::from_secs(2);
        coordination.leader.graceful_handoff_timeout = Duration::from_secs(10);
        coordination.leader.worker_metrics_interval = Duration::from_secs(2);
        move_on_after(&mut coordination, Duration::from_secs(30));
        management.leases_to_acquire = 4;
    }
    let handle = Consumer::builder()
        .stream(&options.stream)
        .application(&options.application)
        .worker_id(&options.worker)
        .processor_factory(Processors { reporter: reporter.clone(), stop_after: options.stop_after })
        .kinesis_client(aws_sdk_kinesis::Client::new(&kinesis))
        .dynamodb_client(aws_sdk_dynamodb::Client::new(&dynamodb))
        .coordination(coordination)
        .management(management)
        .lease_config(match options.retrieval {
            Retrieval::Polling => LeaseConfig::default(),
            Retrieval::FanOut => LeaseConfig::fan_out(),
        })
        .build()?
        .start()
        .await?;
    reporter.report("started");
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    let command = commands.next_line().await?;
    reporter.report(if command.is_some() { "stopping" } else { "orphaned" });
    handle.shutdown().await?;
    reporter.report("stopped");
    Ok(())
}

#[derive(Clone)]
struct Reporter {
    worker: Arc<str>,
}

impl Reporter {
    fn report(&self, event: &str) {
        self.print(&self.entry(event));
    }

    fn report_of(&self, event: &str, shard: &str) {
        self.print(&Entry { shard: Some(shard.to_owned()), ..self.entry(event) });
    }

    fn report_at(&self, event: &str, shard: &str, sequence: &str, sub: u64) {
        self.print(&Entry {
            shard: Some(shard.to_owned()),
            sequence: Some(sequence.to_owned()),
            sub: Some(sub),
            ..self.entry(event)
        });
    }

    #[expect(clippy::disallowed_methods, reason = "processes have no other clock in common")]
    fn entry(&self, event: &str) -> Entry {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Entry {
            at: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            worker: self.worker.to_string(),
            event: event.to_owned(),
            shard: None,
            sequence: None,
            sub: None,
            key: None,
            number: None,
        }
    }

    fn print(&self, entry: &Entry) {
        let mut line = serde_json::to_vec(entry).expect("plain data");
        line.push(b'\n');
        // At once and in one piece; who does not listen any more does not matter.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

struct Processors {
    reporter: Reporter,
    stop_after: Option<u64>,
}

#[async_trait]
impl ShardRecordProcessorFactory for Processors {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        let (sequence, sub) = match checkpointer.initial_checkpoint() {
            Checkpoint::Sequence(position) => {
                (position.sequence_number.to_string(), position.sub_sequence_number)
            }
            sentinel => (sentinel.to_string(), 0),
        };
        self.reporter.report_at("initialize", checkpointer.shard_id().as_str(), &sequence, sub);
        Box::new(Processor {
            reporter: self.reporter.clone(),
            checkpointer,
            stop_after: self.stop_after,
            processed: AtomicU64::new(0),
        })
    }
}

struct Processor {
    reporter: Reporter,
    checkpointer: Checkpointer,
    stop_after: Option<u64>,
    processed: AtomicU64,
}

impl Processor {
    fn shard(&self) -> &str {
        self.checkpointer.shard_id().as_str()
    }

    async fn checkpoint(&self, position: ExtendedSequenceNumber) {
        let (sequence, sub) = (position.sequence_number.to_string(), position.sub_sequence_number);
        self.reporter.report_at("checkpointing", self.shard(), &sequence, sub);
        match self.checkpointer.checkpoint(position).await {
            Ok(()) => self.reporter.report_at("checkpointed", self.shard(), &sequence, sub),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &kinesis_consumer::Error) {
        self.reporter.report_of("checkpoint-failed", self.shard());
        tracing::warn!(%error, "checkpoint");
    }
}

#[async_trait]
impl ShardRecordProcessor for Processor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _millis_behind_latest: i64) {
        for record in &records {
            let text = str::from_utf8(record.record.data.as_ref()).expect("text");
            let mut parts = text.split(':');
            let (key, number) = (parts.next().expect("a key"), parts.next().expect("a number"));
            let position = record.extended_sequence_number();
            self.reporter.print(&Entry {
                shard: Some(self.shard().to_owned()),
                sequence: Some(position.sequence_number.to_string()),
                sub: Some(position.sub_sequence_number),
                key: Some(key.to_owned()),
                number: Some(number.parse().expect("a number")),
                ..self.reporter.entry("record")
            });
            let processed = self.processed.fetch_add(1, Ordering::Relaxed) + 1;
            if self.stop_after == Some(processed) {
                self.checkpoint(position).await;
                self.reporter.report("died");
                std::process::exit(3);
            }
        }
        if let Some(last) = records.last() {
            self.checkpoint(last.extended_sequence_number()).await;
        }
    }

    async fn lease_lost(&self) {
        self.reporter.report_of("lease-lost", self.shard());
    }

    async fn shard_ended(&self) {
        self.reporter.report_at("checkpointing", self.shard(), "SHARD_END", 0);
        match self.checkpointer.end().await {
            Ok(()) => self.reporter.report_at("checkpointed", self.shard(), "SHARD_END", 0),
            Err(error) => self.failed(&error),
        }
    }

    async fn shutdown_requested(&self) {
        self.reporter.report_of("shutdown-requested", self.shard());
    }
}
