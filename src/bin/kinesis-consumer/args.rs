//! The command line.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use kinesis_consumer::admin::{Scope, SeekTo};
use kinesis_consumer::{ExtendedSequenceNumber, ShardId, StreamId};

use crate::times::parse_time;

/// See, move and pause fleets of Kinesis consumers: of the crate kinesis-consumer, of Java KCL, or both.
///
/// Region, credentials and endpoint come from the environment and the configuration files of AWS (AWS_REGION,
/// AWS_PROFILE, AWS_ENDPOINT_URL, …).
///
/// Exit codes: 0 done, 1 it failed, 2 the command line is wrong, 3 the fleet is unhealthy (status, lag, leases, workers).
#[derive(Debug, Parser)]
#[command(name = "kinesis-consumer", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole fleet: who reads what, how far behind, what is wrong and what to do.
    Status(Watched),
    /// How far each lease is behind.
    Lag(Watched),
    /// The leases.
    Leases(Watched),
    /// The workers.
    Workers(Watched),
    /// Moves the application to another position, while its fleet runs. A dry run unless --yes is given.
    Seek(Seek),
    /// Moves the application back to the oldest record: seek --to oldest. A dry run unless --yes is given.
    Reset(Reset),
    /// Has workers of this crate leave shards alone, while they keep the leases. Workers of Java KCL go on.
    Pause(Pause),
    /// Has paused shards read again.
    Resume(Scoped),
    /// Takes leases from their owners; workers take them anew, and go on at the last checkpoint.
    Release(Scoped),
    /// Dead letters in a table of DynamoDbDeadLetters.
    #[command(subcommand)]
    DeadLetter(DeadLetter),
    /// Prints records as they arrive. Reads the stream itself, and touches no lease.
    Tail(Tail),
    /// Serves a page, metrics for Prometheus and probes of the fleet. Reads only.
    Serve(Serve),
    /// Prints a script that completes these commands in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// The fleet that is meant.
#[derive(Debug, Args)]
pub(crate) struct Fleet {
    /// The application, which names the lease table.
    #[arg(short, long, env = "KINESIS_CONSUMER_APP", value_name = "NAME")]
    pub(crate) app: String,
    /// The lease table, if it is not called like the application.
    #[arg(long, value_name = "NAME")]
    pub(crate) table: Option<String>,
    /// The stream, if its rows do not name it: those of Java KCL do not.
    #[arg(long, value_name = "NAME|ARN")]
    pub(crate) stream: Option<StreamId>,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Watched {
    #[command(flatten)]
    pub(crate) fleet: Fleet,
    /// Look again every so often (2s), until interrupted. What is not renewed shows after the failover time.
    #[arg(short, long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s", value_parser = parse_interval)]
    pub(crate) watch: Option<Duration>,
    /// The failover time of the fleet.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_interval)]
    pub(crate) failover_time: Duration,
}

/// Which leases are meant.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Only this shard; may be repeated.
    #[arg(long = "shard", value_name = "SHARD")]
    pub(crate) shards: Vec<String>,
}

impl Which {
    pub(crate) fn scope(&self, fleet: &Fleet) -> Scope {
        if !self.shards.is_empty() {
            return Scope::Shards(
                self.shards.iter().map(|shard| shard.as_str().into()).collect::<BTreeSet<_>>(),
            );
        }
        // Of one stream, the table has no others; the leases may not name it.
        match &fleet.stream {
            Some(stream) if stream.serialized().is_some() => Scope::Stream(stream.clone()),
            _ => Scope::All,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Scoped {
    #[command(flatten)]
    pub(crate) fleet: Fleet,
    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    pub(crate) scoped: Scoped,
    /// Why, for those who see it in the status.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Who pauses it.
    #[arg(long, env = "USER", value_name = "NAME", default_value = "operator")]
    pub(crate) by: String,
}

#[derive(Debug, Args)]
#[group(id = "where", required = true, multiple = false)]
pub(crate) struct Where {
    /// oldest, now, a time ago (-7d, -90m) or a time (2026-11-20T12:00:00Z).
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
    /// After this record of one shard: SHARD=SEQUENCE_NUMBER[/SUB_SEQUENCE_NUMBER].
    #[arg(long, value_name = "POSITION", value_parser = parse_position)]
    pub(crate) position: Option<(ShardId, ExtendedSequenceNumber)>,
    /// Carry out a plan that was kept with --save, or go on with one that was interrupted.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
}

impl Where {
    /// `None`: a plan is given.
    pub(crate) fn target(&self, now: SystemTime) -> Result<Option<SeekTo>, String> {
        match (&self.to, &self.position) {
            (Some(text), _) => match text.as_str() {
                "oldest" => Ok(Some(SeekTo::Oldest)),
                "now" => Ok(Some(SeekTo::Now)),
                text => parse_time(text, now).map(|time| Some(SeekTo::Time(time))),
            },
            (None, Some((shard, position))) => Ok(Some(SeekTo::Position(shard.clone(), position.clone()))),
            (None, None) => Ok(None),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Seek {
    #[command(flatten)]
    pub(crate) scoped: Scoped,
    #[command(flatten)]
    pub(crate) to: Where,
    #[command(flatten)]
    pub(crate) carry_out: CarryOut,
}

#[derive(Debug, Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    pub(crate) scoped: Scoped,
    #[command(flatten)]
    pub(crate) carry_out: CarryOut,
}

#[derive(Debug, Args)]
pub(crate) struct CarryOut {
    /// Carry the plan out, instead of showing it.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Keep the plan in a file, to carry it out later or to go on with it after an interruption.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetter {
    /// The letters, one a line, without payloads.
    List(Letters),
    /// One letter, with its payload.
    Show(Letter),
    /// Puts records into their stream again, and deletes the letters. They come after what is in the stream by now.
    Redrive(Chosen),
    /// Deletes letters.
    Discard(Chosen),
}

#[derive(Debug, Args)]
pub(crate) struct Letters {
    /// The table of DynamoDbDeadLetters.
    #[arg(long, value_name = "NAME")]
    pub(crate) table: String,
    /// Only those of this application.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) app: Option<String>,
    /// The most letters to list.
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub(crate) limit: usize,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Letter {
    #[command(flatten)]
    pub(crate) letters: Letters,
    /// Its id, as list shows it.
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Chosen {
    #[command(flatten)]
    pub(crate) letters: Letters,
    /// Their ids, as list shows them; or --all.
    #[arg(required_unless_present = "all")]
    pub(crate) ids: Vec<String>,
    /// All letters (of the application, if one is given), at most --limit.
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
    /// Do it, instead of showing what would be done.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) fleet: Fleet,
    /// Where to listen. There is no access control.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) bind: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// The stream.
    #[arg(value_name = "NAME|ARN")]
    pub(crate) stream: StreamId,
    /// Begin with records of so long ago (-5m).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: Option<String>,
    /// Only this shard; may be repeated.
    #[arg(long = "shard", value_name = "SHARD")]
    pub(crate) shards: Vec<String>,
    /// End after this number of records.
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    crate::times::parse_span(text)
        .filter(|span| *span >= Duration::from_millis(200))
        .ok_or_else(|| "expected a number with ms, s, m, h or d behind it, of at least 200ms".to_owned())
}

fn parse_position(text: &str) -> Result<(ShardId, ExtendedSequenceNumber), String> {
    let (shard, position) =
        text.split_once('=').ok_or("expected SHARD=SEQUENCE_NUMBER[/SUB_SEQUENCE_NUMBER]")?;
    Ok((shard.into(), position.parse().map_err(|error| format!("{error}"))?))
}
