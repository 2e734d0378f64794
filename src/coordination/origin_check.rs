//! Where leases come from: those of another stream are reported, or start over.

use std::sync::Arc;

use super::command::PlannedWrite;
use super::coordinator::LeaseCoordinator;
use super::executor::write;
use super::state::Written;
use crate::config::OnRecreatedStream;
use crate::events::Event;
use crate::kinesis::Shard;
use crate::lease::Lease;
use crate::lease::origin::{Shards, lease_of, mismatch};
use crate::shard_sync::{ForeignLease, Origins, describe};
use crate::stream_tracker::TrackedStream;
use crate::types::Checkpoint;

/// Rows whose origin is stored at a time.
const ORIGINS_AT_ONCE: usize = 100;

impl LeaseCoordinator {
    /// Two consumers that each read a single stream must not share a table: reports rows that name
    /// another stream.
    pub(super) fn report_shared_table(&self, others: &[Lease]) {
        for stream in self.tracked.iter() {
            let of_others = others.iter().find(|lease| lease.stream_name.is_none() && stream.has(lease));
            let problem = of_others.and_then(|lease| {
                let other = lease.source_stream.as_deref()?;
                Some(format!(
                    "the lease table is in use for stream {other} (lease {}): one application reads one stream, so \
                     give this consumer another application name, or read both with streams([..])",
                    lease.key
                ))
            });
            if stream.set_shared_table(problem.clone())
                && let Some(problem) = problem
            {
                self.report_foreign(stream, problem);
            }
        }
    }

    fn report_foreign(&self, stream: &TrackedStream, reason: String) {
        tracing::error!(stream = %stream.id, reason, "leases of another stream");
        self.worker
            .context
            .events
            .emit(Event::StreamRecreated { stream: stream.id.clone(), reason: reason.into() });
    }

    /// Holds the leases of a stream against its shards. `is_older` says that the list was made before the
    /// leases were read.
    pub(super) async fn check_origins(
        &mut self,
        stream: &Arc<TrackedStream>,
        shards: &[Shard],
        is_older: bool,
    ) {
        let worker = Arc::clone(&self.worker);
        let now = worker.context.clock.now();
        let index = Shards::new(shards);
        let Some(known) = self.state.streams.get_mut(&stream.lease_name()) else { return };
        let leases = self.state.view.leases().filter(|lease| stream.has(lease));
        let origins = known.sync.check_origins(leases, &stream.id, &index, is_older, now);
        let foreign = match origins {
            Origins::Foreign(foreign) => foreign,
            Origins::Fit => {
                stream.set_foreign_leases(None);
                return self.store_origins(stream, &index).await;
            }
            Origins::Suspected => return,
        };
        let reason = describe(&foreign);
        if stream.set_foreign_leases(Some(reason.clone())) {
            self.report_foreign(stream, reason);
        }
        if worker.context.coordination.on_recreated_stream == OnRecreatedStream::StartOver {
            for foreign in foreign {
                if !self.start_over(stream, &index, foreign).await {
                    break;
                }
            }
        }
    }

    /// Puts a lease of an earlier stream to the start of the shard that now has its name; if there is none,
    /// its row is deleted. Whether the table can be written to.
    async fn start_over(
        &mut self,
        stream: &TrackedStream,
        shards: &Shards<'_>,
        foreign: ForeignLease,
    ) -> bool {
        let worker = Arc::clone(&self.worker);
        let key = foreign.lease.key.clone();
        let fresh = match shards.get(&foreign.lease.shard_id) {
            Some(shard) => lease_of(shard, Checkpoint::TrimHorizon).in_stream(&stream.id),
            None => Lease { checkpoint: Checkpoint::ShardEnd, ..foreign.lease.clone() },
        };
        let mut row = foreign.lease;
        for _ in 0..2 {
            match write(&worker, &PlannedWrite::start_over(&row, &fresh)).await {
                Written::Applied { lease: reset, .. } => {
                    // Its holder finds out by the next renewal; this worker at once.
                    worker.held_leases.lose(&reset);
                    if fresh.checkpoint.is_shard_end() {
                        if let Err(error) = worker.context.store.delete_ended(&key).await {
                            worker.context.coordination_failed("ResetLease", &error);
                            return false;
                        }
                        self.state.view.forget(&key);
                    } else {
                        let event = Event::LeaseReset { lease: key, checkpoint: row.checkpoint };
                        worker.context.events.emit(event);
                        self.learn_row(*reset);
                    }
                    return true;
                }
                // Renewed meanwhile, or reset by another worker.
                Written::Refused(Some(current)) if mismatch(&current, &stream.id, shards).is_some() => {
                    row = *current;
                }
                Written::Refused(_) | Written::NotLeader => return true,
                Written::Failed => return false,
            }
        }
        true
    }

    /// Stores where leases come from whose rows do not say it: those that other libraries made, and of
    /// shards that were not listed yet when their leases were made. Only as long as nothing is processed: a
    /// position may be of an earlier stream.
    async fn store_origins(&mut self, stream: &TrackedStream, shards: &Shards<'_>) {
        let worker = Arc::clone(&self.worker);
        let is_silent = |lease: &&Lease| {
            stream.has(lease)
                && lease.starting_sequence_number.is_none()
                && lease.checkpoint <= Checkpoint::Latest
        };
        let silent: Vec<Lease> =
            self.state.view.leases().filter(is_silent).take(ORIGINS_AT_ONCE).cloned().collect();
        for lease in silent {
            let Some(shard) = shards.get(&lease.shard_id) else { continue };
            let origin = lease_of(shard, lease.checkpoint.clone()).in_stream(&stream.id);
            match write(&worker, &PlannedWrite::store_origin(&lease, &origin)).await {
                Written::Applied { lease, .. } => self.learn_row(*lease),
                Written::Refused(_) | Written::NotLeader => {}
                Written::Failed => return,
            }
        }
    }
}
