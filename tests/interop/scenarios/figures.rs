//! What both implementations ask of DynamoDB for the same work, and how fast they make room for a worker
//! that joins.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Report;
use crate::fleet::{Fleet, Kind, Settings};
use crate::journal::Delivered;
use crate::lab::Lab;
use crate::proxy::Requests;

const SHARDS: u32 = 8;
const SETTLED: Duration = Duration::from_secs(240);
/// Times are as each library has them.
const DEFAULTS: [&str; 2] = ["--defaults", "true"];
const WATCHED: Duration = Duration::from_secs(60);

/// Two workers share eight shards for two minutes, then a third one joins; each with its defaults. The
/// fleets, each of one kind, work at the same time.
pub(crate) async fn figures(lab: &Lab) -> Report {
    let fleets = [
        ("figures-kcl2", Kind::Kcl2),
        ("figures-independent", Kind::Independent),
        ("figures-kcl3", Kind::Kcl3),
        ("figures-leader", Kind::Leader),
    ];
    let outcomes = join_all(fleets.map(|(name, kind)| watch(lab, name, kind))).await;
    let mut all = Delivered { records: 0, duplicates: 0 };
    let mut remarks = String::new();
    for (delivered, line) in outcomes {
        all.records += delivered.records;
        all.duplicates += delivered.duplicates;
        remarks.push_str(&line);
    }
    Report::new(all, remarks)
}

async fn watch(lab: &Lab, name: &str, kind: Kind) -> (Delivered, String) {
    let settings = Settings { shards: SHARDS, failover: Duration::from_secs(10), fan_out: false };
    let mut fleet = Fleet::new(lab, name, settings);
    fleet.start_traffic();
    let since = Instant::now();
    fleet.start_with(kind, "one", &DEFAULTS).await;
    fleet.shared(SETTLED, &["one"]).await;
    let first = since.elapsed();
    fleet.start_with(kind, "two", &DEFAULTS).await;
    fleet.shared(SETTLED, &["one", "two"]).await;
    fleet.all_delivered(SETTLED).await;
    let busy = upkeep(&fleet).await;
    fleet.stop_traffic();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle = upkeep(&fleet).await;
    fleet.start_traffic();
    fleet.start_with(kind, "three", &DEFAULTS).await;
    let rebalanced = fleet.shared(SETTLED, &["one", "two", "three"]).await;
    let delivered = fleet.finish().await;
    let line = format!(
        "\n         {kind:?}: all leases of a new table held {:.1} s after the start; per lease and hour {idle} or, \
         with records, {busy}; shared {:.1} s after a third worker started; {} duplicates",
        first.as_secs_f64(),
        rebalanced.as_secs_f64(),
        delivered.duplicates,
    );
    (delivered, line)
}

/// What leases cost for a while, beside checkpoints.
async fn upkeep(fleet: &Fleet<'_>) -> String {
    let before = (requests(fleet), checkpoints(fleet));
    tokio::time::sleep(WATCHED).await;
    let after = (requests(fleet), checkpoints(fleet));
    let hours = WATCHED.as_secs_f64() / 3600.0 * f64::from(SHARDS);
    let writes = (after.0.writes - before.0.writes).saturating_sub(after.1 - before.1);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let [reads, writes] = [after.0.reads - before.0.reads, writes].map(|count| count as f64 / hours);
    format!("{reads:.0} reads and {writes:.0} writes")
}

fn checkpoints(fleet: &Fleet<'_>) -> u64 {
    fleet.journal.entries().iter().filter(|entry| entry.event == "checkpointed").count() as u64
}

/// What the workers have asked so far.
fn requests(fleet: &Fleet<'_>) -> Requests {
    let [one, two] = ["one", "two"].map(|worker| fleet.proxy(worker).requests());
    Requests { reads: one.reads + two.reads, writes: one.writes + two.writes }
}
