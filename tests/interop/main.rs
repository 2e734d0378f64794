//! Fleets of Java and Rust workers on one lease table. The Java side is Amazon's own: KCL 3.5.1 and the
//! latest 2.x, and DynamoDB Local holds the table.
//!
//! `tests/interop/run [SCENARIO]…` fetches what the Java side needs and runs this. By itself, in `cargo test`,
//! it is ignored.

#![expect(clippy::print_stdout, clippy::panic, reason = "a command-line program that checks")]

mod fleet;
mod journal;
mod lab;
mod proxy;
mod scenarios;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run these scenarios, or all
    Run { scenarios: Vec<String> },
    /// Be a worker
    Worker(worker::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    // The test runner's own arguments are none of ours.
    if !std::env::args().nth(1).is_some_and(|command| command == "run" || command == "worker") {
        // As the test harness shows what it did not run.
        println!("\nrunning 1 test");
        println!(
            "test fleets_of_java_and_rust_workers ... ignored, needs a JDK and Maven: tests/interop/run"
        );
        println!("\ntest result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n");
        return ExitCode::SUCCESS;
    }
    match Arguments::parse().command {
        Command::Run { scenarios } => scenarios::run(&scenarios).await,
        Command::Worker(options) => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
            match worker::run(options).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!(error, "the worker failed");
                    ExitCode::FAILURE
                }
            }
        }
    }
}
