//! When the leases of one stream are to be compared with its shards, and why
//! (KCL's `PeriodicShardSyncManager`).

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::auditor::{Audit, HoleTracker};
use super::origins::{OriginTracker, Origins};
use super::plan::NewLease;
use crate::kinesis::Shard;
use crate::lease::Lease;
use crate::lease::origin::Shards;
use crate::planted::{Bug, planted};
use crate::types::{LeaseKey, Moment, StartStrategy, StreamId};

/// The pause after shards could not be listed or leases not be created.
const RETRY: Duration = Duration::from_secs(1);
/// The longest pause for one of several streams, which doubles up to it.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Hash key ranges that are filled in at a time.
const RANGES_AT_ONCE: usize = 100;

/// What the decisions depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SyncRules {
    pub(crate) audit_interval: Duration,
    /// Audits in a row that must find the same hole.
    pub(crate) audit_confidence_threshold: u32,
    pub(crate) failover_time: Duration,
    /// Whether the worker reads several streams.
    pub(crate) is_multi: bool,
}

/// What is known of the leases of one stream beside the leases.
#[derive(Debug)]
pub(crate) struct StreamSync {
    rules: SyncRules,
    start_strategy: StartStrategy,
    /// The shards as listed when the stream was found, used if it turns out to have no leases.
    listed: Option<Vec<Shard>>,
    holes: HoleTracker,
    origins: OriginTracker,
    next_origin_check: Option<Moment>,
    /// Whether the table has leases of an earlier stream of the same name (multi-stream mode).
    has_earlier: bool,
    /// Leases whose hash key ranges were looked up.
    ranges_looked_up: BTreeSet<LeaseKey>,
    next_audit: Moment,
    /// Leases that could not be created, and how old the scan is by which they were planned.
    rest: Option<(Vec<NewLease>, Moment)>,
    /// How often in a row its shards could not be listed or its leases not be created.
    failures: u32,
    /// Until then, it does not hold up the other streams with another try.
    not_before: Moment,
}

/// What is to be done for the leases of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SyncRequest {
    /// The stream has no leases at all. The shards are listed unless they are known.
    CreateFirst { listed: Option<Vec<Shard>>, strategy: StartStrategy },
    /// Some hash keys have not been covered for a while, or rows were deleted.
    CreateMissing { strategy: StartStrategy },
    /// These leases could not be created a moment ago.
    Retry(Vec<NewLease>),
    /// The table is empty, but had these leases before.
    PutBack(Vec<Lease>),
    /// These leases do not say which hash keys they cover.
    FillRanges(Vec<Lease>),
    /// It is to be seen whether the leases are of the stream. A list that is known is older than the scan.
    CheckOrigins { listed: Option<Vec<Shard>> },
}

/// The outcome of a look at the leases of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SyncSteps {
    pub(crate) requests: Vec<SyncRequest>,
    /// What the audit found, if it was due.
    pub(crate) audit: Option<Audit>,
}

impl StreamSync {
    pub(crate) fn new(
        rules: SyncRules,
        start_strategy: StartStrategy,
        listed: Option<Vec<Shard>>,
        now: Moment,
    ) -> Self {
        Self {
            start_strategy,
            listed,
            holes: HoleTracker::new(rules.audit_confidence_threshold),
            origins: OriginTracker::new(rules.audit_confidence_threshold),
            next_origin_check: None,
            has_earlier: false,
            ranges_looked_up: BTreeSet::new(),
            next_audit: now + rules.audit_interval,
            rest: None,
            failures: 0,
            not_before: now,
            rules,
        }
    }

    /// The table has leases of an earlier stream of this name. Whether that is new.
    pub(crate) fn note_earlier_stream(&mut self) -> bool {
        !std::mem::replace(&mut self.has_earlier, true)
    }

