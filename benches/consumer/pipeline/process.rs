//! Other processes, and what the system says of this one.

use std::process::Stdio;
use std::time::Duration;

use kinesis_consumer::testing::LocalAws;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::Outcome;
use crate::corpus::{Kind, fill};

/// The endpoints in a process of their own; it ends with this value.
pub(crate) struct Server {
    pub(crate) url: String,
    _process: Child,
}

impl Server {
    /// Starts it with a stream of `records` user records.
    pub(crate) async fn start(kind: Kind, shards: u32, records: usize) -> Outcome<Self> {
        let (shards, records) = (shards.to_string(), records.to_string());
        let arguments = ["serve", "--shards", &shards, "--records", &records, "--kind", kind.argument()];
        let mut process = command(&arguments)?.stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().ok_or("no output")?;
        let url = BufReader::new(output).lines().next_line().await?.ok_or("the endpoints did not start")?;
        Ok(Self { url, _process: process })
    }
}

/// This program again.
pub(crate) fn command(arguments: &[&str]) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).kill_on_drop(true);
    Ok(command)
}

/// What [`Server::start`] starts.
pub(crate) async fn serve(shards: u32, records: usize, kind: Kind) -> Outcome {
    let local = LocalAws::start().await?;
    fill(local.kinesis(), kind, shards, records)?;
    println!("{}", local.endpoint_url());
    // Until killed; an hour at most, should the parent be gone.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    Ok(())
}

/// CPU time of all threads of this process so far.
pub(crate) fn cpu() -> Outcome<Duration> {
    let mut total = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        // A thread may end meanwhile; none of those that work does.
        if let Ok(times) = std::fs::read_to_string(thread?.path().join("schedstat")) {
            total += times.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0_u64);
        }
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory of this process in bytes, now and at its peak.
pub(crate) fn resident() -> Outcome<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    };
    field("VmRSS:").zip(field("VmHWM:")).ok_or_else(|| "no memory figures".into())
}
