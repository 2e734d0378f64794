use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use kinesis_consumer::{
    BoxError, Consumer, ConsumerHandle, Delivery, Event, Events, ManagementConfig, RecordStream,
    StartStrategy, StreamOptions,
};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::reset::forget_checkpoints;
use super::topic::Topic;

/// How long an answer waits until an acknowledgement is stored.
const STORED_WITHIN: Duration = Duration::from_secs(5);

/// A consumer group: an application that reads the topic, whose messages are acknowledged over HTTP.
pub(crate) struct Group {
    name: &'static str,
    config: SdkConfig,
    topic: Arc<Topic>,
    changes: watch::Sender<u64>,
    state: Arc<Mutex<State>>,
    /// Held while the consumer is stopped and started.
    running: tokio::sync::Mutex<Option<Running>>,
}

struct Running {
    handle: ConsumerHandle,
    pump: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// What was delivered and not acknowledged.
    out: BTreeMap<usize, Delivery>,
    received: BTreeSet<usize>,
    acknowledged: BTreeSet<usize>,
    /// How many messages, from the first on, are stored as done.
    committed: usize,
}

/// What a group has received, and how far it is.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    received: Vec<Received>,
    /// How many messages are acknowledged, in any order.
    acknowledged: usize,
    /// How many messages, from the first on, are stored as acknowledged.
    committed: usize,
    /// How many messages of the topic are not.
    lag: usize,
}

#[derive(Debug, Serialize)]
struct Received {
    offset: usize,
    key: String,
    content: String,
    acknowledged: bool,
}

/// Why a message cannot be acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    NotReceived,
    AcknowledgedAlready,
}

impl Group {
    pub(crate) async fn start(
        name: &'static str,
        config: &SdkConfig,
        topic: Arc<Topic>,
        changes: watch::Sender<u64>,
    ) -> Result<Self, BoxError> {
        let group = Self {
            name,
            config: config.clone(),
            topic,
            changes,
            state: Arc::default(),
            running: tokio::sync::Mutex::default(),
        };
        *group.running.lock().await = Some(group.run().await?);
        Ok(group)
    }

    pub(crate) fn name(&self) -> &str {
        self.name
    }

    fn application(&self) -> String {
        format!("{}-group-{}", self.topic.name(), self.name)
    }

    async fn run(&self) -> Result<Running, BoxError> {
        let consumer = Consumer::builder()
            .stream(self.topic.name())
            .application(self.application())
            // After a crash, it has its lease back at once.
            .worker_id(format!("group-{}", self.name))
            .aws_config(&self.config)
            .management(ManagementConfig::default().with_start_strategy(StartStrategy::Oldest))
            .build()?;
        let events = consumer.events();
        let (records, handle) = consumer.into_stream(StreamOptions::default()).await?;
        let (topic, state) = (Arc::clone(&self.topic), Arc::clone(&self.state));
        let pump = tokio::spawn(pump(records, events, topic, state, self.changes.clone()));
        Ok(Running { handle, pump })
    }

    /// Stops the consumer and gives its lease back.
    pub(crate) async fn stop(&self) -> Result<(), BoxError> {
        if let Some(running) = self.running.lock().await.take() {
            self.stop_running(running).await?;
        }
        Ok(())
    }

    async fn stop_running(&self, running: Running) -> Result<(), BoxError> {
        let stopping = running.handle.shutdown();
        // A shutdown waits for what is out.
        let (stopped, pumped) = tokio::join!(stopping, async {
            let pumped = running.pump.await;
            *lock(&self.state) = State::default();
            pumped
        });
        pumped?;
        Ok(stopped?)
    }

    /// Begins again at the oldest message.
    pub(crate) async fn reset(&self) -> Result<(), BoxError> {
        let mut running = self.running.lock().await;
        if let Some(running) = running.take() {
            self.stop_running(running).await?;
        }
        let client = aws_sdk_dynamodb::Client::new(&self.config);
        forget_checkpoints(&client, &self.application()).await?;
        *running = Some(self.run().await?);
        self.changes.send_modify(|change| *change += 1);
        Ok(())
    }

    /// Acknowledges a message. If everything before it is acknowledged, that is stored when this returns.
    pub(crate) async fn acknowledge(&self, offset: usize) -> Result<(), Refusal> {
        let (delivery, is_next) = {
            let mut state = lock(&self.state);
            if offset < state.committed || state.acknowledged.contains(&offset) {
                return Err(Refusal::AcknowledgedAlready);
            }
            let delivery = state.out.remove(&offset).ok_or(Refusal::NotReceived)?;
            state.acknowledged.insert(offset);
            let mut before = state.committed..offset;
            (delivery, before.all(|offset| state.acknowledged.contains(&offset)))
        };
        if is_next {
            // If the lease was lost, it is delivered and acknowledged again.
            let _ = tokio::time::timeout(STORED_WITHIN, delivery.ack_durably()).await;
        } else {
            delivery.ack();
        }
        self.changes.send_modify(|change| *change += 1);
        Ok(())
    }

    pub(crate) async fn status(&self) -> Status {
        let checkpoint = match &*self.running.lock().await {
            Some(running) => running.handle.status().shards.first().map(|shard| shard.checkpoint.clone()),
            None => None,
        };
        let messages = self.topic.messages();
        let mut state = lock(&self.state);
        if let Some(checkpoint) = checkpoint {
            state.committed = self.topic.count_up_to(&checkpoint);
        }
        let received: Vec<Received> = messages
            .iter()
            .enumerate()
            .filter(|(offset, _)| *offset < state.committed || state.received.contains(offset))
            .map(|(offset, message)| Received {
                offset,
                key: message.key.clone(),
                content: message.content.clone(),
                acknowledged: offset < state.committed || state.acknowledged.contains(&offset),
            })
            .collect();
        Status {
            acknowledged: received.iter().filter(|received| received.acknowledged).count(),
            committed: state.committed,
            lag: messages.len() - state.committed,
            received,
        }
    }
}

/// Takes what is delivered, until the consumer stops.
async fn pump(
    mut records: RecordStream,
    mut events: Events,
    topic: Arc<Topic>,
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
) {
    loop {
        tokio::select! {
            delivery = records.next() => {
                let Some(delivery) = delivery else { return };
                // One that cannot be placed is delivered again.
                match topic.offset(&delivery.record.sequence_number).await {
                    Ok(offset) => receive(&state, offset, delivery),
                    Err(error) => delivery.nack(error),
                }
            }
            event = events.next() => {
                if !matches!(event, Some(Event::Checkpointed { .. } | Event::ProcessingStarted { .. })) {
                    continue;
                }
            }
        }
        changes.send_modify(|change| *change += 1);
    }
}

fn receive(state: &Mutex<State>, offset: usize, delivery: Delivery) {
    let mut state = lock(state);
    state.received.insert(offset);
    if state.acknowledged.contains(&offset) {
        delivery.ack();
    } else {
        state.out.insert(offset, delivery);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
