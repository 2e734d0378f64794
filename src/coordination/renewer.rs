use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Worker;
use super::health::Purpose;
use crate::error::with_causes;
use crate::lease::{HeldError, Throughput};
use crate::metrics::{Operation, names};
use crate::planted::{Bug, planted};
use crate::shard::HeldLeaseEntry;
use crate::types::{LeaseKey, Moment};

/// Renewals sent at once.
const CONCURRENT_RENEWALS: usize = 64;
/// Looks at all leases in one renewal interval while the table throttles writes.
const THROTTLED_LOOKS: u32 = 4;

/// Renews every lease this worker holds, for as long as it is polled (KCL's `LeaseRenewer`).
///
/// It does nothing else, and nothing else runs in its way: neither a slow scan nor a slow processor
/// delays a renewal, nor does the slow renewal of one lease delay that of another. A lease that was
/// written to within half a renewal interval, by a checkpoint, is left for the next time: that write
/// shown the other workers the same.
///
/// While the table throttles writes, leases are looked at four times as often and renewed as late as the
/// pace of the table allows, those that run out first before the others; checkpoints get what is left.
pub(crate) async fn run(worker: Arc<Worker>) {
    let interval = worker.context.coordination.renew_interval();
    let mut meters: HashMap<LeaseKey, Meter> = HashMap::new();
    // First come, first served: however many there are, none is renewed twice before another.
    let mut waiting: VecDeque<(Arc<HeldLeaseEntry>, Throughput)> = VecDeque::new();
    let mut under_way = FuturesUnordered::new();
    let mut handing_over = FuturesUnordered::new();
    let mut next = worker.context.clock.now() + interval;
    loop {
        while under_way.len() < CONCURRENT_RENEWALS {
            let Some((holding, throughput)) = waiting.pop_front() else { break };
            under_way.push(renew(&worker, holding, throughput));
        }
        tokio::select! {
            biased;
            Some(key) = under_way.next() => {
                if let Some(meter) = meters.get_mut(&key) {
                    meter.is_renewing = false;
                }
            }
            Some(()) = handing_over.next() => {}
            () = worker.context.clock.sleep_until(next) => {
                let now = worker.context.clock.now();
                let mut held_leases = worker.held_leases.all();
                worker.context.write_pacer.note_leases(held_leases.len());
                let is_throttled = worker.context.write_pacer.is_throttled();
                next = next.max(now) + if is_throttled { interval / THROTTLED_LOOKS } else { interval };
                let due_after = worker.context.write_pacer.renewal_age(interval / 2, held_leases.len());
                held_leases.sort_by_cached_key(|holding| holding.held.renewed());
                worker.context.metrics.operation(Operation::RenewAllLeases).add(names::CURRENT_LEASES, held_leases.len() as u64);
                meters.values_mut().for_each(|meter| meter.is_held = false);
                for holding in held_leases {
                    let meter = meter(&mut meters, &holding, now);
                    meter.is_held = true;
                    if let Some(behind) = holding.status.behind_latest() {
                        holding.held.note_behind_latest(behind);
                    }
                    // A checkpoint may have renewed it.
                    worker.health.landed(holding.held.renewed());
                    let may_take = worker.context.coordination.leader.graceful_handoff_timeout;
                    let is_overdue = |since| now.since(since) >= may_take || planted(Bug::HandsOverUnasked);
                    if holding.held.handoff_since().is_some_and(is_overdue) {
                        handing_over.push(hand_over(holding));
                        continue;
                    }
                    if !meter.is_renewing && now.since(holding.held.seen()) > due_after {
                        meter.is_renewing = true;
                        let throughput = meter.sample(holding.status.bytes_delivered(), now);
                        waiting.push_back((holding, throughput));
                    }
                }
                meters.retain(|_, meter| meter.is_held);
            }
        }
    }
}

/// Gives a lease away whose processor has not let go of it in the time given (KCL's
/// `LeaseGracefulShutdownHandler`).
async fn hand_over(holding: Arc<HeldLeaseEntry>) {
    tracing::warn!(lease = %holding.held.key(), "the processor has not returned in time for the handoff");
    if let Err(error) = holding.held.release().await {
        tracing::info!(lease = %holding.held.key(), %error, "the handoff is left to the leader");
    }
}

async fn renew(worker: &Worker, holding: Arc<HeldLeaseEntry>, throughput: Throughput) -> LeaseKey {
    let since = worker.context.clock.now();
    let is_asked = holding.held.is_valid();
    if is_asked {
        worker.health.sent(Purpose::Renewing, since);
    }
    let outcome = holding.held.renew(Some(throughput)).await;
    let took = worker.context.clock.now().since(since);
    let mut report = worker.context.metrics.operation(Operation::RenewAllLeases);
    report.outcome(names::RENEW_LEASE, outcome.is_ok(), took).outcome(names::RUN, outcome.is_ok(), took);
    match outcome {
        Ok(()) => worker.health.answered(Purpose::Renewing),
        Err(HeldError::Lost) => {
            if is_asked {
                worker.health.answered(Purpose::Renewing);
            }
            tracing::info!(lease = %holding.held.key(), "lease lost");
            report.add(names::LOST_LEASES, 1_u32);
        }
        Err(error) => {
            tracing::warn!(lease = %holding.held.key(), %error, "lease not renewed; trying again");
            worker.health.failed(Purpose::Renewing, with_causes(&error));
            worker.context.coordination_failed("RenewLease", &error);
        }
    }
    holding.held.key().clone()
}

fn meter<'a>(
    meters: &'a mut HashMap<LeaseKey, Meter>,
    holding: &HeldLeaseEntry,
    now: Moment,
) -> &'a mut Meter {
    meters.entry(holding.held.key().clone()).or_insert_with(|| Meter::new(holding, now))
}

/// How fast the records of one lease are delivered (KCL's `LeaseStatsRecorder`).
#[derive(Debug)]
struct Meter {
    /// The lease is held still.
    is_held: bool,
    /// It is being renewed, or waits for its turn.
    is_renewing: bool,
    bytes: u64,
    since: Moment,
    average: Option<Throughput>,
}

impl Meter {
    fn new(holding: &HeldLeaseEntry, now: Moment) -> Self {
        let lease = holding.held.lease();
        Self { is_held: true, is_renewing: false, bytes: 0, since: now, average: lease.throughput }
    }

    /// The average with what was delivered since the last sample, of `bytes` in all.
    fn sample(&mut self, bytes: u64, now: Moment) -> Throughput {
        // The count starts again with every acquisition.
        let delivered = bytes.checked_sub(self.bytes).unwrap_or(bytes);
        let sample = Throughput::from_bytes(delivered, now.since(self.since));
        (self.bytes, self.since) = (bytes, now);
        *self.average.insert(self.average.map_or(sample, |average| average.averaged_with(sample)))
    }
}
