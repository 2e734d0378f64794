use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::Moment;

/// Subscriptions that share a connection, unless the server was seen to allow fewer.
const SHARED_MAX: usize = 100;

/// For how long a lower limit is believed.
const LIMIT_VALID: Duration = Duration::from_secs(60 * 60);

/// Decides which pool a subscription uses: each pool is one HTTP/2 connection, and a server allows a limited
/// number of streams in it. Those beyond the limit get no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolLoads<N> {
    pools: BTreeMap<N, Load>,
    /// The limit that was seen, in which pool, and until when it is believed.
    limit: Option<(usize, N, Moment)>,
}

/// The subscriptions of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Load {
    /// All, those included that wait for a response.
    open: usize,
    /// Those that got one.
    answered: usize,
}

impl<N: Copy + Ord> PoolLoads<N> {
    pub(super) fn new() -> Self {
        Self { pools: BTreeMap::new(), limit: None }
    }

    /// Counts a subscription to the fullest pool with room. `None` if there is none: [add](Self::add) one.
    pub(super) fn join(&mut self, now: Moment) -> Option<N> {
        let limit = self.limit.filter(|(_, _, until)| now < *until).map_or(SHARED_MAX, |(limit, ..)| limit);
        let with_room = self.pools.iter_mut().filter(|(_, load)| load.open < limit);
        let (number, load) = with_room.max_by_key(|(_, load)| load.open)?;
        load.open += 1;
        Some(*number)
    }

    /// Adds a pool with one subscription.
    pub(super) fn add(&mut self, number: N) {
        self.pools.insert(number, Load { open: 1, answered: 0 });
    }

    /// A subscription got its response.
    pub(super) fn answered(&mut self, number: N) {
        self.change(number, |load| load.answered += 1);
    }

    /// A subscription that had its response has ended.
    pub(super) fn ended(&mut self, number: N) {
        self.change(number, |load| {
            load.open = load.open.saturating_sub(1);
            load.answered = load.answered.saturating_sub(1);
        });
    }

    /// A subscription was refused, or given up at once.
    pub(super) fn refused(&mut self, number: N) {
        self.change(number, |load| load.open = load.open.saturating_sub(1));
    }

    /// A subscription got no response: the connection has no room for it if it has others, and is dead
    /// otherwise.
    pub(super) fn unanswered(&mut self, number: N, now: Moment) {
        self.refused(number);
        match self.pools.get(&number) {
            Some(Load { answered: 0, .. }) => self.discard(number),
            Some(load) => self.limit = Some((load.answered, number, now + LIMIT_VALID)),
            None => {}
        }
    }

    /// The connection is dead: no subscription uses it from now on.
    pub(super) fn discard(&mut self, number: N) {
        self.pools.remove(&number);
        // What looked like a limit was this.
        self.limit = self.limit.filter(|(_, of, _)| *of != number);
    }

    /// Whether a pool is in use.
    pub(super) fn contains(&self, number: N) -> bool {
        self.pools.contains_key(&number)
    }

    fn change(&mut self, number: N, change: impl FnOnce(&mut Load)) {
        if let Some(load) = self.pools.get_mut(&number) {
            change(load);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_origin(Duration::from_secs(seconds))
    }

    /// Subscribes `count` times to a server that allows `allowed` in a connection, each again until it is
    /// answered. Returns how many each pool has, and how many got no response.
    fn subscribe(
        loads: &mut PoolLoads<usize>,
        count: usize,
        allowed: usize,
        now: Moment,
    ) -> (Vec<usize>, usize) {
        let mut unanswered = 0;
        for _ in 0..count {
            loop {
                let number = loads.join(now).unwrap_or_else(|| {
                    let number = loads.pools.keys().max().map_or(0, |last| last + 1);
                    loads.add(number);
                    number
                });
                if loads.pools[&number].answered < allowed {
                    loads.answered(number);
                    break;
                }
                loads.unanswered(number, now);
                unanswered += 1;
            }
        }
        (loads.pools.values().map(|load| load.open).collect(), unanswered)
    }

    #[test]
    fn hundreds_of_subscriptions_share_a_few_connections() {
        let mut loads = PoolLoads::new();
        assert_eq!(subscribe(&mut loads, 256, 128, at(0)), (vec![100, 100, 56], 0));
        (0..90).for_each(|_| loads.ended(0));
        assert_eq!(subscribe(&mut loads, 50, 128, at(1)), (vec![16, 100, 100], 0), "the fullest with room");
    }

    #[test]
    fn the_limit_of_a_server_is_found_and_kept_to() {
        let mut loads = PoolLoads::new();
        assert_eq!(subscribe(&mut loads, 12, 8, at(0)), (vec![8, 4], 1));
        assert_eq!(subscribe(&mut loads, 12, 8, at(1)), (vec![8, 8, 8], 0));
        // An hour later it is tried again.
        assert_eq!(subscribe(&mut loads, 1, 8, at(3601)).0, [8, 8, 8, 1]);
    }

    #[test]
    fn a_dead_connection_is_not_used_again_and_limits_nothing() {
        let mut loads = PoolLoads::new();
        loads.add(0);
        loads.unanswered(0, at(0));
        assert_eq!(loads.join(at(0)), None, "it has answered nobody");

        loads.add(1);
        loads.answered(1);
        assert_eq!(loads.join(at(0)), Some(1));
        loads.unanswered(1, at(30));
        assert_eq!(loads.join(at(30)), None, "as if it allowed one");
        loads.discard(1);
        loads.add(2);
        loads.answered(2);
        assert_eq!(loads.join(at(31)), Some(2), "it was dead");
        // Whatever was over the dead one ends without effect.
        loads.ended(1);
        loads.refused(1);
        assert!(!loads.contains(1) && loads.contains(2));
    }
}
