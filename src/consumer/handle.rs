use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::health::{Health, Main, judge, problem_of};
use crate::config::StreamConfig;
use crate::coordination::Measure;
use crate::coordination::Worker;
use crate::error::{Error, ErrorKind, invalid};
use crate::events::{Events, StopReason};
use crate::runtime::Coordination;
use crate::shard::ShardStatus;
use crate::stream_tracker::{Removed, StreamStatus, find};
use crate::types::{StreamId, WorkerId};

use super::signal::Signals;

/// The most shards an error names.
const SHARDS_NAMED_MAX: usize = 8;

/// A running consumer. Cheap to clone.
///
/// Dropping the last clone stops the consumer the hard way: nothing more is delivered once the
/// callbacks that are running reach an await point, and its leases expire after the failover time.
/// Call [`shutdown`](Self::shutdown) to stop it properly.
#[derive(Clone)]
#[must_use = "dropping the handle stops the consumer"]
pub struct ConsumerHandle(Arc<Running>);

pub(super) struct Running {
    pub(super) worker: Arc<Worker>,
    pub(super) finished: watch::Receiver<Option<Finished>>,
    pub(super) _main: AbortOnDropHandle<()>,
    pub(super) _coordination: Coordination,
}

/// How the loops came to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Finished {
    /// Processors that did not return within the shutdown timeout.
    pub(super) left_behind: usize,
}

/// How a consumer is doing, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Status {
    /// This worker.
    pub worker_id: WorkerId,
    /// The application.
    pub application: String,
    /// The streams, and which of them cannot be read.
    pub streams: Vec<StreamStatus>,
    /// Whether all is well.
    pub health: Health,
    /// What is wrong besides the problems of [streams](Self::streams), in words, and what to do about it;
    /// empty if all is well. The texts are for people and may change in any release.
    pub problems: Vec<String>,
    /// The leader as far as this worker knows, in a fleet that has one.
    pub leader: Option<WorkerId>,
    /// The leases this worker holds and how their shards are doing, in the order of lease keys.
    pub shards: Vec<ShardStatus>,
}

impl ConsumerHandle {
    pub(super) fn new(running: Running) -> Self {
        Self(Arc::new(running))
    }

    #[cfg(feature = "http")]
    pub(crate) fn clock(&self) -> &crate::runtime::Clock {
        &self.0.worker.context.clock
    }

    /// Cancelled when the consumer is to stop.
    pub(super) fn stopping(&self) -> CancellationToken {
        self.0.worker.context.stopping.clone()
    }

    /// What the consumer holds and how it is doing. Cheap: reads memory only, and never waits for
    /// user code or I/O.
    #[must_use]
    pub fn status(&self) -> Status {
        let worker = &self.0.worker;
        let shards = worker.held_leases.statuses();
        let streams = worker.streams.statuses();
        let measure = Measure {
            worker: &worker.context.id,
            failover_time: worker.context.coordination.failover_time,
            held: shards.len(),
            max_leases: worker.context.management.max_leases,
        };
        let mut problems = worker.health.problems(measure, worker.context.clock.now());
        problems.extend(shards.iter().filter_map(problem_of));
        let is_in_trouble = !problems.is_empty() || streams.iter().any(|stream| stream.problem.is_some());
        let health = judge(self.main(), worker.context.stopping.is_cancelled(), is_in_trouble);
        Status {
            worker_id: worker.context.id.clone(),
            application: worker.context.application.to_string(),
            streams,
            health,
            problems,
            leader: worker.election.leader(),
            shards,
        }
    }

    /// What happens from now on. See [`Consumer::events`](crate::Consumer::events) for the events of the
    /// start, too.
    #[must_use]
    pub fn events(&self) -> Events {
        self.0.worker.context.events.listen()
    }

    /// Reads one more stream from now on, in multi-stream mode. Returns what it is called there.
    ///
    /// Only this worker does: call it on every worker of the application (in a fleet with a leader, see
    /// [`remove_stream`](Self::remove_stream)). Without leases in the table,
    /// the stream is read from its start strategy, where `LATEST` means since this call; with leases,
    /// from their checkpoints.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the stream does not exist, permissions are missing, a setting is wrong,
    /// the consumer reads it already or is no consumer of several streams;
    /// [`ErrorKind::Unavailable`] if Kinesis does not answer; [`ErrorKind::Closed`] if the consumer is
    /// stopping. The stream is not added then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream is not added.
    pub async fn add_stream(&self, stream: impl Into<StreamConfig>) -> Result<StreamId, Error> {
        let worker = &self.0.worker;
        check_multi(worker)?;
        let strategy = worker.context.management.start_strategy;
        let wanted = stream.into().complete(
            true,
            strategy,
            &worker.context.lease_config,
            &worker.context.application,
        )?;
        let already =
            || invalid(format!("stream {0} is read already, or another called {0}: give the ARN", wanted.id));
        if worker.streams.knows(&wanted.id) {
            return Err(already());
        }
        let found = find(&worker.context, true, &wanted, None).await?;
        let id = found.id.clone();
        if worker.context.stopping.is_cancelled() {
            return Err(Error::new(
                ErrorKind::Closed,
                format!("stream {id} is not added: the consumer stops"),
            ));
        }
        if !worker.streams.track(found) {
            return Err(already());
        }
        tracing::info!(stream = %id, "stream added");
        Ok(id)
    }

