//! The end of a shard: follows the steps of [`EndingSteps`], then waits for the processor to store it.

use std::collections::BTreeSet;
use std::error::Error as StdError;

use super::consumer::{ShardConsumer, interruption};
use super::ending_steps::{EndingStep, EndingSteps};
use super::state::Input;
use crate::context::Context;
use crate::events::Event;
use crate::kinesis::StreamError;
use crate::kinesis::list::list_shards;
use crate::lease::{Lease, StoreError};
use crate::metrics::{Operation, names};
use crate::shard_sync::{ChildError, CreateReason, create_lease};
use crate::types::ShardId;

impl ShardConsumer {
    /// Creates the children's leases, then notifies the processor, until the end is stored.
    pub(super) async fn end_shard(&mut self) -> Input {
        self.fetching = None;
        let mut attempt = 0_u64;
        while !self.held.lease().checkpoint.is_shard_end() {
            if attempt > 0 {
                self.status.update(|status| status.end_attempts = attempt);
                let pause = self.restart_pause();
                self.failures = self.failures.saturating_add(1);
                tokio::select! {
                    biased;
                    input = interruption(&self.held, &self.stream.stopping) => return input,
                    () = self.environment.context.clock.sleep(pause) => {}
                }
            }
            attempt += 1;
            if !self.held.is_valid() {
                return Input::LeaseGone;
            }
            if let Err(error) = self.create_child_leases().await {
                tracing::warn!(%error, "the leases of the child shards are not created yet; trying again");
                self.environment.context.coordination_failed("CreateChildLeases", error.as_ref());
                continue;
            }
            let Some(running) = &self.running else { return Input::LeaseGone };
            running.checkpointer.reach_end();
            let since = self.environment.context.clock.now();
            let call = self.callbacks.run("shard_ended", running.processor.shard_ended()).await;
            let took = self.environment.context.clock.now().since(since);
            self.report(Operation::ShutdownTask).add(names::SHUTDOWN_TIME, took);
            if self.held.is_valid() && !self.held.lease().checkpoint.is_shard_end() {
                let outcome = if call.is_ok() { "returned" } else { "panicked" };
                tracing::warn!(
                    attempt,
                    "shard_ended() {outcome} without storing the end; call checkpointer.end() in it"
                );
                self.environment.context.events.emit(Event::ShardEndNotStored {
                    stream: self.stream.id.clone(),
                    shard: self.held.shard_id().clone(),
                    attempts: attempt,
                });
            }
        }
        let children: Vec<_> = self.children.iter().map(|child| child.id.clone()).collect();
        tracing::info!(?children, "shard ended");
        self.environment.context.events.emit(Event::ShardEnded {
            stream: self.stream.id.clone(),
            shard: self.held.shard_id().clone(),
            children,
        });
        if self.held.handoff().is_cancelled()
            && let Err(error) = self.held.release().await
        {
            tracing::debug!(%error, "the handoff of an ended shard is left to the leader");
        }
        self.environment.context.notifier.publish(self.held.lease());
        Input::FinalCallbackReturned
    }

    /// Goes on until the end is to be stored.
    async fn create_child_leases(&self) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let mut steps = EndingSteps::new(self.children.clone());
        loop {
            match steps.next_step(&self.held.lease()) {
                EndingStep::LookUpLease(shard) => {
                    let has_lease = self.has_lease(&shard).await?;
                    steps.note_lease(shard, has_lease);
                }
                EndingStep::ListShards => steps.note_listed(self.listed_shards().await?),
                EndingStep::CreateLeases(leases) => {
                    for lease in leases {
                        let shard = lease.shard_id.clone();
                        self.create_lease(lease).await?;
                        steps.note_lease(shard, true);
                    }
                }
                EndingStep::Wait(error) => {
                    if let ChildError::ParentWithoutLease { .. } = error {
                        self.report(Operation::ShutdownTask).add(names::MISSING_MERGE_PARENT_LEASE, 1_u32);
                    }
                    return Err(error.into());
                }
                EndingStep::StoreEnd => break,
            }
        }
        self.held.note_children(self.children.iter().map(|child| child.id.clone()).collect());
        Ok(())
    }

    async fn create_lease(&self, lease: Lease) -> Result<(), StoreError> {
        let lease = lease.in_stream(&self.stream.id);
        let reason = CreateReason::ChildOf(self.held.shard_id().clone());
        let report = self.report(Operation::ShutdownTask);
        create_lease(&self.environment.context, report, &lease, &reason).await?;
        Ok(())
    }

    async fn listed_shards(&self) -> Result<BTreeSet<ShardId>, StreamError> {
        let Context { api, clock, seeds, .. } = &*self.environment.context;
        let shards = list_shards(&**api, clock, &self.stream.id, None, seeds.seed()).await?;
        Ok(shards.into_iter().map(|shard| shard.id).collect())
    }

    async fn has_lease(&self, shard: &ShardId) -> Result<bool, StoreError> {
        Ok(self.environment.context.store.lease(&self.stream.id.lease_key(shard)).await?.is_some())
    }
}
