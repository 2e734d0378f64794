use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::Stream;
use kinesis_consumer::BoxError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::group::{Group, Refusal, Status};
use super::{GROUPS, Shared};

/// After a change, others are waited for that come with it.
const TOGETHER: Duration = Duration::from_millis(20);

pub(crate) fn router(app: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(health))
        .route("/produce", post(produce))
        .route("/consumers/status", get(status))
        .route("/consumers/{group}/acknowledge", post(acknowledge))
        .route("/consumers/reset", post(reset))
        .route("/events", get(events))
        .route("/ui", get(|| async { Html(include_str!("ui.html")) }))
        .route("/docs", get(|| async { Html(include_str!("docs.html")) }))
        .route(
            "/openapi.json",
            get(|| async { answer(StatusCode::OK, include_str!("openapi.json").to_owned()) }),
        )
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "no such path; see /docs") })
        .with_state(app)
}

async fn health(State(app): State<Arc<Shared>>) -> Response {
    ok(&json!({ "status": "healthy", "topic": app.topic.name(), "groups": GROUPS }))
}

/// A message as it is sent here.
#[derive(Deserialize)]
struct NewMessage {
    content: String,
    key: String,
}

async fn produce(State(app): State<Arc<Shared>>, body: Bytes) -> Response {
    let message: NewMessage = match serde_json::from_slice(&body) {
        Ok(message) => message,
        Err(error) => {
            let expected = r#"expected {"content": "…", "key": "…"}"#;
            return refusal(StatusCode::UNPROCESSABLE_ENTITY, format!("{expected}: {error}"));
        }
    };
    if message.key.is_empty() || message.key.chars().count() > 256 {
        return refusal(StatusCode::UNPROCESSABLE_ENTITY, "key must be 1 to 256 characters");
    }
    match app.topic.produce(&message.key, &message.content).await {
        Ok(produced) => {
            app.changes.send_modify(|change| *change += 1);
            ok(&json!({
                "offset": produced.offset,
                "partition": 0,
                "sequenceNumber": produced.sequence_number.to_string(),
                "shardId": produced.shard,
            }))
        }
        Err(error) => failure(&error),
    }
}

async fn status(State(app): State<Arc<Shared>>) -> Response {
    ok(&all(&app).await)
}

async fn acknowledge(
    State(app): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(group) = app.group(&name) else { return unknown_group(&name) };
    let Some(offset) = parameter(query.as_deref(), "message_offset").and_then(|offset| offset.parse().ok())
    else {
        return refusal(StatusCode::UNPROCESSABLE_ENTITY, "message_offset is missing or no number");
    };
    match group.acknowledge(offset).await {
        Ok(()) => ok(&group.status().await),
        Err(Refusal::NotReceived) => refusal(
            StatusCode::NOT_FOUND,
            format!("group {name} has received no message with offset {offset}"),
        ),
        Err(Refusal::AcknowledgedAlready) => {
            refusal(StatusCode::CONFLICT, format!("group {name} has acknowledged offset {offset} already"))
        }
    }
}

async fn reset(State(app): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let groups: Vec<&Group> = match parameter(query.as_deref(), "group") {
        None => app.groups.iter().collect(),
        Some(name) => match app.group(&name) {
            Some(group) => vec![group],
            None => return unknown_group(&name),
        },
    };
    for group in groups {
        if let Err(error) = group.reset().await {
            return failure(&error);
        }
    }
    ok(&all(&app).await)
}

/// The status of the groups, now and after each change.
async fn events(State(app): State<Arc<Shared>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = app.changes.subscribe();
    let events =
        futures_util::stream::unfold((app, changes, true), |(app, mut changes, is_first)| async move {
            if !is_first {
                changes.changed().await.ok()?;
                tokio::time::sleep(TOGETHER).await;
                changes.mark_unchanged();
            }
            let status = serde_json::to_string(&all(&app).await).unwrap_or_default();
            Some((Ok(Event::default().data(status)), (app, changes, false)))
        });
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn all(app: &Shared) -> BTreeMap<&str, Status> {
    let mut all = BTreeMap::new();
    for group in &app.groups {
        all.insert(group.name(), group.status().await);
    }
    all
}

fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

fn unknown_group(name: &str) -> Response {
    refusal(
        StatusCode::NOT_FOUND,
        format!("there is no group {name}; the groups are {}", GROUPS.join(" and ")),
    )
}

fn ok(body: &impl serde::Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => answer(StatusCode::OK, text),
        Err(error) => failure(&error.into()),
    }
}

fn failure(error: &BoxError) -> Response {
    tracing::error!(error, "a request failed");
    refusal(StatusCode::BAD_GATEWAY, error.to_string())
}

fn refusal(status: StatusCode, error: impl Into<Value>) -> Response {
    answer(status, json!({ "error": error.into() }).to_string())
}

fn answer(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
