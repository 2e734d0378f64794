use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

/// A fault of a request to a local endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpFault {
    /// The request has no effect, and the response is this error: an HTTP status and the name of the
    /// exception, such as 400 and `ProvisionedThroughputExceededException`.
    Error {
        /// The HTTP status.
        status: u16,
        /// The name of the exception.
        code: String,
    },
    /// A transaction (`dynamodb:TransactWriteItems`) has no effect, and is cancelled for these reasons, one for each of its
    /// items in order: `None`, `TransactionConflict`, `ConditionalCheckFailed`, `ThrottlingError` …
    TransactionCanceled {
        /// The codes.
        reasons: Vec<String>,
    },
    /// The response is delayed by this time.
    Delay(Duration),
    /// The request takes effect, and then the connection is closed instead of a response.
    DropResponse,
    /// The request has no effect, and the connection is closed.
    DropRequest,
}

impl HttpFault {
    /// A response with an HTTP `status` and the exception `code`.
    pub fn error(status: u16, code: impl Into<String>) -> Self {
        Self::Error { status, code: code.into() }
    }

    /// A transaction that met another one at its first item.
    #[must_use]
    pub fn transaction_conflict() -> Self {
        Self::TransactionCanceled { reasons: vec!["TransactionConflict".to_owned()] }
    }
}

/// The requests the endpoints have received, and the faults to inject. Operations are named as in IAM
/// policies: `kinesis:GetRecords`.
#[derive(Debug, Default)]
pub(super) struct Requests {
    counts: Mutex<BTreeMap<String, u64>>,
    faults: Mutex<Vec<Planned>>,
}

#[derive(Debug)]
struct Planned {
    action: String,
    remaining: u64,
    fault: HttpFault,
}

impl Requests {
    /// Counts a request and takes the fault injected into it, if any.
    pub(super) fn begin(&self, action: &str) -> Option<HttpFault> {
        let mut counts = self.counts.lock();
        match counts.get_mut(action) {
            Some(count) => *count += 1,
            None => drop(counts.insert(action.to_owned(), 1)),
        }
        drop(counts);
        let mut faults = self.faults.lock();
        let planned = faults.iter_mut().find(|planned| planned.action == action)?;
        planned.remaining -= 1;
        let fault = planned.fault.clone();
        faults.retain(|planned| planned.remaining > 0);
        Some(fault)
    }

    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().clone()
    }

    pub(super) fn plan(&self, action: &str, times: u64, fault: HttpFault) {
        if times > 0 {
            let planned = Planned { action: action.to_owned(), remaining: times, fault };
            self.faults.lock().push(planned);
        }
    }

    pub(super) fn clear_faults(&self) {
        self.faults.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injected_faults_apply_in_order_and_as_often_as_requested() {
        let requests = Requests::default();
        requests.plan("a:B", 2, HttpFault::DropResponse);
        requests.plan("a:B", 1, HttpFault::DropRequest);
        requests.plan("a:C", 0, HttpFault::DropRequest);
        assert_eq!(requests.begin("a:C"), None);
        let faults: Vec<_> = (0..4).map(|_| requests.begin("a:B")).collect();
        let dropped = Some(HttpFault::DropResponse);
        assert_eq!(faults, [dropped.clone(), dropped, Some(HttpFault::DropRequest), None]);
        assert_eq!(requests.counts(), [("a:B".to_owned(), 4), ("a:C".to_owned(), 1)].into());
    }
}
