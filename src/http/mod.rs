//! A page, metrics for Prometheus, and probes, over HTTP (feature `http`): of one consumer ([`router`]) or of a whole
//! fleet by its lease table ([`fleet_router`]). Everything is read-only.
//!
//! | path | what |
//! |---|---|
//! | `/` | one page without external parts: shards, owners, lag and throughput as they change, what is wrong and what to do |
//! | `/api/status` | [`Status`](crate::Status) or [`FleetStatus`](crate::admin::FleetStatus) as JSON |
//! | `/api/events` | what the page shows, as server-sent events, one a second at most |
//! | `/metrics` | the text format of Prometheus |
//! | `/healthz` | 200 while the consumer runs, else 503: for liveness probes |
//! | `/readyz` | 200 while all is well, else 503 with what is wrong: for readiness probes and alarms |
//!
//! ```no_run
//! # async fn serve(handle: kinesis_consumer::ConsumerHandle) -> std::io::Result<()> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, kinesis_consumer::http::router(&handle)).await
//! # }
//! ```
//!
//! There is no access control: listen on loopback, or put the router behind your own layers.

mod prometheus;
mod source;
mod view;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use futures_util::{Stream, stream};

use self::source::{Shown, Source};
use crate::admin::Admin;
use crate::consumer::ConsumerHandle;
use crate::error::Error;

const PAGE: &str = include_str!("page.html");
/// How often the page is updated.
const INTERVAL: Duration = Duration::from_secs(1);

/// The routes for one running consumer. Keeps a clone of the handle, so the consumer goes on until the router is dropped,
/// too, or it is shut down.
pub fn router(handle: &ConsumerHandle) -> Router {
    routes(Source::Consumer(handle.clone()))
}

/// The routes for a whole fleet, read from its lease table once a second at most, however many look at it, and not at all
/// while nobody does.
pub fn fleet_router(admin: Admin) -> Router {
    routes(Source::fleet(admin))
}

fn routes(source: Source) -> Router {
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/api/status", get(status))
        .route("/api/events", get(events))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(source))
}

async fn status(State(source): State<Arc<Source>>) -> Response {
    match source.look().await {
        Ok(shown) => json(StatusCode::OK, shown.document.clone()),
        Err(error) => unavailable(&error),
    }
}

async fn metrics(State(source): State<Arc<Source>>) -> Response {
    match source.look().await {
        Ok(shown) => ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], prometheus::render(&shown.view))
            .into_response(),
        Err(error) => unavailable(&error),
    }
}

async fn healthz(State(source): State<Arc<Source>>) -> Response {
    match source.look().await {
        Ok(shown) => probe(&shown, shown.view.is_alive),
        Err(error) => unavailable(&error),
    }
}

async fn readyz(State(source): State<Arc<Source>>) -> Response {
    match source.look().await {
        Ok(shown) => probe(&shown, shown.view.is_alive && shown.view.is_ready),
        Err(error) => unavailable(&error),
    }
}

fn probe(shown: &Shown, is_well: bool) -> Response {
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let problems = &shown.view.problems;
    json(status, serde_json::json!({ "ok": is_well, "problems": problems }).to_string())
}

fn unavailable(error: &Error) -> Response {
    let problem = format!("{error:#}");
    json(
        StatusCode::SERVICE_UNAVAILABLE,
        serde_json::json!({ "ok": false, "problems": [problem] }).to_string(),
    )
}

fn json(status: StatusCode, document: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, document).into_response()
}

/// Each subscriber asks for the next document when it has got the one before, so nothing piles up for a slow one.
async fn events(State(source): State<Arc<Source>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let updates = stream::unfold((source, true), |(source, is_first)| async move {
        if !is_first {
            source.clock().sleep(INTERVAL).await;
        }
        let event = match source.look().await {
            Ok(shown) => Event::default().event("view").data(shown.view_json.as_str()),
            Err(error) => {
                Event::default().event("failure").data(format!("{error:#}").replace(['\r', '\n'], " "))
            }
        };
        Some((Ok(event), (source, false)))
    });
    Sse::new(updates).keep_alive(KeepAlive::default())
}
