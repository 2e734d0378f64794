//! The service of the example `consumer_groups`, through HTTP.

#![expect(dead_code, reason = "the example uses more of its modules than these tests do")]

#[path = "../examples/consumer_groups/app.rs"]
mod app;

use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kinesis_consumer::testing::LocalAws;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use app::App;

/// Everything happens within this time.
const SOON: Duration = Duration::from_secs(30);

/// A running service.
struct Service {
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
    serving: JoinHandle<()>,
}

impl Service {
    async fn start(aws: &LocalAws) -> Self {
        let app = App::start(&aws.sdk_config(), "demo-topic").await.expect("started");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let serving = tokio::spawn(async move { app.serve(listener).await.expect("served") });
        Self { url, client: Client::builder(TokioExecutor::new()).build_http(), serving }
    }

    /// As if the process was killed: no shutdown, nothing released.
    async fn kill(self) {
        self.serving.abort();
        assert!(self.serving.await.expect_err("killed").is_cancelled());
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = axum::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .body(Full::from(body))
            .expect("a request");
        let answer = self.client.request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    async fn json(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let (status, body) = self.call(method, path, body).await;
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    async fn produce(&self, content: &str) -> Value {
        let message = json!({ "content": content, "key": "test-1" });
        let (status, produced) = self.json("POST", "/produce", Some(message)).await;
        assert_eq!(status, 200, "{produced}");
        produced
    }

    async fn acknowledge(&self, group: &str, offset: usize) -> (u16, Value) {
        self.json("POST", &format!("/consumers/{group}/acknowledge?message_offset={offset}"), None).await
    }

    /// The status, as soon as both groups have received that many messages.
    async fn received(&self, count: usize) -> Value {
        self.status(|status| ["A", "B"].iter().all(|group| received(status, group).len() == count)).await
    }

    async fn status(&self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let since = Instant::now();
        loop {
            let (_, status) = self.json("GET", "/consumers/status", None).await;
            if is_wanted(&status) {
                return status;
            }
            assert!(since.elapsed() < SOON, "{status:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn received(status: &Value, group: &str) -> Vec<Value> {
    status[group]["received"].as_array().expect("a list").clone()
}

/// The offsets that a group has acknowledged.
fn acknowledged(status: &Value, group: &str) -> Vec<u64> {
    let messages = received(status, group);
    let acknowledged = messages.iter().filter(|message| message["acknowledged"] == true);
    acknowledged.map(|message| message["offset"].as_u64().expect("a number")).collect()
}

fn counts(status: &Value, group: &str) -> [u64; 3] {
    ["acknowledged", "committed", "lag"].map(|count| status[group][count].as_u64().expect("a number"))
}

#[tokio::test]
async fn different_group_ids_maintain_separate_state() {
    let aws = LocalAws::start().await.expect("endpoints");
    let service = Service::start(&aws).await;
    let (status, health) = service.json("GET", "/", None).await;
    assert_eq!(
        (status, &health),
        (200, &json!({ "status": "healthy", "topic": "demo-topic", "groups": ["A", "B"] }))
    );
    for (offset, content) in ["Hello", "World"].into_iter().enumerate() {
        let produced = service.produce(content).await;
        assert_eq!((&produced["offset"], &produced["partition"]), (&json!(offset), &json!(0)));
        assert_eq!(produced["shardId"], "shardId-000000000000");
        assert!(produced["sequenceNumber"].as_str().expect("text").len() > 20, "{produced}");
    }
    let status = service.received(2).await;
    for group in ["A", "B"] {
        let expected = json!([
            { "offset": 0, "key": "test-1", "content": "Hello", "acknowledged": false },
            { "offset": 1, "key": "test-1", "content": "World", "acknowledged": false },
        ]);
        assert_eq!((&status[group]["received"], counts(&status, group)), (&expected, [0, 0, 2]));
    }
}

#[tokio::test]
async fn acknowledge_in_one_group_does_not_affect_other() {
    let aws = LocalAws::start().await.expect("endpoints");
    let service = Service::start(&aws).await;
    service.produce("Hello").await;
    service.received(1).await;
    let (status, of_group) = service.acknowledge("A", 0).await;
    assert_eq!((status, &of_group["acknowledged"], &of_group["committed"]), (200, &json!(1), &json!(1)));
    let status = service.received(1).await;
    assert_eq!((counts(&status, "A"), counts(&status, "B")), ([1, 1, 0], [0, 0, 1]));

    assert_eq!(service.acknowledge("A", 0).await.0, 409, "acknowledged already");
    assert_eq!(service.acknowledge("A", 1).await.0, 404, "no such message");
    assert_eq!(service.acknowledge("C", 0).await.0, 404, "no such group");
    let (status, error) = service.json("POST", "/consumers/A/acknowledge", None).await;
    assert!(
        status == 422 && error["error"].as_str().is_some_and(|error| error.contains("message_offset")),
        "{error}"
    );
    for body in [json!("Hello"), json!({ "content": "no key" }), json!({ "content": "", "key": "" })] {
        assert_eq!(service.json("POST", "/produce", Some(body.clone())).await.0, 422, "{body}");
    }
}

#[tokio::test]
async fn multiple_messages_independent_acknowledgment() {
    let aws = LocalAws::start().await.expect("endpoints");
    let service = Service::start(&aws).await;
    for number in 0..5 {
        service.produce(&number.to_string()).await;
    }
    service.received(5).await;
    for (group, offsets) in [("A", [3, 0, 1]), ("B", [4, 2, 0])] {
        for offset in offsets {
            assert_eq!(service.acknowledge(group, offset).await.0, 200);
        }
    }
    let status = service.received(5).await;
    assert_eq!((acknowledged(&status, "A"), acknowledged(&status, "B")), (vec![0, 1, 3], vec![0, 2, 4]));
    // The prefix is stored.
    assert_eq!((counts(&status, "A"), counts(&status, "B")), ([3, 2, 3], [3, 1, 4]));
    let (_, of_group) = service.acknowledge("A", 2).await;
    assert_eq!(of_group["committed"], 4, "with what was acknowledged before, out of order");
}

#[tokio::test]
async fn reset_one_consumer_does_not_affect_other() {
    let aws = LocalAws::start().await.expect("endpoints");
    let service = Service::start(&aws).await;
    for number in 0..3 {
        service.produce(&number.to_string()).await;
    }
    service.received(3).await;
    for group in ["A", "B"] {
        for offset in 0..2 {
            assert_eq!(service.acknowledge(group, offset).await.0, 200);
        }
    }
    let (status, body) = service.json("POST", "/consumers/reset?group=A", None).await;
    assert_eq!(status, 200, "{body}");
    let status = service.received(3).await;
    assert_eq!((counts(&status, "A"), counts(&status, "B")), ([0, 0, 3], [2, 2, 1]));
    // All of it can be acknowledged once more.
    assert_eq!(service.acknowledge("A", 0).await.0, 200);
    assert_eq!(service.json("POST", "/consumers/reset?group=C", None).await.0, 404);
    assert_eq!(service.json("POST", "/consumers/reset", None).await.0, 200);
    let status = service.received(3).await;
    assert_eq!((counts(&status, "A"), counts(&status, "B")), ([0, 0, 3], [0, 0, 3]));
}

#[tokio::test]
async fn what_is_acknowledged_stays_so_after_a_kill() {
    let aws = LocalAws::start().await.expect("endpoints");
    let service = Service::start(&aws).await;
    for number in 0..4 {
        service.produce(&number.to_string()).await;
    }
    service.received(4).await;
    for offset in [0, 1, 3] {
        assert_eq!(service.acknowledge("A", offset).await.0, 200);
    }
    service.kill().await;
    let service = Service::start(&aws).await;
    let status = service.received(4).await;
    // What was acknowledged beyond the first that was not comes again.
    assert_eq!((acknowledged(&status, "A"), acknowledged(&status, "B")), (vec![0, 1], vec![]));
    assert_eq!(service.produce("another").await["offset"], 4, "offsets go on");
    assert_eq!(service.acknowledge("A", 2).await.0, 200);
}

#[tokio::test]
async fn the_pages_and_the_api_description_are_there() {
    let aws = LocalAws::start().await.expect("endpoints");
    let service = Service::start(&aws).await;
    for path in ["/ui", "/docs"] {
        let (status, page) = service.call("GET", path, None).await;
        assert!(status == 200 && page.contains("<!doctype html>"), "{path}");
        assert!(!page.contains("https://") && !page.contains("src="), "{path} loads nothing from elsewhere");
    }
    let (_, api) = service.json("GET", "/openapi.json", None).await;
    for path in ["/", "/produce", "/consumers/status", "/consumers/{group}/acknowledge", "/consumers/reset"] {
        assert!(api["paths"][path].is_object(), "{path}");
    }
    assert_eq!(service.call("GET", "/nothing", None).await.0, 404);
}
