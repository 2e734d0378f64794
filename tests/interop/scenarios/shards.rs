//! What happens inside of streams: shards that split and merge, aggregates, subscriptions.

use std::collections::BTreeSet;
use std::time::Duration;

use kinesis_consumer::ShardId;

use super::Report;
use crate::fleet::{Fleet, Kind, Settings};
use crate::journal::Delivered;
use crate::lab::Lab;

const SETTLED: Duration = Duration::from_secs(60);
/// Rounds of a split and a merge, after which each side must have gone on with a child of the other's.
const ROUNDS_MAX: usize = 6;

/// Until each side has ended parents whose children the other started.
pub(crate) async fn resharding(lab: &Lab) -> Report {
    let mut fleet = Fleet::new(lab, "f", Settings { shards: 4, ..Settings::default() });
    fleet.start_traffic();
    fleet.start(Kind::Kcl3, "java").await;
    fleet.start(Kind::Leader, "rust").await;
    fleet.shared(SETTLED, &["java", "rust"]).await;
    let mut rounds = 0;
    loop {
        let open = fleet.kinesis().open_shards(&fleet.name).expect("the stream");
        let parents: Vec<ShardId> = open.iter().take(3).map(|shard| shard.id.clone()).collect();
        fleet.kinesis().split(&fleet.name, &parents[0]).expect("an open shard");
        fleet.kinesis().merge(&fleet.name, &parents[1], &parents[2]).expect("neighbours");
        rounds += 1;
        let ended = async || {
            let leases = fleet.leases().await;
            let has_ended = |id: &ShardId| {
                // Its row is deleted when its children are read.
                !leases.iter().any(|lease| lease.key == id.as_str() && lease.checkpoint != "SHARD_END")
            };
            let is_read = |id: &ShardId| {
                fleet
                    .journal
                    .entries()
                    .iter()
                    .any(|e| e.event == "initialize" && e.shard.as_deref() == Some(id.as_str()))
            };
            let open = fleet.kinesis().open_shards(&fleet.name).expect("the stream");
            parents.iter().all(has_ended) && open.iter().all(|shard| is_read(&shard.id))
        };
        fleet.until(SETTLED, "the parents end and their children are read", ended).await;
        let crossings = crossings(&fleet);
        if crossings.contains("java") && crossings.contains("rust") {
            break;
        }
        assert!(
            rounds < ROUNDS_MAX,
            "children of parents ended by {crossings:?} were started by the other side"
        );
    }
    Report::new(fleet.finish().await, format!("{rounds} rounds of a split and a merge"))
}

/// Who ended parents whose children the other one started.
fn crossings(fleet: &Fleet<'_>) -> BTreeSet<String> {
    let entries = fleet.journal.entries();
    let shards = fleet.kinesis().shards(&fleet.name).expect("the stream");
    let mut crossings = BTreeSet::new();
    for child in &shards {
        for parent in &child.parents {
            let ended = entries.iter().find(|e| {
                e.event == "checkpointed"
                    && e.sequence.as_deref() == Some("SHARD_END")
                    && e.shard.as_deref() == Some(parent.as_str())
            });
            let started = entries
                .iter()
                .find(|e| e.event == "initialize" && e.shard.as_deref() == Some(child.id.as_str()));
            if let (Some(ended), Some(started)) = (ended, started)
                && ended.worker != started.worker
            {
                crossings.insert(ended.worker.clone());
            }
        }
    }
    crossings
}

/// Each dies after some records of an aggregate; the next one goes on with the very next record.
pub(crate) async fn sub_sequences(lab: &Lab) -> Report {
    let mut all = Delivered { records: 0, duplicates: 0 };
    // Two tables: 2.x cannot read one that 3.5 has written to.
    for (name, java, rust) in [("g-2x", Kind::Kcl2, Kind::Independent), ("g-3x", Kind::Kcl3, Kind::Leader)] {
        let mut fleet = Fleet::new(lab, name, Settings { shards: 1, ..Settings::default() });
        fleet.put_aggregate("key", 20);
        for (worker, kind, after) in [("java", java, "4"), ("rust", rust, "5"), ("java-2", java, "3")] {
            fleet.start_with(kind, worker, &["--stop-after", after]).await;
            fleet.dies(worker).await;
        }
        fleet.start(rust, "last").await;
        let delivered = fleet.finish().await;
        let entries = fleet.journal.entries();
        let starts = entries.iter().filter(|entry| entry.event == "initialize").filter_map(|entry| entry.sub);
        assert_eq!(starts.collect::<Vec<_>>(), [0, 3, 8, 11], "after 4, 5 and 3 records");
        assert_eq!(delivered.duplicates, 0, "it goes on with the very next record");
        all.records += delivered.records;
    }
    Report::new(all, "Java, Rust, Java, Rust read parts of one aggregate; with 2.x, and with 3.x")
}

/// Subscriptions of one registered consumer, shard by shard.
pub(crate) async fn fan_out(lab: &Lab) -> Report {
    let mut fleet = Fleet::new(lab, "j", Settings { fan_out: true, ..Settings::default() });
    fleet.start_traffic();
    fleet.start(Kind::Kcl3, "java").await;
    fleet.shared(SETTLED, &["java"]).await;
    fleet.start(Kind::Leader, "rust").await;
    fleet.shared(SETTLED, &["java", "rust"]).await;
    fleet.all_delivered(SETTLED).await;
    fleet.kill("java").await;
    fleet.shared(SETTLED, &["rust"]).await;
    fleet.all_delivered(SETTLED).await;
    fleet.start(Kind::Kcl3, "java-2").await;
    fleet.shared(SETTLED, &["java-2", "rust"]).await;
    fleet.stop("rust").await;
    fleet.shared(SETTLED, &["java-2"]).await;
    let consumers = fleet.kinesis().consumers(&fleet.name).expect("the stream");
    assert_eq!(consumers.len(), 1, "one consumer for both: {consumers:?}");
    Report::new(fleet.finish().await, "over HTTP/2 without TLS, as one registered consumer")
}
