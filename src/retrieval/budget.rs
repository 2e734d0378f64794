use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::planted::{Bug, planted};
use crate::runtime::Clock;
use crate::types::Record;

/// The bytes counted for a record in addition to its payload and keys: the record itself, and its
/// overhead in the response that its payload is a slice of.
pub(super) const RECORD_OVERHEAD: u64 = size_of::<Record>() as u64 + 176;

/// The unit of the semaphore, whose permits are counted in 32 bits.
const UNIT: u64 = 1024;

/// The memory that all shards of one worker share, for records that were fetched and not yet processed.
///
/// Requests are served in FIFO order, so small requests do not starve a large one. No holder of memory
/// waits for more, so every wait ends as soon as processing continues.
pub(crate) struct WorkerBudget {
    free: Arc<Semaphore>,
    units: u32,
}

/// Memory taken from a [`WorkerBudget`]; released when dropped.
#[derive(Debug)]
pub(crate) struct MemoryPermit {
    permit: OwnedSemaphorePermit,
    /// The whole budget: a page larger than it is not counted beyond it, so one page always fits.
    units_max: u32,
}

impl WorkerBudget {
    /// A budget of `bytes`, rounded up to 1 KiB; at least 1 KiB and at most 1 TiB.
    pub(crate) fn new(bytes: u64) -> Self {
        let units = units(bytes).clamp(1, 1 << 30);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Waits for `bytes`, or for the whole budget if that is less.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, it loses its place in the queue and reserves nothing.
    pub(crate) async fn reserve(&self, bytes: u64) -> MemoryPermit {
        let bytes = if planted(Bug::IgnoresBudget) { 0 } else { bytes };
        let permit = Arc::clone(&self.free)
            .acquire_many_owned(units(bytes).min(self.units))
            .await
            .expect("the semaphore is never closed");
        MemoryPermit { permit, units_max: self.units }
    }

    /// The number of free bytes.
    #[cfg(test)]
    pub(super) fn free(&self) -> u64 {
        self.free.available_permits() as u64 * UNIT
    }
}

impl MemoryPermit {
    /// The number of bytes reserved: those requested, rounded up to 1 KiB.
    pub(super) fn bytes(&self) -> u64 {
        self.permit.num_permits() as u64 * UNIT
    }

    /// Waits for `answer`, and holds the memory for it for `hold_max` at most: then everything is released, so
    /// that no shard waits for memory that waits for the service.
    ///
    /// # Cancel safety
    ///
    /// As that of `answer`.
    pub(super) async fn held_for<T>(
        &mut self,
        answer: impl Future<Output = T>,
        hold_max: Duration,
        clock: &Clock,
    ) -> T {
        let mut answer = pin!(answer);
        if let Ok(answer) = clock.timeout(hold_max, &mut answer).await {
            return answer;
        }
        drop(self.permit.split(self.permit.num_permits()));
        answer.await
    }

    /// Resizes this permit to `bytes`. Shrinking always succeeds. Growing never waits, so it succeeds
    /// only if the budget has the difference available. On failure nothing changes.
    #[must_use]
    pub(super) fn try_resize(&mut self, bytes: u64) -> bool {
        if planted(Bug::IgnoresBudget) {
            return true;
        }
        let wanted = units(bytes).min(self.units_max);
        let held = u32::try_from(self.permit.num_permits()).unwrap_or(u32::MAX);
        if wanted <= held {
            drop(self.permit.split((held - wanted) as usize));
            return true;
        }
        match Arc::clone(self.permit.semaphore()).try_acquire_many_owned(wanted - held) {
            Ok(difference) => {
                self.permit.merge(difference);
                true
            }
            Err(_) => false,
        }
    }
}

/// The bytes counted for `records`.
pub(super) fn cost(records: &[Record]) -> u64 {
    records.iter().map(|record| payload(record) + RECORD_OVERHEAD).sum()
}

/// The bytes of a record that the service counts.
pub(super) fn payload(record: &Record) -> u64 {
    (record.data.len() + record.partition_key.len()) as u64
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl fmt::Debug for WorkerBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBudget")
            .field("bytes", &(u64::from(self.units) * UNIT))
            .field("bytes_free", &(self.free.available_permits() as u64 * UNIT))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const KIB: u64 = 1024;

    fn reserve_now(budget: &WorkerBudget, bytes: u64) -> Option<MemoryPermit> {
        budget.reserve(bytes).now_or_never()
    }

    #[test]
    fn a_permit_is_resized_and_released() {
        let budget = WorkerBudget::new(100 * KIB);
        let mut permit = reserve_now(&budget, 80 * KIB).expect("free");
        assert!(permit.try_resize(10 * KIB + 1));
        assert_eq!((permit.bytes(), budget.free()), (11 * KIB, 89 * KIB));
        assert!(permit.try_resize(30 * KIB));
        assert_eq!((permit.bytes(), budget.free()), (30 * KIB, 70 * KIB));
        assert!(permit.try_resize(0));
        assert_eq!((permit.bytes(), budget.free()), (0, 100 * KIB));
        drop(permit);
        assert_eq!(budget.free(), 100 * KIB);
    }

    #[test]
    fn growing_takes_only_what_is_free_and_one_page_always_fits() {
        let budget = WorkerBudget::new(100 * KIB);
        let other = reserve_now(&budget, 60 * KIB).expect("free");
        let mut permit = reserve_now(&budget, 10 * KIB).expect("free");
        assert!(!permit.try_resize(41 * KIB));
        assert_eq!((permit.bytes(), budget.free()), (10 * KIB, 30 * KIB), "nothing changed");
        drop(other);
        assert!(permit.try_resize(5000 * KIB));
        assert_eq!((permit.bytes(), budget.free()), (100 * KIB, 0));
        drop(permit);
        assert!(reserve_now(&budget, u64::MAX).is_some());
    }

    #[test]
    fn small_requests_do_not_overtake_a_large_one() {
        let budget = WorkerBudget::new(100 * KIB);
        let held = reserve_now(&budget, 50 * KIB).expect("free");
        let mut grower = reserve_now(&budget, KIB).expect("free");
        let mut large = Box::pin(budget.reserve(90 * KIB));
        assert!((&mut large).now_or_never().is_none());
        assert!(reserve_now(&budget, KIB).is_none(), "a later request");
        assert!(!grower.try_resize(2 * KIB), "nor one that grows");
        drop(held);
        assert!((&mut large).now_or_never().is_some());
    }
}
