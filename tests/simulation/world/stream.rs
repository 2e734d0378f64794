//! Operations on the stream.

use bytes::Bytes;
use kinesis_consumer::ExtendedSequenceNumber;
use kinesis_consumer::aggregation::Aggregator;
use kinesis_consumer::kinesis::IteratorPosition;
use kinesis_consumer::testing::NewRecord;

use super::{STREAM, World};
use crate::history::{EventKind, ShardRecord, Written};

const KEYS: usize = 24;

impl World {
    /// Writes one Kinesis record: plain, aggregated, or a damaged aggregate.
    pub(super) fn put(&mut self) {
        let key = format!("key-{}", self.rng.usize(..KEYS));
        self.next_record += 1;
        let text = self.next_record.to_string();
        let (mut user_records, mut poisoned) = (1, false);
        let data = if self.happens(self.scenario.aggregates) {
            let mut aggregator = Aggregator::new();
            user_records = self.rng.usize(1..=6);
            for _ in 0..user_records {
                let _ = aggregator.add(&key, None, text.as_bytes());
            }
            let mut data = aggregator.finish().expect("records").data.to_vec();
            if self.happens(self.scenario.poison) {
                (poisoned, user_records) = (true, 1);
                let last = data.len() - 1;
                data[last] ^= 1;
            }
            Bytes::from(data)
        } else if self.scenario.large_records {
            self.blob.slice(..self.rng.usize(1..=self.blob.len() - 256))
        } else {
            Bytes::from(text)
        };
        let placed = self.kinesis.put_record(STREAM, NewRecord::new(key.as_str(), data)).expect("accepted");
        let at = self.log.now();
        self.log.change(|history| {
            let shard = history.shards.get_mut(&placed.shard).expect("a known shard");
            shard.written.extend((0..user_records).map(|index| Written {
                position: ExtendedSequenceNumber::new(placed.sequence_number.clone(), index as u64),
                at,
            }));
        });
        self.log.record(EventKind::Put { shard: placed.shard, user_records, poisoned });
    }

    pub(super) fn reshard(&mut self) {
        let open = self.kinesis.open_shards(STREAM).expect("a stream");
        let index = self.rng.usize(..open.len());
        // Neither fails with adjacent open shards; a split of a single hash key would.
        let split = open.len() < 2 || (open.len() < 16 && self.rng.bool());
        let changed = match (split, open.get(index + 1)) {
            (false, Some(next)) => self.kinesis.merge(STREAM, &open[index].id, &next.id).map(drop),
            _ => self.kinesis.split(STREAM, &open[index].id).map(drop),
        };
        if changed.is_ok() {
            self.note_shards();
        }
    }

    /// Another subscriber subscribes as the fleet's stream consumer, and takes no events. Fails within
    /// five seconds of another subscription.
    pub(super) fn steal_subscription(&mut self) {
        let open = self.kinesis.open_shards(STREAM).expect("a stream");
        let shard = &open[self.rng.usize(..open.len())].id;
        let consumers = self.kinesis.consumers(STREAM).expect("a stream");
        for consumer in consumers {
            let stolen = self.kinesis.subscribe(&consumer, shard, &IteratorPosition::Latest).is_ok();
            self.log.record(EventKind::SubscriptionStolen { shard: shard.clone(), stolen });
        }
    }

    pub(super) fn note_shards(&mut self) {
        let shards = self.kinesis.shards(STREAM).expect("a stream");
        let open = shards.iter().filter(|shard| shard.is_open()).map(|shard| shard.id.clone()).collect();
        self.log.change(|history| {
            for shard in shards {
                let record = history.shards.entry(shard.id.clone()).or_insert_with(|| ShardRecord {
                    parents: shard.parents.iter().cloned().collect(),
                    range: shard.hash_key_range,
                    written: Vec::new(),
                    is_open: true,
                });
                record.is_open = shard.is_open();
            }
        });
        self.log.record(EventKind::ShardsChanged { open });
    }

    pub(super) fn put_to_every_shard(&mut self) {
        for shard in self.kinesis.open_shards(STREAM).expect("a stream") {
            let mut record = NewRecord::new("last", "-");
            record.explicit_hash_key = Some(shard.hash_key_range.start());
            let placed = self.kinesis.put_record(STREAM, record).expect("accepted");
            let written = Written {
                position: ExtendedSequenceNumber::new(placed.sequence_number, 0),
                at: self.log.now(),
            };
            self.log.change(|history| {
                history.shards.get_mut(&placed.shard).expect("a known shard").written.push(written);
            });
        }
    }
}
