//! When the keys of a server are asked for, and of whom.
//!
//! Invariant: how often a server is asked depends neither on how often others name it nor on the key ids that they make up. What they
//! make this one ask in vain keeps nothing from who needs keys here.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::RemoteError;
use crate::federation::limits::{KEYS_AWAITED_PAUSE, KEYS_PAUSE, KEYS_PAUSE_MAX};

/// Key ids that are remembered of a server in a pause, beyond which it is not asked for others: a room has events by two or three keys
/// of a server.
const KEY_IDS_MAX: usize = 20;
/// What each of them may have, as it is remembered. Those of servers have some ten bytes.
const KEY_ID_BYTES_MAX: usize = 64;

/// Who needs keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Another server, or who says that they are one.
    Others,
    /// This server, for what another has sent.
    Sent,
    /// This server, for what can wait.
    Later,
    /// A user here, who waits.
    Now,
}

/// What is wanted of a server's keys.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    pub need: Need,
    /// When this was begun for which they are: who was asked since then is not asked again.
    pub since: Instant,
    /// The ids of the keys that are not here.
    pub lacking: &'a [String],
    pub is_in_rooms: bool,
    pub has_notaries: bool,
}

/// Who is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    Nobody,
    /// Notaries, for these keys: the server has told a moment ago what it has, or was not there.
    Notaries(Vec<String>),
    /// The server, and notaries for what it does not have.
    All,
    /// The same, though it told its keys a moment ago: it may have a new one. Once in a pause.
    AllOnce,
}

/// How a server was asked for its keys, if it was.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// For what this server needs.
    own: Option<Pause>,
    /// For others, in vain or since then.
    of_others: Option<Pause>,
    is_once_over: bool,
}

/// What follows when a server has been asked.
#[derive(Debug, Clone)]
struct Pause {
    /// When that was.
    at: Instant,
    until: Instant,
    /// Until when the server wants to be left alone, as it says itself.
    told: Instant,
    /// How often in a row that failed.
    failures: u32,
    /// Whether the server has answered itself.
    is_there: bool,
    /// The keys that were asked for, where it counts.
    key_ids: BTreeSet<String>,
}

/// What came of asking.
#[derive(Debug)]
pub struct Outcome {
    /// Why the keys could not be had.
    pub error: Option<RemoteError>,
    /// Whether the server has answered itself.
    pub is_there: bool,
    /// For how long the server wants to be left alone, where it says so.
    pub retry_after: Option<Duration>,
}

impl Outcome {
    /// What came of asking the server, and others for what it did not tell: why it told nothing, and whether all was had in the end.
    pub fn of(refusal: Option<RemoteError>, is_had: bool) -> Outcome {
        let retry_after = match &refusal {
            Some(RemoteError::Refused { retry_after, .. }) => *retry_after,
            _ => None,
        };
        Outcome { is_there: refusal.is_none(), retry_after, error: refusal.filter(|_| !is_had) }
    }
}

impl Wish<'_> {
    /// Those of the ids that may be remembered.
    fn short(&self) -> impl Iterator<Item = &String> {
        self.lacking.iter().filter(|key_id| key_id.len() <= KEY_ID_BYTES_MAX)
    }

    /// How many of them may be. What is sent names keys as its sender likes: half are left to what this server has asked for.
    fn key_ids_max(&self) -> usize {
        if self.need == Need::Sent { KEY_IDS_MAX / 2 } else { KEY_IDS_MAX }
    }
}

impl Asked {
    /// Who is to be asked now.
    pub fn turn(&self, wish: &Wish<'_>, now: Instant) -> Turn {
        let of_others = self.of_others.as_ref().filter(|_| wish.need == Need::Others);
        let pauses = || self.own.iter().chain(of_others);
        let is_asked = pauses().any(|pause| pause.at > wish.since);
        let is_paused = self.own.as_ref().is_some_and(|own| own.holds_up(wish.need, now))
            || of_others.is_some_and(|pause| pause.until > now);
        if !is_asked && !is_paused {
            return Turn::All;
        }
        let is_new = |key_id: &&String| !pauses().any(|pause| pause.key_ids.contains(*key_id));
        let mut new: Vec<String> = wish.short().filter(is_new).cloned().collect();
        if new.is_empty() {
            return Turn::Nobody;
        }
        let is_there = pauses().all(|pause| pause.is_there);
        if wish.is_in_rooms && is_there && !is_asked && !self.is_once_over {
            return Turn::AllOnce;
        }
        let asked_for = self.own.as_ref().map_or(0, |own| own.key_ids.len());
        new.truncate(wish.key_ids_max().saturating_sub(asked_for));
        match new.is_empty() || wish.need == Need::Others || !wish.has_notaries {
            true => Turn::Nobody,
            false => Turn::Notaries(new),
        }
    }

