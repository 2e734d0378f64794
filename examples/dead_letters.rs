//! A handler that cannot handle every record: the bad ones are found by bisecting the batch, sent to a DynamoDB table, and
//! handled from there once the handler is mended.
//!
//! `cargo run --release --example dead_letters -- --local`

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use clap::Parser;
use kinesis_consumer::testing::LocalAws;
use kinesis_consumer::{
    Attempt, BatchFailure, BatchHandler, BoxError, Consumer, DynamoDbDeadLetters, ErrorPolicy,
    KinesisClientRecord, ManagementConfig, StartStrategy,
};

/// Handles the records of a stream in batches, and sets aside those that are no numbers.
#[derive(Parser)]
struct Arguments {
    /// The stream, by name or ARN
    #[arg(long, default_value = "sample-numbers")]
    stream_name: String,
    /// The lease table
    #[arg(long, default_value = "dead-letters")]
    table_name: String,
    /// The table of dead letters, which is created if it does not exist
    #[arg(long, default_value = "dead-letters-items")]
    dead_letter_table: String,
    /// Run without AWS: endpoints inside this process, fed with records of which some are bad
    #[arg(long)]
    local: bool,
    /// How many records are fed in local mode
    #[arg(long, default_value_t = 10_000, requires = "local")]
    records: usize,
    /// One of how many records is bad
    #[arg(long, default_value_t = 2500, value_parser = clap::value_parser!(u32).range(1..), requires = "local")]
    bad_every: u32,
}

/// Handles a whole batch or nothing of it, as an insert of many rows would.
#[derive(Clone, Default)]
struct Sum {
    handled: Arc<Mutex<BTreeSet<String>>>,
    calls: Arc<AtomicUsize>,
}

impl Sum {
    fn handled(&self) -> usize {
        self.handled.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn insert(&self, texts: impl IntoIterator<Item = String>) {
        self.handled.lock().unwrap_or_else(PoisonError::into_inner).extend(texts);
    }
}

impl BatchHandler for Sum {
    type Error = BoxError;

    async fn handle(&self, batch: &[KinesisClientRecord], _: &Attempt) -> Result<(), BatchFailure> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let texts: Result<Vec<_>, _> =
            batch.iter().map(|record| std::str::from_utf8(&record.record.data)).collect();
        let texts = texts.map_err(BoxError::from)?;
        for text in &texts {
            text.parse::<u64>().map_err(BoxError::from)?;
        }
        self.insert(texts.into_iter().map(str::to_owned));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let (config, local) = open(&arguments).await?;
    let items = aws_sdk_dynamodb::Client::new(&config);
    create_table(&items, &arguments.dead_letter_table).await?;

    let begun = Instant::now();
    let sum = Sum::default();
    let consumer = Consumer::builder()
        .stream(&arguments.stream_name)
        .application(&arguments.table_name)
        .aws_config(&config)
        .batch_handler(sum.clone())
        .on_error(
            ErrorPolicy::attempts(2)
                .pause(Duration::from_millis(10), Duration::from_secs(1))
                .dead_letter(DynamoDbDeadLetters::table(items.clone(), &arguments.dead_letter_table)),
        )
        .management(ManagementConfig::default().with_start_strategy(StartStrategy::Oldest))
        .build()?;
    let handle = consumer.start().await?;
    let Some(local) = local else { return Ok(handle.shutdown_on_signal().await?) };

    let bad = arguments.records / arguments.bad_every as usize;
    let done = async {
        while sum.handled() < arguments.records - bad || letters(&items, &arguments).await?.len() < bad {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, BoxError>(())
    };
    tokio::select! {
        done = done => done?,
        stopped = handle.shutdown_on_signal() => return Ok(stopped?),
    }
    handle.shutdown().await?;
    let calls = sum.calls.load(Ordering::Relaxed);
    eprintln!("{} records handled in {calls} calls; {bad} are dead letters", sum.handled());
    let redriven = redrive(&items, &arguments, &sum).await?;
    println!(
        "summary records={} handled={} dead_letters={bad} redriven={redriven} calls={calls} elapsed_ms={}",
        arguments.records,
        sum.handled(),
        begun.elapsed().as_millis()
    );
    local.shutdown().await;
    Ok(())
}

/// Connects to AWS, or starts local endpoints with a stream of numbers, some of which are none.
async fn open(arguments: &Arguments) -> Result<(SdkConfig, Option<LocalAws>), BoxError> {
    if !arguments.local {
        return Ok((aws_config::load_defaults(BehaviorVersion::latest()).await, None));
    }
    let local = LocalAws::start().await?;
    local.kinesis().create_stream(&arguments.stream_name, 4)?;
    for number in 1..=arguments.records {
        let is_bad = number % arguments.bad_every as usize == 0;
        let text = if is_bad { format!("{number}?") } else { number.to_string() };
        local.kinesis().put(&arguments.stream_name, number.to_string(), text)?;
    }
    Ok((local.sdk_config(), Some(local)))
}

async fn create_table(items: &aws_sdk_dynamodb::Client, table: &str) -> Result<(), BoxError> {
    if items.describe_table().table_name(table).send().await.is_ok() {
        return Ok(());
    }
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build()?;
    let id =
        AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S).build()?;
    let create = items.create_table().table_name(table).key_schema(key).attribute_definitions(id);
    create.billing_mode(BillingMode::PayPerRequest).send().await?;
    loop {
        let description = items.describe_table().table_name(table).send().await?;
        let status = description.table.and_then(|table| table.table_status);
        if status.is_some_and(|status| status.as_str() == "ACTIVE") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The identifiers and payloads of the dead letters.
async fn letters(
    items: &aws_sdk_dynamodb::Client,
    arguments: &Arguments,
) -> Result<Vec<(String, String)>, BoxError> {
    let mut pages = items.scan().table_name(&arguments.dead_letter_table).into_paginator().items().send();
    let mut letters = Vec::new();
    while let Some(item) = pages.next().await.transpose()? {
        if let (Some(AttributeValue::S(id)), Some(AttributeValue::B(payload))) =
            (item.get("id"), item.get("payload"))
        {
            letters.push((id.clone(), String::from_utf8_lossy(payload.as_ref()).into_owned()));
        }
    }
    Ok(letters)
}

/// Handles dead letters as the mended handler would, and deletes them.
async fn redrive(
    items: &aws_sdk_dynamodb::Client,
    arguments: &Arguments,
    sum: &Sum,
) -> Result<usize, BoxError> {
    let letters = letters(items, arguments).await?;
    for (id, payload) in &letters {
        sum.insert([payload.trim_end_matches('?').to_owned()]);
        let delete = items.delete_item().table_name(&arguments.dead_letter_table);
        delete.key("id", AttributeValue::S(id.clone())).send().await?;
    }
    Ok(letters.len())
}
