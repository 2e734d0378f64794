//! What is done with one message: routed by its type, tried again if that fails.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kinesis_consumer::KinesisClientRecord;
use serde::Deserialize;

/// Tries per message; after the last failure it is counted and skipped.
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The part of a message that decides where it goes.
#[derive(Deserialize)]
struct Message {
    event_type: String,
    #[serde(default)]
    amount_cents: u64,
}

/// A handler failed in a way that may pass.
struct Busy;

/// Handles messages and counts what became of them, by kind.
#[derive(Default)]
pub(crate) struct MessageHandler(Mutex<BTreeMap<&'static str, u64>>);

impl MessageHandler {
    /// Handles one record; returns when it is handled or given up.
    pub(crate) async fn handle(&self, record: &KinesisClientRecord) {
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=TRIES {
            match self.route(record, attempt) {
                Ok(kind) => return self.count(kind),
                Err(Busy) => {
                    self.count("retries");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
        self.count("given up");
    }

    fn route(&self, record: &KinesisClientRecord, attempt: u32) -> Result<&'static str, Busy> {
        let Ok(message) = serde_json::from_slice::<Message>(record.record.data.as_ref()) else {
            // Not JSON, or of another shape.
            return Ok("other formats");
        };
        match message.event_type.as_str() {
            "user_action" => Ok("user actions"),
            "system_event" => Ok("system events"),
            // Stands for a service that is sometimes busy: one in a hundred fails at first.
            "error_event" if message.amount_cents % 100 == 33 && attempt == 1 => Err(Busy),
            "error_event" => Ok("error events"),
            _ => Ok("unknown types"),
        }
    }

    fn count(&self, kind: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }
}

impl fmt::Display for MessageHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("handled:")?;
        for (kind, count) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            write!(f, " {kind}={count}")?;
        }
        Ok(())
    }
}
