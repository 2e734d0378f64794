//! What both implementations ask of DynamoDB for the same work, and how fast they make room for a worker
//! that joins.

use std::time::{Duration, Instant};

use super::Report;
use crate::fleet::{Fleet, Kind, Settings};
use crate::journal::Delivered;
use crate::lab::Lab;

const SHARDS: u32 = 8;
const SETTLED: Duration = Duration::from_secs(120);
const WATCHED: Duration = Duration::from_secs(60);

/// Two workers share eight shards for a minute, then a third one joins: all Java, then all Rust, with the
/// default failover time.
pub(crate) async fn figures(lab: &Lab) -> Report {
    let mut all = Delivered { records: 0, duplicates: 0 };
    let mut remarks = String::new();
    for (name, kind) in [
        ("figures-kcl2", Kind::Kcl2),
        ("figures-independent", Kind::Independent),
        ("figures-kcl3", Kind::Kcl3),
        ("figures-leader", Kind::Leader),
    ] {
        let settings = Settings { shards: SHARDS, failover: Duration::from_secs(10), fan_out: false };
        let mut fleet = Fleet::new(lab, name, settings);
        fleet.start_traffic();
        let since = Instant::now();
        fleet.start(kind, "one").await;
        fleet.balanced(SETTLED, &["one"]).await;
        let first = since.elapsed();
        fleet.start(kind, "two").await;
        fleet.balanced(SETTLED, &["one", "two"]).await;
        fleet.all_delivered(SETTLED).await;
        // Without records there are no checkpoints, and what is left is the upkeep of leases.
        fleet.stop_traffic();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before: Vec<_> = ["one", "two"].map(|worker| fleet.proxy(worker).requests()).into();
        tokio::time::sleep(WATCHED).await;
        let hours = WATCHED.as_secs_f64() / 3600.0 * f64::from(SHARDS);
        let (mut reads, mut writes) = (0, 0);
        for (worker, before) in ["one", "two"].iter().zip(before) {
            let after = fleet.proxy(worker).requests();
            reads += after.reads - before.reads;
            writes += after.writes - before.writes;
        }
        fleet.start_traffic();
        let since = Instant::now();
        fleet.start(kind, "three").await;
        let started = since.elapsed();
        let rebalanced = fleet.balanced(SETTLED, &["one", "two", "three"]).await;
        let delivered = fleet.finish().await;
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let per_lease_hour = |count: u64| count as f64 / hours;
        let line = format!(
            "\n         {kind:?}: all leases of a new table held after {:.1} s; {:.0} reads and {:.0} writes per \
             lease and hour; balanced {:.1} s after a third worker started (which took {:.1} s); {} duplicates",
            first.as_secs_f64(),
            per_lease_hour(reads),
            per_lease_hour(writes),
            rebalanced.as_secs_f64(),
            started.as_secs_f64(),
            delivered.duplicates,
        );
        remarks.push_str(&line);
        all.records += delivered.records;
        all.duplicates += delivered.duplicates;
    }
    Report::new(all, remarks)
}
