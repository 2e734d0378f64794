//! Counts what a worker asks of DynamoDB.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio_util::task::AbortOnDropHandle;

/// An endpoint in front of another.
#[derive(Debug)]
pub(crate) struct CountingProxy {
    pub(crate) url: String,
    counts: Counts,
    _serving: AbortOnDropHandle<()>,
}

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

/// Requests that read and requests that write.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Requests {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
}

#[derive(Clone)]
struct Forward {
    client: Client<HttpConnector, Body>,
    to: Arc<str>,
    counts: Counts,
}

impl CountingProxy {
    pub(crate) async fn start(to: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let counts = Counts::default();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let forward = Forward { client, to: to.into(), counts: Arc::clone(&counts) };
        let service = Router::new().fallback(pass).with_state(forward);
        let serving = tokio::spawn(async move {
            // Ends when it is dropped.
            let _ = axum::serve(listener, service).await;
        });
        Self { url, counts, _serving: AbortOnDropHandle::new(serving) }
    }

    /// By operation, since the start.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn requests(&self) -> Requests {
        let mut requests = Requests::default();
        for (operation, count) in self.counts() {
            match operation.as_str() {
                "GetItem" | "Query" | "Scan" | "BatchGetItem" => requests.reads += count,
                "PutItem" | "UpdateItem" | "DeleteItem" => requests.writes += count,
                _ => {}
            }
        }
        requests
    }
}

async fn pass(State(forward): State<Forward>, mut request: Request) -> Response {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    if let Some((_, operation)) = target.and_then(|target| target.rsplit_once('.')) {
        let mut counts = forward.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(operation.to_owned()).or_default() += 1;
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("{}{path}", forward.to).parse() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    *request.uri_mut() = uri;
    match forward.client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
