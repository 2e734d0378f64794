//! How busy this machine's CPU is: of the container if it has a part of the machine (by the metadata of
//! its task on ECS; by its limit in cgroup v2 or v1, as on EKS), else of the whole machine (`/proc/stat`,
//! as on EC2).
//!
//! ECS is asked first, as by KCL: a cgroup shows a limit, but not which part of its task's CPU a
//! container's shares give it.

use std::fs::read_to_string;
use std::time::Duration;

use super::ecs::EcsCpu;
use crate::runtime::Clock;
use crate::types::Moment;

const V2_USAGE: &str = "/sys/fs/cgroup/cpu.stat";
const V2_LIMIT: &str = "/sys/fs/cgroup/cpu.max";
const V1_USAGE: &str = "/sys/fs/cgroup/cpuacct/cpuacct.usage";
const V1_QUOTA: &str = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us";
const V1_PERIOD: &str = "/sys/fs/cgroup/cpu/cpu.cfs_period_us";
const MACHINE: &str = "/proc/stat";

/// Measures how busy the CPU was between two calls.
#[derive(Debug)]
pub(super) enum CpuMeter {
    Ecs(EcsCpu),
    Kernel { source: Source, last: Option<Reading> },
}

/// What the kernel counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Source {
    /// A container that may use this many cores.
    CgroupV2 {
        cores: f64,
    },
    CgroupV1 {
        cores: f64,
    },
    Machine,
}

/// How long the CPU has been busy, of the time it could have been, since some moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    busy: f64,
    possible: f64,
}

impl CpuMeter {
    /// The first source that can be read; `None` where there is none, as on systems other than Linux.
    pub(super) async fn detect(clock: &Clock) -> Option<Self> {
        let meter = match EcsCpu::detect(clock).await {
            Some(ecs) => Self::Ecs(ecs),
            None => Self::Kernel { source: Source::detect()?, last: None },
        };
        tracing::debug!(?meter, "measuring how busy the CPU is");
        Some(meter)
    }

    /// The part of the time since the last look in which the CPU was busy, in percent; 0 at the first,
    /// `None` if it cannot be read.
    ///
    /// Files of the kernel's are in memory and keep nobody waiting.
    pub(super) async fn sample(&mut self, clock: &Clock) -> Option<f64> {
        match self {
            Self::Ecs(ecs) => ecs.sample(clock).await,
            Self::Kernel { source, last } => {
                let reading = source.read(clock.now())?;
                let Some(last) = last.replace(reading) else { return Some(0.0) };
                reading.percent_since(last)
            }
        }
    }
}

impl Source {
    fn detect() -> Option<Self> {
        let v2 = || {
            read_to_string(V2_USAGE).ok().as_deref().and_then(v2_usage)?;
            let cores = v2_cores(&read_to_string(V2_LIMIT).ok()?)?;
            Some(Self::CgroupV2 { cores })
        };
        let v1 = || {
            read_to_string(V1_USAGE).ok()?.trim().parse::<u64>().ok()?;
            let cores = v1_cores(&read_to_string(V1_QUOTA).ok()?, &read_to_string(V1_PERIOD).ok()?)?;
            Some(Self::CgroupV1 { cores })
        };
        let machine = || machine(&read_to_string(MACHINE).ok()?).map(|_| Self::Machine);
        v2().or_else(v1).or_else(machine)
    }

    fn read(self, now: Moment) -> Option<Reading> {
        let seconds = now.since(Moment::ORIGIN).as_secs_f64();
        match self {
            Self::CgroupV2 { cores } => {
                let busy = v2_usage(&read_to_string(V2_USAGE).ok()?)?.as_secs_f64();
                Some(Reading { busy, possible: seconds * cores })
            }
            Self::CgroupV1 { cores } => {
                let nanos = read_to_string(V1_USAGE).ok()?.trim().parse().ok()?;
                let busy = Duration::from_nanos(nanos).as_secs_f64();
                Some(Reading { busy, possible: seconds * cores })
            }
            Self::Machine => machine(&read_to_string(MACHINE).ok()?),
        }
    }
}

impl Reading {
    fn percent_since(self, earlier: Self) -> Option<f64> {
        let (busy, possible) = (self.busy - earlier.busy, self.possible - earlier.possible);
        (possible > 0.0 && busy >= 0.0).then(|| (100.0 * busy / possible).min(100.0))
    }
}

/// `usage_usec` of `cpu.stat`.
fn v2_usage(stat: &str) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    line.trim().parse().ok().map(Duration::from_micros)
}

/// `cpu.max`: a quota, or `max`, and the period it is for. `None` without a limit.
fn v2_cores(max: &str) -> Option<f64> {
    let (quota, period) = max.trim().split_once(' ')?;
    cores(quota, period)
}

/// A quota of -1 is none.
fn v1_cores(quota: &str, period: &str) -> Option<f64> {
    cores(quota.trim(), period.trim())
}

fn cores(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// The first line of `/proc/stat`: time spent in user, nice, system, idle, iowait and more, of all
/// cores. Waiting for I/O counts as busy, as in KCL.
fn machine(stat: &str) -> Option<Reading> {
    const IDLE: usize = 3;
    /// Guests' time is in the time of users already.
    const KINDS: usize = 8;
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Option<Vec<f64>> = line.split_whitespace().take(KINDS).map(|time| time.parse().ok()).collect();
    let times = times.filter(|times| times.len() > IDLE)?;
    let possible: f64 = times.iter().sum();
    Some(Reading { busy: possible - times.get(IDLE)?, possible })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_measured_by_its_quota() {
        assert_eq!(v2_cores("150000 100000\n"), Some(1.5));
        assert_eq!(v2_cores("max 100000\n"), None);
        assert_eq!(v1_cores("50000\n", "100000\n"), Some(0.5));
        assert_eq!(v1_cores("-1\n", "100000\n"), None);
        let stat = "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n";
        assert_eq!(v2_usage(stat), Some(Duration::from_millis(2500)));
        assert_eq!(v2_usage("user_usec 1\n"), None);
    }

    #[test]
    fn a_machine_is_measured_by_its_idle_time() {
        let first = machine("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3 4\n").unwrap();
        assert_eq!(first, Reading { busy: 200.0, possible: 1000.0 });
        let second = machine("cpu  150 0 75 950 75 0 0 0 99 99\n").unwrap();
        assert_eq!(second.percent_since(first), Some(40.0));
        assert_eq!(first.percent_since(first), None, "no time has passed");
        assert_eq!(machine("intr 1 2 3\n"), None);
        assert_eq!(machine("cpu  1 x 3 4\n"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_read_here_is_a_percentage() {
        let (clock, Some(source)) = (Clock::system(), Source::detect()) else { return };
        let mut meter = CpuMeter::Kernel { source, last: None };
        assert_eq!(meter.sample(&clock).await, Some(0.0));
        clock.sleep(Duration::from_secs(1)).await;
        let later = meter.sample(&clock).await;
        assert!(later.is_none_or(|percent| (0.0..=100.0).contains(&percent)));
    }
}
