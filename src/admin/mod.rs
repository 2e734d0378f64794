//! Operating a fleet from outside: what it is doing, moving it to another position, pausing it.
//!
//! [`Admin`] works on the lease table, so it needs no running consumer, and workers of Java KCL are seen and moved as
//! those of this crate are.
//!
//! ```
//! # #[cfg(feature = "test-util")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kinesis_consumer::Checkpoint;
//! use kinesis_consumer::admin::Admin;
//! use kinesis_consumer::lease::{Lease, LeaseStore, MemoryLeaseStore};
//! use kinesis_consumer::testing::SimulatedKinesis;
//!
//! let table = MemoryLeaseStore::default();
//! table.create(&Lease::new("shardId-000000000000", Checkpoint::TrimHorizon)).await?;
//! let admin = Admin::new(table, SimulatedKinesis::new(), "analytics");
//! let status = admin.status().await?;
//! assert_eq!(status.leases.len(), 1);
//! println!("{status}");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "test-util"))]
//! # fn main() {}
//! ```

mod pause;
mod resolve;
mod seek;
mod seek_plan;
mod status;
mod status_table;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use parking_lot::Mutex;

pub use self::pause::LeaseChanges;
pub use self::seek::{SeekProgress, StepOutcome};
pub use self::seek_plan::{LeftLease, Scope, SeekPlan, SeekReason, SeekStep, SeekTo, SoughtStream};
pub use self::status::{FleetStatus, LeaseState, LeaseSummary, UnreadShard, WorkerSummary};
use self::status::{Reading, fleet_status};
use crate::coordination::election::lock::{self, LockRow};
use crate::error::{Error, invalid, with_causes};
use crate::kinesis::list::list_shards;
use crate::kinesis::{AwsStream, Shard, StreamApi, StreamError};
use crate::lease::{
    DynamoDbLeaseStore, EntityKind, Lease, LeaseScan, LeaseStore, StoreError, StoreErrorKind,
};
use crate::retrieval::RetrievalConfig;
use crate::runtime::{Clock, Seeds};
use crate::types::{LeaseKey, Moment, StreamId};

/// The most streams whose shards are listed: the service allows five lists a second.
const STREAMS_LISTED_MAX: usize = 16;
/// KCL's `failoverTimeMillis`.
const FAILOVER_TIME: Duration = Duration::from_secs(10);
/// Requests under way at the same time, to the table or to the stream.
const CONCURRENT: usize = 32;

/// An operator's access to the fleet of one application.
///
/// It never creates a table, and writes only what its methods say. Cheap to create; keep one to see between two calls of
/// [`status`](Self::status) which leases are renewed.
pub struct Admin {
    store: Arc<dyn LeaseStore>,
    /// Of a table in DynamoDB: what it is accessed by, and as what.
    dynamodb: Option<(aws_sdk_dynamodb::Client, Arc<DynamoDbLeaseStore>)>,
    api: Arc<dyn StreamApi>,
    application: String,
    table: String,
    stream: Option<StreamId>,
    failover_time: Duration,
    clock: Clock,
    seeds: Seeds,
    /// The counters as they were last seen, and since when.
    seen: Mutex<BTreeMap<LeaseKey, (u64, Moment)>>,
}

impl Admin {
    /// The fleet of `application` by its lease table.
    #[must_use]
    pub fn new(
        store: impl LeaseStore + 'static,
        api: impl StreamApi + 'static,
        application: impl Into<String>,
    ) -> Self {
        let application = application.into();
        Self {
            store: Arc::new(store),
            dynamodb: None,
            api: Arc::new(api),
            table: application.clone(),
            application,
            stream: None,
            failover_time: FAILOVER_TIME,
            clock: Clock::system(),
            seeds: Seeds::random(),
            seen: Mutex::default(),
        }
    }

    /// The fleet of `application` in AWS, by its lease table in DynamoDB, which is called like the application unless
    /// [another name](Self::with_table) is given.
    #[must_use]
    pub fn from_aws(config: &SdkConfig, application: impl Into<String>) -> Self {
        let application = application.into();
        let clock = Clock::system();
        let RetrievalConfig { kinesis_request_timeout, protocol, .. } = RetrievalConfig::default();
        let kinesis = aws_sdk_kinesis::Client::new(config);
        let api = AwsStream::new(&kinesis, clock.clone(), kinesis_request_timeout, protocol);
        let client = aws_sdk_dynamodb::Client::new(config);
        let store = dynamodb_store(&client, &application, &application, &clock);
        Self { dynamodb: Some((client, Arc::clone(&store))), clock, ..Self::new(store, api, application) }
    }

    /// With a lease table of another name than the application's. Without effect on a store that was given.
    #[must_use]
    pub fn with_table(mut self, table: impl Into<String>) -> Self {
        self.table = table.into();
        if let Some((client, _)) = self.dynamodb.take() {
            let store = dynamodb_store(&client, &self.table, &self.application, &self.clock);
            self.store = Arc::<DynamoDbLeaseStore>::clone(&store);
            self.dynamodb = Some((client, store));
        }
        self
    }

