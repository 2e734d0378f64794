use std::fmt;
use std::time::Duration;

use crate::kinesis::StreamErrorKind;

/// A call that is about to be made through [`StreamApi`](crate::kinesis::StreamApi).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call<'a> {
    /// The API operation, such as `GetRecords`.
    pub operation: &'static str,
    /// The name of the stream.
    pub stream: &'a str,
    /// The shard, if the operation has one.
    pub shard: Option<&'a str>,
}

/// A fault of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call fails with this kind of error and has no effect.
    Error(StreamErrorKind),
    /// The call succeeds or fails as it would, after this delay.
    Delay(Duration),
    /// The call takes effect, but after this delay the caller gets a timeout error.
    NoAnswer(Duration),
    /// GetRecords returns no records, as the service may at any time. Other calls are not affected.
    EmptyPage,
}

/// Decides for each call whether a fault is injected.
pub(super) type FaultHook = Box<dyn FnMut(&Call<'_>) -> Option<Fault> + Send>;

/// Random faults, the same ones for the same seed and calls.
///
/// ```
/// use kinesis_consumer::kinesis::StreamErrorKind;
/// use kinesis_consumer::testing::{Fault, FaultTable, SimulatedKinesis};
///
/// let mut faults = FaultTable::seeded(7)
///     .with("GetRecords", 0.05, Fault::Error(StreamErrorKind::Throttled))
///     .with_any(0.01, Fault::Error(StreamErrorKind::Unavailable));
/// let kinesis = SimulatedKinesis::new();
/// kinesis.set_faults(move |call| faults.fault_for(call));
/// ```
#[derive(Clone)]
pub struct FaultTable {
    rng: fastrand::Rng,
    rows: Vec<FaultRow>,
}

#[derive(Debug, Clone)]
struct FaultRow {
    operation: Option<String>,
    probability: f64,
    fault: Fault,
}

impl FaultTable {
    /// A table without faults, with the seed of its draws.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), rows: Vec::new() }
    }

    /// Adds a fault for calls of `operation`, with `probability` (0 to 1).
    #[must_use]
    pub fn with(mut self, operation: impl Into<String>, probability: f64, fault: Fault) -> Self {
        self.rows.push(FaultRow { operation: Some(operation.into()), probability, fault });
        self
    }

    /// Adds a fault for calls of any operation, with `probability` (0 to 1).
    #[must_use]
    pub fn with_any(mut self, probability: f64, fault: Fault) -> Self {
        self.rows.push(FaultRow { operation: None, probability, fault });
        self
    }

    /// Draws for one call: each matching row in turn, until one applies.
    pub fn fault_for(&mut self, call: &Call<'_>) -> Option<Fault> {
        let fits =
            |row: &&FaultRow| row.operation.as_ref().is_none_or(|operation| operation == call.operation);
        let rng = &mut self.rng;
        self.rows.iter().filter(fits).find(|row| rng.f64() < row.probability).map(|row| row.fault)
    }
}

impl fmt::Debug for FaultTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rows).finish()
    }
}
