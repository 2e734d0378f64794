//! Whole workers over the simulated stream and the lease table in memory, on paused time.

mod acknowledgements;
mod admin;
mod balance;
mod exactly_once;
mod faults;
mod handlers;
mod health;
mod http;
mod identity;
mod leader;
mod parallel_keys;
mod pause;
mod processors;
mod refusals;
mod resharding;
mod seek;
mod status;
mod streams;
mod throttled_table;
mod throughput;
mod world;
