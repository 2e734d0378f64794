//! The status of a fleet as a table for people.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::status::{FleetStatus, LeaseState, LeaseSummary, WorkerSummary};
use super::text::{span, utc};

const UNKNOWN: &str = "-";

/// Rows of cells, each column as wide as its widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(ToString::to_string).collect()] }
    }

    pub(crate) fn push<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A heading, the leases, the workers, and what is wrong.
impl fmt::Display for FleetStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.heading())?;
        if !self.leases.is_empty() {
            writeln!(f, "\n{}", self.lease_table().to_string().trim_end())?;
        }
        if !self.workers.is_empty() {
            writeln!(f, "\n{}", self.worker_table().to_string().trim_end())?;
        }
        for (index, problem) in self.problems.iter().enumerate() {
            let line = if index == 0 { "\n" } else { "" };
            writeln!(f, "{line}! {problem}")?;
        }
        Ok(())
    }
}

/// In a word or two.
impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Held => "held",
            Self::HandingOver => "handing over",
            Self::WaitingOnParents => "waits for parents",
            Self::Paused => "paused",
            Self::Free => "free",
        })
    }
}

impl FleetStatus {
    /// The fleet in one line.
    #[must_use]
    pub fn heading(&self) -> String {
        let mut text = self.application.clone();
        if !self.streams.is_empty() {
            text.push_str(&format!(" on {}", self.streams.join(", ")));
        }
        text.push_str(&format!(
            "   {} lease(s), {} ended, {} worker(s)",
            self.leases.len(),
            self.ended,
            self.workers.len()
        ));
        if let Some(leader) = &self.leader {
            text.push_str(&format!(", led by {leader}"));
        }
        if let Some(behind) = self.behind_latest_max {
            text.push_str(&format!("   behind {} at most", span(behind)));
        }
        if !self.unread.is_empty() {
            text.push_str(&format!("   {} unread shard(s)", self.unread.len()));
        }
        text
    }

    /// The leases, as a table for people.
    #[must_use]
    pub fn lease_table(&self) -> impl fmt::Display {
        let mut table =
            Table::new(&["LEASE", "OWNER", "STATE", "BEHIND", "RATE", "CHECKPOINT", "AGE", "NOTE"]);
        for lease in &self.leases {
            table.push(lease_row(lease, self.at));
        }
        table
    }

    /// How far each lease is behind, as a table for people.
    #[must_use]
    pub fn lag_table(&self) -> impl fmt::Display {
        let mut table = Table::new(&["LEASE", "STATE", "BEHIND", "CHECKPOINT", "AGE"]);
        for lease in &self.leases {
            let [key, _, state, behind, _, checkpoint, age, _] = lease_row(lease, self.at);
            table.push([key, state, behind, checkpoint, age]);
        }
        table
    }

    /// The workers, as a table for people.
    #[must_use]
    pub fn worker_table(&self) -> impl fmt::Display {
        let mut table = Table::new(&["WORKER", "LEASES", "RATE", "CPU", "REPORTED", "ROLE"]);
        for worker in &self.workers {
            table.push(self.worker_row(worker));
        }
        table
    }

    fn worker_row(&self, worker: &WorkerSummary) -> [String; 6] {
        let role = if self.leader.as_ref() == Some(&worker.worker) { "leader" } else { UNKNOWN };
        [
            worker.worker.to_string(),
            worker.leases.to_string(),
            rate(worker.kib_per_second),
            worker.cpu_percent.map_or(UNKNOWN.to_owned(), |percent| format!("{percent:.0} %")),
            worker.reported_ago.map_or(UNKNOWN.to_owned(), |ago| format!("{} ago", span(ago))),
            role.to_owned(),
        ]
    }
}

fn lease_row(lease: &LeaseSummary, at: SystemTime) -> [String; 8] {
    let age = lease.checkpoint_arrived.map(|arrived| at.duration_since(arrived).unwrap_or_default());
    [
        lease.lease.to_string(),
        lease.owner.as_ref().map_or(UNKNOWN.to_owned(), ToString::to_string),
        lease.state.to_string(),
        lease.behind_latest.map_or(UNKNOWN.to_owned(), span),
        lease.kib_per_second.map_or(UNKNOWN.to_owned(), rate),
        checkpoint(lease),
        age.map_or(UNKNOWN.to_owned(), span),
        note(lease),
    ]
}

/// The end of a number differs from one to another; the time says where it is.
fn checkpoint(lease: &LeaseSummary) -> String {
    if lease.checkpoint.chars().count() < 20 || !lease.checkpoint.starts_with(|c: char| c.is_ascii_digit()) {
        return lease.checkpoint.clone();
    }
    let digits = lease.checkpoint.get(lease.checkpoint.len() - 6..).unwrap_or(&lease.checkpoint);
    let time = lease.checkpoint_arrived.map(|at| format!(" {}", utc(at))).unwrap_or_default();
    format!("…{digits}/{}{time}", lease.sub_sequence_number)
}

fn note(lease: &LeaseSummary) -> String {
    let mut notes = Vec::new();
    if let Some(paused) = &lease.paused {
        notes.push(format!("paused by {}: {:?}", paused.by, paused.reason));
    }
    if let Some(next) = &lease.next_owner {
        notes.push(format!("goes to {next}"));
    }
    if let Some(still) = lease.still.filter(|still| *still > Duration::from_secs(10)) {
        notes.push(format!("not written for {}", span(still)));
    }
    notes.join("; ")
}

fn rate(kib_per_second: f64) -> String {
    format!("{kib_per_second:.1} KiB/s")
}
