//! Fleets that a leader runs (KCL 3.x): one worker holds a lock and assigns leases to all.

pub(crate) mod discovery;
mod election;
pub(crate) mod lock;
mod round;

pub(crate) use self::election::{Election, current_leader, resign, run};
pub(crate) use self::round::Leading;
