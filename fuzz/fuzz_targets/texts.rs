//! Everything that is parsed from text: no panic, and what is accepted is shown as it was written.
//!
//! `cargo +nightly fuzz run texts`

#![no_main]

use kinesis_consumer::{Checkpoint, HashKeyRange, SequenceNumber, Settings, StreamId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(input);
    let (first, second) = text.split_once('\n').unwrap_or((&text, ""));

    let number = first.parse::<SequenceNumber>();
    if let Ok(number) = &number {
        assert_eq!(number.to_string(), first);
    }
    if let (Ok(one), Ok(other)) = (&number, second.parse::<SequenceNumber>()) {
        // Without leading zeros, numbers are ordered as their texts are, the shorter first.
        assert_eq!(one.cmp(&other), (first.len(), first).cmp(&(second.len(), second)));
    }
    if let Ok(Checkpoint::Sequence(position)) = Checkpoint::parse(first, u64::from(*choice)) {
        assert_eq!(position.sequence_number, first);
    }
    if let Ok(range) = HashKeyRange::parse(first, second) {
        assert!(range.start() <= range.end());
        assert_eq!(first.parse(), Ok(range.start()));
    }
    if let Ok(stream) = first.parse::<StreamId>() {
        assert!(first.ends_with(stream.name()));
    }
    let variables =
        ["KINESIS_LEASES_TO_ACQUIRE", "KINESIS_MAX_LEASES", "KINESIS_START_STRATEGY", "KINESIS_BATCH_LIMIT"];
    let settings = Settings::from_variables(|name| {
        let is_set =
            variables.iter().position(|variable| *variable == name).is_some_and(|bit| choice >> bit & 1 == 1);
        Ok(is_set.then(|| first.to_owned()))
    });
    if let Err(error) = settings {
        assert!(variables.iter().any(|variable| error.to_string().contains(variable)), "{error}");
    }
});
