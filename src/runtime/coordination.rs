use std::future::Future;
use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

/// Where lease coordination runs: on its own thread and runtime, so that user code that blocks the
/// threads of its runtime does not cost the worker its leases. Dropping it stops the thread.
#[derive(Debug)]
pub(crate) struct Coordination {
    handle: Handle,
    _stop: Option<DropGuard>,
}

impl Coordination {
    /// Its own thread.
    pub(crate) fn on_own_thread(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        // It ends when `stop` is dropped; its tasks are owned through abort handles.
        thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(stopped.cancelled()))?;
        Ok(Self { handle, _stop: Some(stop.drop_guard()) })
    }

    /// The runtime of the caller, for simulations in which everything shares one paused clock.
    pub(crate) fn on_current_runtime() -> Self {
        Self { handle: Handle::current(), _stop: None }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs `future` here; dropping the returned handle aborts it.
    pub(crate) fn spawn<F>(&self, future: F) -> AbortOnDropHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        AbortOnDropHandle::new(self.handle.spawn(future))
    }
}
