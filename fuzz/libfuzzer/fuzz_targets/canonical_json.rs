//! Searches for inputs that break `warren_fuzz::canonical_json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| warren_fuzz::canonical_json(bytes));
