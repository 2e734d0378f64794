//! A shard that an operator has paused: nothing is fetched, and the lease is kept.

use super::consumer::{ShardConsumer, interruption};
use super::fetching::fetch;
use super::state::Input;
use crate::events::Event;
use crate::lease::Paused;

impl ShardConsumer {
    /// Waits while the shard is paused, and goes on after the last record that was delivered. `Some` if something else
    /// is to be done.
    ///
    /// Nothing is kept of what was fetched: its memory is for other shards.
    pub(super) async fn wait_while_paused(&mut self, why: Paused) -> Option<Input> {
        self.fetching = None;
        let (stream, shard) = (self.stream.id.clone(), self.held.shard_id().clone());
        tracing::info!(by = why.by, reason = why.reason, "the shard is paused");
        let paused = Event::Paused {
            stream: stream.clone(),
            shard: shard.clone(),
            by: why.by.clone(),
            reason: why.reason.clone(),
        };
        self.environment.context.events.emit(paused);
        self.status.update(|status| status.paused = Some(why));
        let mut row = self.held.paused();
        let input = tokio::select! {
            biased;
            input = interruption(&self.held, &self.stream.stopping) => Some(input),
            _ = row.wait_for(Option::is_none) => None,
        };
        self.status.update(|status| status.paused = None);
        if input.is_some() {
            return input;
        }
        tracing::info!("the shard is resumed");
        self.environment.context.events.emit(Event::Resumed { stream, shard });
        let mut lease = self.held.lease();
        if let Some(running) = &mut self.running
            && let Some(delivered) = running.delivered.clone()
        {
            lease.checkpoint = delivered.clone().into();
            running.after = Some(delivered);
        }
        self.fetching = Some(fetch(&self.environment, &self.stream, &lease, &self.status));
        None
    }
}
