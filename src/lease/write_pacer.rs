use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::StoreError;
use super::write_pacing::WritePacing;
use crate::events::{Event, EventSink};
use crate::runtime::Clock;
use crate::types::{Moment, WorkerId};

/// If the write whose turn it is has not been sent for so long, because user code blocks its runtime, the
/// others go on.
const STALLED: Duration = Duration::from_millis(100);

/// Lets the writes of one worker's leases go to a table that throttles them, the lease that runs out first
/// before the others. While nothing is throttled, every write goes at once.
///
/// There is at most one write waiting per lease, because writes to one lease go one at a time.
#[derive(Debug)]
pub(crate) struct WritePacer {
    clock: Clock,
    failover_time: Duration,
    events: EventSink,
    leases: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    pacing: WritePacing,
    rng: fastrand::Rng,
    /// Who waits, by when the lease runs out.
    waiting: BTreeMap<(Moment, u64), Arc<Notify>>,
    last: u64,
}

/// What is to be done while waiting for a turn.
enum Turn {
    Now,
    NotBefore(Moment),
}

impl WritePacer {
    pub(crate) fn new(clock: Clock, failover_time: Duration, events: EventSink, worker: &WorkerId) -> Self {
        // Workers on one table are to differ in their pauses, and that is all.
        let seed = worker.as_str().bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31) ^ u64::from(byte));
        let queue = Queue {
            pacing: WritePacing::new(failover_time),
            rng: fastrand::Rng::with_seed(seed),
            waiting: BTreeMap::new(),
            last: 0,
        };
        Self { clock, failover_time, events, leases: AtomicUsize::new(0), queue: Mutex::new(queue) }
    }

    /// Waits until a write to a lease that runs out at `expires` may be sent. It must be followed by
    /// [`accepted`](Self::accepted), [`refused`](Self::refused) or [`not_sent`](Self::not_sent), or the
    /// next one waits a little longer.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nobody waits for it.
    pub(crate) async fn turn(&self, expires: Moment) {
        let ticket = {
            let mut queue = self.queue.lock();
            if queue.waiting.is_empty() && queue.pacing.send(expires, self.clock.now()).is_ok() {
                return;
            }
            queue.last += 1;
            let (place, notify) = ((expires, queue.last), Arc::new(Notify::new()));
            queue.waiting.insert(place, Arc::clone(&notify));
            Ticket { pacer: self, place, notify }
        };
        loop {
            let turn = self.queue.lock().turn(ticket.place, self.clock.now());
            match turn {
                Turn::Now => return,
                Turn::NotBefore(moment) => tokio::select! {
                    () = ticket.notify.notified() => {}
                    () = self.clock.sleep_until(moment) => {}
                },
            }
        }
    }

    /// A write was not sent after all.
    pub(crate) fn not_sent(&self) {
        let mut queue = self.queue.lock();
        queue.pacing.not_sent();
        queue.notify_first();
    }

    /// The table answered a write.
    pub(crate) fn accepted(&self) {
        let mut queue = self.queue.lock();
        queue.pacing.accepted(self.clock.now());
        queue.notify_first();
    }

    /// The table throttled a write. Reported at most once a minute.
    pub(crate) fn refused(&self, error: &StoreError) {
        let now = self.clock.now();
        let mut queue = self.queue.lock();
        let jitter = queue.rng.f64();
        let is_reported = queue.pacing.refused(now, jitter);
        let sustainable = queue.pacing.sustainable(self.failover_time, now);
        queue.notify_first();
        drop(queue);
        if is_reported {
            let leases = self.leases.load(Ordering::Relaxed);
            let reason = error.to_string();
            tracing::warn!(
                leases,
                ?sustainable,
                reason,
                "the lease table throttles writes; raise its write capacity or switch it to on-demand billing"
            );
            self.events.emit(Event::LeaseTableThrottled { leases, sustainable, reason: reason.into() });
        }
    }

    /// This worker holds this many leases.
    pub(crate) fn note_leases(&self, leases: usize) {
        self.leases.store(leases, Ordering::Relaxed);
    }

    pub(crate) fn is_throttled(&self) -> bool {
        !self.queue.lock().pacing.is_free(self.clock.now())
    }

    /// How many leases may be taken now.
    pub(crate) fn takes(&self, held: usize) -> usize {
        self.queue.lock().pacing.takes(held, self.failover_time, self.clock.now())
    }

    /// How long ago the last write to a lease must be for it to be renewed.
    pub(crate) fn renewal_age(&self, usual: Duration, leases: usize) -> Duration {
        self.queue.lock().pacing.renewal_age(usual, self.failover_time, leases, self.clock.now())
    }
}

impl Queue {
    fn turn(&mut self, place: (Moment, u64), now: Moment) -> Turn {
        let is_first = self.waiting.keys().next() == Some(&place);
        let patience = if is_first { Duration::ZERO } else { STALLED };
        if let Some(next) = self.pacing.next(place.0, now).map(|next| next + patience)
            && now < next
        {
            return Turn::NotBefore(next);
        }
        match self.pacing.send(place.0, now) {
            Ok(()) => Turn::Now,
            Err(next) => Turn::NotBefore(next + patience),
        }
    }

    fn notify_first(&self) {
        if let Some(first) = self.waiting.values().next() {
            first.notify_one();
        }
    }
}

/// A place in the queue.
struct Ticket<'a> {
    pacer: &'a WritePacer,
    place: (Moment, u64),
    notify: Arc<Notify>,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut queue = self.pacer.queue.lock();
        queue.waiting.remove(&self.place);
        queue.notify_first();
    }
}
