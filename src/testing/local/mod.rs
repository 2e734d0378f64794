//! Kinesis, DynamoDB, CloudWatch and STS on loopback, served from inside the process.

mod cbor;
mod cloudwatch;
mod connections;
mod dynamodb;
mod endpoints;
mod json;
mod kinesis;
mod protocol;
mod query;
mod requests;
mod sdk;
mod sts;
mod subscribe;
mod time;
mod wire;
mod xml;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::{Credentials, SharedCredentialsProvider};
use tokio::net::TcpListener;

pub use self::cloudwatch::MetricPoint;
use self::cloudwatch::MetricSink;
use self::connections::Connections;
use self::dynamodb::DynamoDb;
use self::endpoints::Endpoints;
pub use self::requests::HttpFault;
use self::requests::Requests;
use self::sdk::Transport;
use crate::runtime::Clock;
use crate::testing::SimulatedKinesis;
use crate::testing::stream::REGION;

/// Kinesis, DynamoDB and CloudWatch at one address on loopback, for experiments and end-to-end tests
/// (feature `local`).
///
/// Kinesis is a [`SimulatedKinesis`], DynamoDB is the crate `dynoxide-rs`, and CloudWatch stores what is
/// put and returns it. STS answers GetCallerIdentity, which producers and set-up code use. Any AWS SDK or
/// tool can use them: set its endpoint to [`endpoint_url`](Self::endpoint_url) (`AWS_ENDPOINT_URL`) and
/// give it any credentials.
///
/// All data is in memory and is dropped with this value. A record uses its own size in memory until its
/// retention has passed, and four thirds of that again once it was read over JSON: encoded records are
/// cached, so that reading them again costs the endpoint almost nothing.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use kinesis_consumer::testing::LocalAws;
///
/// let local = LocalAws::start().await?;
/// local.kinesis().create_stream("orders", 2).expect("a new stream");
/// let kinesis = aws_sdk_kinesis::Client::new(&local.sdk_config());
/// let summary = kinesis.describe_stream_summary().stream_name("orders").send().await?;
/// assert_eq!(summary.stream_description_summary().map(|stream| stream.open_shard_count()), Some(2));
/// assert_eq!(local.requests()["kinesis:DescribeStreamSummary"], 1);
/// local.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LocalAws {
    address: SocketAddr,
    endpoints: Arc<Endpoints>,
    connections: Connections,
}

/// The settings of a [`LocalAws`].
#[derive(Debug, Default)]
#[must_use]
pub struct LocalAwsBuilder {
    bind: Option<SocketAddr>,
    kinesis: Option<SimulatedKinesis>,
}

/// The local endpoints could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the local endpoints could not be started on {address}; choose another address or port")]
#[non_exhaustive]
pub struct LocalAwsError {
    /// The address on which they were to be served.
    pub address: SocketAddr,
    /// The cause.
    #[source]
    pub source: io::Error,
}

impl LocalAws {
    /// Serves the endpoints on a free port of the loopback interface.
    ///
    /// # Errors
    ///
    /// If no port can be opened.
    pub async fn start() -> Result<Self, LocalAwsError> {
        Self::builder().start().await
    }

    /// A builder, to use another address or prepared streams.
    pub fn builder() -> LocalAwsBuilder {
        LocalAwsBuilder::default()
    }

    /// The address of the listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value for `AWS_ENDPOINT_URL`.
    #[must_use]
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A configuration for SDK clients that use these endpoints over loopback, with credentials and a
    /// region. Clients made from it stop working when this value is dropped.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        self.config(Transport::Loopback(Box::new(self.connections.client())))
    }

    /// A configuration for clients in this process: their requests reach Kinesis and CloudWatch by a
    /// function call, without a socket. It is the fastest way, and measures the client rather than the
    /// network.
    #[must_use]
    pub fn in_process_config(&self) -> SdkConfig {
        self.config(Transport::InProcess(Arc::clone(&self.endpoints)))
    }

    /// The streams behind the Kinesis endpoint, to prepare, reshard and inspect them.
    #[must_use]
    pub fn kinesis(&self) -> &SimulatedKinesis {
        &self.endpoints.kinesis
    }

    /// The number of requests of each operation, named as the IAM action that allows it:
    /// `kinesis:GetRecords`, `dynamodb:UpdateItem`.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.endpoints.requests.counts()
    }

    /// The metrics that were put, in the order of arrival; the latest 200,000.
    #[must_use]
    pub fn metrics(&self) -> Vec<MetricPoint> {
        self.endpoints.metrics.points(|_| true)
    }

    /// Injects `fault` into the next `times` requests of an operation, named as in
    /// [`requests`](Self::requests). Faults injected earlier come first.
    pub fn inject(&self, operation: &str, times: u64, fault: HttpFault) {
        self.endpoints.requests.plan(operation, times, fault);
    }

    /// Removes all injected faults.
    pub fn clear_faults(&self) {
        self.endpoints.requests.clear_faults();
    }

    /// Stops serving; running requests and connections are aborted. Dropping this value does the same
    /// without waiting.
    pub async fn shutdown(self) {
        self.connections.close().await;
    }

    fn config(&self, transport: Transport) -> SdkConfig {
        let credentials = Credentials::new("local", "local", None, None, "kinesis-consumer local endpoints");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(self.endpoint_url())
            .http_client(transport)
            .build()
    }
}

impl LocalAwsBuilder {
    /// The address to listen on, instead of a free port of the loopback interface. There is no access
    /// control: everyone who can reach an address that is not loopback can use the endpoints.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = Some(address);
        self
    }

    /// The streams to serve, instead of none.
    pub fn kinesis(mut self, kinesis: SimulatedKinesis) -> Self {
        self.kinesis = Some(kinesis);
        self
    }

    /// Starts serving.
    ///
    /// # Errors
    ///
    /// If the address cannot be opened.
    pub async fn start(self) -> Result<LocalAws, LocalAwsError> {
        let bind = self.bind.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        let failed = |source| LocalAwsError { address: bind, source };
        let (connections, clock) = (Connections::default(), Clock::system());
        let listener = TcpListener::bind(bind).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (dynamodb, database) = DynamoDb::start(&connections, clock.wall()).await.map_err(failed)?;
        connections.run(database);
        let endpoints = Arc::new(Endpoints {
            kinesis: self.kinesis.unwrap_or_default(),
            dynamodb,
            metrics: MetricSink::default(),
            requests: Requests::default(),
            clock,
            answered: AtomicU64::new(0),
        });
        connections.serve(listener, Arc::clone(&endpoints));
        Ok(LocalAws { address, endpoints, connections })
    }
}
