use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::cloudwatch::{self, MetricSink};
use super::dynamodb::DynamoDb;
use super::kinesis;
use super::protocol::{ApiError, Body, Protocol, full};
use super::requests::{HttpFault, Requests};
use super::subscribe;
use crate::runtime::Clock;
use crate::testing::SimulatedKinesis;
use crate::testing::stream::ErrorCode;

/// The largest request body, compressed or not: PutRecords with 10 MiB in base64 and some.
pub(super) const BODY_BYTES_MAX: usize = 32 << 20;

const RPC_PATH: &str = "/service/GraniteServiceVersion20100801/operation/";

/// The three services behind one address: whatever carries requests to them calls [`handle`].
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

/// The connection is to break instead of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the local endpoint dropped the connection, as it was told to")]
pub(super) struct Dropped;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    service: Service,
    operation: String,
    protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Kinesis,
    DynamoDb,
    CloudWatch,
}

impl Endpoints {
    /// Answers one request.
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
        let Some(target) = target(&request) else {
            if request.method() == Method::GET {
                return Ok(Response::new(full(Bytes::from_static(b"Kinesis, DynamoDB and CloudWatch\n"))));
            }
            let mut response = Protocol::Json11.failure(&unknown("this request names no known service"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        };
        let fault = self.requests.begin(&format!("{}:{}", target.service.prefix(), target.operation));
        match fault {
            Some(HttpFault::DropRequest) => return Err(Dropped),
            Some(HttpFault::Error { status, code }) => {
                let error = ApiError { status, code: code.into(), message: "Injected.".to_owned() };
                return Ok(target.protocol.failure(&error));
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
        let input = match protocol.decode(request.body()) {
            Ok(input) => input,
            Err(error) => return protocol.failure(&error.into()),
        };
        let output = match service {
            // The only operation without output, which is all that is written as XML here.
            Service::CloudWatch if *protocol == Protocol::Query && operation != "PutMetricData" => {
                Err(ApiError::bad_request("InvalidAction", "Only PutMetricData can be sent as form fields."))
            }
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
                .error("The body is no gzip data of a reasonable size.")
                .into());
        }
        parts.headers.remove(CONTENT_ENCODING);
        Ok(Request::from_parts(parts, Bytes::from(body)))
    }
}

impl Service {
    /// How IAM actions of this service begin.
    fn prefix(self) -> &'static str {
        match self {
            Self::Kinesis => "kinesis",
            Self::DynamoDb => "dynamodb",
            Self::CloudWatch => "cloudwatch",
        }
    }
}

fn target(request: &Request<Bytes>) -> Option<Target> {
    let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let content_type = text(CONTENT_TYPE.as_str()).unwrap_or_default();
    let new = |service, operation: &str, protocol| {
        Some(Target { service, operation: operation.to_owned(), protocol })
    };
    if let Some(operation) = request.uri().path().strip_prefix(RPC_PATH) {
        return new(Service::CloudWatch, operation, Protocol::RpcV2Cbor);
    }
    if let Some((service, operation)) = text("x-amz-target").and_then(|target| target.split_once('.')) {
        let is_cbor = content_type.starts_with("application/x-amz-cbor-1.1");
        return match service {
            "Kinesis_20131202" if is_cbor => new(Service::Kinesis, operation, Protocol::Cbor11),
            "Kinesis_20131202" => new(Service::Kinesis, operation, Protocol::Json11),
            "DynamoDB_20120810" => new(Service::DynamoDb, operation, Protocol::Json10),
            "GraniteServiceVersion20100801" => new(Service::CloudWatch, operation, Protocol::Json10),
            _ => None,
        };
    }
    if content_type.starts_with("application/x-www-form-urlencoded") {
        let fields = super::query::decode(request.body()).ok()?;
        return new(Service::CloudWatch, fields.text("Action").ok()??, Protocol::Query);
    }
    None
}

fn unknown(what: &str) -> ApiError {
    ErrorCode::UnknownOperation.error(format!("The local endpoints cannot answer: {what}.")).into()
}

#[cfg(test)]
#[path = "endpoints_test.rs"]
mod tests;
