//! From KCL 2.x to 3.x while the fleet runs: which protocol this worker goes by.

mod monitor;
mod protocol;
mod shuffle;
mod state;

pub(crate) use self::monitor::{initialize, run};
pub(crate) use self::protocol::ProtocolCell;
pub(crate) use self::shuffle::leads;
pub(crate) use self::state::{ClientVersion, Protocol};
