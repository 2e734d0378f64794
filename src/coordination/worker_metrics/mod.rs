//! How busy workers are, as they report to the leader in rows of the lease table.

mod agreement;
mod cpu;
mod ecs;
mod liveness;
mod report;
mod seen;
mod stats;

pub(crate) use self::agreement::shared_metrics;
pub(crate) use self::liveness::{FRESH, WorkerLiveness};
pub(crate) use self::report::{retract, run};
pub(crate) use self::seen::SeenWorkers;
pub(crate) use self::stats::{CPU, WorkerStats};