    /// With the stream that a single-stream application reads. Rows that Java KCL wrote do not name it.
    #[must_use]
    pub fn with_stream(mut self, stream: StreamId) -> Self {
        self.stream = Some(stream);
        self
    }

    /// With the failover time of the fleet (10 s, as KCL's default): a lease whose counter stands still for longer is
    /// reported.
    #[must_use]
    pub fn with_failover_time(mut self, failover_time: Duration) -> Self {
        self.failover_time = failover_time;
        self
    }

    /// Puts the operator into a simulated world.
    #[cfg(feature = "internals")]
    pub(crate) fn in_simulation(mut self, clock: Clock, seed: u64) -> Self {
        (self.clock, self.seeds) = (clock, Seeds::from_seed(seed));
        self
    }

    #[cfg(feature = "http")]
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The application.
    #[must_use]
    pub fn application(&self) -> &str {
        &self.application
    }

    /// The whole fleet, as the table shows it now: a scan, a read of the leader's lock, and a list of the shards of each
    /// stream that is known (of 16 streams at most). If shards cannot be listed, [`FleetStatus::problems`] says so.
    ///
    /// One call does not show whether a worker is alive or has just died. Call it again on the same `Admin` after
    /// more than the failover time: what was not renewed meanwhile is reported then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the table does not exist, is no lease table, or may not be read;
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if DynamoDB does not answer.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await point.
    pub async fn status(&self) -> Result<FleetStatus, Error> {
        let scan = self.scan().await?;
        let mut failures = Vec::new();
        let leader = match self.store.entity(EntityKind::Leader, &lock::key()).await {
            Ok(row) => row.as_ref().and_then(LockRow::from_item),
            Err(error) => {
                failures.push(format!("the leader's lock cannot be read: {}", with_causes(&error)));
                None
            }
        };
        let mut shards = Vec::new();
        for stream in self.streams(&scan.leases).into_iter().take(STREAMS_LISTED_MAX) {
            match self.list(&stream, None).await {
                Ok(listed) => shards.push((stream, listed)),
                Err(error) => failures.push(format!(
                    "whether all shards of stream {stream} are read is not known, because they cannot be listed: {}",
                    with_causes(&Error::from(error))
                )),
            }
        }
        let reading = Reading {
            application: self.application.clone(),
            still: self.still(&scan.leases),
            scan,
            leader,
            shards,
            failures,
            failover_time: self.failover_time,
        };
        Ok(fleet_status(reading, self.clock.wall()))
    }

    /// Every row of a table that is known to be a lease table.
    async fn scan(&self) -> Result<LeaseScan, Error> {
        if let Some((_, store)) = &self.dynamodb {
            store.check().await.map_err(|error| self.explain(error))?;
        }
        self.store.scan().await.map_err(|error| self.explain(error))
    }

    fn explain(&self, error: StoreError) -> Error {
        match error.kind() {
            StoreErrorKind::TableMissing => {
                let Self { application, table, .. } = self;
                invalid(format!(
                    "there is no lease table {table} of application {application}; check the name of the application (and \
                     of the table, if it is called otherwise), the region and the account"
                ))
                .with_source(error)
            }
            _ => error.into(),
        }
    }

    async fn list(
        &self,
        stream: &StreamId,
        filter: Option<crate::kinesis::ShardFilter>,
    ) -> Result<Vec<Shard>, StreamError> {
        list_shards(&*self.api, &self.clock, stream, filter, self.seeds.seed()).await
    }

    /// The streams that the leases name or, if a stream was given, that one.
    fn streams(&self, leases: &[Lease]) -> Vec<StreamId> {
        let named: BTreeSet<StreamId> =
            leases.iter().filter_map(Lease::stream).filter_map(|name| name.parse().ok()).collect();
        match &self.stream {
            Some(given) if !named.iter().any(|stream| stream.serialized().is_some()) => vec![given.clone()],
            Some(given) => named.into_iter().filter(|stream| stream.may_be(given)).collect(),
            None => named.into_iter().collect(),
        }
    }

    /// For how long the counter of each lease was seen to stand still.
    fn still(&self, leases: &[Lease]) -> BTreeMap<LeaseKey, Duration> {
        let now = self.clock.now();
        let mut seen = self.seen.lock();
        let before = std::mem::take(&mut *seen);
        let mut still = BTreeMap::new();
        for lease in leases {
            let since = match before.get(&lease.key) {
                Some((counter, since)) if *counter == lease.counter => *since,
                _ => now,
            };
            still.insert(lease.key.clone(), now.since(since));
            seen.insert(lease.key.clone(), (lease.counter, since));
        }
        still
    }
}

fn dynamodb_store(
    client: &aws_sdk_dynamodb::Client,
    table: &str,
    application: &str,
    clock: &Clock,
) -> Arc<DynamoDbLeaseStore> {
    Arc::new(DynamoDbLeaseStore::new(client, table, clock.clone()).with_legacy_tables_of(application))
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("application", &self.application)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}
