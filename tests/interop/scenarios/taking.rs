//! Fleets whose workers take leases for themselves, and tables that change hands.

use std::time::Duration;

use super::Report;
use crate::fleet::{Fleet, Kind, Settings};
use crate::journal::Delivered;
use crate::lab::Lab;

const SETTLED: Duration = Duration::from_secs(60);

/// Each side is started first once, and each dies once.
pub(crate) async fn java_2x_and_independent(lab: &Lab) -> Report {
    let mut fleet = Fleet::new(lab, "c", Settings::default());
    fleet.start_traffic();
    fleet.start(Kind::Kcl2, "java").await;
    fleet.shared(SETTLED, &["java"]).await;
    fleet.start(Kind::Independent, "rust").await;
    let shared = fleet.shared(SETTLED, &["java", "rust"]).await;
    fleet.all_delivered(SETTLED).await;
    fleet.kill("java").await;
    let over = fleet.shared(SETTLED, &["rust"]).await;
    fleet.all_delivered(SETTLED).await;
    fleet.start(Kind::Kcl2, "java-2").await;
    let shared_again = fleet.shared(SETTLED, &["java-2", "rust"]).await;
    fleet.kill("rust").await;
    let back = fleet.shared(SETTLED, &["java-2"]).await;
    let remarks = format!(
        "shared after {:.1} s (Rust joins) and {:.1} s (Java joins), taken over after {:.1} s (by Rust) and {:.1} s",
        shared.as_secs_f64(),
        shared_again.as_secs_f64(),
        over.as_secs_f64(),
        back.as_secs_f64()
    );
    Report::new(fleet.finish().await, remarks)
}

/// One makes the table and stops; the other goes on where it stopped.
pub(crate) async fn tables(lab: &Lab) -> Report {
    let mut all = Delivered { records: 0, duplicates: 0 };
    for (name, maker, user) in [
        ("i-kcl2-rust", Kind::Kcl2, Kind::Independent),
        ("i-rust-kcl2", Kind::Independent, Kind::Kcl2),
        ("i-kcl3-rust", Kind::Kcl3, Kind::Leader),
        ("i-rust-kcl3", Kind::Leader, Kind::Kcl3),
    ] {
        let mut fleet = Fleet::new(lab, name, Settings { shards: 2, ..Settings::default() });
        fleet.start_traffic();
        fleet.start(maker, "maker").await;
        fleet.shared(SETTLED, &["maker"]).await;
        fleet.all_delivered(SETTLED).await;
        fleet.stop("maker").await;
        fleet.start(user, "user").await;
        fleet.shared(SETTLED, &["user"]).await;
        let delivered = fleet.finish().await;
        assert_eq!(delivered.duplicates, 0, "{name}: it goes on where the other stopped");
        all.records += delivered.records;
    }
    Report::new(all, "2.x and 3.x, each as the maker and as the user")
}
