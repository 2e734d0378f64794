//! Fleets that a leader runs: a lease it assigns and hands over, and the lock that makes it the leader.
//!
//! The two are explored apart. Nothing about a lease relies on there being one leader only, so in the
//! worlds of the lease any worker that may lead does so at any time, whatever it knows.

mod answers;
mod lease;
mod lock;
mod world;

pub(crate) use self::lease::{LedRules, LedSetup};
pub(crate) use self::lock::{LockRules, LockSetup};
