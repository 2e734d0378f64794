//! Event streams, whatever is in them and however they are cut into pieces: no panic, and the same events.
//!
//! `cargo +nightly fuzz run event_stream`

#![no_main]

use bytes::Bytes;
use kinesis_consumer::internals::events_from_frames;
use libfuzzer_sys::fuzz_target;

// The first byte says how long the pieces are in which the rest arrives.
fuzz_target!(|input: &[u8]| {
    let Some((piece, body)) = input.split_first() else { return };
    let whole = events_from_frames([Bytes::copy_from_slice(body)]);
    let pieces = body.chunks(usize::from(*piece) + 1).map(Bytes::copy_from_slice);
    assert_eq!(events_from_frames(pieces), whole);
});
