//! The page, the metrics and the probes of a consumer and of a fleet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use futures_util::StreamExt;
use kinesis_consumer::http::{fleet_router, router};
use kinesis_consumer::lease::{Fault, StoreErrorKind};
use serde_json::Value;
use tower::ServiceExt;

use crate::admin::operator;
use crate::world::{CheckpointPolicy, FAILOVER, World, start};

async fn get(router: &Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

async fn document(router: &Router, path: &str) -> (StatusCode, Value) {
    let (status, text) = get(router, path).await;
    (status, serde_json::from_str(&text).expect("JSON"))
}

/// The first event of the page.
async fn first_event(router: &Router) -> (String, Value) {
    let request = Request::get("/api/events").body(Body::empty()).expect("a request");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let chunk = response.into_body().into_data_stream().next().await.expect("an event").expect("a chunk");
    let text = String::from_utf8(chunk.to_vec()).expect("text");
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim().to_owned()
    };
    (field("event:"), serde_json::from_str(&field("data:")).unwrap_or(Value::Null))
}

#[tokio::test(start_paused = true)]
async fn a_consumer_shows_what_it_does_and_whether_it_is_well() {
    let world = World::new(2);
    let is_gone = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&is_gone);
    let store = world.unreliable_table(Arc::new(move |_, _| match fails.load(Ordering::Relaxed) {
        true => Fault::refused(StoreErrorKind::Denied),
        false => Fault::default(),
    }));
    let handle = start(world.worker("one", CheckpointPolicy::EveryBatch).lease_store(store)).await;
    world.put(32);
    world.all_delivered_within(FAILOVER).await;
    let router = router(&handle);
    assert_eq!(get(&router, "/healthz").await.0, StatusCode::OK);
    assert_eq!(get(&router, "/readyz").await.0, StatusCode::OK);
    let (_, status) = document(&router, "/api/status").await;
    assert_eq!((&status["worker_id"], status["shards"].as_array().map(Vec::len)), (&"one".into(), Some(2)));
    let (_, metrics) = get(&router, "/metrics").await;
    let records: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("kinesis_consumer_delivered_records_total{"))
        .map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number"))
        .sum();
    assert!((records - 32.0).abs() < 0.5, "{metrics}");
    let (name, view) = first_event(&router).await;
    assert_eq!(
        (name.as_str(), &view["isReady"], view["shards"].as_array().map(Vec::len)),
        ("view", &true.into(), Some(2))
    );

    is_gone.store(true, Ordering::Relaxed);
    tokio::time::sleep(FAILOVER * 3).await;
    let (status, probe) = document(&router, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(probe["problems"].as_array().is_some_and(|problems| !problems.is_empty()), "{probe}");
    assert_eq!(get(&router, "/healthz").await.0, StatusCode::OK, "a restart would not help");
    is_gone.store(false, Ordering::Relaxed);
    handle.shutdown().await.expect("stops");
    assert_eq!(get(&router, "/healthz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(get(&router, "/metrics").await.1.contains("kinesis_consumer_up{application=\"fleet-test\"} 0"));
}

#[tokio::test(start_paused = true)]
async fn a_fleet_is_shown_from_its_table() {
    let world = World::new(2);
    let handle = world.start("one").await;
    world.put(32);
    world.all_delivered_within(FAILOVER).await;
    tokio::time::sleep(FAILOVER).await;
    let router = fleet_router(operator(&world));
    assert_eq!(get(&router, "/readyz").await.0, StatusCode::OK);
    let (_, status) = document(&router, "/api/status").await;
    assert_eq!(status["behindLatestMaxMillis"], 0);
    assert!(
        get(&router, "/metrics")
            .await
            .1
            .contains("kinesis_consumer_owned{application=\"fleet-test\",stream=\"orders\"")
    );
    handle.shutdown().await.expect("stops");
    tokio::time::sleep(FAILOVER).await;
    let (status, probe) = document(&router, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(probe["problems"][0].as_str().is_some_and(|text| text.contains("have no owner")), "{probe}");
    let (name, view) = first_event(&router).await;
    assert_eq!((name.as_str(), &view["shards"][0]["owner"]), ("view", &Value::Null));
}

#[tokio::test(start_paused = true)]
async fn the_page_needs_nothing_else_and_is_small() {
    let world = World::new(1);
    let router = fleet_router(operator(&world));
    let (status, page) = get(&router, "/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.len() < 60_000);
    for external in ["src=", "@import", "https://", "<link rel=\"stylesheet\""] {
        assert!(!page.contains(external), "{external}");
    }
}
