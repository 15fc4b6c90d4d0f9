//! Resolution of random histories against `ruma-state-res` (room versions 2 to 12) and a slow reference (version 1).

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// How many histories every test run resolves, and how many where `WARREN_DEEP` is set.
const CASES: u32 = 2_000;
const CASES_DEEP: u32 = 100_000;

#[test]
fn random_histories_resolve_as_everywhere_else() {
    let cases = if std::env::var_os("WARREN_DEEP").is_some() { CASES_DEEP } else { CASES };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let choices = prop::collection::vec(any::<u8>(), 20..500);
    let outcome = runner.run(&choices, |choices| {
        warren_fuzz::resolution(&choices);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
