//! Moving an application to another position.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use aws_config::SdkConfig;
use indicatif::{ProgressBar, ProgressStyle};
use kinesis_consumer::admin::{Admin, SeekPlan, SeekTo};

use crate::args::{CarryOut, Scoped, Where};
use crate::fleet::admin;
use crate::{Ended, Failure, print_json};

/// Without a target it is a reset.
pub(crate) async fn run(
    config: &SdkConfig,
    scoped: &Scoped,
    carry_out: &CarryOut,
    to: Option<&Where>,
) -> Result<Ended, Failure> {
    let admin = admin(config, &scoped.fleet);
    let target = match to {
        Some(to) => to.target(SystemTime::now())?,
        None => Some(SeekTo::Oldest),
    };
    let plan = match (target, to.and_then(|to| to.plan.as_deref())) {
        (Some(target), _) => admin.plan_seek(target, scoped.which.scope(&scoped.fleet)).await?,
        (None, Some(path)) => read(path)?,
        (None, None) => return Err("no target is given".into()),
    };
    if let Some(path) = &carry_out.save {
        let text = serde_json::to_string_pretty(&plan)?;
        fs::write(path, text)
            .map_err(|error| format!("the plan cannot be kept in {}: {error}", path.display()))?;
    }
    if !carry_out.yes {
        return match scoped.fleet.json {
            true => print_json(&plan).map(|()| Ended::Done),
            false => {
                print!("{plan}");
                println!("A dry run: nothing is written. Repeat with --yes to carry it out.");
                Ok(Ended::Done)
            }
        };
    }
    take_steps(&admin, &plan).await?;
    match scoped.fleet.json {
        true => print_json(&plan)?,
        false => println!("done: {}", plan.summary()),
    }
    Ok(Ended::Done)
}

fn read(path: &Path) -> Result<SeekPlan, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("the plan {} cannot be read: {error}", path.display()))?;
    serde_json::from_str(&text)
        .map_err(|error| format!("{} is no plan of a seek: {error}", path.display()).into())
}

/// Carries the plan out, with a bar on a terminal.
async fn take_steps(admin: &Admin, plan: &SeekPlan) -> Result<(), Failure> {
    for warning in &plan.warnings {
        eprintln!("! {warning}");
    }
    let bar = bar(plan.steps.len() as u64)?;
    let outcome = admin
        .carry_out(plan, |progress| {
            bar.set_position(progress.done as u64);
            bar.set_message(progress.step.lease.to_string());
        })
        .await;
    match &outcome {
        Ok(()) => bar.finish_and_clear(),
        Err(_) => bar.abandon(),
    }
    Ok(outcome?)
}

pub(crate) fn bar(total: u64) -> Result<ProgressBar, Failure> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}")?;
    Ok(ProgressBar::new(total).with_style(style))
}
