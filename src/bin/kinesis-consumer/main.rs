//! `kinesis-consumer`: a command line for fleets of Kinesis consumers.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people and scripts")]

mod args;
mod dead_letter;
mod fleet;
mod leases;
mod seek;
mod serve;
mod tail;
mod times;

use std::error::Error as StdError;
use std::process::ExitCode;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::tls;
use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command};

/// What goes wrong is for people: a text, or an error with its causes.
pub(crate) type Failure = Box<dyn StdError + Send + Sync>;

/// How a command ended, if it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    /// The fleet has problems.
    Unhealthy,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Unhealthy) => ExitCode::from(3),
        Err(failure) => {
            eprintln!("error: {}", with_causes(&*failure));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<Ended, Failure> {
    if let Command::Completions { shell } = command {
        clap_complete::generate(shell, &mut Cli::command(), "kinesis-consumer", &mut std::io::stdout());
        return Ok(Ended::Done);
    }
    let config = aws().await;
    match command {
        Command::Status(args) => fleet::run(&config, &args, fleet::View::Status).await,
        Command::Lag(args) => fleet::run(&config, &args, fleet::View::Lag).await,
        Command::Leases(args) => fleet::run(&config, &args, fleet::View::Leases).await,
        Command::Workers(args) => fleet::run(&config, &args, fleet::View::Workers).await,
        Command::Seek(args) => seek::run(&config, &args.scoped, &args.carry_out, Some(&args.to)).await,
        Command::Reset(args) => seek::run(&config, &args.scoped, &args.carry_out, None).await,
        Command::Pause(args) => leases::pause(&config, &args).await,
        Command::Resume(args) => leases::resume(&config, &args).await,
        Command::Release(args) => leases::release(&config, &args).await,
        Command::DeadLetter(command) => dead_letter::run(&config, command).await,
        Command::Tail(args) => tail::run(&config, &args).await,
        Command::Serve(args) => serve::run(&config, &args).await,
        Command::Completions { .. } => Ok(Ended::Done),
    }
}

async fn aws() -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new();
    let http =
        http.tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc)).build_https();
    aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await
}

/// An error and all its causes on one line.
fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.ends_with(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
}

/// Prints one document of JSON.
pub(crate) fn print_json(document: &impl serde::Serialize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string_pretty(document)?);
    Ok(())
}
