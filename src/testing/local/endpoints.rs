use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::cloudwatch::{self, MetricSink};
use super::dynamodb::DynamoDb;
use super::kinesis;
use super::protocol::{ApiError, Body, Protocol, full};
use super::query::{self, Api};
use super::requests::{HttpFault, Requests};
use super::wire::Wire;
use super::{sts, subscribe};
use crate::runtime::Clock;
use crate::testing::SimulatedKinesis;
use crate::testing::stream::ErrorCode;

/// The largest request body, compressed or not: PutRecords with 10 MiB in base64, with some margin.
pub(super) const BODY_BYTES_MAX: usize = 32 << 20;

const RPC_PATH: &str = "/service/GraniteServiceVersion20100801/operation/";

/// The services behind one address. Every transport passes requests to [`handle`].
///
/// [`handle`]: Endpoints::handle
#[derive(Debug)]
pub(super) struct Endpoints {
    pub(super) kinesis: SimulatedKinesis,
    pub(super) dynamodb: DynamoDb,
    pub(super) metrics: MetricSink,
    pub(super) requests: Requests,
    pub(super) clock: Clock,
    pub(super) answered: AtomicU64,
}

/// Close the connection instead of responding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the local endpoint closed the connection: injected fault")]
pub(super) struct Dropped;

/// The operation a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    service: Service,
    operation: String,
    protocol: Protocol,
}

/// No service of the endpoints can handle the request.
#[derive(Debug)]
struct Refusal {
    protocol: Protocol,
    error: ApiError,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Kinesis,
    DynamoDb,
    CloudWatch,
    Sts,
}

impl Endpoints {
    /// Handles one request.
    pub(super) async fn handle(self: &Arc<Self>, request: Request<Bytes>) -> Result<Response<Body>, Dropped> {
        let mut response = match self.decompress(request) {
            Ok(request) => self.route(request).await?,
            Err(error) => Protocol::Json11.failure(&error),
        };
        let number = self.answered.fetch_add(1, Ordering::Relaxed);
        let id = format!("{number:08x}-0000-4000-8000-000000000000");
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().entry(HeaderName::from_static("x-amzn-requestid")).or_insert(id);
        }
        Ok(response)
    }

    async fn route(self: &Arc<Self>, request: Request<Bytes>) -> Result<Response<Body>, Dropped> {
        let target = match target(&request) {
            Ok(target) => target,
            Err(_) if request.method() == Method::GET && form(&request).is_none() => {
                return Ok(Response::new(full(Bytes::from_static(
                    b"Kinesis, DynamoDB, CloudWatch and STS\n",
                ))));
            }
            Err(refusal) => return Ok(refusal.protocol.failure(&refusal.error)),
        };
        let fault = self.requests.begin(&format!("{}:{}", target.service.prefix(), target.operation));
        match fault {
            Some(HttpFault::DropRequest) => return Err(Dropped),
            Some(HttpFault::Error { status, code }) => {
                let error = ApiError { status, code: code.into(), message: "Injected.".to_owned() };
                return Ok(target.protocol.failure(&error));
            }
            Some(HttpFault::TransactionCanceled { reasons }) => {
                return Ok(target.protocol.transaction_canceled(&reasons));
            }
            Some(HttpFault::Delay(delay)) => self.clock.sleep(delay).await,
            Some(HttpFault::DropResponse) => {
                self.answer(&target, request).await;
                return Err(Dropped);
            }
            None => {}
        }
        Ok(self.answer(&target, request).await)
    }

    async fn answer(&self, target: &Target, request: Request<Bytes>) -> Response<Body> {
        let Target { service, operation, protocol } = target;
        if *service == Service::DynamoDb {
            return self.dynamodb.answer(operation, request).await;
        }
        let body = match protocol {
            Protocol::Query(_) => form(&request).unwrap_or_default(),
            _ => request.body(),
        };
        let input = match protocol.decode(body) {
            Ok(input) => input,
            Err(error) => return protocol.failure(&error.into()),
        };
        let output = match service {
            Service::Sts => sts::answer(operation),
            Service::CloudWatch => cloudwatch::answer(&self.metrics, self.clock.wall(), operation, &input),
            _ if operation == "SubscribeToShard" => {
                match subscribe::answer(&self.kinesis, &input, *protocol) {
                    Ok(response) => return response,
                    Err(error) => Err(error.into()),
                }
            }
            _ => kinesis::answer(&self.kinesis, operation, &input).map_err(ApiError::from),
        };
        match output {
            Ok(output) => protocol.success(operation, &output),
            Err(error) => protocol.failure(&error),
        }
    }

    fn decompress(&self, request: Request<Bytes>) -> Result<Request<Bytes>, ApiError> {
        if request.headers().get(CONTENT_ENCODING).is_none_or(|encoding| encoding != "gzip") {
            return Ok(request);
        }
        let (mut parts, compressed) = request.into_parts();
        let mut body = Vec::new();
        let limit = BODY_BYTES_MAX as u64;
        let read = flate2::read::GzDecoder::new(&compressed[..]).take(limit + 1).read_to_end(&mut body);
        if read.is_err() || body.len() > BODY_BYTES_MAX {
            return Err(ErrorCode::Serialization
                .error("The body is not gzip data, or it is too large.")
                .into());
        }
        parts.headers.remove(CONTENT_ENCODING);
        Ok(Request::from_parts(parts, Bytes::from(body)))
    }
}