    /// Stops reading a stream, given by name, ARN or
    /// [`<account>:<name>:<creation epoch>`](StreamId::serialized), in multi-stream mode. Its processors
    /// get the callbacks of a [`shutdown`](Self::shutdown), and its leases are given back. Returns when
    /// that is done.
    ///
    /// Only this worker stops: others of the application take the leases over and go on, until it is
    /// called on each of them. (In a fleet with a leader, only as long as the leader reads the stream: it
    /// assigns the leases of the streams that it reads itself. What it assigns to a worker that does not
    /// read the stream is given back.) The rows of the lease table stay: should the stream be added
    /// again, it is read from its checkpoints. If it never is, delete the rows whose `streamName` is the stream's
    /// [`serialized`](StreamId::serialized) form, once no worker reads it any more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the consumer does not read the stream, or reads several of that name;
    /// [`ErrorKind::Unavailable`] if processors did not return within the shutdown timeout: what they hold
    /// is given back when they do.
    ///
    /// # Cancel safety
    ///
    /// The removal goes on when the future is dropped.
    pub async fn remove_stream(&self, stream: &str) -> Result<(), Error> {
        let worker = &self.0.worker;
        check_multi(worker)?;
        let which = stream.parse().map_err(|error| invalid("stream is not valid").with_source(error))?;
        let removed = match worker.streams.remove(&which) {
            Removed::Tracked(stream) => stream,
            Removed::Waiting => return Ok(()),
            Removed::Unknown => return Err(invalid(format!("stream {stream} is not read by this consumer"))),
            Removed::Ambiguous => {
                return Err(invalid(format!("several streams are called {stream}; give the ARN")));
            }
        };
        tracing::info!(stream = %removed.id, "stream removed");
        if worker.context.stopping.is_cancelled() {
            // The coordinator looks at the list no more.
            removed.consumers.close();
        }
        let timeout = worker.context.lifecycle.shutdown_timeout;
        worker.context.clock.timeout(timeout, removed.consumers.wait()).await.map_err(|_| {
            let left = worker.held_leases.statuses();
            let left = left.iter().filter(|shard| shard.stream == removed.id).count();
            Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{left} processor(s) of stream {} did not return within the shutdown timeout of {} ms; \
                     their leases are given back when they do",
                    removed.id,
                    timeout.as_millis()
                ),
            )
        })
    }

    /// Stops gracefully: fetching stops at once; each processor, after the call that is running, gets
    /// `shutdown_requested` and may checkpoint; its lease is given back, so that other workers take it
    /// at once; then it gets `lease_lost`. Returns when all of that is done and metrics are flushed.
    ///
    /// May be called more than once, and from several tasks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] if processors did not return within the shutdown timeout
    /// ([`LifecycleConfig::shutdown_timeout`](crate::LifecycleConfig::shutdown_timeout)); their
    /// leases expire after the failover time.
    ///
    /// # Cancel safety
    ///
    /// The shutdown goes on when the future is dropped.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.0.worker.context.stopping.cancel();
        self.wait().await.map(|_| ())
    }

    /// Waits until the consumer has stopped, and returns why. Nothing but
    /// [`shutdown`](Self::shutdown) stops it: every failure at run time is tried again. A supervisor that
    /// awaits this needs no liveness probe; see [`Health`] for what probes should look at.
    ///
    /// # Errors
    ///
    /// As [`shutdown`](Self::shutdown); [`ErrorKind::Internal`] if its loops failed.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn wait(&self) -> Result<StopReason, Error> {
        let mut finished = self.0.finished.clone();
        let finished = finished.wait_for(Option::is_some).await.ok().and_then(|finished| *finished);
        match finished {
            Some(Finished { left_behind: 0 }) => Ok(StopReason::Shutdown),
            Some(Finished { left_behind }) => Err(self.left_behind(left_behind)),
            None => {
                Err(Error::new(ErrorKind::Internal, "the coordination of the consumer failed; see the log"))
            }
        }
    }

    /// Deregisters the application's consumer of each stream for enhanced fan-out, which is never done by itself: the
    /// service charges for a registered consumer as long as it exists. Meant for the end of an
    /// application: workers that still run would register it again, or poll. Does nothing where the
    /// consumer was given by its ARN, or shards are polled.
    ///
    /// # Errors
    ///
    /// As the service answers DescribeStreamConsumer and DeregisterStreamConsumer; the first such error, after
    /// all streams were tried. The consumer of a stream that was removed before is left registered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the consumer registered.
    pub async fn deregister_fan_out_consumer(&self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for stream in self.0.worker.streams.tracked() {
            if let Some(fan_out) = &stream.fan_out {
                outcome = outcome.and(fan_out.registration.deregister().await);
            }
        }
        outcome.map_err(Error::from)
    }

    /// Waits for `request` and then stops gracefully, as [`shutdown`](Self::shutdown) does. Returns when
    /// that is done, or when the consumer has stopped before the request came.
    ///
    /// ```no_run
    /// # async fn run(handle: kinesis_consumer::ConsumerHandle) -> Result<(), kinesis_consumer::Error> {
    /// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    /// tokio::spawn(async move {
    ///     // ... and `stop.send(())` when it is time.
    ///     # drop(stop);
    /// });
    /// handle.shutdown_on(async { drop(stopped.await) }).await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`shutdown`](Self::shutdown) and [`wait`](Self::wait).
    ///
    /// # Cancel safety
    ///
    /// Dropped before the request came, the consumer goes on; afterwards, the shutdown does.
    pub async fn shutdown_on(&self, request: impl Future<Output = ()> + Send) -> Result<(), Error> {
        tokio::select! {
            // A consumer that has stopped needs no request any more.
            biased;
            stopped = self.wait() => stopped.map(|_| ()),
            () = request => self.shutdown().await,
        }
    }

    /// Stops gracefully, as [`shutdown`](Self::shutdown) does, when the process is asked to end: by
    /// SIGTERM, which containers and service managers send, or by SIGINT, which Ctrl-C sends; on other
    /// systems than Unix by Ctrl-C. Returns when that is done, or when the consumer has stopped before.
    ///
    /// A service manager kills what has not ended after its grace period: give it more than
    /// [`LifecycleConfig::shutdown_timeout`](crate::LifecycleConfig::shutdown_timeout).
    ///
    /// From the first call on these signals no longer end the process by themselves, also after this has
    /// returned: end it by returning from `main`. Further signals change nothing about a shutdown that
    /// has begun. Several consumers of a process may each wait here.
    ///
    /// ```no_run
    /// # async fn run(consumer: kinesis_consumer::Consumer) -> Result<(), kinesis_consumer::Error> {
    /// let handle = consumer.start().await?;
    /// handle.shutdown_on_signal().await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`shutdown_on`](Self::shutdown_on); [`ErrorKind::Invalid`] if the process cannot listen to its
    /// signals: the consumer goes on then.
    ///
    /// # Panics
    ///
    /// If the runtime was built without `enable_io` or `enable_all`.
    ///
    /// # Cancel safety
    ///
    /// As [`shutdown_on`](Self::shutdown_on).
    pub async fn shutdown_on_signal(&self) -> Result<(), Error> {
        let mut signals = Signals::listen().map_err(|error| {
            invalid("the signals that end this process cannot be listened to; call shutdown() instead")
                .with_source(error)
        })?;
        self.shutdown_on(async {
            let signal = signals.next().await;
            tracing::info!(signal, "shutting down: the process is asked to end");
        })
        .await
    }

    fn main(&self) -> Main {
        let finished = &self.0.finished;
        // The sender goes with the main task.
        let is_gone = finished.has_changed().is_err();
        match *finished.borrow() {
            Some(_) => Main::Finished,
            None if is_gone => Main::Gone,
            None => Main::Running,
        }
    }

    fn left_behind(&self, count: usize) -> Error {
        let worker = &self.0.worker;
        let shards: Vec<_> = worker
            .held_leases
            .statuses()
            .into_iter()
            .take(SHARDS_NAMED_MAX)
            .map(|status| format!("{}/{}", status.stream, status.shard))
            .collect();
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "{count} processor(s) did not return within the shutdown timeout of {} ms, among \
                 them those of {shards:?}; their leases will expire after the failover time",
                worker.context.lifecycle.shutdown_timeout.as_millis(),
            ),
        )
    }
}

fn check_multi(worker: &Worker) -> Result<(), Error> {
    if worker.streams.is_multi() {
        return Ok(());
    }
    Err(invalid(
        "this consumer reads a single stream, and its leases do not say which; to add and remove streams, give \
         them to the builder with streams([..])",
    ))
}

impl fmt::Debug for ConsumerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerHandle").field("worker", &self.0.worker).finish_non_exhaustive()
    }
}
