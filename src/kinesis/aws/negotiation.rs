use std::sync::Arc;

use parking_lot::Mutex;

use super::protocol_choice::ProtocolChoice;
use crate::kinesis::KinesisProtocol;
use crate::runtime::Clock;

/// Which format to use for one operation, as far as the endpoint has shown. Cloned cheaply.
#[derive(Debug, Clone)]
pub(super) struct Negotiation {
    operation: &'static str,
    choice: Arc<Mutex<ProtocolChoice>>,
    clock: Clock,
}

impl Negotiation {
    pub(super) fn new(operation: &'static str, wanted: KinesisProtocol, clock: Clock) -> Self {
        Self { operation, choice: Arc::new(Mutex::new(ProtocolChoice::new(wanted))), clock }
    }

    /// Whether to send the next request in CBOR.
    pub(super) fn is_cbor(&self) -> bool {
        self.choice.lock().is_cbor(self.clock.now())
    }

    /// A request in CBOR was answered in CBOR.
    pub(super) fn cbor_answered(&self) {
        if self.choice.lock().cbor_answered() {
            tracing::info!(operation = self.operation, "the Kinesis endpoint answers in CBOR again");
        }
    }

    /// A request in CBOR was not understood, and the same request in JSON was.
    pub(super) fn only_json_answered(&self) {
        let is_new = self.choice.lock().only_json_answered(self.clock.now());
        self.report(is_new);
    }

    /// A request in CBOR was answered by the service in JSON.
    pub(super) fn answered_in_json(&self) {
        let is_new = self.choice.lock().answered_in_json(self.clock.now());
        self.report(is_new);
    }

    fn report(&self, is_new: bool) {
        if is_new {
            tracing::warn!(
                operation = self.operation,
                "the Kinesis endpoint does not answer in CBOR; using JSON, and trying CBOR again later"
            );
        }
    }
}
