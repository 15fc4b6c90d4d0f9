//! Searches for inputs that break `warren_fuzz::receive`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| warren_fuzz::receive(bytes));
