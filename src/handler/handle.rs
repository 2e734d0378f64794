use std::future::Future;

use super::failure::IsFirst;
use super::{Attempt, BatchFailure, BatchHandler, Failure, RecordHandler};
use crate::types::KinesisClientRecord;

/// A handler of records or of batches.
pub(crate) trait Handle: Send + Sync + 'static {
    /// How many records a call gets.
    const STEP: usize;

    /// Fails with how many records are handled, and why others are not.
    fn call(
        &self,
        records: &[KinesisClientRecord],
        attempt: &Attempt,
    ) -> impl Future<Output = Result<(), (usize, Failure, IsFirst)>> + Send;
}

/// A handler of records.
pub(crate) struct Records<H>(pub(crate) H);

impl<H: RecordHandler> Handle for Records<H> {
    const STEP: usize = 1;

    async fn call(
        &self,
        records: &[KinesisClientRecord],
        attempt: &Attempt,
    ) -> Result<(), (usize, Failure, IsFirst)> {
        for (index, record) in records.iter().enumerate() {
            let handled = self.0.handle(record, attempt).await;
            handled.map_err(|failure| (index, failure.boxed(), IsFirst(true)))?;
        }
        Ok(())
    }
}

/// A handler of batches.
pub(crate) struct Batches<H>(pub(crate) H);

impl<H: BatchHandler> Handle for Batches<H> {
    const STEP: usize = usize::MAX;

    async fn call(
        &self,
        records: &[KinesisClientRecord],
        attempt: &Attempt,
    ) -> Result<(), (usize, Failure, IsFirst)> {
        self.0.handle(records, attempt).await.map_err(BatchFailure::boxed)
    }
}
