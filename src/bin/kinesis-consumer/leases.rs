//! Pausing, resuming and releasing leases.

use aws_config::SdkConfig;
use kinesis_consumer::admin::LeaseChanges;
use serde_json::json;

use crate::args::{Pause, Scoped};
use crate::fleet::admin;
use crate::{Ended, Failure, print_json};

pub(crate) async fn pause(config: &SdkConfig, args: &Pause) -> Result<Ended, Failure> {
    let Scoped { fleet, which } = &args.scoped;
    let changes = admin(config, fleet).pause(which.scope(fleet), &args.by, &args.reason).await?;
    report(fleet.json, "paused", &changes)
}

pub(crate) async fn resume(config: &SdkConfig, args: &Scoped) -> Result<Ended, Failure> {
    let changes = admin(config, &args.fleet).resume(args.which.scope(&args.fleet)).await?;
    report(args.fleet.json, "resumed", &changes)
}

pub(crate) async fn release(config: &SdkConfig, args: &Scoped) -> Result<Ended, Failure> {
    let changes = admin(config, &args.fleet).release(args.which.scope(&args.fleet)).await?;
    report(args.fleet.json, "released", &changes)
}

fn report(is_json: bool, what: &str, changes: &LeaseChanges) -> Result<Ended, Failure> {
    if is_json {
        print_json(&json!({ what: changes.leases, "warnings": changes.warnings }))?;
        return Ok(Ended::Done);
    }
    println!("{} lease(s) {what}", changes.leases.len());
    for lease in &changes.leases {
        println!("  {lease}");
    }
    for warning in &changes.warnings {
        eprintln!("! {warning}");
    }
    Ok(Ended::Done)
}
