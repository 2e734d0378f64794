//! Dead letters in a table of `DynamoDbDeadLetters`.

use std::collections::HashMap;
use std::fmt::Write as _;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use kinesis_consumer::StreamId;
use serde_json::{Value, json};

use crate::args::{Chosen, DeadLetter, Letter, Letters};
use crate::{Ended, Failure, print_json, seek};

type Item = HashMap<String, AttributeValue>;

/// The most of a payload that is shown to people.
const SHOWN_BYTES_MAX: usize = 4096;

pub(crate) async fn run(config: &SdkConfig, command: DeadLetter) -> Result<Ended, Failure> {
    let table = Table { client: Client::new(config) };
    match command {
        DeadLetter::List(args) => list(&table, &args).await?,
        DeadLetter::Show(args) => show(&table, &args).await?,
        DeadLetter::Redrive(args) => redrive(&table, config, &args).await?,
        DeadLetter::Discard(args) => discard(&table, &args).await?,
    }
    Ok(Ended::Done)
}

struct Table {
    client: Client,
}

impl Table {
    /// Letters in the order of their ids, at most as many as asked for, and whether there are more.
    async fn scan(&self, args: &Letters) -> Result<(Vec<Item>, bool), Failure> {
        let mut items: Vec<Item> = Vec::new();
        let mut start = None;
        loop {
            let page = self.client.scan().table_name(&args.table).set_exclusive_start_key(start).send().await;
            let page = page.map_err(|error| self.failed(&args.table, error))?;
            let is_meant =
                |item: &Item| args.app.as_deref().is_none_or(|app| text(item, "application") == app);
            items.extend(page.items.unwrap_or_default().into_iter().filter(is_meant));
            start = page.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() || items.len() > args.limit {
                break;
            }
        }
        let has_more = start.is_some() || items.len() > args.limit;
        items.truncate(args.limit);
        items.sort_by(|a, b| text(a, "id").cmp(text(b, "id")));
        Ok((items, has_more))
    }

    async fn get(&self, table: &str, id: &str) -> Result<Item, Failure> {
        let get = self.client.get_item().table_name(table).key("id", AttributeValue::S(id.to_owned()));
        let answer = get.consistent_read(true).send().await.map_err(|error| self.failed(table, error))?;
        answer.item.ok_or_else(|| {
            format!("there is no letter {id} in table {table}; list shows what there is").into()
        })
    }

    async fn delete(&self, table: &str, id: &str) -> Result<(), Failure> {
        let delete = self.client.delete_item().table_name(table).key("id", AttributeValue::S(id.to_owned()));
        delete.send().await.map(drop).map_err(|error| self.failed(table, error))
    }

    async fn chosen(&self, args: &Chosen) -> Result<Vec<Item>, Failure> {
        if args.all {
            return Ok(self.scan(&args.letters).await?.0);
        }
        let mut items = Vec::new();
        for id in &args.ids {
            items.push(self.get(&args.letters.table, id).await?);
        }
        Ok(items)
    }

    fn failed(&self, table: &str, error: impl Into<aws_sdk_dynamodb::Error>) -> Failure {
        let error: aws_sdk_dynamodb::Error = error.into();
        let what = match &error {
            aws_sdk_dynamodb::Error::ResourceNotFoundException(_) => {
                "does not exist; check its name, the region and the account"
            }
            _ => "cannot be used",
        };
        format!("the table {table} of dead letters {what}: {}", crate::with_causes(&error)).into()
    }
}

fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    match item.get(name) {
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => text,
        _ => "",
    }
}

fn payload(item: &Item) -> &[u8] {
    match item.get("payload") {
        Some(AttributeValue::B(bytes)) => bytes.as_ref(),
        _ => &[],
    }
}

/// A letter without its payload.
fn summary(item: &Item) -> Value {
    let number = |name: &str| text(item, name).parse::<u64>().ok();
    json!({
        "id": text(item, "id"),
        "application": text(item, "application"),
        "worker": text(item, "worker"),
        "stream": text(item, "stream"),
        "shard": text(item, "shard"),
        "partitionKey": text(item, "partitionKey"),
        "arrivalMillis": number("arrival"),
        "attempts": number("attempts"),
        "reason": text(item, "reason"),
        "error": text(item, "error"),
        "payloadBytes": payload(item).len(),
    })
}

