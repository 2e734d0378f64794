//! Who should hold what: pure plans from what was seen.

pub(crate) mod independent;
