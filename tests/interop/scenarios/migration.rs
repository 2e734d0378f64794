//! A 2.x fleet becomes one that is run by a leader, while it works.

use std::time::Duration;

use futures_util::future::join;

use super::Report;
use crate::fleet::{Fleet, Kind, Settings};
use crate::journal::Delivered;
use crate::lab::Lab;

const SETTLED: Duration = Duration::from_secs(60);
/// Each side looks at the state of the migration once a minute. The ten minutes for which a fleet must have
/// been ready are cut to half a minute on both.
const MIGRATED: Duration = Duration::from_secs(300);

/// The worker that says when a fleet moves on is the first by name, shuffled: once Java's, once Rust's.
pub(crate) async fn live(lab: &Lab) -> Report {
    let (one, other) =
        join(migrate(lab, "h-java", "java", "rust"), migrate(lab, "h-rust", "z-java", "rust")).await;
    let delivered = Delivered {
        records: one.0.records + other.0.records,
        duplicates: one.0.duplicates + other.0.duplicates,
    };
    Report::new(delivered, format!("{}; {}", one.1, other.1))
}

/// Worker by worker 2.x is replaced by 3.x in compatible mode, the fleet moves on by itself, and in the end
/// workers come that know nothing of 2.x.
async fn migrate(lab: &Lab, name: &str, java: &str, rust: &str) -> (Delivered, String) {
    let mut fleet = Fleet::new(lab, name, Settings::default());
    fleet.start_traffic();
    fleet.start(Kind::Kcl2, "java-2x").await;
    fleet.start(Kind::Independent, "rust-2x").await;
    fleet.shared(SETTLED, &["java-2x", "rust-2x"]).await;

    fleet.stop("java-2x").await;
    fleet.start(Kind::Kcl3CompatibleWith2x, java).await;
    fleet.shared(SETTLED, &[java, "rust-2x"]).await;
    fleet.stop("rust-2x").await;
    fleet.start(Kind::CompatibleWith2x, rust).await;
    fleet.shared(SETTLED, &[java, rust]).await;
    fleet.all_delivered(SETTLED).await;
    let state = async |attribute| fleet.entity("Migration3.0", attribute).await.unwrap_or_default();
    assert_eq!(state("cv").await, "CLIENT_VERSION_UPGRADE_FROM_2X");

    let moved_on = fleet
        .until(MIGRATED, "the fleet is run by a leader", async || {
            state("cv").await == "CLIENT_VERSION_3X_WITH_ROLLBACK" && fleet.leader().await.is_some()
        })
        .await;
    let by = state("mb").await;
    fleet.all_delivered(SETTLED).await;

    fleet.stop(java).await;
    fleet.start(Kind::Kcl3, "java-3x").await;
    fleet.shared(MIGRATED, &["java-3x", rust]).await;
    fleet.stop(rust).await;
    fleet.start(Kind::Leader, "rust-3x").await;
    fleet.shared(SETTLED, &["java-3x", "rust-3x"]).await;
    fleet.all_delivered(SETTLED).await;
    let remarks = format!("led {:.0} s after the last 2.x worker left, as {by} said", moved_on.as_secs_f64());
    (fleet.finish().await, remarks)
}