impl Service {
    /// The prefix of this service's IAM actions.
    fn prefix(self) -> &'static str {
        match self {
            Self::Kinesis => "kinesis",
            Self::DynamoDb => "dynamodb",
            Self::CloudWatch => "cloudwatch",
            Self::Sts => "sts",
        }
    }
}

/// The operation a request asks for, or why it is refused.
fn target(request: &Request<Bytes>) -> Result<Target, Refusal> {
    let content_type = header(request, CONTENT_TYPE.as_str());
    let new = |service, operation: &str, protocol| {
        Ok(Target { service, operation: operation.to_owned(), protocol })
    };
    if let Some(operation) = request.uri().path().strip_prefix(RPC_PATH) {
        return new(Service::CloudWatch, operation, Protocol::RpcV2Cbor);
    }
    let target = header(request, "x-amz-target");
    if let Some((service, operation)) = target.split_once('.') {
        let is_cbor = content_type.starts_with("application/x-amz-cbor-1.1");
        return match service {
            "Kinesis_20131202" if is_cbor => new(Service::Kinesis, operation, Protocol::Cbor11),
            "Kinesis_20131202" => new(Service::Kinesis, operation, Protocol::Json11),
            "DynamoDB_20120810" => new(Service::DynamoDb, operation, Protocol::Json10),
            "GraniteServiceVersion20100801" => new(Service::CloudWatch, operation, Protocol::Json10),
            _ => Err(not_found(&format!("there is no service {service} for {operation}"))),
        };
    }
    match form(request) {
        Some(fields) => form_target(request, fields),
        None => Err(not_found("the request names no known service")),
    }
}

/// The same for form fields, where the API version or the signature identifies the service.
fn form_target(request: &Request<Bytes>, fields: &[u8]) -> Result<Target, Refusal> {
    let fields = query::decode(fields).unwrap_or(Wire::Null);
    let text = |name| fields.text(name).ok().flatten().unwrap_or_default();
    let (operation, version) = (text("Action"), text("Version"));
    let authorization = header(request, AUTHORIZATION.as_str());
    let signed_for = |service: &str| authorization.contains(&format!("/{service}/aws4_request"));
    let api = match Api::of_version(version) {
        None if version.is_empty() && signed_for("sts") => Some(Api::Sts),
        None if version.is_empty() => Some(Api::CloudWatch),
        known => known,
    };
    let (service, api) = match api {
        _ if operation.is_empty() => return Err(not_found("the form fields have no Action")),
        Some(api @ Api::Sts) => (Service::Sts, api),
        Some(api @ Api::CloudWatch) => (Service::CloudWatch, api),
        None => {
            let what = format!("there is no operation {operation} of an API of version {version}");
            let error = ApiError::bad_request("InvalidAction", unknown(&what).message);
            return Err(Refusal { protocol: Protocol::Query(Api::CloudWatch), error });
        }
    };
    Ok(Target { service, operation: operation.to_owned(), protocol: Protocol::Query(api) })
}

/// The form fields of a request: its body, or the query string of its URL.
fn form(request: &Request<Bytes>) -> Option<&[u8]> {
    if header(request, CONTENT_TYPE.as_str()).starts_with("application/x-www-form-urlencoded") {
        return Some(request.body());
    }
    let query = request.uri().query().filter(|query| query.contains("Action="));
    query.filter(|_| request.method() == Method::GET).map(str::as_bytes)
}

fn header<'a>(request: &'a Request<Bytes>, name: &str) -> &'a str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn not_found(what: &str) -> Refusal {
    let error = ApiError { status: StatusCode::NOT_FOUND.as_u16(), ..unknown(what) };
    Refusal { protocol: Protocol::Json11, error }
}

fn unknown(what: &str) -> ApiError {
    let message = format!("The local endpoints cannot answer: {what}.");
    ErrorCode::UnknownOperation.error(message).into()
}

#[cfg(test)]
#[path = "endpoints_test.rs"]
mod tests;
