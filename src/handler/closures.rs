use std::future::Future;
use std::marker::PhantomData;

use serde_core::de::DeserializeOwned;
use serde_json::error::Category;

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

/// A closure for what records hold in JSON, as a [`RecordHandler`].
pub(crate) struct ForEachJson<F, T> {
    handle: F,
    parsed: PhantomData<fn() -> T>,
}

impl<F, T> ForEachJson<F, T> {
    pub(crate) fn new(handle: F) -> Self {
        Self { handle, parsed: PhantomData }
    }
}

impl<F, Fut, E, T> RecordHandler for ForEachJson<F, T>
where
    F: Fn(T, KinesisClientRecord) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Into<BoxError>,
    T: DeserializeOwned + Send + 'static,
{
    type Error = BoxError;

    fn handle(
        &self,
        record: &KinesisClientRecord,
        _: &Attempt,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        let parsed = serde_json::from_slice(&record.record.data);
        let handled = parsed.map(|value| (self.handle)(value, record.clone()));
        async {
            // What cannot be read once cannot be read later.
            handled.map_err(|error| Failure::poison(without_data(&error)))?.await.map_err(Failure::of)
        }
    }
}

/// What is wrong with a payload. The text of the error itself may quote it.
fn without_data(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        Category::Data => format!("JSON that does not fit the type, at line {line}, column {column}"),
        Category::Eof => "JSON that ends too early".to_owned(),
        Category::Syntax | Category::Io => format!("no JSON, at line {line}, column {column}"),
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
