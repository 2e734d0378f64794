//! What the page, the metrics and the probes show: one document, of a worker or of a whole fleet.

use std::time::Duration;

use serde::Serialize;

use crate::admin::{FleetStatus, LeaseState};
use crate::consumer::{Health, Status};

/// A worker or a fleet at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    /// The application.
    pub(crate) application: String,
    /// The worker, or that it is a fleet.
    pub(crate) subject: String,
    pub(crate) leader: Option<String>,
    /// Whether a restart cannot help, or is not needed.
    pub(crate) is_alive: bool,
    /// Whether all is well.
    pub(crate) is_ready: bool,
    /// What is wrong, and what to do.
    pub(crate) problems: Vec<String>,
    pub(crate) shards: Vec<ShardView>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShardView {
    pub(crate) lease: String,
    pub(crate) stream: String,
    pub(crate) shard: String,
    pub(crate) owner: Option<String>,
    pub(crate) state: String,
    pub(crate) is_paused: bool,
    pub(crate) behind_millis: Option<u64>,
    /// Bytes per second, where the table says so; else what was delivered so far, from which the page derives it.
    pub(crate) bytes_per_second: Option<f64>,
    pub(crate) bytes_total: Option<u64>,
    pub(crate) records_total: Option<u64>,
    pub(crate) checkpoint: String,
    pub(crate) note: String,
}

impl From<&Status> for View {
    fn from(status: &Status) -> Self {
        let stream_problems = status.streams.iter().filter_map(|stream| stream.problem.clone());
        Self {
            application: status.application.clone(),
            subject: format!("worker {}", status.worker_id),
            leader: status.leader.as_ref().map(ToString::to_string),
            is_alive: !matches!(status.health, Health::Failed | Health::Stopped),
            is_ready: status.health == Health::Healthy,
            problems: status.problems.iter().cloned().chain(stream_problems).collect(),
            shards: status
                .shards
                .iter()
                .map(|shard| ShardView {
                    lease: shard.lease.to_string(),
                    stream: shard.stream.to_string(),
                    shard: shard.shard.to_string(),
                    owner: Some(status.worker_id.to_string()),
                    state: if shard.paused.is_some() { "paused".to_owned() } else { shard.state.to_string() },
                    is_paused: shard.paused.is_some(),
                    behind_millis: shard.behind_latest.map(millis),
                    bytes_per_second: None,
                    bytes_total: Some(shard.bytes_delivered),
                    records_total: Some(shard.records_delivered),
                    checkpoint: shard.checkpoint.to_string(),
                    note: shard.problem.clone().or_else(|| shard.stopped.clone()).unwrap_or_default(),
                })
                .collect(),
        }
    }
}

impl From<&FleetStatus> for View {
    fn from(status: &FleetStatus) -> Self {
        Self {
            application: status.application.clone(),
            subject: format!("{} worker(s)", status.workers.len()),
            leader: status.leader.as_ref().map(ToString::to_string),
            is_alive: true,
            is_ready: status.problems.is_empty(),
            problems: status.problems.clone(),
            shards: status
                .leases
                .iter()
                .map(|lease| ShardView {
                    lease: lease.lease.to_string(),
                    stream: lease.stream.clone().unwrap_or_default(),
                    shard: lease.shard.to_string(),
                    owner: lease.owner.as_ref().map(ToString::to_string),
                    state: lease.state.to_string(),
                    is_paused: lease.state == LeaseState::Paused,
                    behind_millis: lease.behind_latest.map(millis),
                    bytes_per_second: lease.kib_per_second.map(|rate| rate * 1024.0),
                    bytes_total: None,
                    records_total: None,
                    checkpoint: lease.checkpoint.clone(),
                    note: lease
                        .paused
                        .as_ref()
                        .map(|paused| format!("paused by {}: {}", paused.by, paused.reason))
                        .unwrap_or_default(),
                })
                .collect(),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
