//! The only places where a clock is read, a timer set, or a seed drawn. Everything else gets these from
//! here, so a simulation can replace them.

mod backoff;
mod clock;
mod coordination;
mod seeds;

pub(crate) use self::backoff::Backoff;
pub(crate) use self::clock::{Clock, Elapsed};
pub(crate) use self::coordination::Coordination;
pub(crate) use self::seeds::Seeds;
