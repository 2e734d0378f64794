use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use bytes::Bytes;
use dynoxide::Database;
use http_body_util::{BodyExt, Full};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::connections::{Client, Connections};
use super::protocol::{ApiError, Body, Protocol, full};
use super::wire::Wire;
use crate::testing::stream::ServiceError;

/// How long DynamoDB keeps backups for point-in-time recovery by default.
const RECOVERY_DAYS: i64 = 35;

/// DynamoDB as implemented by `dynoxide`, on its own loopback port, because its request handling is only
/// reachable through its server. Point-in-time recovery, which it lacks, is handled here.
pub(super) struct DynamoDb {
    address: SocketAddr,
    client: Client,
    /// By table: since when it can be restored, and for how many days.
    recovery: Mutex<BTreeMap<String, Recovery>>,
    started: SystemTime,
}

#[derive(Debug, Clone, Copy)]
struct Recovery {
    days: i64,
}

impl DynamoDb {
    /// An empty database and its server; stopped when dropped.
    pub(super) async fn start(
        connections: &Connections,
        now: SystemTime,
    ) -> io::Result<(Self, impl Future<Output = ()> + Send + use<>)> {
        let database = Database::memory().map_err(io::Error::other)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let dynamodb =
            Self { address, client: connections.client(), recovery: Mutex::default(), started: now };
        Ok((dynamodb, dynoxide::server::serve_on(listener, database)))
    }

    pub(super) async fn answer(&self, operation: &str, request: Request<Bytes>) -> Response<Body> {
        match operation {
            "DescribeContinuousBackups" => self.describe_recovery(request).await,
            "UpdateContinuousBackups" => self.update_recovery(request).await,
            _ => self.forward(request).await,
        }
    }

    async fn forward(&self, request: Request<Bytes>) -> Response<Body> {
        match self.send(request).await {
            Ok(response) => response.map(full),
            Err(error) => Protocol::Json10.failure(&ApiError {
                status: 503,
                code: "ServiceUnavailable".into(),
                message: format!("The local DynamoDB did not answer: {error}"),
            }),
        }
    }

    async fn send(&self, request: Request<Bytes>) -> io::Result<Response<Bytes>> {
        let mut request = request.map(Full::new);
        *request.uri_mut() = Uri::builder()
            .scheme("http")
            .authority(self.address.to_string())
            .path_and_query("/")
            .build()
            .map_err(io::Error::other)?;
        // The two servers use HTTP/1.1, whatever the client uses with this one.
        *request.version_mut() = hyper::Version::HTTP_11;
        let (parts, body) = self.client.request(request).await.map_err(io::Error::other)?.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }

    async fn update_recovery(&self, request: Request<Bytes>) -> Response<Body> {
        let read = |input: &Wire| -> Result<_, ServiceError> {
            let specification = input.get("PointInTimeRecoverySpecification").cloned().unwrap_or_default();
            let is_enabled = specification.boolean("PointInTimeRecoveryEnabled")?.unwrap_or(false);
            let days = specification.number("RecoveryPeriodInDays")?.unwrap_or(RECOVERY_DAYS);
            Ok((input.required_text("TableName")?.to_owned(), is_enabled.then_some(Recovery { days })))
        };
        match Protocol::Json10.decode(request.body()).and_then(|input| read(&input)) {
            Err(error) => Protocol::Json10.failure(&error.into()),
            Ok((table, recovery)) => {
                let change = |tables: &mut BTreeMap<String, Recovery>| match recovery {
                    Some(recovery) => drop(tables.insert(table.clone(), recovery)),
                    None => drop(tables.remove(&table)),
                };
                self.answer_recovery(request, &table, change).await
            }
        }
    }

    async fn describe_recovery(&self, request: Request<Bytes>) -> Response<Body> {
        let input = Protocol::Json10.decode(request.body());
        match input.and_then(|input| Ok(input.required_text("TableName")?.to_owned())) {
            Ok(table) => self.answer_recovery(request, &table, |_| {}).await,
            Err(error) => Protocol::Json10.failure(&error.into()),
        }
    }

    /// Describes the recovery of a table after `change`, if the table exists.
    async fn answer_recovery(
        &self,
        request: Request<Bytes>,
        table: &str,
        change: impl FnOnce(&mut BTreeMap<String, Recovery>),
    ) -> Response<Body> {
        match self.table_exists(request, table).await {
            Ok(true) => {}
            Ok(false) => {
                let code = "com.amazonaws.dynamodb.v20120810#TableNotFoundException";
                let message = format!("Table not found: {table}");
                return Protocol::Json10.failure(&ApiError::bad_request(code, message));
            }
            Err(response) => return response,
        }
        let mut tables = self.recovery.lock();
        change(&mut tables);
        let recovery = tables.get(table).copied();
        drop(tables);
        let point_in_time = Wire::map([
            ("PointInTimeRecoveryStatus", if recovery.is_some() { "ENABLED" } else { "DISABLED" }.into()),
            ("RecoveryPeriodInDays", recovery.map_or(Wire::Null, |recovery| Wire::Integer(recovery.days))),
            ("EarliestRestorableDateTime", recovery.map(|_| self.started).into()),
            ("LatestRestorableDateTime", recovery.map(|_| self.started).into()),
        ]);
        let description = Wire::map([
            ("ContinuousBackupsStatus", "ENABLED".into()),
            ("PointInTimeRecoveryDescription", point_in_time),
        ]);
        let output = Wire::map([("ContinuousBackupsDescription", description)]);
        Protocol::Json10.success("DescribeContinuousBackups", &output)
    }

    /// Forwards a request to the database, with the caller's own credentials.
    async fn table_exists(&self, request: Request<Bytes>, table: &str) -> Result<bool, Response<Body>> {
        let (mut parts, _) = request.into_parts();
        let target = HeaderValue::from_static("DynamoDB_20120810.DescribeTable");
        parts.headers.insert(HeaderName::from_static("x-amz-target"), target);
        parts.headers.remove(hyper::header::CONTENT_LENGTH);
        let body = Protocol::Json10.encode(&Wire::map([("TableName", table.into())]));
        let response = match self.send(Request::from_parts(parts, body)).await {
            Ok(response) => response,
            Err(error) => {
                let error =
                    ApiError { status: 503, code: "ServiceUnavailable".into(), message: error.to_string() };
                return Err(Protocol::Json10.failure(&error));
            }
        };
        match response.status() {
            StatusCode::OK => Ok(true),
            _ if String::from_utf8_lossy(response.body()).contains("ResourceNotFound") => Ok(false),
            _ => Err(response.map(full)),
        }
    }
}

impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").field("address", &self.address).finish_non_exhaustive()
    }
}
