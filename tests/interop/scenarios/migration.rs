//! A 2.x fleet becomes one that is run by a leader, while it works.

use std::time::Duration;

use super::Report;
use crate::fleet::{Fleet, Kind, Settings};
use crate::lab::Lab;

const SETTLED: Duration = Duration::from_secs(60);
/// Each side looks at the state of the migration once a minute. The ten minutes for which a fleet must have
/// been ready are cut to half a minute on the Java side, which says when.
const MIGRATED: Duration = Duration::from_secs(300);

/// Worker by worker 2.x is replaced by 3.x in compatible mode, the fleet moves on by itself, and in the end
/// workers come that know nothing of 2.x.
pub(crate) async fn live(lab: &Lab) -> Report {
    let mut fleet = Fleet::new(lab, "h", Settings::default());
    fleet.start_traffic();
    fleet.start(Kind::Kcl2, "java-2x").await;
    fleet.start(Kind::Independent, "rust-2x").await;
    fleet.shared(SETTLED, &["java-2x", "rust-2x"]).await;

    fleet.stop("java-2x").await;
    fleet.start(Kind::Kcl3CompatibleWith2x, "java").await;
    fleet.shared(SETTLED, &["java", "rust-2x"]).await;
    fleet.stop("rust-2x").await;
    fleet.start(Kind::CompatibleWith2x, "rust").await;
    fleet.shared(SETTLED, &["java", "rust"]).await;
    fleet.all_delivered(SETTLED).await;
    let version = async || fleet.entity("Migration3.0", "cv").await.unwrap_or_default();
    assert_eq!(version().await, "CLIENT_VERSION_UPGRADE_FROM_2X");

    let moved_on = fleet
        .until(MIGRATED, "the fleet is run by a leader", async || {
            version().await == "CLIENT_VERSION_3X_WITH_ROLLBACK" && fleet.leader().await.is_some()
        })
        .await;
    fleet.all_delivered(SETTLED).await;

    fleet.stop("java").await;
    fleet.start(Kind::Kcl3, "java-3x").await;
    fleet.shared(MIGRATED, &["java-3x", "rust"]).await;
    fleet.stop("rust").await;
    fleet.start(Kind::Leader, "rust-3x").await;
    fleet.shared(SETTLED, &["java-3x", "rust-3x"]).await;
    fleet.all_delivered(SETTLED).await;
    let remarks = format!("led by a leader {:.0} s after the last 2.x worker left", moved_on.as_secs_f64());
    Report::new(fleet.finish().await, remarks)
}