async fn list(table: &Table, args: &Letters) -> Result<(), Failure> {
    let (items, has_more) = table.scan(args).await?;
    if args.json {
        let letters: Vec<Value> = items.iter().map(summary).collect();
        return print_json(&json!({ "letters": letters, "hasMore": has_more }));
    }
    for item in &items {
        println!(
            "{}  {} attempt(s), {} bytes: {}",
            text(item, "id"),
            text(item, "attempts"),
            payload(item).len(),
            text(item, "error")
        );
    }
    println!("{} letter(s){}", items.len(), if has_more { ", and more: raise --limit" } else { "" });
    Ok(())
}

async fn show(table: &Table, args: &Letter) -> Result<(), Failure> {
    let item = table.get(&args.letters.table, &args.id).await?;
    let bytes = payload(&item);
    let mut document = summary(&item);
    if args.letters.json {
        match std::str::from_utf8(bytes) {
            Ok(text) => document["payload"] = text.into(),
            Err(_) => document["payloadHex"] = hex(bytes).into(),
        }
        return print_json(&document);
    }
    for (name, value) in document.as_object().into_iter().flatten() {
        match value {
            Value::String(text) => println!("{name}: {text}"),
            other => println!("{name}: {other}"),
        }
    }
    let shown = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
    match std::str::from_utf8(shown) {
        Ok(text) => println!("\n{text}"),
        Err(_) => println!("\n{}", hex(shown)),
    }
    if shown.len() < bytes.len() {
        println!("… {} bytes more: use --json", bytes.len() - shown.len());
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Puts each record before its letter is deleted, so that an interruption loses none.
async fn redrive(table: &Table, config: &SdkConfig, args: &Chosen) -> Result<(), Failure> {
    let kinesis = aws_sdk_kinesis::Client::new(config);
    let items = table.chosen(args).await?;
    if !args.yes {
        return dry_run(&items, "put into their streams again");
    }
    let bar = seek::bar(items.len() as u64)?;
    for item in &items {
        let id = text(item, "id");
        let stream: StreamId =
            text(item, "stream").parse().map_err(|error| format!("letter {id} names no stream: {error}"))?;
        let put = kinesis.put_record().partition_key(text(item, "partitionKey"));
        let put = put.stream_name(stream.name()).data(payload(item).to_vec().into());
        let hash_key = Some(text(item, "explicitHashKey")).filter(|key| !key.is_empty());
        put.set_explicit_hash_key(hash_key.map(ToOwned::to_owned)).send().await.map_err(|error| {
            let error: aws_sdk_kinesis::Error = error.into();
            format!(
                "the record of letter {id} cannot be put into stream {stream} again; it and those after it are still \
                 in the table: {}",
                crate::with_causes(&error)
            )
        })?;
        table.delete(&args.letters.table, id).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    done(args, &items, "redriven")
}

async fn discard(table: &Table, args: &Chosen) -> Result<(), Failure> {
    let items = table.chosen(args).await?;
    if !args.yes {
        return dry_run(&items, "deleted");
    }
    for item in &items {
        table.delete(&args.letters.table, text(item, "id")).await?;
    }
    done(args, &items, "discarded")
}

fn dry_run(items: &[Item], what: &str) -> Result<(), Failure> {
    items.iter().for_each(|item| println!("{}", text(item, "id")));
    println!("A dry run: {} letter(s) would be {what}. Repeat with --yes to do it.", items.len());
    Ok(())
}

fn done(args: &Chosen, items: &[Item], what: &str) -> Result<(), Failure> {
    if args.letters.json {
        let ids: Vec<&str> = items.iter().map(|item| text(item, "id")).collect();
        return print_json(&json!({ what: ids }));
    }
    println!("{} letter(s) {what}", items.len());
    Ok(())
}
