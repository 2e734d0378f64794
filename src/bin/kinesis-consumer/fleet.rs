//! What a fleet is doing: once, or again and again.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use aws_config::SdkConfig;
use kinesis_consumer::admin::{Admin, FleetStatus};
use serde_json::{Value, json};

use crate::args::{Fleet, Watched};
use crate::{Ended, Failure, print_json};

/// Which part of the status is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Status,
    Lag,
    Leases,
    Workers,
}

/// The fleet that the command line means.
pub(crate) fn admin(config: &SdkConfig, fleet: &Fleet) -> Admin {
    let mut admin = Admin::from_aws(config, &fleet.app);
    if let Some(table) = &fleet.table {
        admin = admin.with_table(table);
    }
    match &fleet.stream {
        Some(stream) => admin.with_stream(stream.clone()),
        None => admin,
    }
}

pub(crate) async fn run(config: &SdkConfig, args: &Watched, view: View) -> Result<Ended, Failure> {
    let admin = admin(config, &args.fleet).with_failover_time(args.failover_time);
    loop {
        let status = admin.status().await?;
        let health = if status.problems.is_empty() { Ended::Done } else { Ended::Unhealthy };
        let Some(interval) = args.watch else {
            show(&status, view, args.fleet.json)?;
            return Ok(health);
        };
        if !args.fleet.json && std::io::stdout().is_terminal() {
            // Clears the screen.
            print!("\x1b[H\x1b[2J");
        }
        show(&status, view, args.fleet.json)?;
        if interrupted_within(interval).await {
            return Ok(health);
        }
    }
}

/// Whether somebody pressed Ctrl-C meanwhile.
pub(crate) async fn interrupted_within(time: Duration) -> bool {
    tokio::time::timeout(time, tokio::signal::ctrl_c()).await.is_ok()
}

fn show(status: &FleetStatus, view: View, is_json: bool) -> Result<(), Failure> {
    if is_json {
        return print_json(&document(status, view)?);
    }
    match view {
        View::Status => print!("{status}"),
        View::Lag => print!("{}\n\n{}{}", status.heading(), status.lag_table(), problems(status)),
        View::Leases => print!("{}{}", status.lease_table(), problems(status)),
        View::Workers => print!("{}{}", status.worker_table(), problems(status)),
    }
    Ok(())
}

fn problems(status: &FleetStatus) -> String {
    let mut text = String::new();
    for problem in &status.problems {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n! {problem}");
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn document(status: &FleetStatus, view: View) -> Result<Value, Failure> {
    let all = serde_json::to_value(status)?;
    let pick = |names: &[&str]| -> Value {
        names.iter().filter_map(|name| Some(((*name).to_owned(), all.get(*name)?.clone()))).collect()
    };
    const COMMON: [&str; 3] = ["application", "atMillis", "problems"];
    Ok(match view {
        View::Status => all,
        View::Leases => pick(&[&COMMON[..], &["leases"]].concat()),
        View::Workers => pick(&[&COMMON[..], &["leader", "workers"]].concat()),
        View::Lag => {
            let mut document = pick(&[&COMMON[..], &["behindLatestMaxMillis"]].concat());
            let leases = all.get("leases").and_then(Value::as_array).cloned().unwrap_or_default();
            let of_interest = |lease: &Value| {
                let get = |name: &str| lease.get(name).cloned().unwrap_or_default();
                json!({
                    "lease": get("lease"),
                    "state": get("state"),
                    "behindLatestMillis": get("behindLatestMillis"),
                    "checkpointArrivedMillis": get("checkpointArrivedMillis"),
                })
            };
            document["leases"] = leases.iter().map(of_interest).collect();
            document
        }
    })
}
