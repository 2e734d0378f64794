use std::sync::Arc;

use futures_util::{StreamExt, stream};

use crate::lease::HeldError;
use crate::overseer::holdings::Holding;
use crate::worker::Worker;

/// Renewals under way at once.
const CONCURRENT_RENEWALS: usize = 64;

/// Renews every lease this worker holds, for as long as it is polled (KCL's `LeaseRenewer`).
///
/// It does nothing else, and nothing else runs in its way: neither a slow scan nor a slow processor
/// delays a renewal. A lease that was written to within half a renewal interval, by a checkpoint, is
/// left for the next time: that write told the other workers the same.
pub(crate) async fn run(worker: Arc<Worker>) {
    let interval = worker.coordination.renew_interval();
    let mut next = worker.clock.now() + interval;
    loop {
        worker.clock.sleep_until(next).await;
        let started = worker.clock.now();
        let due = worker
            .holdings
            .all()
            .into_iter()
            .filter(|holding| started.since(holding.held.renewed()) > interval / 2);
        stream::iter(due).for_each_concurrent(CONCURRENT_RENEWALS, |holding| renew(&worker, holding)).await;
        next = next.max(started) + interval;
    }
}

async fn renew(worker: &Worker, holding: Holding) {
    let throughput = None;
    match holding.held.renew(throughput).await {
        Ok(()) => {}
        Err(HeldError::Lost) => tracing::info!(lease = %holding.held.key(), "lease lost"),
        Err(error) => {
            tracing::warn!(lease = %holding.held.key(), %error, "lease not renewed; trying again");
            worker.coordination_failed("RenewLease", &error);
        }
    }
}
