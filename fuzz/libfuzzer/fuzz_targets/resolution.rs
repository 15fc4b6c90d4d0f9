//! Searches for inputs that break `warren_fuzz::resolution`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| warren_fuzz::resolution(bytes));
