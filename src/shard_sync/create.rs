//! The one way to create a lease.

use super::plan::CreateReason;
use crate::context::Context;
use crate::events::Event;
use crate::lease::{Created, Lease, StoreError};
use crate::metrics::{Report, names};

/// Creates the row of `lease` unless there is one. If there was none, that is logged and emitted, and the other
/// workers of this process are notified.
///
/// # Errors
///
/// As of the store; the row may have been created.
pub(crate) async fn create_lease(
    context: &Context,
    mut report: Report,
    lease: &Lease,
    reason: &CreateReason,
) -> Result<Created, StoreError> {
    let since = context.clock.now();
    let created = context.store.create(lease).await;
    let took = context.clock.now().since(since);
    report
        .outcome(names::CREATE_LEASE, created.is_ok(), took)
        .add(names::create_lease_success(&lease.checkpoint), u32::from(created.is_ok()));
    if matches!(created, Ok(Created::Now)) {
        let (key, checkpoint) = (lease.key.clone(), lease.checkpoint.clone());
        if *reason == CreateReason::Vanished {
            tracing::warn!(lease = %key, %checkpoint, "the row of a lease was deleted; it is created again");
            context.events.emit(Event::LeaseRecreated { lease: key, checkpoint });
        } else {
            tracing::info!(lease = %key, %checkpoint, %reason, "lease created");
            context.events.emit(Event::LeaseCreated { lease: key, checkpoint });
        }
        context.notifier.publish(lease.clone());
    }
    created
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::MemoryLeaseStore;
    use crate::metrics::Operation;
    use crate::types::Checkpoint;

    #[tokio::test]
    async fn one_of_those_who_create_a_lease_reports_and_notifies() {
        let context = Context::in_memory(MemoryLeaseStore::default());
        let (mut events, mut news) = (context.events.listen(), context.notifier.listen());
        for (id, reason) in [("0", CreateReason::Open), ("1", CreateReason::Vanished)] {
            let lease = Lease::new(id, Checkpoint::TrimHorizon);
            for expected in [Created::Now, Created::Already] {
                let report = context.metrics.operation(Operation::ShardSyncTask);
                let created = create_lease(&context, report, &lease, &reason).await;
                assert_eq!(created.ok(), Some(expected));
            }
            assert_eq!(news.try_recv().map(|lease| lease.key), Ok(id.into()));
            assert!(news.try_recv().is_err(), "what is there already is no news");
        }
        let (key, checkpoint) = ("0".into(), Checkpoint::TrimHorizon);
        assert_eq!(events.next().await, Some(Event::LeaseCreated { lease: key, checkpoint }));
        let (key, checkpoint) = ("1".into(), Checkpoint::TrimHorizon);
        assert_eq!(events.next().await, Some(Event::LeaseRecreated { lease: key, checkpoint }));
    }
}
