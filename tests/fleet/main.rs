//! Whole workers over the simulated stream and the lease table in memory, on paused time.

mod balance;
mod faults;
mod health;
mod leader;
mod processors;
mod resharding;
mod streams;
mod throughput;
mod world;
