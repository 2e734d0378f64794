use std::collections::BTreeMap;
use std::sync::Arc;

use super::Worker;
use super::state::KnownStream;
use crate::shard_sync::{StreamSync, SyncRules};
use crate::stream_tracker::TrackedStream;
use crate::types::Moment;

/// The streams that the coordinator knows, each with the generation under which it does.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    streams: BTreeMap<Option<String>, (u64, Arc<TrackedStream>)>,
    /// The last one given.
    generation: u64,
}

impl Tracked {
    /// Compares with the streams that `worker` tracks now. Returns those that are new, and the generations of
    /// those that are gone, which are kept until [`forget`](Self::forget). One may have been removed and added
    /// again.
    pub(super) fn follow(&mut self, worker: &Worker, now: Moment) -> (Vec<KnownStream>, Vec<u64>) {
        let tracked: BTreeMap<Option<String>, Arc<TrackedStream>> =
            worker.streams.tracked().into_iter().map(|stream| (stream.lease_name(), stream)).collect();
        let is_gone = |name: &Option<String>, known: &Arc<TrackedStream>| {
            tracked.get(name).is_none_or(|stream| !Arc::ptr_eq(stream, known))
        };
        let gone = self.streams.iter().filter(|(name, (_, known))| is_gone(name, known));
        let gone: Vec<u64> = gone.map(|(_, (generation, _))| *generation).collect();
        let mut added = Vec::new();
        for (name, stream) in tracked {
            let known = self.streams.get(&name);
            if known.is_some_and(|(_, known)| Arc::ptr_eq(known, &stream)) {
                continue;
            }
            self.generation += 1;
            added.push(known_stream(worker, &stream, self.generation, now));
            if let Some((_, removed)) = self.streams.insert(name, (self.generation, stream)) {
                removed.consumers.close();
            }
        }
        (added, gone)
    }

    /// No consumer is started for the stream of this generation any more.
    pub(super) fn close(&self, generation: u64) {
        let of_it = self.streams.values().filter(|(known, _)| *known == generation);
        of_it.for_each(|(_, stream)| {
            stream.consumers.close();
        });
    }

    pub(super) fn forget(&mut self, generation: u64) {
        self.streams.retain(|_, (known, _)| *known != generation);
    }

    /// The stream whose leases have this `streamName`.
    pub(super) fn get(&self, name: Option<&str>) -> Option<Arc<TrackedStream>> {
        // The keys are few, and own their text.
        self.streams.get(&name.map(ToOwned::to_owned)).map(|(_, stream)| Arc::clone(stream))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<TrackedStream>> {
        self.streams.values().map(|(_, stream)| stream)
    }
}

fn known_stream(worker: &Worker, stream: &TrackedStream, generation: u64, now: Moment) -> KnownStream {
    let coordination = &worker.context.coordination;
    let rules = SyncRules {
        audit_interval: coordination.audit_interval,
        audit_confidence_threshold: coordination.audit_confidence_threshold,
        failover_time: coordination.failover_time,
        is_multi: worker.streams.is_multi(),
    };
    KnownStream {
        generation,
        id: stream.id.clone(),
        latest_since: stream.latest_since(),
        sync: StreamSync::new(rules, stream.start_strategy, stream.take_listed(), now),
    }
}
