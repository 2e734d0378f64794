//! The only places where a clock is read, a timer set, or a seed drawn. Everything else is given
//! what it needs from here, so a simulation can put its own in.

mod clock;

pub(crate) use self::clock::{Clock, Elapsed};
