//! Who is at which of the errands for events that wait, and what rests until the next attempt.
//!
//! Invariant: one is at an errand at a time. What is parked is in the store; all of this may be forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use warren_engine::core::checked::MissingKey;

/// Rooms that are fetched for at once, and those of them for what the same server has sent: one that never answers holds a
/// place for a minute, and is not to have many. The rest wait, parked.
const ROOMS_AT_ONCE_MAX: usize = 64;
const ROOMS_OF_ORIGIN_MAX: usize = 2;

/// How many rounds of an errand that got on follow each other at once. A server can make up something that gets on, a little at a time,
/// without end; each round looks at all that waits.
const ROUNDS_AT_ONCE_MAX: usize = 20;

/// Pauses between attempts: a server that cannot be reached is tried less and less often.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(15), Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(1800)];

/// Attempts that do not rest for longer than until the keys that they lack may be asked for: a server's keys are not, for half a
/// minute, after they were. Keys that do not come then are waited for as anything else is.
const KEYS_ATTEMPTS_MAX: usize = 2;

/// For what is being fetched.
pub struct Fetches {
    errands: Mutex<HashMap<Errand, Stage>>,
    /// What somebody who is at an errand holds.
    pub places: Semaphore,
    /// The places of each server for whose events something is fetched, or waits to be.
    places_of_origins: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// The events that one server has sent for one room.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Errand {
    pub room_id: String,
    pub origin: String,
}

/// What a round has left to do.
pub enum Left {
    Nothing,
    /// It got on, so that the next one may, too.
    More,
    Something {
        /// The keys that could not be had.
        lacks: Vec<MissingKey>,
        /// When the first of them will be asked for, if that is only put off.
        keys_at: Option<Instant>,
        /// When it is tried without them, if that is still to come.
        without_at: Option<Instant>,
    },
}

impl Default for Left {
    fn default() -> Left {
        Left::Something { lacks: Vec::new(), keys_at: None, without_at: None }
    }
}

enum Stage {
    /// A task is at it; whether more has come meanwhile.
    Busy { again: bool },
    /// The next attempt is made then, after so many in vain, the last of which lacked these keys.
    Resting { until: Instant, attempts: usize, lacks: Vec<MissingKey> },
}

impl Default for Fetches {
    fn default() -> Fetches {
        Fetches {
            errands: Mutex::default(),
            places: Semaphore::new(ROOMS_AT_ONCE_MAX),
            places_of_origins: Mutex::default(),
        }
    }
}

impl Fetches {
    /// Whether the caller is to begin with the errand. `is_news` for what has just come, which waits for no pause.
    pub fn begin(&self, errand: &Errand, is_news: bool) -> bool {
        let mut errands = self.errands.lock();
        match errands.get_mut(errand) {
            Some(Stage::Busy { again }) => {
                *again |= is_news;
                false
            }
            Some(Stage::Resting { until, .. }) if !is_news && *until > Instant::now() => false,
            Some(stage) => {
                *stage = Stage::Busy { again: false };
                true
            }
            None => {
                errands.insert(errand.clone(), Stage::Busy { again: false });
                true
            }
        }
    }

    /// Ends a round. Returns whether another is to follow at once.
    fn end(&self, errand: &Errand, left: Left, attempts: usize) -> bool {
        let mut errands = self.errands.lock();
        if let Some(Stage::Busy { again: again @ true }) = errands.get_mut(errand) {
            *again = false;
            return true;
        }
        match left {
            Left::More => return true,
            Left::Nothing => {
                errands.remove(errand);
            }
            Left::Something { lacks, keys_at, without_at } => {
                let now = Instant::now();
                let pause = PAUSES.get(attempts).or(PAUSES.last()).copied().unwrap_or_default();
                let keys_at = keys_at.filter(|_| attempts < KEYS_ATTEMPTS_MAX);
                let until = [keys_at, without_at].into_iter().flatten().fold(now + pause, Instant::min);
                errands.insert(errand.clone(), Stage::Resting { until, attempts: attempts + 1, lacks });
            }
        }
        false
    }

