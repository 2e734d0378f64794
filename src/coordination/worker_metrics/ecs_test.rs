use axum::{Router, routing};
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::types::Moment;

const WHOLE: Limit = Limit { part: 1.0, task_cores: None };

fn fargate() -> Value {
    json!({"LaunchType": "FARGATE", "Limits": {"CPU": 0.5, "Memory": 1024}, "Containers": [
        {"DockerId": "cd18-1", "Limits": {"CPU": 30, "Memory": 128}},
        {"DockerId": "cd18-2", "Limits": {"CPU": 8}},
        {"DockerId": "cd18-3"},
    ]})
}

fn ec2(own: u32, pause: u32) -> Value {
    json!({"LaunchType": "EC2", "Limits": {"Memory": 512}, "Containers": [
        {"DockerId": "ea32", "Limits": {"CPU": own}},
        {"DockerId": "5fc2", "Limits": {"CPU": pause}, "Type": "CNI_PAUSE"},
    ]})
}

/// Two cores, which counted ten seconds together.
fn stats(used_ms: u64) -> Value {
    json!({
        "cpu_stats": {"cpu_usage": {"total_usage": 5_000_000_000 + used_ms * 1_000_000},
            "system_cpu_usage": 910_000_000_000_u64, "online_cpus": 2},
        "precpu_stats": {"cpu_usage": {"total_usage": 5_000_000_000_u64},
            "system_cpu_usage": 900_000_000_000_u64, "online_cpus": 2},
    })
}

fn with(document: &Value, name: &str, value: Value) -> Value {
    let mut document = document.clone();
    *document.pointer_mut(name).unwrap() = value;
    document
}

fn unexpected() -> impl Iterator<Item = Value> {
    [json!(null), json!("2"), json!(-1), json!({"CPU": true})].into_iter()
}

#[test]
fn a_container_has_a_part_of_what_its_task_may_use() {
    let of = |task: &Value, id: &str| limit(task, &json!({"DockerId": id})).ok();
    assert_eq!(of(&fargate(), "cd18-1"), Some(Limit { part: 0.75, task_cores: Some(0.5) }));
    assert_eq!(of(&fargate(), "cd18-3"), Some(Limit { part: 0.05, task_cores: Some(0.5) }));
    assert_eq!(of(&fargate(), "unlisted"), Some(Limit { part: 0.05, task_cores: Some(0.5) }));
    assert_eq!(of(&ec2(30, 10), "ea32"), Some(Limit { part: 0.75, task_cores: None }));
    assert_eq!(of(&ec2(0, 0), "ea32"), Some(WHOLE), "no shares at all");
    assert_eq!(of(&ec2(0, 10), "ea32"), None, "nothing is left for it");
    assert_eq!(of(&with(&fargate(), "/Limits/CPU", json!(0)), "cd18-1"), None);
    for name in ["/Limits", "/Limits/CPU", "/Containers", "/Containers/1/Limits/CPU"] {
        for value in unexpected() {
            assert_eq!(of(&with(&fargate(), name, value.clone()), "cd18-1"), None, "{name}: {value}");
        }
    }
    assert!(limit(&fargate(), &Value::Null).is_err());
}

#[test]
fn cpu_time_counts_against_the_part() {
    let quarter = Limit { part: 0.5, task_cores: Some(0.5) };
    assert_eq!(percent(&stats(500), WHOLE), Some(5.0));
    assert_eq!(percent(&stats(500), quarter), Some(40.0));
    assert_eq!(percent(&stats(5000), quarter), Some(100.0), "of what others left, too");
    let first = with(&stats(0), "/precpu_stats", json!({"cpu_usage": {"total_usage": 0}}));
    assert_eq!(percent(&first, quarter), Some(0.0));
    let still = with(&stats(0), "/cpu_stats/system_cpu_usage", json!(900_000_000_000_u64));
    assert_eq!(percent(&still, quarter), Some(100.0));
}

#[test]
fn numbers_that_make_no_sense_are_no_sample() {
    for of in ["cpu", "precpu"] {
        for name in ["", "/cpu_usage", "/cpu_usage/total_usage", "/system_cpu_usage"] {
            for value in unexpected() {
                let stats = with(&stats(500), &format!("/{of}_stats{name}"), value.clone());
                assert_eq!(percent(&stats, WHOLE), None, "{of}{name}: {value}");
            }
        }
    }
    for value in unexpected().chain([json!(0)]) {
        assert_eq!(percent(&with(&stats(500), "/cpu_stats/online_cpus", value), WHOLE), None);
    }
    let backwards = with(&stats(500), "/cpu_stats/cpu_usage/total_usage", json!(1));
    assert_eq!(percent(&backwards, WHOLE), None);
    assert_eq!(percent(&stats(0), Limit { part: 1e-300, task_cores: Some(1e-300) }), None, "0 of 0");
}

#[tokio::test]
async fn the_endpoint_is_asked() {
    let answer = |value: Value| routing::get(async move || value.to_string());
    let router = Router::new()
        .route("/v4/cd18", answer(json!({"DockerId": "cd18-1"})))
        .route("/v4/cd18/task", answer(fargate()))
        .route("/v4/cd18/stats", answer(stats(750)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v4/cd18", listener.local_addr().unwrap());
    let asking = async {
        let clock = Clock::system();
        let cpu = EcsCpu::at(&endpoint, &clock).await.unwrap();
        assert_eq!(cpu.sample(&clock).await, Some(40.0));
        let failure = EcsCpu::at(&format!("{endpoint}/x"), &clock).await.unwrap_err();
        assert_eq!(failure.to_string(), "the answer is 404 Not Found");
    };
    tokio::select! {
        () = asking => {}
        served = axum::serve(listener, router) => served.unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stats = format!("http://{}/stats", listener.local_addr().unwrap()).parse().unwrap();
    let (cpu, clock) = (EcsCpu { stats, limit: WHOLE }, Clock::system());
    assert_eq!(cpu.sample(&clock).await, None);
    assert!((TIMEOUT..TIMEOUT * 2).contains(&clock.now().since(Moment::ORIGIN)));
}
