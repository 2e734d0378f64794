//! Responses to GetRecords in CBOR, whatever is in them: no panic, no payload that is not in the
//! response.
//!
//! `cargo +nightly fuzz run records_page`

#![no_main]

use kinesis_consumer::internals::records_page;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let response = input.to_vec().into();
    let Some(page) = records_page(&response) else { return };
    for record in &page.records {
        assert!(record.data.is_empty() || response.as_ptr_range().contains(&record.data.as_ptr()));
    }
});
