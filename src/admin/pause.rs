//! Pausing, resuming and releasing leases from outside.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::seek_plan::Scope;
use super::text::epoch_millis;
use super::{Admin, CONCURRENT};
use crate::error::{Error, invalid};
use crate::lease::{Lease, LeaseWrite, Paused, WriteOutcome};
use crate::types::LeaseKey;

/// Which leases were changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseChanges {
    /// The leases, in the order of their keys.
    pub leases: Vec<LeaseKey>,
    /// What somebody should know about it.
    pub warnings: Vec<String>,
}

impl Admin {
    /// Has the leases in `scope` left alone: their owners keep them, and stop reading with their next renewal, within a
    /// third of the failover time. Leases of ended shards are not touched. `by` and `reason` show in the status.
    ///
    /// Workers of Java KCL do not know of it, and go on. Owners that nothing shows to be of this crate are named in the
    /// warnings.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if there is no such lease, no reason is given, or permissions
    /// are missing; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if DynamoDB does not answer. Some leases
    /// may have been changed then; it may be called again.
    ///
    /// # Cancel safety
    ///
    /// Dropped, some leases are changed and others are not.
    pub async fn pause(&self, scope: Scope, by: &str, reason: &str) -> Result<LeaseChanges, Error> {
        if reason.trim().is_empty() {
            return Err(invalid("a pause needs a reason, for those who see it"));
        }
        let why = Paused::new(epoch_millis(self.clock.wall()), by, reason);
        let leases = self.leases_in(&scope).await?;
        let unknown: Vec<&str> = leases
            .iter()
            .filter(|lease| lease.behind_latest_now().is_none())
            .filter_map(|lease| lease.actual_owner().map(|owner| owner.as_str()))
            .collect();
        let warnings = unknown.first().map(|first| {
            format!(
                "{} lease(s) are owned by workers that nothing shows to be of this crate, such as {first}; workers of \
                 Java KCL go on",
                unknown.len()
            )
        });
        let changed = self.change(leases, |lease| LeaseWrite::pause(&lease.key, &why)).await?;
        Ok(LeaseChanges { leases: changed, warnings: warnings.into_iter().collect() })
    }

    /// Has paused leases in `scope` read again, from where their owners stopped.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    ///
    /// # Cancel safety
    ///
    /// As [`pause`](Self::pause).
    pub async fn resume(&self, scope: Scope) -> Result<LeaseChanges, Error> {
        let mut leases = self.leases_in(&scope).await?;
        leases.retain(|lease| lease.paused.is_some());
        let leases = self.change(leases, |lease| LeaseWrite::resume(&lease.key)).await?;
        Ok(LeaseChanges { leases, warnings: Vec::new() })
    }

    /// Takes the leases in `scope` from their owners, which stop at their next write. Workers take them anew, as they do
    /// with leases that were given back, and go on at the last checkpoint: what was processed since comes again.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    ///
    /// # Cancel safety
    ///
    /// As [`pause`](Self::pause).
    pub async fn release(&self, scope: Scope) -> Result<LeaseChanges, Error> {
        let mut leases = self.leases_in(&scope).await?;
        leases.retain(|lease| lease.owner.is_some());
        let leases = self.change(leases, LeaseWrite::evict).await?;
        Ok(LeaseChanges { leases, warnings: Vec::new() })
    }

    /// The leases that are meant, without those of ended shards.
    async fn leases_in(&self, scope: &Scope) -> Result<Vec<Lease>, Error> {
        let mut leases = self.scan().await?.leases;
        match scope {
            Scope::All => {}
            Scope::Stream(stream) => {
                let is_of = |name: &str| name.parse().is_ok_and(|named| stream.may_be(&named));
                leases.retain(|lease| lease.stream().is_some_and(is_of));
            }
            Scope::Shards(shards) => {
                let unknown =
                    shards.iter().find(|shard| leases.iter().all(|lease| lease.shard_id != **shard));
                if let Some(unknown) = unknown {
                    return Err(invalid(format!("there is no lease of shard {unknown}; check its name")));
                }
                leases.retain(|lease| shards.contains(&lease.shard_id));
            }
        }
        leases.retain(|lease| !lease.checkpoint.is_shard_end());
        if leases.is_empty() {
            return Err(invalid(format!("the table {} has no such lease", self.table)));
        }
        Ok(leases)
    }

    /// Writes to each lease. One whose row has changed meanwhile, so that the write does not fit, is left out.
    async fn change(
        &self,
        leases: Vec<Lease>,
        write: impl Fn(&Lease) -> LeaseWrite,
    ) -> Result<Vec<LeaseKey>, Error> {
        let writes: Vec<LeaseWrite> = leases.iter().map(write).collect();
        let mut changed: Vec<LeaseKey> = stream::iter(writes)
            .map(|write| async move {
                let outcome = self.persist(|| self.store.apply(&write)).await?;
                let is_applied = matches!(outcome, WriteOutcome::Applied(_));
                Ok::<_, Error>(is_applied.then_some(write.key))
            })
            .buffer_unordered(CONCURRENT)
            .try_filter_map(|key| async move { Ok(key) })
            .try_collect()
            .await?;
        changed.sort();
        Ok(changed)
    }
}
