//! Who should hold what: pure plans from what was seen.

pub(crate) mod claim_attempts;
pub(crate) mod independent;
pub(crate) mod leader;
pub(crate) mod load_forecast;
mod utilization;
