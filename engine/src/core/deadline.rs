//! Times to come, by a clock that may be set.

/// By how much the clock may run back without having been set: it is adjusted in small steps, and read by several threads.
const STEP_MS: u64 = 10_000;

/// Whether the time `at_ms` has come, which was at most `wait_ms` ahead when it was chosen. One that is further ahead was chosen
/// before the clock was set back: how much of the wait is over nobody can tell, and nothing is to wait for the clock to catch up.
pub fn has_come(at_ms: u64, wait_ms: u64, now_ms: u64) -> bool {
    at_ms <= now_ms || is_ahead(at_ms.saturating_sub(wait_ms), now_ms)
}

/// Whether what happened at `then_ms` did before the clock was set back.
pub fn is_ahead(then_ms: u64, now_ms: u64) -> bool {
    then_ms > now_ms.saturating_add(STEP_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_comes_when_it_is_there_and_when_the_clock_was_set_back() {
        let at_ms = 10 * STEP_MS;
        let has_come = |now_ms| has_come(at_ms, 2 * STEP_MS, now_ms);
        assert!(has_come(at_ms) && has_come(at_ms + 1));
        for waits in [at_ms - 1, at_ms - 2 * STEP_MS, at_ms - 3 * STEP_MS] {
            assert!(!has_come(waits), "{waits}");
        }
        assert!(has_come(at_ms - 3 * STEP_MS - 1) && has_come(0));
        assert!(!super::has_come(u64::MAX, u64::MAX, 0));
        assert!(!is_ahead(STEP_MS, 0) && is_ahead(STEP_MS + 1, 0));
    }
}
