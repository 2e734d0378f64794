use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// What waits to be taken by a stream, in the order in which it became ready. Each shard of the worker is in it once
/// at most.
#[derive(Debug)]
pub(crate) struct ReadyList<T> {
    state: Mutex<State<T>>,
    waker: AtomicWaker,
}

#[derive(Debug)]
struct State<T> {
    ready: VecDeque<T>,
    /// Nothing is added any more.
    is_closed: bool,
}

impl<T> Default for ReadyList<T> {
    fn default() -> Self {
        let state = State { ready: VecDeque::new(), is_closed: false };
        Self { state: Mutex::new(state), waker: AtomicWaker::new() }
    }
}

impl<T> ReadyList<T> {
    /// Adds it at the end.
    pub(super) fn push(&self, item: T) {
        self.state().ready.push_back(item);
        self.waker.wake();
    }

    /// Adds it at the end, by who takes it next.
    pub(super) fn put_back(&self, item: T) {
        self.state().ready.push_back(item);
    }

    /// Takes the first one; `None` at the end.
    pub(super) fn poll_pop(&self, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(item) = self.state().ready.pop_front() {
            return Poll::Ready(Some(item));
        }
        self.waker.register(context.waker());
        // It may have been added before the waker was.
        let mut state = self.state();
        match state.ready.pop_front() {
            Some(item) => Poll::Ready(Some(item)),
            None if state.is_closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Ends it: what is in it can still be taken.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.waker.wake();
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }
}
