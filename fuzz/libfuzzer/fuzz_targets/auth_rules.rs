//! Searches for inputs that break `warren_fuzz::auth_rules`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| warren_fuzz::auth_rules(bytes));
