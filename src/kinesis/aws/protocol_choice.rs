use std::time::Duration;

use crate::kinesis::KinesisProtocol;
use crate::types::Moment;

/// A response that is not in CBOR may be a proxy's error page. After this many in a row, each followed by a
/// response in JSON to the same request, the endpoint is taken for one that supports JSON only.
const MISMATCHES_MAX: u32 = 3;

/// CBOR is tried again after this time, which doubles up to `PROBE_MAX`.
const PROBE_MIN: Duration = Duration::from_secs(60);
const PROBE_MAX: Duration = Duration::from_secs(3600);

/// Decides by the responses whether records are requested in CBOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProtocolChoice {
    wanted: KinesisProtocol,
    /// Requests in a row that were answered in JSON only.
    mismatches: u32,
    /// Until then, JSON is used.
    json_until: Option<Moment>,
    pause: Duration,
}

impl ProtocolChoice {
    pub(super) fn new(wanted: KinesisProtocol) -> Self {
        Self { wanted, mismatches: 0, json_until: None, pause: PROBE_MIN }
    }

    /// Whether to send the next request in CBOR.
    pub(super) fn is_cbor(&self, now: Moment) -> bool {
        self.wanted == KinesisProtocol::Cbor && self.json_until.is_none_or(|until| until <= now)
    }

    /// A request in CBOR was answered in CBOR. Whether JSON was used until now.
    pub(super) fn cbor_answered(&mut self) -> bool {
        let was_json = self.json_until.is_some();
        *self = Self::new(self.wanted);
        was_json
    }

    /// A request in CBOR was not understood, and the same request in JSON was. Whether JSON is used from now
    /// on, and was not before.
    pub(super) fn only_json_answered(&mut self, now: Moment) -> bool {
        self.mismatches = self.mismatches.saturating_add(1);
        if self.mismatches < MISMATCHES_MAX || !self.is_cbor(now) {
            return false;
        }
        self.use_json(now)
    }

    /// A request in CBOR was answered with JSON inside a response in the right format, which only the service
    /// does. Whether JSON is used from now on, and was not before.
    pub(super) fn answered_in_json(&mut self, now: Moment) -> bool {
        self.mismatches = MISMATCHES_MAX;
        self.use_json(now)
    }

    fn use_json(&mut self, now: Moment) -> bool {
        let is_new = self.json_until.is_none();
        self.json_until = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PROBE_MAX);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formats of requests that are sent a second apart, if each one's response is in CBOR (`C`) or its
    /// repetition is answered in JSON (`J`).
    fn formats(wanted: KinesisProtocol, responses: &str) -> String {
        let mut choice = ProtocolChoice::new(wanted);
        let mut now = Moment::ORIGIN;
        let send = |response| {
            now = now + Duration::from_secs(1);
            if !choice.is_cbor(now) {
                return 'j';
            }
            match response {
                'C' => _ = choice.cbor_answered(),
                _ => _ = choice.only_json_answered(now),
            }
            'c'
        };
        responses.chars().map(send).collect()
    }

    #[test]
    fn single_odd_responses_change_nothing() {
        assert_eq!(formats(KinesisProtocol::Cbor, "JCJJCJJC"), "cccccccc");
        assert_eq!(formats(KinesisProtocol::Json, "JJJ"), "jjj");
    }

    #[test]
    fn an_endpoint_without_cbor_is_asked_again_ever_more_rarely() {
        let sent = formats(KinesisProtocol::Cbor, &"J".repeat(10_000));
        let probes: Vec<usize> = sent.match_indices('c').map(|(second, _)| second).collect();
        assert_eq!(probes, [0, 1, 2, 62, 182, 422, 902, 1862, 3782, 7382]);
    }

    #[test]
    fn an_endpoint_that_answers_in_cbor_again_is_asked_in_cbor() {
        let responses = format!("JJJ{}C{}", "J".repeat(59), "J".repeat(5));
        let sent = formats(KinesisProtocol::Cbor, &responses);
        assert_eq!(sent, format!("ccc{}c{}", "j".repeat(59), "cccjj"));
    }

    #[test]
    fn the_change_is_reported_once_in_each_direction() {
        let mut choice = ProtocolChoice::new(KinesisProtocol::Cbor);
        let at = |seconds| Moment::after_origin(Duration::from_secs(seconds));
        let reported = [0, 1, 2, 2, 62, 182].map(|seconds| choice.only_json_answered(at(seconds)));
        assert_eq!(reported, [false, false, true, false, false, false]);
        assert!(choice.cbor_answered());
        assert!(!choice.cbor_answered());
    }
}