    /// Whether the server could not be asked the last time.
    pub fn is_failing(&self) -> bool {
        self.own.iter().chain(&self.of_others).any(|pause| pause.failures > 0)
    }

    /// Whether nothing of this counts any more.
    pub fn is_over(&self, now: Instant) -> bool {
        self.own.iter().chain(&self.of_others).all(|pause| pause.until <= now)
    }

    /// When keys that this server needs may be asked for again, if they were had the last time.
    pub fn again(&self) -> Option<Instant> {
        self.own.as_ref().filter(|own| own.failures == 0).map(|own| own.until)
    }

    /// How long this server's asking is put off for what was begun at a time: nothing if it was done in vain since then, or is being
    /// done once more of a server that failed the last time.
    pub fn put_off(&self, begun: Instant, now: Instant) -> Option<Duration> {
        let Some(own) = &self.own else { return Some(KEYS_PAUSE) };
        match own.until.checked_duration_since(now) {
            _ if own.at >= begun => None,
            None if own.failures > 0 => None,
            None => Some(KEYS_PAUSE),
            left => left,
        }
    }

    /// Notes what came of a turn.
    pub fn note(&mut self, wish: &Wish<'_>, turn: &Turn, outcome: Outcome, now: Instant) {
        match turn {
            Turn::Nobody => {}
            Turn::Notaries(key_ids) => {
                self.own.iter_mut().for_each(|own| own.key_ids.extend(key_ids.iter().cloned()));
            }
            Turn::All => {
                self.is_once_over = false;
                self.note_all(wish, outcome, now);
            }
            Turn::AllOnce => {
                self.is_once_over = true;
                let before = self.own.clone().filter(|_| outcome.error.is_none());
                self.note_all(wish, outcome, now);
                let Some(before) = before else { return };
                // This makes the pause no longer.
                for pause in self.own.iter_mut().chain(&mut self.of_others) {
                    pause.until = before.until.max(pause.told);
                    pause.key_ids.extend(before.key_ids.iter().cloned());
                }
            }
        }
    }

    fn note_all(&mut self, wish: &Wish<'_>, outcome: Outcome, now: Instant) {
        let is_had = outcome.error.is_none();
        let before = if wish.need == Need::Others { &self.of_others } else { &self.own };
        let mut pause = Pause::after(before.as_ref(), outcome, now);
        let asked_for = || -> BTreeSet<String> { wish.short().take(wish.key_ids_max()).cloned().collect() };
        if wish.need != Need::Others {
            self.own = Some(Pause { key_ids: asked_for(), ..pause });
            // What others had asked for in vain is settled.
            if is_had {
                self.of_others = None;
            }
            return;
        }
        // What the server has told is as good as if it had been asked for this one; what it has not, others may have made up.
        if is_had {
            self.own = Some(pause.clone());
        }
        // Where a server is asked once more, they tell whether it was for these: not one that is away, or in no room here. Of those there
        // may be any number, with made-up keys.
        if pause.is_there && wish.is_in_rooms {
            pause.key_ids = asked_for();
        }
        self.of_others = Some(pause);
    }
}

impl Pause {
    fn after(before: Option<&Pause>, outcome: Outcome, now: Instant) -> Pause {
        let Outcome { error, is_there, retry_after } = outcome;
        let (until, failures) = match error {
            None => (now + KEYS_PAUSE, 0),
            Some(_) => Pause::after_failure(before, now),
        };
        let told = now + retry_after.unwrap_or_default().min(KEYS_PAUSE_MAX);
        Pause { at: now, until: until.max(told), told, failures, is_there, key_ids: BTreeSet::new() }
    }

    /// Until when it is after a failure, and how many there were in a row.
    fn after_failure(before: Option<&Pause>, now: Instant) -> (Instant, u32) {
        let failures = before.map_or(0, |before| before.failures);
        // Users who wait have the server asked within a pause. That it is still away then is no reason to leave it alone for longer.
        if let Some(running) = before.filter(|before| before.failures > 0 && before.until > now) {
            return (running.until, failures);
        }
        let pause = KEYS_PAUSE.saturating_mul(1 << failures.min(16));
        (now + pause.min(KEYS_PAUSE_MAX), failures.saturating_add(1))
    }

