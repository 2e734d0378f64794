//! Who should hold what: pure plans from what was seen.

pub(crate) mod independent;
pub(crate) mod leader;
mod variance;