    /// What a scan that was complete at `now` makes necessary. `leases` are those of the stream, `vanished`
    /// those whose rows were deleted too early. A table that another stream's consumer uses gets no leases.
    pub(crate) fn handle_scan<'a>(
        &mut self,
        leases: &[&Lease],
        mut vanished: impl Iterator<Item = &'a Lease>,
        is_table_shared: bool,
        now: Moment,
    ) -> SyncSteps {
        let listed = self.listed.take();
        // All of a stream that was created again is new to the application.
        let strategy = if self.has_earlier { StartStrategy::Oldest } else { self.start_strategy };
        let mut steps = SyncSteps::default();
        if leases.is_empty() {
            let vanished: Vec<Lease> = vanished.cloned().collect();
            if !vanished.is_empty() {
                steps.requests.push(SyncRequest::PutBack(vanished));
            } else if now >= self.not_before && !is_table_shared {
                let listed = listed.filter(|_| !self.has_earlier);
                steps.requests.push(SyncRequest::CreateFirst { listed, strategy });
            }
            return steps;
        }
        if listed.is_some() || self.next_origin_check.is_some_and(|at| now >= at) {
            if listed.is_none() {
                self.next_origin_check = None;
            }
            steps.requests.push(SyncRequest::CheckOrigins { listed });
        }
        let rest = self.rest.take_if(|_| now >= self.next_audit);
        if vanished.next().is_some() {
            steps.requests.push(SyncRequest::CreateMissing { strategy });
        } else if let Some((rest, scanned)) = rest {
            let is_fresh = now.since(scanned) < self.rules.failover_time;
            steps.requests.push(match is_fresh {
                true => SyncRequest::Retry(rest),
                false => SyncRequest::CreateMissing { strategy },
            });
        } else if now >= self.next_audit && !planted(Bug::NeverAudits) {
            self.next_audit = now + self.rules.audit_interval;
            let audit = self.holes.check(leases);
            steps.audit = Some(audit);
            steps.requests.extend(self.requests_after(audit, leases, strategy));
        }
        steps
    }

    fn requests_after(
        &mut self,
        audit: Audit,
        leases: &[&Lease],
        strategy: StartStrategy,
    ) -> Option<SyncRequest> {
        if audit.is_without_hole() {
            self.failures = 0;
        }
        match audit {
            Audit::SyncNow => Some(SyncRequest::CreateMissing { strategy }),
            Audit::RangesMissing => {
                let without = leases.iter().filter(|lease| {
                    lease.hash_key_range.is_none()
                        && !lease.checkpoint.is_shard_end()
                        && !self.ranges_looked_up.contains(&lease.key)
                });
                // As many as do not hold the round up; the next audit finds the others.
                let without: Vec<Lease> = without.take(RANGES_AT_ONCE).copied().cloned().collect();
                (!without.is_empty()).then_some(SyncRequest::FillRanges(without))
            }
            Audit::Covered | Audit::Suspected => None,
        }
    }

    /// The hash key range of a lease is looked up, once.
    pub(crate) fn note_range_lookup(&mut self, lease: &LeaseKey) {
        self.ranges_looked_up.insert(lease.clone());
    }

    /// All leases that a scan at `scanned` made necessary exist, or not all do: these were planned and are
    /// still missing, which may be none if they could not even be planned. Returns when to try again.
    pub(crate) fn handle_created(
        &mut self,
        outcome: Result<(), Vec<NewLease>>,
        scanned: Moment,
        now: Moment,
    ) -> Option<Moment> {
        let Err(rest) = outcome else {
            (self.rest, self.failures) = (None, 0);
            return None;
        };
        self.rest = (!rest.is_empty()).then_some((rest, scanned));
        self.next_audit = now + RETRY;
        if self.rules.is_multi {
            self.next_audit = now + (RETRY * (1 << self.failures.min(6))).min(RETRY_MAX);
            self.not_before = self.next_audit;
        }
        self.failures = self.failures.saturating_add(1);
        Some(self.next_audit)
    }

    /// Compares the leases with the shards of the stream. `is_older` says that the list was made before the
    /// leases were read.
    pub(crate) fn check_origins<'a>(
        &mut self,
        leases: impl IntoIterator<Item = &'a Lease>,
        stream: &StreamId,
        shards: &Shards<'_>,
        is_older: bool,
        now: Moment,
    ) -> Origins {
        let origins = self.origins.check(leases, stream, shards, is_older);
        self.next_origin_check = (origins != Origins::Fit).then(|| now + self.rules.audit_interval);
        origins
    }
}

impl SyncRequest {
    /// The shards, if they are known already.
    pub(crate) fn take_listed(&mut self) -> Option<Vec<Shard>> {
        match self {
            Self::CreateFirst { listed, .. } | Self::CheckOrigins { listed } => listed.take(),
            Self::CreateMissing { .. } | Self::Retry(_) | Self::PutBack(_) | Self::FillRanges(_) => None,
        }
    }
}

impl fmt::Display for SyncRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateFirst { listed: Some(shards), .. } => {
                write!(f, "create the first leases, of {} listed shards", shards.len())
            }
            Self::CreateFirst { listed: None, .. } => f.write_str("create the first leases"),
            Self::CreateMissing { .. } => f.write_str("create missing leases"),
            Self::Retry(leases) => write!(f, "create {} planned lease(s)", leases.len()),
            Self::PutBack(leases) => write!(f, "put {} deleted row(s) back", leases.len()),
            Self::FillRanges(leases) => write!(f, "fill in {} hash key range(s)", leases.len()),
            Self::CheckOrigins { .. } => f.write_str("compare the leases with the shards"),
        }
    }
}

#[cfg(test)]
#[path = "stream_sync_test.rs"]
mod tests;
