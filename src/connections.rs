//! HTTP connections that are given up when they no longer answer.
//!
//! The HTTP client of the AWS SDK keeps a pool of connections for each pair of a connect timeout and a read
//! timeout, and keeps using a connection whose requests get no response. After a network fault that closes
//! nothing, all requests over it would fail until the kernel gives up. Clients with a read timeout that no
//! other client has use connections of their own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::error::SdkError;
use aws_smithy_types::timeout::TimeoutConfig;
use parking_lot::Mutex;

use crate::runtime::Clock;
use crate::types::Moment;

/// Long enough never to matter: every request has a timeout of its own.
const READ_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A request that is dropped without a response has met a dead connection if it has waited for this long, or
/// for half of its timeout.
const SUSPICIOUS: Duration = Duration::from_secs(1);

/// How many pools there may be at a time in one process: their numbers begin again after that.
const NUMBERS: u32 = 100_000;

/// The number of a pool of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PoolNumber(u32);

impl PoolNumber {
    /// One that no other pool in this process has.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed) % NUMBERS)
    }

    /// The timeouts with which a client uses this pool, otherwise those in `base`.
    pub(crate) fn timeouts(self, base: Option<&TimeoutConfig>) -> TimeoutConfig {
        let base = base.cloned().unwrap_or_else(|| TimeoutConfig::builder().build());
        let read_timeout = base.read_timeout().unwrap_or(READ_TIMEOUT);
        let own = read_timeout + Duration::from_micros(u64::from(self.0) + 1);
        base.to_builder().read_timeout(own).build()
    }
}

/// The clients that requests are sent with, all over the same pool of connections. Cloned cheaply.
pub(crate) struct Connections<C> {
    open: Arc<dyn Fn(PoolNumber) -> C + Send + Sync>,
    current: Arc<Mutex<(PoolNumber, C)>>,
    clock: Clock,
}

impl<C: Clone> Connections<C> {
    /// Connections for the clients that `open` returns.
    pub(crate) fn new(clock: Clock, open: impl Fn(PoolNumber) -> C + Send + Sync + 'static) -> Self {
        let number = PoolNumber::next();
        let current = Arc::new(Mutex::new((number, open(number))));
        Self { open: Arc::new(open), current, clock }
    }

    /// The clients for the next request.
    pub(crate) fn clients(&self) -> C {
        self.current.lock().1.clone()
    }

    /// Watches over a request that is sent now and given up after `timeout`.
    pub(crate) fn watch(&self, timeout: Duration) -> InFlight<C> {
        InFlight {
            number: self.current.lock().0,
            suspicious: self.clock.now() + SUSPICIOUS.min(timeout / 2),
            connections: self.clone(),
            is_answered: false,
        }
    }

    /// Opens new connections for the requests from now on, unless those of `number` are out of use already.
    fn discard(&self, number: PoolNumber) {
        let mut current = self.current.lock();
        if current.0 == number {
            let next = PoolNumber::next();
            tracing::debug!("a request got no response; the next one goes over a new connection");
            *current = (next, (self.open)(next));
        }
    }
}

impl<C> Clone for Connections<C> {
    fn clone(&self) -> Self {
        Self { open: Arc::clone(&self.open), current: Arc::clone(&self.current), clock: self.clock.clone() }
    }
}

impl<C> fmt::Debug for Connections<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

/// A request that is under way. If it is dropped without a response, its connections are not used again.
#[derive(Debug)]
pub(crate) struct InFlight<C: Clone> {
    connections: Connections<C>,
    number: PoolNumber,
    suspicious: Moment,
    is_answered: bool,
}

impl<C: Clone> InFlight<C> {
    /// There was a response, or a failure that is not a timeout.
    pub(crate) fn answered(mut self) {
        self.is_answered = true;
    }

    /// There was no response within a timeout of the SDK.
    pub(crate) fn timed_out(mut self) {
        self.is_answered = true;
        self.connections.discard(self.number);
    }
}

impl<C: Clone> Drop for InFlight<C> {
    fn drop(&mut self) {
        if !self.is_answered && self.connections.clock.now() >= self.suspicious {
            self.connections.discard(self.number);
        }
    }
}

/// Whether a request got no response within a timeout of the SDK.
pub(crate) fn is_timeout<E, R>(failure: &SdkError<E, R>) -> bool {
    match failure {
        SdkError::TimeoutError(_) => true,
        SdkError::DispatchFailure(failure) => failure.is_timeout(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn connections() -> Connections<PoolNumber> {
        Connections::new(Clock::simulated(SystemTime::UNIX_EPOCH, 1.0), |number| number)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_gets_no_response_is_the_last_one_over_its_connection() {
        let connections = connections();
        let first = connections.clients();
        let requests = [(); 3].map(|()| connections.watch(5 * SECOND));
        connections.clock.sleep(2 * SECOND).await;
        let [given_up, answered, late] = requests;
        answered.answered();
        assert_eq!(connections.clients(), first);
        drop(given_up);
        let second = connections.clients();
        assert_ne!(second, first);
        drop(late);
        assert_eq!(connections.clients(), second, "that connection is out of use already");
        connections.watch(5 * SECOND).timed_out();
        assert_ne!(connections.clients(), second);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_dropped_at_once_shows_nothing() {
        let connections = connections();
        let first = connections.clients();
        drop(connections.watch(5 * SECOND));
        let short = connections.watch(SECOND / 5);
        connections.clock.sleep(SECOND / 20).await;
        drop(short);
        assert_eq!(connections.clients(), first);
        let short = connections.watch(SECOND / 5);
        connections.clock.sleep(SECOND / 5).await;
        drop(short);
        assert_ne!(connections.clients(), first);
    }

    #[test]
    fn every_pool_has_timeouts_of_its_own() {
        let (one, other) = (PoolNumber::next(), PoolNumber::next());
        let base = TimeoutConfig::builder().connect_timeout(SECOND).read_timeout(20 * SECOND).build();
        let timeouts = [one.timeouts(Some(&base)), other.timeouts(Some(&base)), one.timeouts(None)];
        assert_ne!(timeouts[0].read_timeout(), timeouts[1].read_timeout());
        assert_eq!(timeouts[0].connect_timeout(), Some(SECOND));
        assert!(timeouts[0].read_timeout().is_some_and(|timeout| timeout - 20 * SECOND < SECOND));
        assert!(timeouts[2].read_timeout() > Some(1000 * SECOND));
    }
}
