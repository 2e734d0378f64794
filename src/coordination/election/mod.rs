//! Who leads a fleet (KCL 3.x): one worker holds a lock in the table and assigns leases to all.

pub(crate) mod lock;
mod run;

pub(crate) use self::run::{Election, current_leader, resign, run};
