//! A fleet without faults: it must recover and settle, and hand leases over when a worker leaves or
//! dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use kinesis_consumer::lease::{Item, Lease};
use kinesis_consumer::{LeaseKey, ShardId};

use super::{STREAM, World};
use crate::faults::Odds;
use crate::history::{EventKind, Incarnation};
use crate::scenario::{FAILOVER, Start};

/// Owners that did not change for this long, longer than a round of the largest fleet, must not change
/// any more.
const QUIET: Duration = Duration::from_secs(30);
/// The longest interval between two rounds of a worker in a fleet that is led.
const LED_ROUND: Duration = Duration::from_millis(2750);
/// The longest interval between two reads of the leader's lock, which is valid for four of them.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The longest interval between the last renewals of two leases of a worker.
const LEASES_APART: Duration = Duration::from_secs(5);
/// The rate of the fastest clock relative to the slowest.
const CLOCKS: f64 = 1.1 * 1.1;

impl World {
    /// Stops all faults, and writes one last record to every open shard.
    pub(super) fn stop_faults(&mut self) {
        self.log.record(EventKind::FaultsStopped);
        self.faults_stopped.store(true, Ordering::Relaxed);
        self.fleet.retain(|member| {
            !member.task.is_finished() && member.leave.is_some() && !member.faults.is_cut_off()
        });
        for member in &self.fleet {
            member.faults.change(Odds::default());
        }
        if self.fleet.is_empty() {
            self.join(None);
        }
        self.put_to_every_shard();
    }

