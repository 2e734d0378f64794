//! Connections over TLS and HTTP/2 that go dead without being closed, and servers that allow few streams in each.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kinesis_consumer::testing::LocalAws;
use kinesis_consumer::{
    Checkpointer, Consumer, ConsumerBuilder, CoordinationConfig, Event, KinesisClientRecord, LeaseConfig,
    ManagementConfig, MetricsConfig, MetricsLevel, RetrievalConfig, ShardRecordProcessor,
    ShardRecordProcessorFactory, StartStrategy,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);
const FAILOVER_TIME: Duration = Duration::from_secs(5);

/// A server with TLS and HTTP/2 in front of the local endpoints.
struct Front {
    url: String,
    certificate: String,
    connections: Arc<AtomicUsize>,
    dead: Arc<Mutex<Vec<Arc<AtomicBool>>>>,
}

impl Front {
    /// Allows `streams_max` streams at a time in each connection.
    async fn start(local: &LocalAws, streams_max: u32) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a key");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let front = Self {
            url: format!("https://localhost:{}", listener.local_addr().expect("an address").port()),
            certificate: made.cert.pem(),
            connections: Arc::default(),
            dead: Arc::default(),
        };
        let (connections, dead) = (Arc::clone(&front.connections), Arc::clone(&front.dead));
        let (acceptor, behind) = (TlsAcceptor::from(Arc::new(config)), local.address());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let is_dead = Arc::new(AtomicBool::new(false));
                dead.lock().expect("not poisoned").push(Arc::clone(&is_dead));
                let (acceptor, connections) = (acceptor.clone(), Arc::clone(&connections));
                tokio::spawn(async move {
                    connections.fetch_add(1, Ordering::Relaxed);
                    serve(Severable { stream, is_dead }, acceptor, behind, streams_max).await;
                    connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        front
    }

    /// How many connections are open. Clients open some in vain, before they know that one is enough.
    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Drops what is sent over the connections that are open now, in both directions, and closes none.
    fn sever(&self) {
        self.dead.lock().expect("not poisoned").iter().for_each(|dead| dead.store(true, Ordering::Relaxed));
    }

    fn sdk_config(&self, local: &LocalAws) -> SdkConfig {
        let store = TrustStore::empty().with_pem_certificate(self.certificate.as_bytes());
        let context = TlsContext::builder().with_trust_store(store).build().expect("a context");
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
            .tls_context(context)
            .build_https();
        local.sdk_config().into_builder().endpoint_url(&self.url).http_client(http).build()
    }
}

async fn serve(stream: Severable, acceptor: TlsAcceptor, behind: SocketAddr, streams_max: u32) {
    let client: legacy::Client<HttpConnector, Incoming> =
        legacy::Client::builder(TokioExecutor::new()).build_http();
    let service = service_fn(move |request| pass_on(request, client.clone(), behind));
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    server.max_concurrent_streams(streams_max);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn pass_on(
    request: Request<Incoming>,
    client: legacy::Client<HttpConnector, Incoming>,
    behind: SocketAddr,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("http://{behind}{path}").parse().expect("a uri");
    parts.version = Version::HTTP_11;
    parts.headers.remove("host");
    let response = client.request(Request::from_parts(parts, body)).await.expect("the local endpoints");
    let (mut parts, body) = response.into_parts();
    parts.headers.remove("connection");
    parts.headers.remove("transfer-encoding");
    Ok(Response::from_parts(parts, body.boxed()))
}

/// A connection that can go dead: what is written to it is lost, and nothing arrives.
struct Severable {
    stream: TcpStream,
    is_dead: Arc<AtomicBool>,
}

impl Severable {
    fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }
}

impl AsyncRead for Severable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.is_dead() {
            buf.set_filled(filled);
            return Poll::Pending;
        }
        polled
    }
}

