use std::future::Future;

use super::{Attempt, BatchFailure, BatchHandler, BoxError, Failure, RecordHandler};
use crate::types::KinesisClientRecord;

/// A closure as a [`RecordHandler`].
pub(crate) struct ForEach<F>(pub(crate) F);

impl<F, Fut, E> RecordHandler for ForEach<F>
where
    F: Fn(KinesisClientRecord) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Into<BoxError>,
{
    type Error = BoxError;

    fn handle(
        &self,
        record: &KinesisClientRecord,
        _: &Attempt,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        let handled = (self.0)(record.clone());
        async { handled.await.map_err(Failure::of) }
    }
}

/// A closure as a [`BatchHandler`].
pub(crate) struct ForEachBatch<F>(pub(crate) F);

impl<F, Fut, E> BatchHandler for ForEachBatch<F>
where
    F: Fn(Vec<KinesisClientRecord>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Into<BoxError>,
{
    type Error = BoxError;

    fn handle(
        &self,
        batch: &[KinesisClientRecord],
        _: &Attempt,
    ) -> impl Future<Output = Result<(), BatchFailure>> + Send {
        let handled = (self.0)(batch.to_vec());
        async { handled.await.map_err(BatchFailure::of) }
    }
}
