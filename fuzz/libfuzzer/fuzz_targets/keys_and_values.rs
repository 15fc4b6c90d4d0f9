//! Searches for inputs that break `warren_fuzz::keys_and_values`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| warren_fuzz::keys_and_values(bytes));
