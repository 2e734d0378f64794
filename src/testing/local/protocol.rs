use std::borrow::Cow;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::cbor::{self, Times};
use super::wire::Wire;
use super::{json, query};
use crate::testing::stream::{ErrorCode, ServiceError};

/// Headers of every response; sent without faults.
pub(super) type Body = BoxBody<Bytes, std::convert::Infallible>;

/// The encodings of requests and responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// `application/x-amz-json-1.0`
    Json10,
    /// `application/x-amz-json-1.1`
    Json11,
    /// `application/x-amz-cbor-1.1`, which the SDK for Java uses with Kinesis
    Cbor11,
    /// Smithy's RPC v2, which the SDK for Rust uses with CloudWatch
    RpcV2Cbor,
    /// Form fields in, XML out, which older SDKs use with CloudWatch, and all with STS
    Query(query::Api),
}

/// An error response: of a simulated service, or injected.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    pub(super) status: u16,
    pub(super) code: Cow<'static, str>,
    pub(super) message: String,
}

impl Protocol {
    pub(super) fn decode(self, body: &[u8]) -> Result<Wire, ServiceError> {
        match self {
            Self::Json10 | Self::Json11 => json::decode(body),
            Self::Cbor11 => cbor::decode(body, Times::Milliseconds),
            Self::RpcV2Cbor => cbor::decode(body, Times::Seconds),
            Self::Query(_) => query::decode(body),
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json10 => "application/x-amz-json-1.0",
            Self::Json11 => "application/x-amz-json-1.1",
            Self::Cbor11 => "application/x-amz-cbor-1.1",
            Self::RpcV2Cbor => "application/cbor",
            Self::Query(_) => "text/xml",
        }
    }

    pub(super) fn encode(self, body: &Wire) -> Bytes {
        match (self, body) {
            // Operations without output have an empty body ...
            (Self::Json10 | Self::Json11 | Self::Cbor11, Wire::Null) => Bytes::new(),
            // ... but RPC v2 requires a map even then.
            (Self::RpcV2Cbor, Wire::Null) => Bytes::from_static(&[0xA0]),
            (Self::Json10 | Self::Json11, _) => json::encode(body),
            (Self::Cbor11, _) => cbor::encode(body, Times::Milliseconds),
            (Self::RpcV2Cbor, _) => cbor::encode(body, Times::Seconds),
            (Self::Query(_), _) => Bytes::new(),
        }
    }

    pub(super) fn success(self, operation: &str, output: &Wire) -> Response<Body> {
        let body = match self {
            Self::Query(api) => query::encode_success(api, operation, output),
            _ => self.encode(output),
        };
        self.response(StatusCode::OK, body)
    }

    pub(super) fn failure(self, error: &ApiError) -> Response<Body> {
        let body = match self {
            Self::Query(api) => query::encode_failure(api, error),
            _ => self.encode(&Wire::map([
                ("__type", error.code.as_ref().into()),
                ("message", error.message.as_str().into()),
            ])),
        };
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = self.response(status, body);
        let headers = response.headers_mut();
        if let Ok(code) = HeaderValue::from_str(&error.code) {
            headers.insert(HeaderName::from_static("x-amzn-errortype"), code);
        }
        if self == Self::RpcV2Cbor
            && let Ok(code) = HeaderValue::from_str(&format!("{};Sender", error.query_code()))
        {
            headers.insert(HeaderName::from_static("x-amzn-query-error"), code);
        }
        response
    }

    /// The response to a transaction that was cancelled (`TransactionCanceledException`).
    pub(super) fn transaction_canceled(self, reasons: &[String]) -> Response<Body> {
        let codes = reasons.iter().map(|code| Wire::map([("Code", code.as_str().into())]));
        let body = self.encode(&Wire::map([
            ("__type", "com.amazonaws.dynamodb.v20120810#TransactionCanceledException".into()),
            ("Message", format!("Transaction cancelled [{}]", reasons.join(", ")).as_str().into()),
            ("CancellationReasons", Wire::List(codes.collect())),
        ]));
        self.response(StatusCode::BAD_REQUEST, body)
    }

    fn response(self, status: StatusCode, body: Bytes) -> Response<Body> {
        let mut response = Response::new(full(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type()));
        if self == Self::RpcV2Cbor {
            let protocol = HeaderName::from_static("smithy-protocol");
            headers.insert(protocol, HeaderValue::from_static("rpc-v2-cbor"));
        }
        response
    }
}

pub(super) fn full(body: Bytes) -> Body {
    Full::new(body).boxed()
}

impl ApiError {
    pub(super) fn bad_request(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { status: 400, code: code.into(), message: message.into() }
    }

    /// The exception's name in the query protocol, which SDKs of services that once used it still
    /// expect.
    pub(super) fn query_code(&self) -> &str {
        match self.code.as_ref() {
            "MissingRequiredParameterException" => "MissingParameter",
            "UnknownOperationException" => "InvalidAction",
            code => code.strip_suffix("Exception").unwrap_or(code),
        }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let status = if error.code == ErrorCode::InternalFailure { 500 } else { 400 };
        Self { status, code: error.code.as_str().into(), message: error.message }
    }
}
