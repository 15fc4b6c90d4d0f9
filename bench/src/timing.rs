//! Times of what is compared, taken in turns: what disturbs the machine for a while hits all sides alike, and medians leave
//! out what hits one of them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::statistics::median;

/// Rounds are taken until so much time has passed …
const TIME: Duration = Duration::from_millis(800);
/// … but no fewer than this, however long they take …
const ROUNDS_MIN: usize = 5;
/// … and no more than this: the median moves no further.
const ROUNDS_MAX: usize = 51;
/// In a round, each side repeats what it does until it has taken so long: the clock's own cost does not count.
const ROUND: Duration = Duration::from_millis(2);

/// How long one call takes. To drop what it gives does not count.
pub fn timed<T>(call: impl FnOnce() -> T) -> Duration {
    let begun = Instant::now();
    let given = black_box(call());
    let taken = begun.elapsed();
    drop(given);
    taken
}

/// The median time of each side in seconds. A side does once what is measured and says how long that took, so that what
/// it prepares is not counted. The first call of each turn is not counted: it finds in the processor's caches what the other
/// side left there, which weighs more the quicker a side is.
pub fn in_turns<const SIDES: usize>(mut sides: [&mut dyn FnMut() -> Duration; SIDES]) -> [f64; SIDES] {
    let mut times: [Vec<f64>; SIDES] = std::array::from_fn(|_| Vec::new());
    let begun = Instant::now();
    for round in 0..ROUNDS_MAX {
        if round >= ROUNDS_MIN && begun.elapsed() >= TIME {
            break;
        }
        for (side, times) in sides.iter_mut().zip(&mut times) {
            side();
            times.push(mean(side));
        }
    }
    times.map(|times| median(times).unwrap_or(f64::NAN))
}

/// The mean of as many calls as one round has, in seconds.
fn mean(side: &mut &mut dyn FnMut() -> Duration) -> f64 {
    let (mut taken, mut count) = (Duration::ZERO, 0.0);
    while taken < ROUND {
        taken += side();
        count += 1.0;
    }
    taken.as_secs_f64() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_take_turns_and_a_disturbed_round_does_not_count() {
        let mut calls = 0;
        let mut disturbed = || {
            calls += 1;
            // As if another program had taken the processor once.
            Duration::from_millis(if calls == 4 { 900 } else { 3 })
        };
        let [slow, quick] = in_turns([&mut disturbed, &mut || Duration::from_micros(10)]);
        assert_eq!(slow, 0.003);
        assert!((quick - 10e-6).abs() < 1e-9);
        assert_eq!(calls, 2 * ROUNDS_MAX);
    }

    #[test]
    fn a_slow_side_is_asked_a_few_times_only() {
        let mut calls = 0;
        let mut slow = || {
            calls += 1;
            let until = Instant::now() + TIME / 4;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            TIME / 4
        };
        let [time] = in_turns([&mut slow]);
        assert_eq!((time, calls), ((TIME / 4).as_secs_f64(), 2 * ROUNDS_MIN));
    }
}
