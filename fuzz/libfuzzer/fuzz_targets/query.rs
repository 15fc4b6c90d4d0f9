//! Searches for inputs that break `warren_fuzz::query`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| warren_fuzz::query(bytes));
