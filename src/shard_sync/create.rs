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