    /// Whether this one, for what this server needs, holds up who needs keys.
    fn holds_up(&self, need: Need, now: Instant) -> bool {
        let until = match need {
            Need::Now => self.at + KEYS_AWAITED_PAUSE,
            // Whoever names the server may be the server, which is back. In vain, that makes a pause of its own.
            Need::Others => self.until.min(self.at + KEYS_PAUSE),
            Need::Sent | Need::Later => self.until,
        };
        until.max(self.told) > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A server that is asked as time goes on.
    struct Asking {
        asked: Asked,
        now: Instant,
        is_in_rooms: bool,
    }

    impl Asking {
        fn begin(is_in_rooms: bool) -> Asking {
            Asking { asked: Asked::default(), now: Instant::now(), is_in_rooms }
        }

        fn turn_for(&self, need: Need, since: Instant, key_ids: &[&str]) -> Turn {
            let lacking: Vec<String> = key_ids.iter().map(|key_id| (*key_id).to_owned()).collect();
            let (is_in_rooms, has_notaries) = (self.is_in_rooms, true);
            self.asked.turn(&Wish { need, since, lacking: &lacking, is_in_rooms, has_notaries }, self.now)
        }

        fn turn(&self, need: Need, key_ids: &[&str]) -> Turn {
            self.turn_for(need, self.now, key_ids)
        }

        /// Takes a turn and notes what came of it.
        fn ask(&mut self, need: Need, key_ids: &[&str], error: Option<RemoteError>, is_there: bool) -> Turn {
            let turn = self.turn(need, key_ids);
            let lacking: Vec<String> = key_ids.iter().map(|key_id| (*key_id).to_owned()).collect();
            let (is_in_rooms, has_notaries, since) = (self.is_in_rooms, true, self.now);
            let wish = Wish { need, since, lacking: &lacking, is_in_rooms, has_notaries };
            self.asked.note(&wish, &turn, Outcome { is_there, ..Outcome::of(error, false) }, self.now);
            turn
        }

        fn fail(&mut self, need: Need) -> Turn {
            self.ask(need, &["ed25519:1"], Some(RemoteError::Timeout), false)
        }

        fn wait(&mut self, seconds: u32) {
            self.now += SECOND * seconds;
        }

        fn until(&self) -> Instant {
            self.asked.own.as_ref().expect("it was asked").until
        }
    }

    fn notaries(key_ids: &[&str]) -> Turn {
        Turn::Notaries(key_ids.iter().map(|key_id| (*key_id).to_owned()).collect())
    }

    #[test]
    fn failures_make_the_pause_longer() {
        let mut asking = Asking::begin(false);
        for factor in [1, 2, 4] {
            assert_eq!(asking.fail(Need::Later), Turn::All);
            assert_eq!(asking.until(), asking.now + KEYS_PAUSE * factor);
            assert_eq!(asking.turn(Need::Later, &["ed25519:1"]), Turn::Nobody);
            asking.now = asking.until();
        }
        for _ in 0..100 {
            asking.fail(Need::Later);
            asking.now = asking.until();
        }
        asking.fail(Need::Later);
        assert_eq!(asking.until(), asking.now + KEYS_PAUSE_MAX);
        assert!(asking.asked.is_failing() && asking.asked.again().is_none());
        asking.now = asking.until();
        assert_eq!(asking.ask(Need::Later, &[], None, true), Turn::All);
        assert_eq!(asking.asked.again(), Some(asking.now + KEYS_PAUSE));
    }

    #[test]
    fn a_server_says_itself_how_long_it_is_left_alone() {
        let mut asking = Asking::begin(false);
        let told = RemoteError::Refused {
            status: http::StatusCode::TOO_MANY_REQUESTS,
            errcode: String::new(),
            error: String::new(),
            retry_after: Some(Duration::from_secs(300)),
            room_version: None,
            has_code: false,
        };
        // Whether notaries had the keys or not.
        assert_eq!(Outcome::of(Some(told.clone()), true).retry_after, Some(SECOND * 300));
        asking.ask(Need::Now, &["ed25519:1"], Some(told), false);
        assert_eq!(asking.until(), asking.now + SECOND * 300);
        asking.wait(299);
        for need in [Need::Others, Need::Sent, Need::Later, Need::Now] {
            assert_eq!(asking.turn(need, &["ed25519:1"]), Turn::Nobody, "{need:?}");
        }
        asking.wait(1);
        assert_eq!(asking.turn(Need::Now, &["ed25519:1"]), Turn::All);
    }

    #[test]
    fn users_who_wait_make_no_pause_longer() {
        let mut asking = Asking::begin(true);
        asking.fail(Need::Now);
        let until = asking.until();
        for _ in 0..5 {
            asking.now += KEYS_AWAITED_PAUSE;
            assert_eq!(asking.fail(Need::Now), Turn::All);
            assert_eq!(asking.until(), until);
        }
        asking.now = until;
        asking.fail(Need::Now);
        assert_eq!(asking.until(), asking.now + KEYS_PAUSE * 2, "it lasts");
    }

    #[test]
    fn who_is_back_is_asked_soon_however_often_that_was_in_vain() {
        let mut asking = Asking::begin(true);
        for _ in 0..10 {
            asking.fail(Need::Later);
            asking.now = asking.until();
        }
        asking.fail(Need::Later);
        asking.now += KEYS_PAUSE - SECOND;
        assert_eq!(asking.turn(Need::Others, &["ed25519:1"]), Turn::Nobody);
        asking.wait(1);
        assert_eq!(asking.fail(Need::Others), Turn::All);
        // It was somebody else.
        for factor in [1, 2, 4] {
            assert_eq!(asking.turn(Need::Others, &["ed25519:1"]), Turn::Nobody);
            asking.now += KEYS_PAUSE * factor;
            assert_eq!(asking.fail(Need::Others), Turn::All);
        }
    }

    #[test]
    fn what_others_make_up_is_not_remembered() {
        let made_up: Vec<String> = (0..KEY_IDS_MAX).map(|number| format!("ed25519:x{number}")).collect();
        let made_up: Vec<&str> = made_up.iter().map(String::as_str).collect();
        for (is_in_rooms, is_there) in [(false, false), (false, true), (true, false)] {
            let mut asking = Asking::begin(is_in_rooms);
            let error = (!is_there).then_some(RemoteError::Timeout);
            assert_eq!(asking.ask(Need::Others, &made_up, error, is_there), Turn::All);
            let pauses = asking.asked.own.iter().chain(&asking.asked.of_others);
            assert_eq!(pauses.map(|pause| pause.key_ids.len()).sum::<usize>(), 0);
            assert_eq!(asking.turn(Need::Others, &made_up), Turn::Nobody);
        }
    }

    #[test]
    fn what_is_sent_leaves_notaries_to_who_waits() {
        let mut asking = Asking::begin(true);
        asking.ask(Need::Sent, &["ed25519:1"], None, false);
        for number in 0..10 * KEY_IDS_MAX {
            asking.ask(Need::Sent, &[&format!("ed25519:x{number}")], None, false);
        }
        assert_eq!(asking.turn(Need::Sent, &["ed25519:2"]), Turn::Nobody);
        for need in [Need::Later, Need::Now] {
            assert_eq!(asking.turn(need, &["ed25519:2"]), notaries(&["ed25519:2"]), "{need:?}");
        }
    }

    #[test]
    fn who_waits_here_makes_this_server_ask_whatever_pause_there_is() {
        let mut asking = Asking::begin(false);
        for _ in 0..10 {
            asking.fail(Need::Later);
            asking.now = asking.until();
        }
        asking.fail(Need::Later);
        assert_eq!(asking.turn(Need::Now, &["ed25519:1"]), Turn::Nobody, "it was a moment ago");
        let begun = asking.now;
        asking.now += KEYS_AWAITED_PAUSE;
        assert_eq!(asking.turn(Need::Later, &["ed25519:1"]), Turn::Nobody);
        assert_eq!(asking.fail(Need::Now), Turn::All);
        // For the same errand once, however long it takes.
        asking.now += KEYS_AWAITED_PAUSE;
        assert_eq!(asking.turn_for(Need::Now, begun, &["ed25519:1"]), Turn::Nobody);
    }

    #[test]
    fn what_others_have_this_server_ask_in_vain_keeps_nothing_from_it() {
        let mut asking = Asking::begin(true);
        for _ in 0..10 {
            assert_eq!(asking.fail(Need::Others), Turn::All);
            assert_eq!(asking.fail(Need::Others), Turn::Nobody);
            for need in [Need::Later, Need::Now] {
                assert_eq!(asking.turn(need, &["ed25519:1"]), Turn::All);
            }
            asking.now += KEYS_PAUSE_MAX;
        }
        // What this server has found out itself it goes by for them as well.
        asking.fail(Need::Later);
        assert_eq!(asking.turn(Need::Others, &["ed25519:1"]), Turn::Nobody);
    }

    #[test]
    fn notaries_are_asked_for_what_they_were_not_asked_for() {
        let mut asking = Asking::begin(true);
        // They had it; the server is gone.
        assert_eq!(asking.ask(Need::Now, &["ed25519:1"], None, false), Turn::All);
        for need in [Need::Later, Need::Now] {
            assert_eq!(asking.turn(need, &["ed25519:1", "ed25519:2"]), notaries(&["ed25519:2"]));
        }
        assert_eq!(asking.turn(Need::Others, &["ed25519:2"]), Turn::Nobody);
        let asked = asking.ask(Need::Now, &["ed25519:2"], Some(RemoteError::Timeout), false);
        assert_eq!(asked, notaries(&["ed25519:2"]));
        assert_eq!(asking.turn(Need::Later, &["ed25519:1", "ed25519:2"]), Turn::Nobody);
        // However many are made up, they are asked for few.
        let mut count = 0;
        for number in 0..10 * KEY_IDS_MAX {
            let asked = asking.ask(Need::Later, &[&format!("ed25519:x{number}")], None, false);
            count += usize::from(asked != Turn::Nobody);
        }
        assert_eq!(count, KEY_IDS_MAX - 2);
        asking.now = asking.until();
        assert_eq!(asking.turn(Need::Later, &["ed25519:2"]), Turn::All);
        let mut fresh = Asking::begin(true);
        fresh.ask(Need::Now, &["ed25519:1"], None, false);
        assert_eq!(fresh.turn(Need::Later, &["x".repeat(KEY_ID_BYTES_MAX + 1).as_str()]), Turn::Nobody);
    }

    #[test]
    fn a_new_key_is_let_through_once_in_a_pause() {
        for need in [Need::Others, Need::Later] {
            let mut asking = Asking::begin(true);
            for _ in 0..3 {
                assert_eq!(asking.ask(need, &["ed25519:1"], None, true), Turn::All);
                let until = asking.until();
                assert_eq!(asking.turn(need, &["ed25519:1"]), Turn::Nobody, "it was asked for");
                asking.wait(1);
                assert_eq!(asking.ask(need, &["ed25519:2"], None, true), Turn::AllOnce);
                assert_eq!(asking.until(), until);
                for key_id in ["ed25519:2", "ed25519:3"] {
                    asking.wait(1);
                    assert_ne!(asking.turn(need, &[key_id]), Turn::AllOnce);
                }
                asking.now = until;
            }
        }
        let mut stranger = Asking::begin(false);
        stranger.ask(Need::Others, &["ed25519:1"], None, true);
        assert_eq!(stranger.turn(Need::Others, &["ed25519:2"]), Turn::Nobody);
        let mut failing = Asking::begin(true);
        failing.fail(Need::Others);
        assert_eq!(failing.turn(Need::Others, &["ed25519:2"]), Turn::Nobody);
    }

    #[test]
    fn what_came_while_somebody_asked_is_not_asked_for_again() {
        let mut asking = Asking::begin(true);
        let came = asking.now;
        asking.wait(1);
        asking.ask(Need::Others, &["ed25519:1"], None, true);
        for need in [Need::Others, Need::Later, Need::Now] {
            asking.wait(100);
            let turn = asking.turn_for(need, came, &["ed25519:2"]);
            let expected = if need == Need::Others { Turn::Nobody } else { notaries(&["ed25519:2"]) };
            assert_eq!(turn, expected, "{need:?}");
        }
    }

    #[test]
    fn what_was_put_off_is_told_from_what_was_done_in_vain() {
        let mut asking = Asking::begin(true);
        let put_off = |asking: &Asking, begun| asking.asked.put_off(begun, asking.now);
        assert_eq!(put_off(&asking, asking.now), Some(KEYS_PAUSE), "it is under way");
        let begun = asking.now;
        asking.wait(1);
        asking.fail(Need::Later);
        assert_eq!(put_off(&asking, begun), None);
        asking.wait(10);
        assert_eq!(put_off(&asking, asking.now), Some(KEYS_PAUSE - SECOND * 10));
        asking.now = asking.until();
        asking.wait(1);
        assert_eq!(put_off(&asking, asking.now), None, "it takes its time again");
        asking.ask(Need::Later, &["ed25519:1"], None, true);
        asking.wait(29);
        assert_eq!(put_off(&asking, asking.now), Some(SECOND));
    }
}
