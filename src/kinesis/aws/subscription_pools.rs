use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use parking_lot::Mutex;

use super::pool_loads::PoolLoads;
use crate::connections::PoolNumber;
use crate::runtime::Clock;
use crate::types::Moment;

/// A subscription that gets no response has met a full or a dead connection if it has waited for this long,
/// or for half of its timeout.
const SUSPICIOUS: Duration = Duration::from_secs(1);

/// The connections of subscriptions: apart from those of requests, which must not wait behind them, and as
/// many as are needed. Cloned cheaply.
#[derive(Clone)]
pub(super) struct SubscriptionPools {
    open: Arc<dyn Fn(PoolNumber) -> Client + Send + Sync>,
    pools: Arc<Mutex<Pools>>,
    clock: Clock,
}

struct Pools {
    loads: PoolLoads<PoolNumber>,
    clients: BTreeMap<PoolNumber, Client>,
}

impl SubscriptionPools {
    /// The pools of the clients that `open` returns.
    pub(super) fn new(clock: Clock, open: impl Fn(PoolNumber) -> Client + Send + Sync + 'static) -> Self {
        let pools = Pools { loads: PoolLoads::new(), clients: BTreeMap::new() };
        Self { open: Arc::new(open), pools: Arc::new(Mutex::new(pools)), clock }
    }

    /// A place for a subscription that is asked for now, and given up after `timeout`.
    pub(super) fn join(&self, timeout: Duration) -> (Client, Slot) {
        let now = self.clock.now();
        let mut pools = self.pools.lock();
        let number = pools.loads.join(now).unwrap_or_else(|| {
            let number = PoolNumber::next();
            pools.loads.add(number);
            number
        });
        let client = pools.clients.entry(number).or_insert_with(|| (self.open)(number)).clone();
        drop(pools);
        let suspicious = now + SUSPICIOUS.min(timeout / 2);
        (client, Slot { pools: self.clone(), number, state: SlotState::Waiting { suspicious } })
    }

    fn change(&self, change: impl FnOnce(&mut PoolLoads<PoolNumber>)) {
        let mut pools = self.pools.lock();
        let Pools { loads, clients } = &mut *pools;
        change(loads);
        clients.retain(|number, _| loads.contains(*number));
    }
}

impl fmt::Debug for SubscriptionPools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionPools").field("loads", &self.pools.lock().loads).finish_non_exhaustive()
    }
}

/// The place of one subscription in a pool, free again when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    pools: SubscriptionPools,
    number: PoolNumber,
    state: SlotState,
}

#[derive(Debug, Clone, Copy)]
enum SlotState {
    Waiting { suspicious: Moment },
    Answered,
    Refused,
    Unanswered,
}

impl Slot {
    /// The subscription is open.
    pub(super) fn answered(&mut self) {
        self.state = SlotState::Answered;
        self.pools.change(|loads| loads.answered(self.number));
    }

    /// The service refused it.
    pub(super) fn refused(mut self) {
        self.state = SlotState::Refused;
    }

    /// There was no response within a timeout.
    pub(super) fn unanswered(mut self) {
        self.state = SlotState::Unanswered;
    }

    /// An open subscription got nothing for too long: its connection is dead.
    pub(super) fn connection_lost(&self) {
        self.pools.change(|loads| loads.discard(self.number));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (number, now) = (self.number, self.pools.clock.now());
        self.pools.change(|loads| match self.state {
            SlotState::Answered => loads.ended(number),
            SlotState::Waiting { suspicious } if now < suspicious => loads.refused(number),
            SlotState::Refused => loads.refused(number),
            SlotState::Waiting { .. } | SlotState::Unanswered => loads.unanswered(number, now),
        });
    }
}
