use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Fuse, FusedFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;

use super::shard::{Closed, FailedRecord, ShardDeliveries};
use crate::handler::{GiveUp, Interrupted, Next};
use crate::types::ExtendedSequenceNumber;

/// Stores how far the records of a shard are done, and does as the error policy says with those that failed; until
/// `stop`, and then until what it is storing is stored.
pub(super) async fn run(shard: Arc<ShardDeliveries>, stop: CancellationToken) {
    let clock = &shard.handler.parts().clock;
    let lost = shard.handler.parts().held.lost();
    let mut interrupted = pin!(shard.checkpointer().interrupted().fuse());
    let mut giving_up = FuturesUnordered::new();
    let mut storing = Fuse::terminated();
    let mut due = None;
    loop {
        let now = clock.now();
        let todo = shard.todo(now);
        for failed in todo.failed {
            match shard.handler.decide(std::slice::from_ref(&failed.record), failed.failed, &failed.error) {
                Next::Retry(pause) => shard.retry_at(failed.slot, now + pause),
                Next::GiveUp(reason) => {
                    if shard.handler.stops_at_what_is_given_up() {
                        shard.hold_back();
                    }
                    giving_up.push(give_up(&shard, failed, reason));
                }
                // A single record is not divided.
                Next::Split | Next::OneByOne => shard.retry_at(failed.slot, now),
            }
        }
        let mut wake_at = shard.next_pause_end();
        if storing.is_terminated()
            && let Some((position, slot)) = todo.unstored
        {
            let due_at = *due.get_or_insert(now + shard.checkpoint_every);
            if todo.is_urgent || due_at <= now {
                due = None;
                storing = Box::pin(store(&shard, position, slot)).fuse();
            } else {
                wake_at = wake_at.into_iter().chain([due_at]).min();
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = lost.cancelled(), if !shard.is_closed() => shard.close(Closed::LeaseGone),
            _ = &mut interrupted => shard.stop_handing_out(),
            Some(given_up) = giving_up.next() => {
                if let Ok(slot) = given_up {
                    shard.complete(slot);
                }
            }
            () = &mut storing => {}
            () = shard.wake.notified() => {}
            () = clock.sleep_until(wake_at.unwrap_or_default()), if wake_at.is_some() => {}
        }
    }
    drop(giving_up);
    if !storing.is_terminated() {
        storing.await;
    }
}

async fn give_up(shard: &ShardDeliveries, failed: FailedRecord, reason: GiveUp) -> Result<u64, Interrupted> {
    let FailedRecord { slot, record, failed, error } = failed;
    shard.handler.give_up(&[record], failed, reason, &error).await.map(|()| slot)
}

/// Stores that everything up to `position` is done, which is before `slot`.
pub(super) async fn store(shard: &ShardDeliveries, position: ExtendedSequenceNumber, slot: u64) {
    if shard.handler.checkpoint(position).await {
        shard.note_stored(slot);
    }
}
