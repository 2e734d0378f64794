//! Fleets that are run by a leader.

use std::time::Duration;

use super::Report;
use crate::fleet::{Fleet, Kind, Settings};
use crate::lab::Lab;

/// Assignment, discovery and handoff each take some seconds, with the other one's clock.
const SETTLED: Duration = Duration::from_secs(60);
const LED: Duration = Duration::from_secs(40);

pub(crate) async fn java_leads(lab: &Lab) -> Report {
    leads(lab, "a", Kind::Kcl3, Kind::Leader).await
}

pub(crate) async fn rust_leads(lab: &Lab) -> Report {
    leads(lab, "b", Kind::Leader, Kind::Kcl3).await
}

/// `first` leads; `second` joins, leads when the first has left, and gives the lead back when it leaves.
async fn leads(lab: &Lab, name: &str, first: Kind, second: Kind) -> Report {
    let mut fleet = Fleet::new(lab, name, Settings::default());
    fleet.start_traffic();
    fleet.start(first, "first").await;
    fleet.is_led_by(LED, "first").await;
    fleet.shared(SETTLED, &["first"]).await;
    fleet.start(second, "second").await;
    let shared = fleet.shared(SETTLED, &["first", "second"]).await;
    fleet.all_delivered(SETTLED).await;
    assert_eq!(fleet.leader().await.as_deref(), Some("first"), "who joins leaves the lead alone");

    fleet.stop("first").await;
    let over = fleet.is_led_by(LED, "second").await;
    fleet.shared(SETTLED, &["second"]).await;
    fleet.all_delivered(SETTLED).await;

    fleet.start(first, "again").await;
    fleet.shared(SETTLED, &["second", "again"]).await;
    fleet.stop("second").await;
    let back = fleet.is_led_by(LED, "again").await;
    fleet.shared(SETTLED, &["again"]).await;
    let remarks = format!(
        "shared after {:.1} s, led by the other after {:.1} s and {:.1} s",
        shared.as_secs_f64(),
        over.as_secs_f64(),
        back.as_secs_f64()
    );
    Report::new(fleet.finish().await, remarks)
}

/// Leases go from one to the other while records come, and nothing comes twice.
pub(crate) async fn handoff(lab: &Lab) -> Report {
    let mut reports = Vec::new();
    for (name, from, to) in [("d-to-rust", Kind::Kcl3, Kind::Leader), ("d-to-java", Kind::Leader, Kind::Kcl3)]
    {
        let mut fleet = Fleet::new(lab, name, Settings::default());
        fleet.start_traffic();
        fleet.start(from, "old").await;
        fleet.shared(SETTLED, &["old"]).await;
        fleet.all_delivered(SETTLED).await;
        fleet.start(to, "new").await;
        fleet.shared(SETTLED, &["old", "new"]).await;
        fleet.all_delivered(SETTLED).await;
        let delivered = fleet.finish().await;
        assert_eq!(delivered.duplicates, 0, "{name}: a handoff repeats nothing");
        let asked = fleet.journal.entries().iter().filter(|e| e.is_of("old", "shutdown-requested")).count();
        assert!(asked >= 2, "{name}: {asked} shards were handed over");
        reports.push(delivered);
    }
    let [mut all, second] = reports[..] else { unreachable!("two directions") };
    all.records += second.records;
    Report::new(all, "Java to Rust, and Rust to Java")
}

/// The leader dies, twice.
pub(crate) async fn kill(lab: &Lab) -> Report {
    let mut fleet = Fleet::new(lab, "e", Settings::default());
    fleet.start_traffic();
    fleet.start(Kind::Kcl3, "java").await;
    fleet.is_led_by(LED, "java").await;
    fleet.start(Kind::Leader, "rust").await;
    fleet.shared(SETTLED, &["java", "rust"]).await;
    fleet.kill("java").await;
    let rust_leads = fleet.is_led_by(LED, "rust").await;
    let rust_has_all = rust_leads + fleet.shared(SETTLED, &["rust"]).await;
    fleet.all_delivered(SETTLED).await;

    fleet.start(Kind::Kcl3, "java-2").await;
    fleet.shared(SETTLED, &["rust", "java-2"]).await;
    fleet.kill("rust").await;
    let java_leads = fleet.is_led_by(LED, "java-2").await;
    let java_has_all = java_leads + fleet.shared(SETTLED, &["java-2"]).await;
    let remarks = format!(
        "Rust led after {:.1} s and had all after {:.1} s, Java after {:.1} s and {:.1} s",
        rust_leads.as_secs_f64(),
        rust_has_all.as_secs_f64(),
        java_leads.as_secs_f64(),
        java_has_all.as_secs_f64()
    );
    Report::new(fleet.finish().await, remarks)
}