    /// Waits until the fleet has recovered. With a short retention, or workers that read only what
    /// arrives after their start, the last records are written repeatedly.
    pub(super) async fn heal(&mut self) -> Result<Duration, String> {
        let began = self.log.now();
        let mut wrote = began;
        let (mut last_owners, mut since) = (Vec::new(), began);
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.replace_finished_workers();
            let now = self.log.now();
            let well = self.is_well();
            let running = self.rows().into_values().filter(|row| !row.checkpoint.is_shard_end());
            let owners: Vec<_> = running.map(|row| (row.key, row.owner)).collect();
            if well.is_err() || owners != last_owners {
                (last_owners, since) = (owners, now);
            }
            if now - since > QUIET {
                return Ok(since - began);
            }
            if since - began > self.scenario.healing_max() {
                return Err(well.err().unwrap_or_else(|| "leases wander".to_owned()));
            }
            if well.is_err()
                && (self.scenario.retention.is_some() || self.scenario.start == Start::Latest)
                && self.log.now() - wrote > Duration::from_secs(20)
            {
                wrote = self.log.now();
                self.put_to_every_shard();
            }
        }
    }

    /// Stops one worker, and waits until others have its leases.
    pub(super) async fn hand_over(&mut self) {
        if self.fleet.len() < 2 {
            return;
        }
        self.ask_to_leave(0);
        while !self.fleet[0].task.is_finished() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.fleet.remove(0);
        let limit = if self.is_led() {
            // Another worker notices that it may lead, and assigns; then the leases are discovered.
            HEARTBEAT + LED_ROUND * 2
        } else {
            // A round of a fleet of this size.
            let groups = self.fleet.len().div_ceil(4) as u32 + 1;
            (FAILOVER / 4 * groups).min(FAILOVER * 2).mul_f64(1.1)
        };
        let limit = limit.mul_f64(CLOCKS) + Duration::from_secs(1);
        let after = self.all_are_owned(limit).await;
        self.log.record(EventKind::HandedOver { after, limit });
    }

    /// Kills a worker of a fleet that is led; the others must have its leases in time.
    pub(super) async fn take_over(&mut self) {
        if self.fleet.len() < 2 {
            return;
        }
        let leader = self.leader();
        let index = leader.filter(|_| self.rng.bool()).unwrap_or_else(|| self.rng.usize(..self.fleet.len()));
        let was_leader = leader == Some(index);
        self.kill(index);
        // One round sees the last renewal, another that there were none since.
        let expired = FAILOVER + LED_ROUND * 2;
        // A new leader has to observe expiry itself. The lock was last renewed, and seen, a heartbeat
        // ago.
        let led_again = if was_leader { HEARTBEAT * 5 + LED_ROUND } else { LEASES_APART };
        let limit = (expired + led_again + LED_ROUND).mul_f64(CLOCKS) + Duration::from_secs(1);
        let after = self.all_are_owned(limit).await;
        self.log.record(EventKind::TakenOver { after, limit, was_leader });
    }

    /// The time until every lease is renewed by a running worker; `None` if longer than `limit`.
    async fn all_are_owned(&self, limit: Duration) -> Option<Duration> {
        let began = self.log.now();
        while self.log.now() - began <= limit {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.are_owned() {
                return Some(self.log.now() - began);
            }
        }
        None
    }

    /// Whether each lease was last written by its owner, which is running.
    fn are_owned(&self) -> bool {
        let rows = self.rows();
        let running = rows.values().filter(|row| !row.checkpoint.is_shard_end());
        let mut owners: BTreeMap<&LeaseKey, &str> = BTreeMap::new();
        for row in running {
            let Some(owner) = row.actual_owner() else { return false };
            owners.insert(&row.key, owner.as_str());
        }
        let runs =
            |incarnation: &Incarnation| self.fleet.iter().any(|member| member.incarnation == *incarnation);
        self.log.change(|history| {
            for event in history.events.iter().rev() {
                if owners.is_empty() {
                    break;
                }
                if let EventKind::Row { key, by: Some(by), .. } = &event.kind
                    && let Some(owner) = owners.remove(key)
                    && !(by.incarnation.worker == owner && runs(&by.incarnation))
                {
                    return false;
                }
            }
            true
        })
    }

    /// Replaces workers that could not start or have stopped.
    pub(super) fn replace_finished_workers(&mut self) {
        for index in (0..self.fleet.len()).rev() {
            if self.fleet[index].task.is_finished() {
                self.fleet.swap_remove(index);
                self.join(None);
            }
        }
    }

    pub(super) fn rows(&self) -> BTreeMap<LeaseKey, Lease> {
        let items = self.table.items();
        let row = |(key, item): (LeaseKey, Item)| Some((key, Lease::from_item(&item).ok()??));
        items.into_iter().filter_map(row).collect()
    }

    /// Whether every lease is owned by a running worker, within its share, and everything is
    /// checkpointed.
    pub(super) fn is_well(&self) -> Result<(), String> {
        let rows = self.rows();
        let mut loads: BTreeMap<&str, usize> =
            self.fleet.iter().map(|member| (member.incarnation.worker.as_str(), 0)).collect();
        let running: Vec<&Lease> = rows.values().filter(|row| !row.checkpoint.is_shard_end()).collect();
        for row in &running {
            let owner = row.owner.as_ref().ok_or_else(|| format!("{} has no owner", row.key))?;
            let load = loads.get_mut(owner.as_str());
            *load.ok_or_else(|| format!("{} is owned by {owner}, which is gone", row.key))? += 1;
        }
        let share = running.len().div_ceil(loads.len().max(1));
        let most = loads.values().max().copied().unwrap_or_default();
        let least = loads.values().min().copied().unwrap_or_default();
        // A leader accepts workers a tenth above or below the average.
        let slack = if self.is_led() { share / 10 } else { 0 };
        if most > share + slack || least + slack + 1 < share {
            return Err(format!("the share is {share}, but loads are {loads:?}"));
        }
        if let Some(row) = running.iter().find(|row| row.checkpoint_owner.is_some()) {
            return Err(format!("{} is still being handed over", row.key));
        }
        let shards = self.kinesis.shards(STREAM).expect("a stream");
        let listed: BTreeSet<&ShardId> = shards.iter().map(|shard| &shard.id).collect();
        for row in &running {
            if !listed.contains(&row.shard_id) {
                return Err(format!("{} is of a shard that has expired", row.key));
            }
        }
        self.log.change(|history| {
            for shard in &shards {
                let row = rows.get(shard.id.as_str());
                let last = history.shards.get(&shard.id).and_then(|shard| shard.written.last());
                let is_done = match (row, last) {
                    (Some(row), Some(last)) if shard.is_open() => {
                        row.checkpoint.position() >= Some(&last.position)
                    }
                    (Some(row), _) => row.checkpoint.is_shard_end(),
                    (None, _) => !shard.is_open(),
                };
                if !is_done {
                    return Err(format!("{} is at {:?}", shard.id, row.map(|row| &row.checkpoint)));
                }
            }
            Ok(())
        })
    }
}