    /// What rests for want of a key of which this is true.
    pub fn lacking(&self, is_it: impl Fn(&MissingKey) -> bool) -> Vec<Errand> {
        let errands = self.errands.lock();
        let resting = errands.iter().filter(|(_, stage)| match stage {
            Stage::Busy { .. } => false,
            Stage::Resting { lacks, .. } => lacks.iter().any(&is_it),
        });
        resting.map(|(errand, _)| errand.clone()).collect()
    }

    /// What rests of one server's events.
    pub fn resting_of(&self, origin: &str) -> Vec<Errand> {
        let errands = self.errands.lock();
        let resting = errands
            .iter()
            .filter(|(errand, stage)| errand.origin == origin && matches!(stage, Stage::Resting { .. }));
        resting.map(|(errand, _)| errand.clone()).collect()
    }

    pub fn attempts(&self, errand: &Errand) -> usize {
        match self.errands.lock().get(errand) {
            Some(Stage::Resting { attempts, .. }) => *attempts,
            _ => 0,
        }
    }

    /// The places of a server.
    pub fn places_of(&self, origin: &str) -> Arc<Semaphore> {
        let mut places = self.places_of_origins.lock();
        // Those that nobody holds or waits for say nothing.
        places.retain(|_, places| Arc::strong_count(places) > 1);
        let new = || Arc::new(Semaphore::new(ROOMS_OF_ORIGIN_MAX));
        places.entry(origin.to_owned()).or_insert_with(new).clone()
    }
}

/// A task's turn with an errand. Whatever becomes of it, the errand is left to the next attempt.
pub struct Turn<'a> {
    fetches: &'a Fetches,
    errand: &'a Errand,
    /// How many turns there were before, since it last got on.
    attempts: usize,
    /// How many of its rounds got on.
    got_on: usize,
    is_over: bool,
}

