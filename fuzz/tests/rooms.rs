//! Random rooms, judged and received, in every test run: what a search by `./x fuzz` finds, and less of it.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// How many inputs every test run tries on each target, and how many where `WARREN_DEEP` is set.
const CASES: u32 = 300;
const CASES_DEEP: u32 = 20_000;

fn search(target: fn(&[u8])) {
    let config = |cases| Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = match std::env::var_os("WARREN_DEEP") {
        Some(_) => TestRunner::new(config(CASES_DEEP)),
        // The same in every run: to search for others is what the deep one is for.
        None => TestRunner::new_with_rng(config(CASES), TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let outcome = runner.run(&prop::collection::vec(any::<u8>(), 20..600), |choices| {
        target(&choices);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        // In one line, to become part of the corpus.
        Err(TestError::Fail(why, choices)) => panic!("{why}: {choices:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn random_events_are_judged_alike_everywhere() {
    search(warren_fuzz::auth_rules);
}

#[test]
fn random_graphs_leave_a_sound_room_whatever_the_order() {
    search(warren_fuzz::receive);
}