impl AsyncWrite for Severable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_dead() {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_dead() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The payloads that were delivered.
#[derive(Clone, Default)]
struct Delivered(Arc<Mutex<BTreeSet<String>>>);

struct Processor(Delivered, Checkpointer);

impl Delivered {
    fn count(&self) -> usize {
        self.0.lock().expect("not poisoned").len()
    }
}

#[async_trait]
impl ShardRecordProcessorFactory for Delivered {
    async fn initialize(&self, checkpointer: Checkpointer) -> Box<dyn ShardRecordProcessor> {
        Box::new(Processor(self.clone(), checkpointer))
    }
}

#[async_trait]
impl ShardRecordProcessor for Processor {
    async fn process_records(&self, records: Vec<KinesisClientRecord>, _: i64) {
        let payloads = records.iter().map(|record| String::from_utf8_lossy(&record.record.data).into_owned());
        self.0.0.lock().expect("not poisoned").extend(payloads);
        // Tried again with the next batch.
        let _ = self.1.checkpoint_delivered().await;
    }

    async fn shard_ended(&self) {
        let _ = self.1.end().await;
    }
}

async fn until(what: &str, limit: Duration, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn builder(config: &SdkConfig, delivered: &Delivered) -> ConsumerBuilder {
    let retrieval = RetrievalConfig::default()
        .with_kinesis_request_timeout(REQUEST_TIMEOUT)
        .with_idle_time_between_reads(Duration::from_millis(200));
    Consumer::builder()
        .stream("orders")
        .application("connections")
        .processor_factory(delivered.clone())
        .aws_config(config)
        .retrieval(retrieval)
        .coordination(CoordinationConfig::default().with_failover_time(FAILOVER_TIME))
        .management(ManagementConfig::default().with_start_strategy(StartStrategy::Oldest))
        .metrics(MetricsConfig::default().with_level(MetricsLevel::None))
}

fn put(local: &LocalAws, numbers: std::ops::Range<usize>) {
    for number in numbers {
        local.kinesis().put("orders", number.to_string(), number.to_string()).expect("written");
    }
}

async fn local(shards: u32) -> LocalAws {
    let local = LocalAws::start().await.expect("started");
    local.kinesis().create_stream("orders", shards).expect("a new stream");
    local
}

/// Reads on after all connections to Kinesis and DynamoDB have gone dead, and keeps the lease.
async fn survives_dead_connections(lease_config: LeaseConfig, limit: Duration) {
    let (local, delivered) = (local(1).await, Delivered::default());
    let front = Front::start(&local, 200).await;
    let config = front.sdk_config(&local);
    let consumer = builder(&config, &delivered).lease_config(lease_config).build().expect("valid");
    let mut events = consumer.events();
    let handle = consumer.start().await.expect("started");
    put(&local, 0..10);
    until("the first records", Duration::from_secs(30), || delivered.count() == 10).await;

    front.sever();
    let severed = Instant::now();
    put(&local, 10..20);
    until("the records written since", limit, || delivered.count() == 20).await;
    // Long enough for a lease that is not renewed to be lost.
    until("the lease is renewed", Duration::from_secs(60), || severed.elapsed() > 2 * FAILOVER_TIME).await;
    assert!(handle.status().problems.is_empty(), "{:?}", handle.status().problems);
    handle.shutdown().await.expect("the lease is given back");
    handle.wait().await.expect("stopped");
    let mut lost = 0;
    while let Some(event) = events.next().await {
        lost += usize::from(matches!(event, Event::LeaseLost { .. }));
    }
    assert_eq!(lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_goes_on_over_a_new_connection() {
    survives_dead_connections(LeaseConfig::default(), 10 * REQUEST_TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fan_out_goes_on_over_a_new_connection_after_half_a_minute_of_silence() {
    survives_dead_connections(LeaseConfig::fan_out(), Duration::from_secs(45)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_use_as_many_connections_as_the_server_makes_necessary() {
    let (local, delivered) = (local(12).await, Delivered::default());
    let front = Front::start(&local, 8).await;
    let builder = builder(&front.sdk_config(&local), &delivered);
    let handle =
        builder.lease_config(LeaseConfig::fan_out()).build().expect("valid").start().await.expect("started");
    put(&local, 0..200);
    until("the records of all shards", Duration::from_secs(20), || delivered.count() == 200).await;
    let requests = local.requests();
    assert!(!requests.contains_key("kinesis:GetRecords"), "{requests:?}");
    // Reads and writes of the table, other requests to Kinesis, and two for the subscriptions.
    until("few connections", Duration::from_secs(20), || front.connections() <= 5).await;
    handle.shutdown().await.expect("processors return");
}
