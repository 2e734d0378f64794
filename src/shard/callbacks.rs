use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use super::status::StatusCell;
use crate::events::{Event, EventSink};
use crate::metrics::{Metrics, Operation, names};
use crate::runtime::Clock;
use crate::types::{ShardId, StreamId};

/// Runs the callbacks of one shard's processor, and reports how long they take and whether they panic.
pub(super) struct Callbacks {
    pub(super) stream: StreamId,
    pub(super) shard: ShardId,
    pub(super) clock: Clock,
    pub(super) events: EventSink,
    pub(super) metrics: Metrics,
    pub(super) status: Arc<StatusCell>,
}

/// A callback panicked. What it panicked with was printed by the panic hook; it may hold record data
/// and goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Panicked;

impl Callbacks {
    /// Runs a callback to its end and catches its panic.
    pub(super) async fn run<T>(
        &self,
        name: &'static str,
        callback: impl Future<Output = T>,
    ) -> Result<T, Panicked> {
        let since = self.clock.wall();
        self.status.update(|status| status.in_callback_since = Some(since));
        // What the callback leaves behind in an inconsistent state is dropped with its processor.
        let outcome = AssertUnwindSafe(callback).catch_unwind().await.map_err(|_| Panicked);
        self.status.update(|status| {
            status.in_callback_since = None;
            status.panics += u64::from(outcome.is_err());
        });
        if outcome.is_err() {
            tracing::error!(callback = name, "the processor panicked");
            self.metrics
                .operation(Operation::ProcessTask)
                .shard(&self.shard)
                .stream(&self.stream)
                .add(names::PROCESSOR_PANICS, 1_u32);
            self.events.emit(Event::ProcessorPanicked {
                stream: self.stream.clone(),
                shard: self.shard.clone(),
                callback: name,
            });
        }
        outcome
    }
}
