//! How busy the CPU of a container on Amazon ECS is, by the task metadata endpoint (version 4).

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::error::with_causes;
use crate::runtime::Clock;

/// Where ECS puts the address of the endpoint.
const ENDPOINT: &str = "ECS_CONTAINER_METADATA_URI_V4";
/// The endpoint is on the same machine.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Answers are a few KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What ECS gives a container that asks for no share of the CPU.
const DEFAULT_SHARE: f64 = 2.0;

type Failure = Box<dyn StdError + Send + Sync>;

/// Asks for the CPU time of the container this process is in.
#[derive(Debug)]
pub(super) struct EcsCpu {
    stats: Uri,
    limit: Limit,
}

/// How much of the CPU the container is sure to get when all containers of its task are busy.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limit {
    /// Of what the task may use.
    part: f64,
    /// `None` if the task may use all there are.
    task_cores: Option<f64>,
}

impl EcsCpu {
    /// `None` outside of ECS, or if the endpoint cannot be read.
    pub(super) async fn detect(clock: &Clock) -> Option<Self> {
        let endpoint = std::env::var(ENDPOINT).ok()?;
        match Self::at(&endpoint, clock).await {
            Ok(cpu) => Some(cpu),
            Err(error) => {
                let error = with_causes(&*error);
                tracing::warn!(error, "cannot read the metadata of the ECS task; measuring the CPU without");
                None
            }
        }
    }

    async fn at(endpoint: &str, clock: &Clock) -> Result<Self, Failure> {
        let (task, container) = (format!("{endpoint}/task").parse()?, endpoint.parse()?);
        let (task, container) = tokio::try_join!(get(clock, &task), get(clock, &container))?;
        Ok(Self { stats: format!("{endpoint}/stats").parse()?, limit: limit(&task, &container)? })
    }

    /// How much of its part the container used lately, in percent; `None` if that is unknown.
    pub(super) async fn sample(&self, clock: &Clock) -> Option<f64> {
        match get(clock, &self.stats).await {
            Ok(stats) => percent(&stats, self.limit),
            Err(error) => {
                tracing::debug!(error = with_causes(&*error), "cannot read the CPU time of the container");
                None
            }
        }
    }
}

async fn get(clock: &Clock, uri: &Uri) -> Result<Value, Failure> {
    let answer = clock.timeout(TIMEOUT, request(uri)).await??;
    Ok(serde_json::from_slice(&answer)?)
}

/// One request on a connection of its own, which ends with it.
async fn request(uri: &Uri) -> Result<Bytes, Failure> {
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
    let authority = authority.ok_or("the address is not of plain HTTP")?;
    let port = authority.port_u16().unwrap_or(80);
    let stream = TcpStream::connect(format!("{}:{port}", authority.host())).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(HOST, authority.as_str()).body(Empty::<Bytes>::new())?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            return Err(format!("the answer is {}", response.status()).into());
        }
        Ok(Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes())
    };
    // What fails the connection fails the exchange; what fails it later is of no interest.
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

/// All containers of a task may use what the task may; when they all want it, shares decide.
fn limit(task: &Value, container: &Value) -> Result<Limit, &'static str> {
    let id = container.get("DockerId").and_then(Value::as_str).ok_or("the container has no id")?;
    let containers = task.get("Containers").and_then(Value::as_array).ok_or("the task has no containers")?;
    let (mut own, mut sum) = (DEFAULT_SHARE, 0.0);
    for container in containers {
        let share = cpu_limit(container)?.unwrap_or(DEFAULT_SHARE);
        if container.get("DockerId").and_then(Value::as_str) == Some(id) {
            own = share;
        }
        sum += share;
    }
    let part = if sum > 0.0 { (own / sum).min(1.0) } else { 1.0 };
    let task_cores = cpu_limit(task)?;
    if part <= 0.0 || task_cores.is_some_and(|cores| cores <= 0.0) {
        return Err("the container may use no CPU");
    }
    Ok(Limit { part, task_cores })
}

/// A task's in cores, a container's in shares; left out if there is none.
fn cpu_limit(of: &Value) -> Result<Option<f64>, &'static str> {
    let Some(limits) = of.get("Limits") else { return Ok(None) };
    let Some(cpu) = limits.as_object().ok_or("the limits are no object")?.get("CPU") else { return Ok(None) };
    cpu.as_f64().filter(|cpu| *cpu >= 0.0).map(Some).ok_or("a CPU limit is no number")
}

/// From the answer before to this one, as the endpoint remembers both.
fn percent(stats: &Value, limit: Limit) -> Option<f64> {
    const SYSTEM_BEFORE: &str = "/precpu_stats/system_cpu_usage";
    let time = |name| stats.pointer(name).and_then(Value::as_u64).map(Duration::from_nanos);
    let used = time("/cpu_stats/cpu_usage/total_usage")?;
    let system = time("/cpu_stats/system_cpu_usage")?;
    let used_before = time("/precpu_stats/cpu_usage/total_usage")?;
    // There is no answer before the first; Docker leaves out a system time of 0.
    if used_before.is_zero() && stats.pointer(SYSTEM_BEFORE).is_none_or(|time| time.as_u64() == Some(0)) {
        return Some(0.0);
    }
    let (used, system) = (used.checked_sub(used_before)?, system.checked_sub(time(SYSTEM_BEFORE)?)?);
    if system.is_zero() {
        // As in KCL: nothing was left for the system to count.
        return Some(100.0);
    }
    let online = stats.pointer("/cpu_stats/online_cpus")?.as_f64().filter(|cpus| *cpus > 0.0)?;
    // The system's time is that of all CPUs together.
    let cores = used.as_secs_f64() / system.as_secs_f64() * online;
    let percent = 100.0 * cores / (limit.part * limit.task_cores.unwrap_or(online));
    percent.is_finite().then(|| percent.min(100.0))
}

#[cfg(test)]
#[path = "ecs_test.rs"]
mod tests;
