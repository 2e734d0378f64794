//! Private parts for this crate's own tests and benches; outside semver.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::Client;

use crate::consumer::{ConsumerBuilder, World};
use crate::lease::{DynamoDbLeaseStore, LeaseStore, OwnerIndex, StoreError};
use crate::overseer::Hub;
use crate::runtime::Clock;

pub use crate::planted::{Bug, plant};

/// The lease table in DynamoDB as the consumer uses it; `segments` scan it at once.
#[must_use]
pub fn dynamodb_lease_store(
    client: Client,
    table: &str,
    segments: Option<u32>,
    request_timeout: Duration,
) -> Arc<dyn LeaseStore> {
    let store = DynamoDbLeaseStore::new(client, table, Clock::system());
    Arc::new(store.with_scan_segments(segments).with_request_timeout(request_timeout))
}

/// Starts to create the index from owners to leases, unless it is there.
///
/// # Errors
///
/// If the table is missing or DynamoDB refuses.
pub async fn create_owner_index(client: Client, table: &str) -> Result<(), StoreError> {
    DynamoDbLeaseStore::new(client, table, Clock::system()).create_owner_index().await
}

/// Whether the index from owners to leases can be read.
///
/// # Errors
///
/// If DynamoDB refuses or does not answer.
pub async fn owner_index_is_active(client: Client, table: &str) -> Result<bool, StoreError> {
    let store = DynamoDbLeaseStore::new(client, table, Clock::system());
    Ok(store.owner_index().await? == OwnerIndex::Active)
}

/// Puts a consumer into a simulated world: its clock shows `wall` now, follows tokio's clock at
/// `rate`, and everything it does at random follows from `seed`. Coordination runs on the current
/// runtime, and other workers of the process are as far away as if they were on other machines.
pub fn in_simulation(builder: ConsumerBuilder, wall: SystemTime, rate: f64, seed: u64) -> ConsumerBuilder {
    builder.world(World {
        clock: Some(Clock::simulated(wall, rate)),
        seed: Some(seed),
        hub: Some(Hub::isolated()),
        on_current_runtime: true,
    })
}