impl<'a> Turn<'a> {
    pub fn new(fetches: &'a Fetches, errand: &'a Errand, attempts: usize) -> Turn<'a> {
        Turn { fetches, errand, attempts, got_on: 0, is_over: false }
    }

    /// Returns whether another round is to follow at once; if none is, the turn is over.
    pub fn end_round(&mut self, left: Left) -> bool {
        let mut left = left;
        if matches!(left, Left::More) {
            (self.attempts, self.got_on) = (0, self.got_on + 1);
            if self.got_on > ROUNDS_AT_ONCE_MAX {
                left = Left::default();
            }
        }
        self.is_over = !self.fetches.end(self.errand, left, self.attempts);
        !self.is_over
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // What came in the round that fell waits for the next attempt with the rest.
        while !self.is_over {
            self.end_round(Left::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_falls_leaves_the_errand_to_the_next_attempt() {
        let fetches = Fetches::default();
        let errand = Errand { room_id: "!a:here.test".to_owned(), origin: "there.test".to_owned() };
        let fall = |attempts| {
            let fallen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _turn = Turn::new(&fetches, &errand, attempts);
                panic!("a fault of ours");
            }));
            assert!(fallen.is_err());
        };
        assert!(fetches.begin(&errand, true) && !fetches.begin(&errand, true), "somebody is at it");
        fall(0);
        assert!(!fetches.begin(&errand, false), "it rests");
        assert_eq!(fetches.attempts(&errand), 1);
        // What is new does not wait for that.
        assert!(fetches.begin(&errand, true));
        fall(1);
        assert_eq!(fetches.attempts(&errand), 2);
    }

    #[test]
    fn a_turn_that_is_over_takes_nothing_from_the_next() {
        let fetches = Fetches::default();
        let errand = Errand { room_id: "!a:here.test".to_owned(), origin: "there.test".to_owned() };
        assert!(fetches.begin(&errand, true));
        let mut turn = Turn::new(&fetches, &errand, 0);
        assert!(!fetches.begin(&errand, true));
        assert!(turn.end_round(Left::Nothing), "more has come meanwhile");
        assert!(!turn.end_round(Left::Nothing));
        assert!(fetches.begin(&errand, true));
        drop(turn);
        assert!(!fetches.begin(&errand, true), "the next one is at it still");
    }

    #[test]
    fn what_rests_of_a_servers_events_is_found() {
        let fetches = Fetches::default();
        let errand =
            |room: &str, origin: &str| Errand { room_id: room.to_owned(), origin: origin.to_owned() };
        for (room, origin) in
            [("!a:here.test", "a.test"), ("!b:here.test", "a.test"), ("!a:here.test", "b.test")]
        {
            assert!(fetches.begin(&errand(room, origin), true));
        }
        assert!(fetches.resting_of("a.test").is_empty(), "somebody is at them");
        fetches.end(&errand("!a:here.test", "a.test"), Left::default(), 0);
        fetches.end(&errand("!a:here.test", "b.test"), Left::default(), 0);
        assert_eq!(fetches.resting_of("a.test"), [errand("!a:here.test", "a.test")]);
    }

    #[test]
    fn what_gets_on_goes_on_at_once() {
        let fetches = Fetches::default();
        let errand = Errand { room_id: "!a:here.test".to_owned(), origin: "there.test".to_owned() };
        assert!(fetches.begin(&errand, true));
        let mut turn = Turn::new(&fetches, &errand, 3);
        assert!(turn.end_round(Left::More) && turn.end_round(Left::More));
        assert!(!fetches.begin(&errand, true), "the same is at it");
        assert!(turn.end_round(Left::default()), "more has come meanwhile");
        assert!(!turn.end_round(Left::default()));
        drop(turn);
        assert_eq!(fetches.attempts(&errand), 1, "its pauses begin anew");
    }

    fn lacking(server_name: &str) -> Vec<MissingKey> {
        vec![MissingKey { server_name: server_name.to_owned(), key_id: "ed25519:1".to_owned() }]
    }

    #[test]
    fn what_rests_for_want_of_a_key_is_found_when_it_comes() {
        let fetches = Fetches::default();
        let errand = |origin: &str| Errand { room_id: "!a:here.test".to_owned(), origin: origin.to_owned() };
        for (origin, lacks) in [("a.test", lacking("key.test")), ("b.test", lacking("other.test"))] {
            assert!(fetches.begin(&errand(origin), true));
            fetches.end(&errand(origin), Left::Something { lacks, keys_at: None, without_at: None }, 0);
        }
        let of = |server: &'static str| fetches.lacking(move |key| key.server_name == server);
        assert_eq!(of("key.test"), [errand("a.test")]);
        assert!(of("a.test").is_empty());
        assert!(fetches.begin(&errand("a.test"), true));
        assert!(of("key.test").is_empty(), "somebody is at it");
    }

    #[test]
    fn what_lacks_a_key_rests_no_longer_than_until_it_can_be_asked_for() {
        let fetches = Fetches::default();
        let errand = Errand { room_id: "!a:here.test".to_owned(), origin: "there.test".to_owned() };
        for attempts in 0..PAUSES.len() {
            assert!(fetches.begin(&errand, true));
            let keys_at = Some(Instant::now());
            let left = Left::Something { lacks: lacking("key.test"), keys_at, without_at: None };
            fetches.end(&errand, left, attempts);
            assert_eq!(fetches.begin(&errand, false), attempts < KEYS_ATTEMPTS_MAX, "{attempts}");
            fetches.end(&errand, Left::Nothing, attempts);
        }
    }

    #[test]
    fn what_may_go_without_a_key_rests_no_longer_than_until_then() {
        let fetches = Fetches::default();
        let errand = Errand { room_id: "!a:here.test".to_owned(), origin: "there.test".to_owned() };
        // However often it was tried before: others that were sent meanwhile count as well.
        for (attempts, seconds, is_due) in [(2, 0, true), (PAUSES.len(), 0, true), (2, 10, false)] {
            assert!(fetches.begin(&errand, true));
            let without_at = Some(Instant::now() + Duration::from_secs(seconds));
            let left = Left::Something { lacks: lacking("key.test"), keys_at: None, without_at };
            fetches.end(&errand, left, attempts);
            assert_eq!(fetches.begin(&errand, false), is_due, "{attempts} {seconds}");
            fetches.end(&errand, Left::Nothing, attempts);
        }
    }
}
